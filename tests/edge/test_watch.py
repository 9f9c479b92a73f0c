"""An alarm rings once, at the earliest time that was set, on either event loop, however late it was set."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from edge.watch import Alarm

NOW_S = 0.0
SOON_S = 0.05
LATE_S = 30.0


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(
    "times",
    [
        pytest.param((-1.0, LATE_S), id="past, later"),
        pytest.param((NOW_S, NOW_S), id="now, twice"),
        pytest.param((0.0004, -1.0, SOON_S), id="within a millisecond, past, later"),
        pytest.param((LATE_S, SOON_S), id="later, sooner"),
        pytest.param((SOON_S, LATE_S), id="sooner, later"),
    ],
)
def test_an_alarm_rings_once_at_the_earliest_time(
    loop: Callable[[], asyncio.AbstractEventLoop], times: tuple[float, ...]
) -> None:
    rings = asyncio.Event()
    told: list[float] = []

    async def set_all() -> None:
        running = asyncio.get_running_loop()
        began_s = running.time()

        def ring() -> None:
            told.append(running.time() - began_s)
            rings.set()

        alarm = Alarm(ring)
        for after_s in times:
            alarm.set(began_s + after_s, running)
        async with asyncio.timeout(10):
            await rings.wait()
        alarm.set(running.time() + SOON_S, running)
        alarm.cancel()
        rings.clear()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(rings.wait(), 4 * SOON_S)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(set_all())
    assert len(told) == 1
    assert told[0] >= min(times) - 0.002  # uvloop counts in milliseconds
