"""Asking lanes, buses and devices from a coroutine, with everything noted that whoever asks is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from edge.asking import Failure
from edge.bus import Bus, make_bus, spare
from edge.driver import Outcome
from edge.frames import Query, query
from edge.lane import Lane, Watch
from edge.modbus import ModbusDevice, make_device
from edge.plan import Request, Table
from telemetry.clock import SystemClock
from telemetry.plant import Endpoint, Equipment, parse_address
from telemetry.profile import ModbusDefaults
from tests.edge.device import Device

TIMEOUT_S = 0.25


@dataclass
class Told:
    """An edge.asking.Asker that notes everything, in order."""

    words: list[str] = field(default_factory=list)
    payload: bytes | None = None
    failure: Failure | None = None
    took_s: float = 0.0
    at_s: float = 0.0
    """When it was over, by the loop's time."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def sent(self) -> None:
        self.words.append("sent")

    def answered(self, payload: bytes, time_us: int, took_s: float) -> None:
        self.payload, self.took_s = payload, took_s
        self._over("answered")

    def failed(self, failure: Failure, time_us: int) -> None:
        self.failure = failure
        self._over("failed")

    def overdue(self) -> None:
        self.words.append("overdue")

    def _over(self, word: str) -> None:
        self.words.append(word)
        self.at_s = asyncio.get_running_loop().time()
        self.over.set()

    @property
    def endings(self) -> int:
        """How often it was told that its request is over."""
        return sum(word in ("answered", "failed") for word in self.words)


class ReadFailed(Exception):
    """A request had no data."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.why)
        self.outcome, self.why = failure.outcome, failure.why
        self.quality, self.answered = failure.quality, failure.answered


def query_of(*, unit: int = 1, address: int = 10, n: int = 2, table: Table = "holding") -> Query:
    """A request of n registers or bits."""
    return query(table, address, n, unit=unit, payload_bytes=Request(table, address, n, ()).payload_bytes)


def bus_to(device: Device, endpoint: Endpoint | None = None, scheme: str = "modbus+tcp") -> Bus:
    """The bus of a device, with the rests that its endpoint asks for."""
    address = parse_address(f"{scheme}://127.0.0.1:{device.port}/1")
    bus = make_bus(address, endpoint or Endpoint(), SystemClock(), Watch(), file="test")
    spare(bus, (endpoint or Endpoint()).quirks(ModbusDefaults()))
    return bus


async def result(told: Told) -> bytes:
    """The payload. Raises ReadFailed."""
    async with asyncio.timeout(20):
        await told.over.wait()
    if told.failure is not None:
        raise ReadFailed(told.failure)
    assert told.payload is not None
    return told.payload


async def ask(
    asked: Bus | Lane,
    *,
    unit: int = 1,
    address: int = 10,
    n: int = 2,
    table: Table = "holding",
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    """The payload that answers a request. Raises ReadFailed."""
    lane, told = asked.main if isinstance(asked, Bus) else asked, Told()
    lane.ask(told, query_of(unit=unit, address=address, n=n, table=table), timeout_s)
    return await result(told)


def device_at(bus: Bus, equipment: Equipment, endpoint: Endpoint | None = None) -> ModbusDevice:
    """The driver of an equipment."""
    return make_device(equipment, bus, SystemClock(), endpoint or Endpoint())


async def cycle(device: ModbusDevice, group: int = 0, *, probe: bool = False) -> Outcome:
    """How a cycle of a group went."""
    over: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    assert device.begin(group, over.set_result, probe=probe)
    async with asyncio.timeout(20):
        return await over
