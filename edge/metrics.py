"""The edge's metrics. Labels are bounded: outcomes and reasons are fixed words, never equipment. Listed in docs/edge.md."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

LATENESS_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

requests: Final[defaultdict[str, int]] = defaultdict(int)
"""Modbus requests by outcome. Plain numbers, as all that is counted per request: a metric's lock costs more than asking."""
cycles: Final[defaultdict[str, int]] = defaultdict(int)
"""Poll cycles by outcome; `missed` beside them."""


class Lateness:
    """How long after they were due poll cycles began: a histogram for one thread."""

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENESS_S) + 1)
        self.total_s = 0.0

    def note(self, late_s: float) -> None:
        """A cycle began so late."""
        self.counts[bisect_left(LATENESS_S, late_s)] += 1
        self.total_s += late_s


lateness: Final = Lateness()


class _Plain(Collector):
    """What is counted in plain numbers, for whoever scrapes."""

    def collect(self) -> Iterable[CounterMetricFamily | HistogramMetricFamily]:
        """See Collector."""
        asked = CounterMetricFamily(
            "vigil_edge_modbus_requests_total", "Modbus requests by outcome.", labels=["outcome"]
        )
        for outcome, count in list(requests.items()):
            asked.add_metric([outcome], count)
        yield asked
        outcomes = dict(cycles)
        missed = outcomes.pop("missed", 0)
        run = CounterMetricFamily(
            "vigil_edge_cycles_total", "Poll cycles by outcome: ok, partial, failed, skipped.", labels=["outcome"]
        )
        for outcome, count in outcomes.items():
            run.add_metric([outcome], count)
        yield run
        yield CounterMetricFamily(
            "vigil_edge_cycles_missed_total", "Poll cycles that were due and were skipped.", value=missed
        )
        buckets, below = [], 0
        for bound, count in zip((*map(str, LATENESS_S), "+Inf"), list(lateness.counts), strict=True):
            below += count
            buckets.append((bound, below))
        yield HistogramMetricFamily(
            "vigil_edge_cycle_lateness_seconds",
            "How long after it was due the first request of a poll cycle left.",
            buckets=buckets,
            sum_value=lateness.total_s,
        )


REGISTRY.register(_Plain())

LEARNED: Final = Counter("vigil_edge_plans_learned_total", "Read plans changed by what was learned of a device.")
RELOADS: Final = Counter("vigil_edge_reloads_total", "Changed plant files by outcome: done, refused.", ["outcome"])
SUPPRESSED: Final = Counter("vigil_edge_samples_suppressed_total", "Samples that report by exception left out.")
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
UNREADABLE: Final = Counter(
    "vigil_edge_readings_unreadable_total", "Answers of polled devices that could not be decoded, and were left out."
)
SPOOL_BYTES: Final = Gauge("vigil_edge_spool_bytes", "Bytes of records in the spool.")
DROPPED: Final = Gauge(
    "vigil_edge_spool_dropped_samples", "Samples that the spool dropped at its bound, since the start."
)
CORRUPT: Final = Gauge(
    "vigil_edge_spool_corrupt_records", "Records of the spool that failed their CRC, since the start."
)
FORWARDED: Final = Counter("vigil_edge_records_forwarded_total", "Records that the log took.")
BACKFILLED: Final = Counter(
    "vigil_edge_records_backfilled_total", "Records that were read from the disk again after an outage of the log."
)
BACKLOG: Final = Gauge("vigil_edge_spool_backlog_records", "Records that only the disk has, still to be back-filled.")
HELD: Final = Gauge("vigil_edge_spool_held_records", "Records that wait for the clock to be set.")
DROPPED_EVENTS: Final = Gauge(
    "vigil_edge_spool_dropped_events", "Events that the spool dropped at its bound, since the start."
)
LOG_REFUSED: Final = Counter(
    "vigil_edge_records_refused_total", "Records that the log refused and that were set aside."
)
UNREACHABLE: Final = Gauge("vigil_edge_equipment_unreachable", "Equipment that does not answer now.")
TASKS: Final = Gauge(
    "vigil_edge_tasks", "Tasks on the edge's event loop; the same number again whenever all is well again."
)
EQUIPMENT: Final = Gauge("vigil_edge_equipment", "Equipment that this edge reads.")


def committed(samples: int, events: int, *, began_s: float, since_s: float) -> None:
    """A commit is over that began at `began_s`; what it holds had come since `since_s`, both by time.monotonic()."""
    ended_s = time.monotonic()
    COMMIT.observe(ended_s - began_s)
    COMMIT_AGE.observe(ended_s - since_s)
    SAMPLES.inc(samples)
    EVENTS.inc(events)
