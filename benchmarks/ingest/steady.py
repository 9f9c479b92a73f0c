"""Ingest's memory over hours: 10,000 samples a second from 2,000 signals, in real time, TimescaleDB's own jobs beside it.

The resident set is looked at every 10 s. What a process grows to while it warms up is no leak, so the slope is taken over the
second half of the run. Records are made as they are sent, by the sender's process, whose memory is not looked at.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.ingest.edges import journal
from benchmarks.ingest.fleet import SECOND_US
from benchmarks.ingest.latency import SMALL
from benchmarks.ingest.sending import Seen, sending
from benchmarks.ingest.service import Ingest, database, server
from benchmarks.ingest.throughput import told
from benchmarks.ingest.topic import kafka, servers_of
from benchmarks.ingest.watch import resident_mb, spent_s
from tests.fixtures.store import Flavour

LOOK_EVERY_S: Final = 10.0
TOLD_EVERY: Final = 30
"""Looks."""
Look = tuple[float, float]
"""(seconds from the beginning, MiB)"""


def measure(seconds: float, flavour: Flavour = "timescale") -> dict[str, Any]:
    """Resident MiB of ingest at ten moments, its highest and its slope; what it cost; latency; the audit's verdict."""
    with ExitStack() as stack:
        store = stack.enter_context(server(flavour, background=flavour == "timescale"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vigil-bench-")))
        broker = stack.enter_context(kafka())
        url = stack.enter_context(database(store))
        ingest = Ingest(folder, url, broker.url)
        program = stack.enter_context(ingest.start())
        try:
            looks, seen = asyncio.run(_sent(servers_of(broker), url, program.pid, int(seconds)))
        except (AssertionError, RuntimeError) as error:
            raise RuntimeError(f"{error!r}\n{program.said()}") from error
        cpu_s, peak_mb = spent_s(program.pid), resident_mb(program.pid, "VmHWM:")
        program.stop()
        audit = ingest.audit()
    delays_s = seen.delays_s(0, len(seen.samples))
    return {
        "flavour": flavour,
        "seconds": int(seconds),
        "samples": sum(seen.samples),
        "cpu_per_million_s": round(cpu_s / sum(seen.samples) * 1e6, 2),
        "resident_mb": tenths(looks),
        "peak_mb": round(peak_mb, 1),
        "slope_mb_per_h": round(slope_per_h(looks), 2),
        "p50_s": round(float(np.quantile(delays_s, 0.5)), 3),
        "p99_s": round(float(np.quantile(delays_s, 0.99)), 3),
        **{name: audit[name] for name in ("lost", "doubled", "clean")},
    }


async def _sent(servers: str, url: str, pid: int, seconds: int) -> tuple[list[Look], Seen]:
    records = journal(SMALL, time.time_ns() // 10**9 * SECOND_US, seconds)
    looks: list[Look] = []
    async with sending(servers, url, records) as (sender, seen):
        looking = asyncio.create_task(_look(pid, looks))
        try:
            await sender.rest(per_s=SMALL.samples_per_s)
            await sender.drained()
        finally:
            looking.cancel()
        return looks, seen


async def _look(pid: int, looks: list[Look]) -> None:
    began_s = time.monotonic()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        looks.append((time.monotonic() - began_s, resident_mb(pid)))
        if len(looks) % TOLD_EVERY == 0:
            told(f"{looks[-1][0]:.0f} s: {looks[-1][1]:.1f} MiB")


def tenths(looks: Sequence[Look]) -> list[float]:
    """MiB at the end of each tenth of the run."""
    return [round(looks[max(0, len(looks) * n // 10 - 1)][1], 1) for n in range(1, 11)]


def slope_per_h(looks: Sequence[Look]) -> float:
    """MiB an hour, by least squares over the second half."""
    half = looks[len(looks) // 2 :]
    return statistics.linear_regression([at for at, _ in half], [mb for _, mb in half]).slope * 3600
