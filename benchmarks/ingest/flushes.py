"""What a flush's size is worth: raw Direct Compress COPY of the same rows in flushes of several sizes, by fleet.
PostgreSQL's CPU and bytes a sample; no log and no ingest take part.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.ingest import raw
from benchmarks.ingest.fleet import SECOND_US, Fleet
from benchmarks.ingest.service import database, server
from benchmarks.ingest.throughput import told

ROWS: Final = (250_000, 500_000, 1_000_000, 2_000_000, 4_000_000)


def measure(fleet: Fleet, samples: int) -> dict[str, Any]:
    """At least so many samples of a fleet in flushes of every size."""
    found = []
    with server() as store, tempfile.TemporaryDirectory(prefix="vigil-bench-") as name:
        seconds = fleet.seconds_for(samples)
        start_us = (time.time_ns() // 10**9 - seconds) * SECOND_US
        for rows in ROWS:
            flushes = raw.prepare(fleet, start_us, seconds, rows, Path(name))
            with database(store) as url:
                one = raw.copied(store, url, flushes)
            found.append({"signals": fleet.signals, "jitter_us": fleet.jitter_us, **one})
            told(str(found[-1]))
    return {"flushes": found}
