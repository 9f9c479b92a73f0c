"""The limit: nothing but Direct Compress COPY of the same rows, sorted and encoded beforehand, one transaction a flush.

The table is Vigil's own (indexes, continuous aggregates, settings of the server), so is every setting of the session. The
client is libpq by psycopg, 1 MB a write, and does nothing else. Rows are ordered and encoded by `ingest.copy`, so the limit
copies byte for byte what ingest sends of them.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psycopg

from benchmarks.ingest.fleet import Fleet, Readings, Slab
from benchmarks.ingest.watch import spent_s
from ingest.copy import Rows, encoded, ordered
from tests.fixtures.store import StoreServer, execute

WRITE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Flushes:
    """COPY streams, one after another in a file."""

    path: Path
    spans: Sequence[tuple[int, int]]
    """Where each begins and ends."""
    rows: int


def prepare(fleet: Fleet, start_us: int, seconds: int, flush_rows: int, folder: Path) -> Flushes:
    """Writes all rows of the log, in the log's order, in flushes of that many rows, each sorted by (signal, time)."""
    path, spans, rows = folder / "raw.copy", [], 0
    with path.open("wb") as file:
        for flush in _flushes(_slabs(fleet, start_us, seconds), flush_rows):
            began = file.tell()
            file.writelines(encoded(ordered(flush)))
            spans.append((began, file.tell()))
            rows += len(flush)
    return Flushes(path, spans, rows)


def copied(store: StoreServer, url: str, flushes: Flushes, *, direct: bool = True) -> dict[str, Any]:
    """Copies all flushes. The figures of a run."""
    assert store.process is not None
    with (
        flushes.path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        psycopg.connect(url, autocommit=True) as connection,
        memoryview(mapped) as view,
    ):
        if direct:
            connection.execute(_DIRECT)
        client_s, server_s, began = time.process_time(), spent_s(store.process.pid), time.monotonic()
        for first, end in flushes.spans:
            with connection.transaction(), connection.cursor() as cursor, cursor.copy(_COPY) as copy:
                for start in range(first, end, WRITE_BYTES):
                    copy.write(view[start : min(start + WRITE_BYTES, end)])
        seconds = time.monotonic() - began
        cpu = {"client": time.process_time() - client_s, "postgres": spent_s(store.process.pid) - server_s}
    size = execute(url, "SELECT hypertable_size('store.sample')")[0][0]
    return {
        "per_s": round(flushes.rows / seconds),
        "seconds": round(seconds, 2),
        "cpu_s_per_million": {who: round(spent / flushes.rows * 1e6, 3) for who, spent in cpu.items()},
        "bytes_per_sample": round(size / flushes.rows, 2),
        "flush_rows": round(flushes.rows / len(flushes.spans)),
    }


def _slabs(fleet: Fleet, start_us: int, seconds: int) -> Iterator[tuple[int, Slab]]:
    """(first signal of the edge, its second), in the log's order."""
    edges = [Readings(fleet, edge, start_us) for edge in range(fleet.edges)]
    for _ in range(seconds):
        for number, readings in enumerate(edges):
            yield number * fleet.signals_per_edge + 1, readings.second()


def _flushes(slabs: Iterator[tuple[int, Slab]], flush_rows: int) -> Iterator[Rows]:
    parts: list[tuple[Any, ...]] = []
    rows = 0
    for first, slab in slabs:
        parts.append((slab.signal + np.int32(first), slab.time_us, slab.value, slab.quality))
        rows += len(slab.signal)
        if rows >= flush_rows:
            yield Rows(*map(np.concatenate, zip(*parts, strict=True)))
            parts, rows = [], 0
    if parts:
        yield Rows(*map(np.concatenate, zip(*parts, strict=True)))


_COPY: Final = "COPY store.sample (signal_id, time, value, quality) FROM STDIN (FORMAT binary)"
_DIRECT: Final = """
SET timescaledb.enable_direct_compress_copy = on;
SET timescaledb.enable_direct_compress_copy_client_sorted = off;
SET timescaledb.enable_direct_compress_copy_sort_batches = off;
"""
