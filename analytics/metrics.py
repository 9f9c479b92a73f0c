"""What `analyze` counts. Names, units and labels are written down in docs/analytics.md."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

RECORDS: Final = Counter("vigil_analyze_records_total", "Records taken from the log", ["kind"])
REFUSED: Final = Counter("vigil_analyze_refused_records_total", "Records that could not be read", ["reason"])
DUPLICATES: Final = Counter("vigil_analyze_duplicate_records_total", "Records that had been taken before")
SAMPLES: Final = Counter("vigil_analyze_samples_total", "Samples taken")
APART: Final = Counter("vigil_analyze_samples_apart_total", "Samples that touch no live state, by why", ["why"])
FINDINGS: Final = Counter("vigil_analyze_findings_total", "Findings published", ["detector", "transition"])
DETECT_S: Final = Histogram(
    "vigil_analyze_detect_seconds",
    "From a fetch's return until its findings are durable on the log",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0),
)
LAG: Final = Gauge("vigil_analyze_lag_records", "Records of the log not yet taken")
SNAPSHOT_S: Final = Gauge("vigil_analyze_snapshot_seconds", "What the last snapshot took, from capture to commit")
SNAPSHOT_BYTES: Final = Gauge("vigil_analyze_snapshot_bytes", "Size of the last snapshot")
SNAPSHOT_AT: Final = Gauge("vigil_analyze_snapshot_timestamp_seconds", "When the last snapshot was committed")
