"""From the log's stamp of a record to its rows in the table, under a load that is offered at a rate.

The stamp is the broker's (LogAppendTime, ms). That rows are there is seen from a second connection, which asks every 10 ms
for the offsets that move in the rows' own transaction, so a figure is up to 10 ms too high, never too low. Records are encoded
beforehand; the sender shares the machine's cores with everything else.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.edge.agent import quantile_s
from benchmarks.ingest.edges import Sent, journal
from benchmarks.ingest.fleet import SECOND_US, Fleet
from benchmarks.ingest.sending import Seen, Sender, sending
from benchmarks.ingest.service import Ingest, database, server
from benchmarks.ingest.throughput import told
from benchmarks.ingest.topic import kafka, servers_of
from tests.fixtures.store import StoreServer

WARM_S: Final = 3.0
FULL_SHARE: Final = 0.8
SMALL: Final = Fleet(2_000, 1, 500, rate_hz=5)
"""10,000 samples a second, a record every 50 ms, as an edge sends them."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is offered: the most that goes through and a share of it, or (`most_per_s` None) the fleet's own rate."""

    fleet: Fleet
    seconds: float
    most_per_s: int | None = None
    """So many samples a second are prepared for."""
    window: int = 2_000_000
    """Samples that may be on their way while the most is sought; its latency is about window / rate."""

    def records(self) -> list[Sent]:
        """For all phases. What is sent at the fleet's own rate has the present as its time, the rest the past."""
        samples = (self.most_per_s or self.fleet.samples_per_s) * (WARM_S + 2 * self.seconds)
        fleet_s = self.fleet.seconds_for(int(samples))
        start_us = (time.time_ns() // 10**9 - (fleet_s if self.most_per_s else 0)) * SECOND_US
        return list(journal(self.fleet, start_us, fleet_s))


def measure(load: Load) -> dict[str, Any]:
    """At the most that goes through, at FULL_SHARE of it, and at 10,000 samples a second."""
    with server() as store:
        return {"phases": [*loaded(store, load), *loaded(store, Load(SMALL, load.seconds))]}


def loaded(store: StoreServer, load: Load) -> list[dict[str, Any]]:
    """The phases of one load, on a topic and database of their own."""
    records = load.records()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vigil-bench-")))
        broker = stack.enter_context(kafka())
        url = stack.enter_context(database(store))
        ingest = Ingest(folder, url, broker.url)
        program = stack.enter_context(ingest.start())
        try:
            return asyncio.run(_phases(ingest, servers_of(broker), url, records, load))
        except (AssertionError, RuntimeError) as error:
            raise RuntimeError(f"{error!r}\n{program.said()}") from error


async def _phases(ingest: Ingest, servers: str, url: str, records: Iterable[Sent], load: Load) -> list[dict[str, Any]]:
    fleet, own = load.fleet, None if load.most_per_s else load.fleet.samples_per_s
    async with sending(servers, url, records, window=load.window) as (sender, seen):
        await sender.phase(0.1, per_s=own or 100_000)
        await sender.drained()
        await sender.phase(WARM_S, per_s=own)
        found = [await _phase(ingest, sender, seen, "small" if own else "most", load.seconds, own)]
        if own is None:
            share = FULL_SHARE * found[0]["stored_per_s"]
            found.append(await _phase(ingest, sender, seen, f"{FULL_SHARE:.0%} of it", load.seconds, share))
        return [{"signals": fleet.signals, "record_samples": fleet.record_samples, **one} for one in found]


async def _phase(
    ingest: Ingest, sender: Sender, seen: Seen, name: str, seconds: float, per_s: float | None
) -> dict[str, Any]:
    before = await asyncio.to_thread(ingest.metrics)
    phase = await sender.phase(seconds, per_s=per_s)
    await sender.drained()
    after = await asyncio.to_thread(ingest.metrics)
    delays = seen.delays_s(phase.first, phase.end)
    p50, p99 = np.quantile(delays, [0.5, 0.99])
    stored = seen.stored_per_s(phase)
    told(f"{name}: stored {stored:,.0f}/s, p50 {p50:.3f} s, p99 {p99:.3f} s, worst {delays.max():.3f} s")
    return {
        "phase": name,
        "offered_per_s": round(per_s) if per_s else None,
        "stored_per_s": round(stored),
        "records": len(delays),
        "p50_s": round(float(p50), 3),
        "p99_s": round(float(p99), 3),
        "worst_s": round(float(delays.max()), 3),
        "own_p50_s": round(quantile_s(before, after, _OWN, 0.5), 3),
        "own_p99_s": round(quantile_s(before, after, _OWN, 0.99), 3),
    }


_OWN: Final = "vigil_ingest_log_to_store_seconds"
