"""What a reader of the embedded log costs while nothing comes, counted in work: seconds would tell how busy the machine is."""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import BuiltinFunctionType, FrameType
from typing import Any

from telemetry.log.embedded import EmbeddedLog
from telemetry.log.protocol import FINDINGS, TELEMETRY
from tests.telemetry.log_rig import Owner, read_count, record

SHARE = 0.01
"""Of a core: what an idle reader may cost."""
LOOKS_S = 2.0
# µs of a core, on a quiet machine: together they give the 0.4–0.6 % that docs/log.md measured there.
WAKE_UP_US = 30.0
STATEMENT_US = 5.0
CALL_US = 0.2


@dataclass(slots=True)
class Work:
    """Counts what the threads do that are started while it counts, and the one that counts."""

    wake_ups: int = 0
    """How often a thread waited for a job, or the loop for anything."""
    statements: int = 0
    """Of SQL."""
    calls: int = 0
    """Of functions, Python's and C's."""

    def __call__(self, frame: FrameType, event: str, called: Any) -> None:
        """A profile function: see sys.setprofile."""
        if event == "call":
            self.calls += 1
        elif event == "c_call":
            self.calls += 1
            self._c_call(called)

    def _c_call(self, called: BuiltinFunctionType) -> None:
        owner, name = getattr(called, "__self__", None), called.__name__
        if (name == "get" and isinstance(owner, SimpleQueue)) or name in ("poll", "select"):
            self.wake_ups += 1
        elif name.startswith("execute") and isinstance(owner, sqlite3.Connection | sqlite3.Cursor):
            self.statements += 1

    def core_s(self) -> float:
        """Seconds of a core that so much work takes."""
        return (self.wake_ups * WAKE_UP_US + self.statements * STATEMENT_US + self.calls * CALL_US) / 1e6


@contextmanager
def counting(work: Work) -> Iterator[None]:
    threading.setprofile(work)
    sys.setprofile(work)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


async def test_an_idle_reader_costs_less_than_a_hundredth_of_a_core(tmp_path: Path) -> None:
    log, work = EmbeddedLog(tmp_path / "log", 4_000_000), Work()
    producer = await log.producer()
    with counting(work):
        reader = await log.reader("g", [TELEMETRY, FINDINGS], Owner())
        await reader.fetch(max_records=1, max_wait_s=0.2)
        work.wake_ups = work.statements = work.calls = 0
        began_s = time.monotonic()
        assert await reader.fetch(max_records=1, max_wait_s=LOOKS_S) == []
        share = work.core_s() / (time.monotonic() - began_s)
    await producer.send(TELEMETRY, [record("k", "new")])
    assert [r.value for r in await read_count(reader, 1)] == [b"new"], "it was looking"
    assert work.statements > 2 * LOOKS_S, "and was counted"
    assert share < SHARE, work
    await reader.close()
    await producer.close()
