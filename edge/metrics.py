"""The edge's metrics. Labels are bounded: outcomes and reasons are fixed words, never equipment. Listed in docs/edge.md."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

REQUESTS: Final = Counter("vigil_edge_modbus_requests_total", "Modbus requests by outcome.", ["outcome"])
CYCLES: Final = Counter("vigil_edge_cycles_total", "Poll cycles by outcome: ok, partial, failed, skipped.", ["outcome"])
MISSED: Final = Counter("vigil_edge_cycles_missed_total", "Poll cycles that were due during a stall and were skipped.")
LATENESS: Final = Histogram(
    "vigil_edge_cycle_lateness_seconds",
    "How long after it was due a poll cycle began.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
MESSAGES: Final = Counter("vigil_edge_mqtt_messages_total", "MQTT messages by what they were.", ["what"])
REFUSED: Final = Counter(
    "vigil_edge_mqtt_refused_total", "What MQTT payloads said that could not be taken.", ["reason"]
)
MISSING_FIELDS: Final = Counter("vigil_edge_mqtt_missing_fields_total", "Fields that MQTT payloads did not carry.")
SAMPLES: Final = Counter("vigil_edge_samples_journaled_total", "Samples journaled.")
EVENTS: Final = Counter("vigil_edge_events_journaled_total", "Events journaled.")
COMMIT: Final = Histogram(
    "vigil_edge_commit_seconds",
    "Time that a commit of the spool took.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2),
)
COMMIT_AGE: Final = Histogram(
    "vigil_edge_journal_age_seconds",
    "Age of the oldest reading of a commit when it was durable.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2),
)
UNJOURNALED: Final = Counter(
    "vigil_edge_samples_unjournaled_total", "Samples read while the spool could not be written and memory was full."
)
SPOOL_BYTES: Final = Gauge("vigil_edge_spool_bytes", "Bytes of records in the spool.")
DROPPED: Final = Gauge(
    "vigil_edge_spool_dropped_samples", "Samples that the spool dropped at its bound, since the start."
)
CORRUPT: Final = Gauge(
    "vigil_edge_spool_corrupt_records", "Records of the spool that failed their CRC, since the start."
)
FORWARDED: Final = Counter("vigil_edge_records_forwarded_total", "Records that the log took.")
LOG_REFUSED: Final = Counter(
    "vigil_edge_records_refused_total", "Records that the log refused and that were set aside."
)
UNREACHABLE: Final = Gauge("vigil_edge_equipment_unreachable", "Equipment that does not answer now.")
EQUIPMENT: Final = Gauge("vigil_edge_equipment", "Equipment that this edge reads.")
