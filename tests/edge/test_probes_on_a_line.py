"""Units on one line that do not answer: how much of the line's time asking them takes, and what a late answer is worth.

Through a serial server (RTU frames over TCP), on a clock that jumps (tests.edge.swift_time).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from edge.bus import PROBING_S, make_bus, spare
from edge.lane import Watch
from edge.modbus import make_device
from edge.policy import Poller, Reachability
from edge.schedule import Rota
from telemetry.plant import Endpoint, parse_address
from telemetry.profile import ModbusDefaults
from telemetry.service import cancel_all
from tests.edge.asking import Told, query_of
from tests.edge.polling import Put
from tests.edge.profiles import make_equipment, make_profile
from tests.edge.serial_line import Ask, answer
from tests.edge.swift_time import LoopClock, run_swiftly

TIMEOUT_S = 0.5
USUAL_S = 0.004


@dataclass
class Line:
    """A serial server with a line of units. Each takes `delays_s` of its unit to answer; None: it never does."""

    delays_s: dict[int, float | None] = field(default_factory=dict)
    asked: list[tuple[float, int]] = field(default_factory=list)
    """When which unit was asked."""
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[str]:
        """Serves; its address, without a unit."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        yield f"modbus+rtuovertcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()
        await asyncio.gather(*self._serving)
        await server.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await reader.readexactly(8)
                unit, at = request[0], int.from_bytes(request[2:4], "big")
                self.asked.append((loop.time(), unit))
                delay_s = self.delays_s.get(unit, USUAL_S)
                if delay_s is not None:
                    ask = Ask(unit, request[1], at, int.from_bytes(request[4:6], "big"), 0.0)
                    loop.call_later(delay_s, writer.write, answer(ask))
        writer.close()
        await writer.wait_closed()


Meanwhile = Callable[[Line, list[Poller]], Awaitable[None]]


def read(line: Line, units: int, meanwhile: Meanwhile, endpoint: Endpoint | None = None) -> None:
    """Reads units 1 … of the line each second, for as long as `meanwhile` takes."""

    async def run() -> None:
        settings, clock = endpoint or Endpoint(), LoopClock()
        profile = make_profile({"a": {"modbus": {"address": 0}}}, poll_s=1.0, timeout_s=TIMEOUT_S)
        async with line.up() as url:
            bus = make_bus(parse_address(f"{url}/1"), settings, clock, Watch(), file="test")
            spare(bus, ModbusDefaults())
            bus.shared = True
            rota, reach, put, pollers = Rota(clock, clock.monotonic_s(), units), Reachability(), Put(), []
            for unit in range(1, units + 1):
                device = make_device(make_equipment(f"e{unit}", profile, f"{url}/{unit}"), bus, clock, settings)
                pollers.append(Poller(device, put, reach, clock))
                pollers[-1].join(rota)
            reading = asyncio.create_task(rota.run())
            await meanwhile(line, pollers)
            await cancel_all([reading])
            bus.close()

    run_swiftly(run)


@pytest.mark.parametrize("share", [0.1, 0.04])
def test_units_that_do_not_answer_take_no_more_than_their_share_of_the_line_and_are_all_asked(share: float) -> None:
    silent = range(1, 13)
    line, begun, seconds = Line(dict.fromkeys(silent)), list[int](), 240.0

    async def meanwhile(line: Line, pollers: list[Poller]) -> None:
        await asyncio.sleep(40)
        begun.append(len(line.asked))
        await asyncio.sleep(seconds)

    read(line, 24, meanwhile, Endpoint(probe_share=share))
    asked = line.asked[begun[0] :]
    taken_s = sum(after - at for (at, unit), (after, _) in pairwise(asked) if unit in silent)
    assert 0 < taken_s <= share * (seconds + PROBING_S) + TIMEOUT_S
    assert {unit for _, unit in asked} == set(range(1, 25)), "none is forgotten"


def test_a_late_answer_to_a_probe_has_the_unit_waited_for_longer_the_next_time() -> None:
    line, waited = Line(), list[int]()

    async def meanwhile(line: Line, pollers: list[Poller]) -> None:
        await asyncio.sleep(20)
        line.delays_s[1] = None
        while not pollers[0].reach.since_us:
            await asyncio.sleep(0.05)
        line.delays_s[1] = 0.3  # longer than the others take, within its time-out
        begun = len(line.asked)
        while pollers[0].reach.since_us:
            await asyncio.sleep(0.05)
        waited.append(sum(unit == 1 for _, unit in line.asked[begun:]))

    read(line, 4, meanwhile)
    assert waited == [2], "a probe that was too short, and one that was long enough"


def test_a_probe_that_is_put_off_is_made_when_the_line_has_time_again() -> None:
    async def run() -> None:
        clock, line = LoopClock(), Line({1: None})
        async with line.up() as url:
            bus = make_bus(parse_address(f"{url}/1"), Endpoint(probe_share=0.1), clock, Watch(), file="test")
            bus.shared = True
            asked = 0
            while bus.may_probe():
                told = Told()
                bus.ask(told, query_of(), TIMEOUT_S, probe=True)
                asked += 1
                assert asked < 20
            await asyncio.sleep(0.9 * TIMEOUT_S / 0.1)
            assert not bus.may_probe()
            await asyncio.sleep(0.1 * TIMEOUT_S / 0.1 + 0.1)
            assert bus.may_probe()
            bus.close()

    run_swiftly(run)
