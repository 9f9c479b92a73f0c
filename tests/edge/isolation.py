"""Many units read through one gateway, and how late each cycle reaches its unit. Used by a test and by a benchmark."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from edge.bus import Bus, make_bus, spare
from edge.decode import Frame
from edge.driver import Source
from edge.lane import Watch
from edge.modbus import make_device
from edge.policy import Poller, Reachability
from edge.schedule import Rota, phase_of, slots_for
from telemetry.clock import Clock
from telemetry.plant import Endpoint, parse_address
from telemetry.profile import ModbusDefaults
from telemetry.service import cancel_all
from tests.edge.profiles import make_equipment, make_profile

SILENT, SLOW = 13, 29


@dataclass(slots=True)
class Cycles:
    """What the pollers put: how many cycles of each equipment, and how many of these had a request that failed."""

    came: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    def __call__(self, source: Source, received: Any, rows: int) -> bool:
        assert isinstance(received, Frame)
        self.came[received.equipment] = self.came.get(received.equipment, 0) + 1
        if any(payload is None for payload in received.payloads):
            self.failed[received.equipment] = self.failed.get(received.equipment, 0) + 1
        return True


@dataclass(frozen=True, slots=True)
class Measured:
    """A run: seconds from due to reached of each cycle due after `learned_s`, of each unit that is well."""

    late_s: dict[int, list[float]]
    due_s: dict[int, list[float]]
    missed: int
    """Cycles that did not reach their unit within an interval."""
    learned_s: float
    slow_reached: int
    silent_reached: int
    accepted: int
    unreachable: frozenset[str]
    failed: dict[str, int]
    """Equipment → cycles of which a request failed, after `learned_s`."""

    def worst_s(self) -> float:
        """The latest of all."""
        return max(late for unit in self.late_s.values() for late in unit)

    def share_later_than(self, seconds: float) -> float:
        """Share of cycles later than that."""
        every = [late for unit in self.late_s.values() for late in unit]
        return sum(late > seconds for late in every) / len(every)


class Reached(Protocol):
    """A gateway that tells afterwards when its units were reached: tests.edge.gateways.Gateway, or one elsewhere."""

    port: int
    slow: Mapping[int, float]
    silent: frozenset[int]
    reached: dict[int, list[float]]
    accepted: int

    def heal(self) -> None:
        """Its silent units answer from now on."""

    async def account(self) -> None:
        """Brings `reached` and `accepted` up to date."""


async def measure(
    gateway: Reached,
    units: int,
    seconds: float,
    clock: Clock,
    *,
    interval_s: float = 1.0,
    timeout_s: float = 1.0,
    besides: Collection[int] = (),
    heals_after_s: float | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Measured:
    """Reads units 1 … `units`, for so many seconds after the silent one timed out first and the slow one first answered.

    `besides`: units that are not well either, and of which nothing is measured.
    """
    profile = make_profile(
        {"a": {"modbus": {"address": 0, "type": "u32"}}, "b": {"modbus": {"address": 9}}},
        poll_s=interval_s,
        timeout_s=timeout_s,
    )
    address = parse_address(f"modbus+tcp://127.0.0.1:{gateway.port}/1")
    bus: Bus = make_bus(address, Endpoint(), clock, Watch(), file="test")
    spare(bus, ModbusDefaults())
    bus.shared = True
    reach, put = Reachability(), Cycles()
    rota = Rota(clock, clock.monotonic_s() + 0.1, units)
    pollers = []
    for unit in range(1, units + 1):
        equipment = make_equipment(f"e{unit}", profile, f"modbus+tcp://127.0.0.1:{gateway.port}/{unit}")
        pollers.append(Poller(make_device(equipment, bus, clock, Endpoint()), put, reach, clock))
        pollers[-1].join(rota)
    task = asyncio.create_task(rota.run())
    try:
        first = pollers[SILENT - 1].breaker
        async with asyncio.timeout(60):
            while not first.failures or f"e{SLOW}" not in put.came:
                await asyncio.sleep(0.01)
        failed = dict(put.failed)
        learned_s = clock.monotonic_s() + interval_s  # what it held up has gone by then
        meanwhile()
        if heals_after_s is not None:
            asyncio.get_running_loop().call_later(heals_after_s, gateway.heal)
        await asyncio.sleep(interval_s + seconds)
    finally:
        await cancel_all((task,))
        unreachable = frozenset(reach.since_us)
        for poller in pollers:
            poller.stop()
        bus.close()
    lost = {name: count - failed.get(name, 0) for name, count in put.failed.items() if count > failed.get(name, 0)}
    end_s = learned_s + seconds - 2 * interval_s
    await gateway.account()
    well = set(range(1, units + 1)) - set(besides) - gateway.silent - gateway.slow.keys()
    return _measured(gateway, rota, (units, well), interval_s, learned_s, end_s, unreachable, lost)


def _measured(
    gateway: Reached,
    rota: Rota,
    fleet: tuple[int, Collection[int]],
    interval_s: float,
    begin_s: float,
    end_s: float,
    unreachable: frozenset[str],
    failed: dict[str, int],
) -> Measured:
    late: dict[int, list[float]] = {}
    due: dict[int, list[float]] = {}
    missed, (units, well) = 0, fleet
    for unit in sorted(well):
        phase = phase_of(f"e{unit}", interval_s, slots_for(units, interval_s))
        late[unit], due[unit] = _lateness(gateway.reached[unit], rota.origin_s + phase, interval_s, begin_s, end_s)
        missed += sum(one > interval_s for one in late[unit])
    return Measured(
        late,
        due,
        missed,
        begin_s,
        sum(len(gateway.reached[unit]) for unit in gateway.slow),
        sum(len(gateway.reached[unit]) for unit in gateway.silent),
        gateway.accepted,
        unreachable,
        failed,
    )


def _lateness(
    reached: Sequence[float], origin_s: float, interval_s: float, begin_s: float, end_s: float
) -> tuple[list[float], list[float]]:
    """Of each cycle due in [begin, end): how long after that the unit was reached next."""
    late, due, k = [], [], 0
    while (at := origin_s + k * interval_s) < end_s:
        k += 1
        if at >= begin_s:
            after = [r for r in reached if r >= at - 0.002]
            late.append((after[0] if after else end_s + interval_s) - at)
            due.append(at)
    return late, due
