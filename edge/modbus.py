"""The Modbus driver: one equipment read by its plan over its endpoint's bus (edge.bus).

Invariant: what was read in a cycle is kept; the points of a request that failed are bad with its reason, and only those.
After GIVE_UP requests without an answer in a row, the rest of the cycle is not tried: its points are bad as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pymodbus.pdu import ModbusPDU

from edge.bus import Bus, ReadFailed, read_request
from edge.decode import Decoder, make_decoder
from edge.driver import Outcome, Reading
from edge.plan import Request, limits_of, plan, poll_groups
from telemetry.batch import SampleBatch
from telemetry.clock import Clock
from telemetry.errors import ConfigError, Fault
from telemetry.plant import Endpoint, Equipment, Plant
from telemetry.quality import BAD_COMMS

GIVE_UP: Final = 2
SCHEMES: Final = ("modbus+tcp", "modbus+rtuovertcp")


@dataclass(frozen=True, slots=True)
class Group:
    """Points read together: their requests, and how the answers are decoded."""

    interval_s: float
    requests: tuple[Request, ...]
    pdus: tuple[ModbusPDU, ...]
    decoder: Decoder


@dataclass(slots=True)
class Cycle:
    """What came of each request of a cycle, in order."""

    payloads: list[bytes | None] = field(default_factory=list)
    times_us: list[int] = field(default_factory=list)
    qualities: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    answered: int = 0
    unanswered: int = 0


@dataclass(frozen=True, slots=True)
class ModbusDevice:
    """Reads one equipment. See edge.driver.PollingDriver."""

    equipment: str
    endpoint: str
    bus: Bus
    groups: tuple[Group, ...]
    timeout_s: float
    clock: Clock

    @property
    def intervals_s(self) -> Sequence[float]:
        """See PollingDriver."""
        return [group.interval_s for group in self.groups]

    async def read(self, group: int) -> Outcome:
        """See PollingDriver."""
        read = self.groups[group]
        cycle = await self.cycle(read)
        times = {text.point: cycle.times_us[text.request] for text in read.decoder.texts}
        reading = Reading(
            self.equipment,
            read.decoder.batch(cycle.payloads, cycle.times_us, cycle.qualities),
            tuple((point, text, times[point]) for point, text in read.decoder.text_values(cycle.payloads)),
        )
        return Outcome(reading, cycle.answered, cycle.unanswered, tuple(cycle.faults))

    def unreadable(self, time_us: int) -> list[SampleBatch]:
        """See PollingDriver."""
        return [group.decoder.all_bad(time_us, BAD_COMMS) for group in self.groups]

    async def cycle(self, group: Group) -> Cycle:
        """Asks each request of a group once."""
        cycle, silent = Cycle(), 0
        for request, pdu in zip(group.requests, group.pdus, strict=True):
            payload, quality = None, BAD_COMMS
            if silent < GIVE_UP:
                try:
                    payload = await self.bus.ask(pdu, request.payload_bytes, self.timeout_s)
                    cycle.answered, silent = cycle.answered + 1, 0
                except ReadFailed as failure:
                    quality = failure.quality
                    cycle.faults.append(f"{request.table} {request.address}+{request.count}: {failure.why}")
                    cycle.answered += failure.answered
                    cycle.unanswered += not failure.answered
                    silent = 0 if failure.answered else silent + 1
            cycle.payloads.append(payload)
            cycle.times_us.append(self.clock.now_us())
            cycle.qualities.append(quality)
        return cycle


def make_device(equipment: Equipment, bus: Bus, clock: Clock) -> ModbusDevice:
    """The driver of one equipment. Raises ValueError for a point that no request can read."""
    profile, unit = equipment.profile, equipment.address.unit
    _refuse_unread(equipment, bus.endpoint)
    limits = limits_of(profile.modbus, bus.endpoint)
    groups = []
    for interval_s, points in sorted(poll_groups(equipment).items()):
        requests = plan(points, limits)
        pdus = tuple(read_request(request, unit) for request in requests)
        groups.append(Group(interval_s, requests, pdus, make_decoder(equipment.id, profile, requests)))
    timeout_s = bus.endpoint.timeout_s or profile.timeout_s
    return ModbusDevice(equipment.id, equipment.address.endpoint, bus, tuple(groups), timeout_s, clock)


def _refuse_unread(equipment: Equipment, endpoint: Endpoint) -> None:
    """Raises ValueError for what profiles and plants may say and this driver would read wrongly."""
    quirks = endpoint.quirks(equipment.profile.modbus)
    unread = [f"{equipment.address.scheme}://"] if equipment.address.scheme not in SCHEMES else []
    unread += ["address_base 1"] if quirks.address_base else []
    unread += ["max_per_table"] if quirks.max_per_table else []
    unread += ["illegal_by_table"] if quirks.illegal_by_table else []
    for name, point in equipment.profile.points.items():
        place = point.modbus
        if place is not None and (place.type.is_bcd or (place.bit is not None and place.type.registers > 1)):
            unread.append(f"{name}: {place.type}" + ("" if place.bit is None else f" with bit {place.bit}"))
        if place is not None and place.wrap is not None:
            unread.append(f"{name}: wrap")
    if unread:
        raise ValueError(f"expected nothing that this edge cannot read, found {', '.join(unread)}")


def make_devices(plant: Plant, equipment: Iterable[Equipment], clock: Clock, *, file: str) -> list[ModbusDevice]:
    """The drivers of all Modbus equipment, one bus for each endpoint. Raises ConfigError with every unreadable point."""
    buses: dict[str, Bus] = {}
    devices, faults = [], []
    for one in equipment:
        if not one.address.is_modbus:
            continue
        bus = buses.setdefault(one.address.endpoint, Bus(one.address, plant.endpoint(one.address) or Endpoint()))
        try:
            devices.append(make_device(one, bus, clock))
        except ValueError as error:
            faults.append(Fault(file, 0, f"equipment.{one.id}", "points that a request can read", str(error)))
    if faults:
        raise ConfigError(faults)
    return devices
