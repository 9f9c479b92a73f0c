"""What a process holds, while it runs: memory, descriptors, threads, tasks; and its spool. Read from outside."""

from __future__ import annotations

import re
import sqlite3
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

TABLES: Final = ("record", "ledger", "dropped", "aside", "state", "tally", "delivered", "held", "epoch")
_TASKS: Final = re.compile(r"^vigil_edge_tasks ([0-9.e+]+)$", re.MULTILINE)
_UNREACHABLE: Final = re.compile(r"^vigil_edge_equipment_unreachable ([0-9.e+]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Gauge:
    """One look. None where it could not be read."""

    at_s: float
    """Wall clock."""
    pid: int
    rss_mb: float
    descriptors: int
    threads: int
    tasks: int | None
    unreachable: int | None
    spool_mb: float
    rows: int
    """Of all tables of the spool but `delivered`, which is bounded by its window."""
    cpu_s: float


def look(pid: int, port: int, spool: Path) -> Gauge | None:
    """None when the process is gone."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            rss, threads = process.memory_info().rss, process.num_threads()
        descriptors = process.num_fds()
    except psutil.NoSuchProcess:
        return None
    said = _metrics(port)
    files = (spool, spool.with_name(spool.name + "-wal"))
    size = sum(path.stat().st_size for path in files if path.exists())
    return Gauge(
        time.time(),
        pid,
        rss / 2**20,
        descriptors,
        threads,
        _number(_TASKS, said),
        _number(_UNREACHABLE, said),
        size / 2**20,
        sum(count for table, count in rows(spool).items() if table != "delivered"),
        times.user + times.system,
    )


def rows(spool: Path) -> dict[str, int]:
    """Table → rows, of the spool's file. Empty while it is locked."""
    try:
        db = sqlite3.connect(f"file:{spool}?mode=ro", uri=True, timeout=1)
    except sqlite3.OperationalError:
        return {}
    try:
        return {table: int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in TABLES}  # noqa: S608
    except sqlite3.OperationalError:
        return {}
    finally:
        db.close()


def as_json(gauges: Sequence[Gauge]) -> list[dict[str, float | int | None]]:
    """Plain data."""
    return [asdict(gauge) for gauge in gauges]


def _metrics(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return round(float(found[1])) if found else None
