"""What ingest tells Prometheus. The names are a promise (docs/ingest.md)."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Sequence
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from ingest.decode import Reading
from ingest.transaction import Outcome
from telemetry.messages import Kind

_KINDS: Final = frozenset(Kind)
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)

RECORDS: Final = Counter("vigil_ingest_records_total", "Records accepted, by kind.", ["kind"])
SAMPLES: Final = Counter("vigil_ingest_samples_total", "Samples stored.")
DUPLICATES: Final = Counter("vigil_ingest_duplicate_records_total", "Records that the log gave again: stored before.")
DEAD: Final = Counter("vigil_ingest_dead_letters_total", "Records or rows set aside, by reason.", ["reason"])
FLUSHES: Final = Counter("vigil_ingest_flushes_total", "Transactions, by how rows were copied.", ["copy"])
FLUSH_S: Final = Histogram("vigil_ingest_flush_seconds", "Time of one transaction.", buckets=_SECONDS)
DELAY_S: Final = Histogram(
    "vigil_ingest_log_to_store_seconds", "From a record's arrival at the log to its commit.", buckets=_SECONDS
)
LAG: Final = Gauge("vigil_ingest_lag_records", "Records in the log that are not in the store yet.")
STOPPED: Final = Gauge(
    "vigil_ingest_stopped_partitions", "Partitions that wait for an operator: the log does not continue."
)
RESTARTS: Final = Counter(
    "vigil_ingest_restarts_total", "Times a worker began again from the database, by cause.", ["cause"]
)
TERMINATED: Final = Counter(
    "vigil_ingest_terminated_sessions_total", "Frozen sessions of other workers that were ended."
)
AGGREGATES_BEHIND_S: Final = Gauge(
    "vigil_ingest_aggregates_behind_seconds", "Age of the newest minute that is kept (plain PostgreSQL)."
)
LATEST: Final = Counter("vigil_ingest_latest_rows_total", "Rows of latest written.")


def count(readings: Sequence[Reading], outcome: Outcome, *, seconds: float, now_us: int) -> None:
    """Counts a committed flush."""
    kinds = Count(reading.kind if reading.kind in _KINDS else "unreadable" for reading in readings)
    for kind, number in kinds.items():
        RECORDS.labels(kind).inc(number)
    SAMPLES.inc(len(outcome.prepared.rows))
    DUPLICATES.inc(outcome.duplicates)
    for letter in outcome.dead:
        DEAD.labels(letter.refused.reason).inc()
    FLUSHES.labels("direct" if outcome.direct else "plain" if len(outcome.prepared.rows) else "none").inc()
    FLUSH_S.observe(seconds)
    DELAY_S.observe(max(now_us - readings[0].record.appended_us, 0) / 1e6)
