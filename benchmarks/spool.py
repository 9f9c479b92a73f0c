"""CPU of a commit of the spool, beside the least that SQLite can do with the same bytes: a bare INSERT and COMMIT.

Each commit is one record of samples with the ledger increments of 50 equipments, as 1,000 devices at 1 s make it 20 times a
second; what was committed is taken from the tail and acknowledged at once, and every 100 commits the ledger is published.
Turns of the two are interleaved in one run, so that a busy machine is as unkind to one as to the other.

    python -m benchmarks.spool [--json] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import machine
from edge.spool import Spool
from edge.spool_file import PAGE_BYTES
from telemetry.messages import Kind
from telemetry.wire import Encoded

ROUNDS: Final = 8
COMMITS: Final = 100
"""A round of each; so often the ledger is published."""
EQUIPMENT: Final = 50
HOUR_US: Final = 1_795_000_000_000_000 // 3_600_000_000 * 3_600_000_000
SIZES: Final = {"2 kB": 2_000, "20 kB": 20_000, "120 kB": 120_000, "200 kB": 200_000}


def spool_commits(folder: Path, value: bytes) -> tuple[Callable[[], None], Callable[[], None]]:
    """(a round of commits through the spool, its end)."""
    spool = Spool(folder / "spool.sqlite", edge="bench", epoch=1, max_bytes=1 << 30)
    record = Encoded(Kind.SAMPLES, 5_000, zlib.crc32(value), value)
    cells = [
        {(f"equipment-{turn * EQUIPMENT + n:04}", HOUR_US): (100, n * 2654435761 << 16) for n in range(EQUIPMENT)}
        for turn in range(20)
    ]
    done = 0

    def commits() -> None:
        nonlocal done
        for _ in range(COMMITS):
            spool.journal([record], cells[done % 20])
            spool.tail.acknowledge(spool.tail.take(max_records=500, max_bytes=4 << 20))
            done += 1
        spool.publish()

    return commits, spool.close


def bare_commits(folder: Path, value: bytes) -> tuple[Callable[[], None], Callable[[], None]]:
    """(a round of commits of the same bytes, old ones deleted 20 at a time, its end)."""
    db = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA secure_delete = OFF")
    db.execute("CREATE TABLE record (position INTEGER PRIMARY KEY, value BLOB NOT NULL)")
    done = 0

    def commits() -> None:
        nonlocal done
        for _ in range(COMMITS):
            db.execute("BEGIN IMMEDIATE")
            if done % 20 == 19:
                db.execute("DELETE FROM record WHERE position <= ?", (done,))
            db.execute("INSERT INTO record VALUES (?, ?)", (done + 1, value))
            db.execute("COMMIT")
            done += 1

    return commits, db.close


def measure(folder: Path) -> dict[str, Any]:
    """µs of CPU a commit, median of the rounds, by size of record."""
    cases: dict[str, dict[str, float]] = {}
    for name, size in SIZES.items():
        value = os.urandom(size)
        with tempfile.TemporaryDirectory(dir=folder) as made:
            kinds = {"bare": bare_commits(Path(made), value), "spool": spool_commits(Path(made), value)}
            costs: dict[str, list[float]] = {kind: [] for kind in kinds}
            for number in range(ROUNDS + 1):
                for kind, (commits, _) in kinds.items():
                    began = time.thread_time()
                    commits()
                    if number:  # The first fills caches.
                        costs[kind].append((time.thread_time() - began) / COMMITS * 1e6)
            for _, end in kinds.values():
                end()
        cases[name] = {kind: round(statistics.median(found), 1) for kind, found in costs.items()}
    return {"unit": "µs of CPU a commit", "machine": machine(), "cases": cases}


def main() -> None:
    """Prints the costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="for machines, on stdout")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to be measured")
    arguments = parser.parse_args()
    found = measure(arguments.folder)
    if arguments.json:
        json.dump(found, sys.stdout, ensure_ascii=False)
        print()
        return
    print(f"{found['unit']}, {found['machine']}")
    for name, costs in found["cases"].items():
        print(f"  {name:8}" + "".join(f"{kind} {cost:>8,.0f}   " for kind, cost in costs.items()))


if __name__ == "__main__":
    main()
