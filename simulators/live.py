"""A simulated plant on the network: each Modbus unit behind its port, each MQTT device with its connection.

`Live` opens the faces that the groups' addresses name, and `play` lets time pass at the clock's speed. Invariant: what the
faces show is the plant's state at one time, stamped with that time by the clock of the scenario.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from simulators.codec import RegisterImage
from simulators.modbus_face import ModbusDevice, serve_modbus
from simulators.mqtt_face import MqttDevice, is_reading
from simulators.plant import Group, SimulatedPlant, UnitEvent
from telemetry.clock import US_PER_S, Clock
from telemetry.plant import parse_address
from telemetry.service import wait_until

STEP_S: Final = 0.5
SNAPSHOT_S: Final = 10.0
"""A device that has nothing new says so after this."""
CONNECTED_WITHIN_S: Final = 3.0
"""Devices that are not connected so soon after the start are worth a line."""
LATE_S: Final = 30.0
"""After standing still for longer (the machine slept) the simulation goes on from where it was."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Unit:
    group: Group
    number: int
    name: str
    mqtt: MqttDevice | None = None
    modbus: ModbusDevice | None = None
    shown_s: float = float("-inf")


class Live:
    """The faces of a plant."""

    def __init__(self, plant: SimulatedPlant, units: Mapping[str, _Unit]) -> None:
        self._plant = plant
        self._units = units
        self._lost: set[str] = set()
        self._said_waiting = False

    async def show(self, events: list[UnitEvent], start_us: int) -> None:
        """Brings every face to the plant's present state, and sends what the devices reported."""
        await self._connections()
        self._say_waiting()
        for told in events:
            unit = self._units[told.equipment]
            if unit.mqtt is not None:
                unit.mqtt.publish_event(told.event, start_us + round(told.event.time_s * US_PER_S))
        now_s = self._plant.time_s
        for group in self._plant.groups:
            for name, values in zip(group.ids, group.values(), strict=True):
                self._show_unit(self._units[name], values, now_s, start_us)

    def _show_unit(self, unit: _Unit, values: Mapping[str, float | str], now_s: float, start_us: int) -> None:
        if unit.modbus is not None:
            for point, value in values.items():
                if unit.group.profile.points[point].modbus is not None and is_reading(value):
                    unit.modbus.image.set(point, value)
                elif unit.group.profile.points[point].modbus is not None:
                    unit.modbus.image.set_not_available(point)
        elif unit.mqtt is not None:
            whole = now_s - unit.shown_s >= SNAPSHOT_S
            if unit.mqtt.publish_state(values, start_us + round(now_s * US_PER_S), only_changes=not whole) or whole:
                unit.shown_s = now_s if whole else unit.shown_s

    def _say_waiting(self) -> None:
        """Logs when devices wait for their broker, and when they do no more."""
        count = sum(unit.mqtt is not None and unit.mqtt.waiting for unit in self._units.values())
        if count and not self._said_waiting and self._plant.time_s > CONNECTED_WITHIN_S:
            self._said_waiting = True
            log.warning("waiting for the MQTT broker", devices=count)
        elif not count and self._said_waiting:
            self._said_waiting = False
            log.info("connected to the MQTT broker")

    async def _connections(self) -> None:
        for name in self._plant.unreachable - self._lost:
            await self._lose(self._units[name], lost=True)
        for name in self._lost - self._plant.unreachable:
            await self._lose(self._units[name], lost=False)
        self._lost = set(self._plant.unreachable)

    async def _lose(self, unit: _Unit, *, lost: bool) -> None:
        if unit.modbus is not None:
            unit.modbus.silent = lost
        elif unit.mqtt is not None and lost:
            await unit.mqtt.break_off()
        elif unit.mqtt is not None:
            unit.shown_s = float("-inf")
            unit.mqtt.start()


@asynccontextmanager
async def open_faces(plant: SimulatedPlant) -> AsyncIterator[Live]:
    """Serves every Modbus port and connects every MQTT device of the plant while the context lasts. Raises OSError."""
    units = {name: _Unit(group, number, name) for group in plant.groups for number, name in enumerate(group.ids)}
    ports: dict[tuple[str, int], dict[int, ModbusDevice]] = defaultdict(dict)
    for unit in units.values():
        address = parse_address(unit.group.addresses[unit.number])
        if address.is_modbus:
            unit.modbus = ports[address.host, address.port][address.unit] = ModbusDevice(
                RegisterImage(unit.group.profile)
            )
        else:
            unit.mqtt = MqttDevice(unit.name, address, unit.group.profile)
    async with AsyncExitStack() as stack:
        for (host, port), devices in ports.items():
            await stack.enter_async_context(serve_modbus(host, port, devices))
        speakers = [unit.mqtt for unit in units.values() if unit.mqtt is not None]
        for device in speakers:
            device.start()
        try:
            yield Live(plant, units)
        finally:
            await asyncio.gather(*(device.stop() for device in speakers))


async def play(
    plant: SimulatedPlant,
    *,
    clock: Clock,
    stop: asyncio.Event,
    seconds: float | None = None,
    serving: Callable[[], None] | None = None,
) -> None:
    """Runs the plant on the network until `stop`, or for `seconds` of the clock; calls `serving` once it can be read."""
    async with open_faces(plant) as live:
        plant.advance(0.0)
        await live.show([], clock.now_us())
        if serving is not None:
            serving()
        start_us, base_s = clock.now_us(), clock.monotonic_s()
        while not stop.is_set() and (seconds is None or plant.time_s < seconds):
            now_s = clock.monotonic_s() - base_s
            if now_s - plant.time_s > LATE_S * clock.speed:
                log.warning("stood still", seconds=round(now_s - plant.time_s, 1))
                skipped_s = now_s - plant.time_s
                base_s, start_us, now_s = base_s + skipped_s, start_us + round(skipped_s * US_PER_S), plant.time_s
            before = len(plant.injected)
            events = plant.advance(now_s)
            for fault in plant.injected[before:]:
                log.info("fault", equipment=fault.equipment, kind=fault.kind, seconds=fault.end_s - fault.start_s)
            await live.show(events, start_us)
            await wait_until(stop, STEP_S / min(clock.speed, 10.0))
