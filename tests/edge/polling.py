"""Devices that are polled as the edge polls them, with everything kept that comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from edge.breaker import Breaker
from edge.columns import Columns
from edge.driver import PollingDriver, Source
from edge.policy import Poller, Reachability
from edge.schedule import Rota
from telemetry.clock import Clock, SystemClock


@dataclass
class Put:
    """Takes what drivers received and decodes it by itself. See edge.driver.Put."""

    columns: dict[str, list[Columns]] = field(default_factory=dict)
    """Equipment → what was read of it, in order."""

    def __call__(self, source: Source, received: Any, rows: int) -> bool:
        columns = source.decode([received]).columns
        assert len(columns) == rows
        self.columns.setdefault(columns.equipment[0], []).append(columns)
        return True


@asynccontextmanager
async def polled(
    drivers: Sequence[PollingDriver], put: Put, reach: Reachability, *, clock: Clock | None = None
) -> AsyncIterator[list[Poller]]:
    """Asks these when they are due, until left."""
    clock = clock or SystemClock()
    rota = Rota(clock, clock.monotonic_s(), len(drivers))
    pollers = [Poller(driver, put, reach, clock, Breaker(back_off_s=0.5)) for driver in drivers]
    for poller in pollers:
        poller.join(rota)
    running = asyncio.create_task(rota.run())
    try:
        yield pollers
    finally:
        for poller in pollers:
            poller.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
