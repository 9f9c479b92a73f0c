"""What an edge reads, and how that changes while it runs: a new plant file restarts what it changes and nothing else.

Invariant: everything in use belongs to one plant file that was checked whole. `prepare` builds what is new without
touching what runs, and raises if any of it cannot be; `switch` cannot fail. What was read of equipment that is read no
more is put before `leave` is done, whose time is bounded, and nothing after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from edge.bus import Bus, make_bus, spare
from edge.driver import PushingDriver, Put
from edge.lane import Watch
from edge.layouts import Layouts
from edge.modbus import ModbusDevice, make_device
from edge.policy import Poller, Reachability
from edge.schedule import GRID_S, LONE_GRID_S, Rota
from telemetry.clock import Clock
from telemetry.errors import ConfigError, Fault
from telemetry.plant import Endpoint, Equipment, Plant
from telemetry.service import cancel_all

log = structlog.get_logger()

WIND_UP_S: Final = 0.5
"""Cycles that are under way when their equipment is read no more have so long to come to their end."""
LOOK_S: Final = 0.02
"""How often it is looked whether they have."""

Mind = Callable[[Sequence[Equipment], Sequence[Equipment]], Awaitable[None]]
"""Told which equipment, as it was, is read no more, and which, as it is, from now on (edge.intake.Intake.mind)."""
Announce = Callable[[Plant], Awaitable[None]]
"""Told what is read from now on, before anything of it is: the log's readers judge nothing that they do not know."""
MakePushing = Callable[[Plant, Sequence[Equipment]], Sequence[PushingDriver]]
"""Makes the pushing drivers of some equipment, one for each endpoint. Raises ConfigError."""


@dataclass(frozen=True, slots=True, eq=False)
class _Polled:
    equipment: Equipment
    endpoint: Endpoint
    device: ModbusDevice
    poller: Poller


@dataclass(frozen=True, slots=True, eq=False)
class _Pushed:
    members: tuple[Equipment, ...]
    endpoint: Endpoint
    driver: PushingDriver


@dataclass(frozen=True, slots=True, eq=False)
class Next:
    """A plant, ready to be switched to."""

    plant: Plant
    equipment: tuple[Equipment, ...]
    polled: Mapping[str, _Polled]
    buses: Mapping[str, tuple[Endpoint, Bus]]
    pushed: Mapping[str, _Pushed]


async def _to_nobody(plant: Plant) -> None:
    """Nobody is told."""


@dataclass(slots=True, eq=False)
class Fleet:
    """Everything that is read. `run` works until cancelled."""

    put: Put
    clock: Clock
    reach: Reachability
    rota: Rota
    make_pushing: MakePushing
    mind: Mind
    state: dict[str, str]
    """What is known of all equipment, as it is journaled."""
    file: str
    announce: Announce = _to_nobody
    plant: Plant | None = None
    equipment: tuple[Equipment, ...] = ()
    _polled: Mapping[str, _Polled] = field(default_factory=dict)
    _buses: Mapping[str, tuple[Endpoint, Bus]] = field(default_factory=dict)
    _pushed: Mapping[str, _Pushed] = field(default_factory=dict)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _watch_lanes: Watch = field(default_factory=Watch)
    _layouts: Layouts = field(default_factory=Layouts)
    _over: asyncio.Future[None] | None = None
    _silent: dict[str, int] = field(default_factory=dict)
    """Equipment that was left and was silent → since when (µs)."""

    @property
    def pushing(self) -> list[PushingDriver]:
        """Drivers that are pushed to."""
        return [pushed.driver for pushed in self._pushed.values()]

    @property
    def polled(self) -> int:
        """How many equipments are asked."""
        return len(self._polled)

    def prepare(self, plant: Plant, equipment: Sequence[Equipment]) -> Next:
        """What is to be read from now on; what does not change is taken over as it is. Raises ConfigError."""
        equipment = self._as_before(equipment)
        buses = self._next_buses(plant, equipment)
        polled: dict[str, _Polled] = {}
        faults = []
        for one in equipment:
            if not one.address.is_modbus:
                continue
            endpoint, bus = buses[one.address.endpoint]
            old = self._polled.get(one.id)
            if old is not None and old.equipment == one and old.device.bus is bus:
                polled[one.id] = old
                continue
            try:
                device = make_device(one, bus, self.clock, endpoint, layouts=self._layouts, state=self.state)
            except ValueError as error:
                expected = "points that a request can read"
                faults.append(Fault(self.file, 0, f"equipment.{one.id}", expected, str(error)))
                continue
            polled[one.id] = _Polled(one, endpoint, device, Poller(device, self.put, self.reach, self.clock))
        if faults:
            raise ConfigError(faults)
        return Next(plant, tuple(equipment), polled, buses, self._next_pushed(plant, equipment))

    def begun_anew(self, to: Next) -> set[str]:
        """Equipment of `to` that would not go on as it is: new, or its entry, profile or endpoint changed."""
        pushed = {key: new for key, new in to.pushed.items() if self._pushed.get(key) is not new}
        return {name for name, new in to.polled.items() if self._polled.get(name) is not new} | {
            one.id for new in pushed.values() for one in new.members
        }

    async def leave(self, to: Next) -> None:
        """Stops what is gone or changed in `to`, which is to be switched to then."""
        over = [old.poller for name, old in self._polled.items() if to.polled.get(name) is not old]
        self.rota.remove(*over)
        silent = await self._wound_up(over)
        self._silent.update(silent)
        self.reach.since_us.update(silent)  # the heartbeats of the time between tell of them
        gone = [task for key, task in self._tasks.items() if to.pushed.get(key) is not self._pushed.get(key)]
        await cancel_all(gone)
        self._tasks = {key: task for key, task in self._tasks.items() if task not in gone}

    async def _wound_up(self, pollers: Sequence[Poller]) -> dict[str, int]:
        """Stops these, once their cycles under way are over or WIND_UP_S has passed. Those who are silent → since when, µs."""
        until_s = self.clock.monotonic_s() + WIND_UP_S
        while any([poller.wind_up() for poller in pollers]) and self.clock.monotonic_s() < until_s:
            await self.clock.sleep(LOOK_S)
        stopped = {poller.driver.equipment: poller.stop() for poller in pollers}
        return {name: since_us for name, since_us in stopped.items() if since_us is not None}

    async def switch(self, to: Next) -> None:
        """Reads what `to` says from now on: stops what is gone or changed (`leave`), starts what is new."""
        await self.leave(to)
        for endpoint, (_, bus) in self._buses.items():
            if to.buses.get(endpoint, (None, None))[1] is not bus:
                bus.close()
        before, after = {e.id: e for e in self.equipment}, {e.id: e for e in to.equipment}
        await self.mind(
            [one for name, one in before.items() if after.get(name) is not one],
            [one for name, one in after.items() if before.get(name) is not one],
        )
        started = [new for name, new in to.polled.items() if self._polled.get(name) is not new]
        self.plant, self.equipment = to.plant, to.equipment
        self._polled, self._buses, self._pushed = to.polled, to.buses, to.pushed
        self._layouts.keep(new.device.profile for new in self._polled.values())
        self._share()
        silent, self._silent = self._silent, {}
        for name in silent.keys() - to.polled.keys():
            self.reach.since_us.pop(name, None)
        await self.announce(to.plant)
        self.rota.devices = max(self.rota.devices, len(self._polled))
        for new in started:
            spare(new.device.bus, new.endpoint.quirks(new.equipment.profile.modbus))
            if (since_us := silent.get(new.device.equipment)) is not None:
                new.poller.still_silent(since_us)
            new.poller.join(self.rota, grid_s=GRID_S if new.device.bus.shared else LONE_GRID_S)
        for key, pushed in self._pushed.items():
            if key not in self._tasks:
                self._tasks[key] = self._start(pushed.driver)

    async def wind_up(self) -> None:
        """Asks for nothing more, and waits a while for what it asked for. To be called before `run` is cancelled."""
        pollers = [polled.poller for polled in self._polled.values()]
        self.rota.remove(*pollers)
        await self._wound_up(pollers)

    async def run(self) -> None:
        """Asks when it is time. Raises what a driver fails with."""
        self._over = asyncio.get_running_loop().create_future()
        for task in self._tasks.values():
            if task.done():  # before anybody looked
                self._ended(task)
        rota = asyncio.create_task(self.rota.run())
        try:
            await asyncio.wait((rota, self._over), return_when=asyncio.FIRST_COMPLETED)
            for done in (rota, self._over):
                if done.done():
                    done.result()
        finally:
            await cancel_all((rota, *self._tasks.values()))
            for polled in self._polled.values():
                polled.poller.stop()
            for _, bus in self._buses.values():
                bus.close()

    def _as_before(self, equipment: Sequence[Equipment]) -> list[Equipment]:
        """The same, with the very object that is read already wherever it says nothing else. Each two profiles are compared
        once: comparing them for each equipment would take seconds.
        """
        before, alike = {one.id: one for one in self.equipment}, {}
        found = []
        for one in equipment:
            old = before.get(one.id)
            if old is not None and (old.address, old.entry) == (one.address, one.entry):
                pair = id(old.profile), id(one.profile)
                if pair not in alike:
                    alike[pair] = old.profile == one.profile
                one = old if alike[pair] else one
            found.append(one)
        return found

    def _start(self, driver: PushingDriver) -> asyncio.Task[None]:
        task = asyncio.create_task(driver.run(self.put))
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A driver works until cancelled: that it ended otherwise is an error of the service."""
        if not task.cancelled() and self._over is not None and not self._over.done():
            error = task.exception() or RuntimeError("a driver ended by itself")
            self._over.set_exception(error)

    def _next_buses(self, plant: Plant, equipment: Sequence[Equipment]) -> dict[str, tuple[Endpoint, Bus]]:
        buses: dict[str, tuple[Endpoint, Bus]] = {}
        for one in equipment:
            key = one.address.endpoint
            if one.address.is_modbus and key not in buses:
                endpoint = plant.endpoint(one.address)
                old = self._buses.get(key)
                kept = old is not None and old[0] == endpoint and self._same_line(key, one)
                buses[key] = (
                    old
                    if kept and old is not None
                    else (endpoint, make_bus(one.address, endpoint, self.clock, self._watch_lanes, file=self.file))
                )
        return buses

    def _same_line(self, key: str, one: Equipment) -> bool:
        """Whether a serial line is still spoken on as before."""
        before = next((p.equipment for p in self._polled.values() if p.equipment.address.endpoint == key), None)
        return before is None or before.address.options == one.address.options

    def _next_pushed(self, plant: Plant, equipment: Sequence[Equipment]) -> dict[str, _Pushed]:
        members: dict[str, list[Equipment]] = {}
        for one in equipment:
            if not one.address.is_modbus:
                members.setdefault(one.address.endpoint, []).append(one)
        kept: dict[str, _Pushed] = {}
        changed: list[Equipment] = []
        for key, mine in members.items():
            old = self._pushed.get(key)
            if old is not None and old.members == tuple(mine) and old.endpoint == plant.endpoint(mine[0].address):
                kept[key] = old
            else:
                changed += mine
        for driver in self.make_pushing(plant, changed) if changed else ():
            mine = members[driver.endpoint]
            kept[driver.endpoint] = _Pushed(tuple(mine), plant.endpoint(mine[0].address), driver)
        return kept

    def _share(self) -> None:
        """Which endpoints have several units."""
        units: dict[str, set[int]] = {}
        for polled in self._polled.values():
            units.setdefault(polled.equipment.address.endpoint, set()).add(polled.equipment.address.unit)
        for endpoint, (_, bus) in self._buses.items():
            bus.shared = len(units.get(endpoint, ())) > 1
