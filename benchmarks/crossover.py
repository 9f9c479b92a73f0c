"""Direct Compress or plain COPY: from how many rows a signal the first one wins. `python -m benchmarks.crossover`.

For each number of rows a signal in a flush: rows/s and bytes a row of both, after the columnstore's own compression of
what plain COPY left, on a native TimescaleDB with fsync and synchronous_commit on. Values have noise in the second decimal.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import numpy as np
import psycopg

from ingest.copy import Rows, ordered
from ingest.copying import copy_rows
from tests.fixtures.store import StoreServer, execute, fresh_database, make_template

SIGNALS = 1_000
FLUSHES = 10
ROWS_PER_SIGNAL = (1, 5, 10, 25, 50, 100, 250)


def flush(rows_per_signal: int, number: int) -> Rows:
    """One flush of all signals, 1 s apart."""
    random = np.random.default_rng(number)
    n = SIGNALS * rows_per_signal
    start = 1_790_000_000_000_000 // 86_400_000_000 * 86_400_000_000
    step = np.tile(np.arange(rows_per_signal, dtype=np.int64), SIGNALS)
    return ordered(
        Rows(
            np.repeat(np.arange(1, SIGNALS + 1, dtype=np.int32), rows_per_signal),
            start + (number * rows_per_signal + step) * 1_000_000,
            np.round(20 + random.normal(size=n), 2),
            np.full(n, 192, np.uint8),
        )
    )


async def measure(server: StoreServer, rows_per_signal: int, *, direct: bool) -> dict[str, Any]:
    """One way of copying, in a fresh database."""
    flushes = [flush(rows_per_signal, number) for number in range(FLUSHES)]
    with fresh_database(server.url) as url:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            began = time.perf_counter()
            for rows in flushes:
                async with connection.transaction():
                    await copy_rows(connection, rows, direct=direct)
            seconds = time.perf_counter() - began
        size = "SELECT hypertable_size('store.sample')"
        written = execute(url, size)[0][0]
        execute(url, "SELECT compress_chunk(c, recompress => true) FROM show_chunks('store.sample') c")
        count = SIGNALS * rows_per_signal * FLUSHES
        return {
            "rows_per_signal": rows_per_signal,
            "copy": "direct" if direct else "plain",
            "rows_per_s": round(count / seconds),
            "bytes_per_row_written": round(written / count, 1),
            "bytes_per_row_compressed": round(execute(url, size)[0][0] / count, 1),
        }


def main() -> None:
    """Prints one JSON line for each measurement."""
    server = StoreServer("timescale")
    server.start()
    try:
        make_template(server.url)
        for rows_per_signal in ROWS_PER_SIGNAL:
            for direct in (False, True):
                print(json.dumps(asyncio.run(measure(server, rows_per_signal, direct=direct))), flush=True)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
