"""Reads one device once, for `vigil probe`: what a person needs to see whether a register map fits.

Modbus: each point with its raw words. MQTT: the first message on each topic within WAIT_S; raw is the field as sent.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge.bus import make_bus, spare
from edge.decode import Frame
from edge.driver import Outcome
from edge.lane import Watch
from edge.modbus import Group, ModbusDevice, Plan, make_device
from edge.mqtt import END_S
from edge.mqtt_broker import Broker, make_broker
from edge.mqtt_session import Session
from edge.payload import ListTopic, StateTopic, parse_json
from edge.plan import BIT_TABLES, Request
from edge.subscriptions import Memory, Messages, Subscription, subscribe
from edge.thread import fail, finish, start_thread
from telemetry.clock import SystemClock
from telemetry.files import load_plant, load_profile
from telemetry.names import split_signal
from telemetry.plant import Address, Endpoint, Equipment, PlantEquipment, parse_address
from telemetry.profile import ModbusPoint, Profile
from telemetry.quality import BAD_COMMS, GOOD
from telemetry.quality import name as quality_name

WAIT_S: Final = 10.0
"""How long an MQTT device is listened to."""
_ID: Final = "probe"


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """One point as it was read."""

    point: str
    raw: Any
    """Modbus: the words as sent, or the bit. MQTT: the field as sent. None where nothing came."""
    value: float | str | None
    unit: str
    quality: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be read."""

    address: str
    profile: Profile
    endpoint: Endpoint
    """How it is reached: time-outs, certificates, logins."""
    file: str = "endpoint"
    """What says so."""


Tell = Callable[[str], None]


def aim(at: str, profile: str | None, *, plant: Path | None, profiles_dir: Path | None) -> Target:
    """`at` is an address, or an equipment of the plant file, which then says the profile, too. Raises ConfigError, and
    ValueError where it is neither, or nobody says the profile.
    """
    known = load_plant(plant, profiles_dir=profiles_dir) if plant is not None else None
    named = load_profile(profile, profiles_dir=profiles_dir) if profile is not None else None
    one = next((e for e in known.equipment if e.id == at), None) if known is not None else None
    if one is not None and known is not None:
        return Target(one.entry.address, named or one.profile, known.endpoint(one.address), str(plant))
    if "://" not in at:
        raise ValueError(f"expected an address, or equipment of {plant or 'a plant file (--plant)'}, found {at!r}")
    if named is None:
        raise ValueError("expected --profile with an address, found none")
    if known is None:
        return Target(at, named, Endpoint())
    return Target(at, named, known.endpoint(parse_address(at)), str(plant))


async def probe_target(target: Target, tell: Tell) -> list[ProbeRow]:
    """See probe."""
    return await probe(target.address, target.profile, endpoint=target.endpoint, file=target.file, tell=tell)


async def probe(
    address: str,
    profile: Profile,
    *,
    endpoint: Endpoint | None = None,
    file: str = "endpoint",
    wait_s: float = WAIT_S,
    tell: Tell = lambda why: None,
) -> list[ProbeRow]:
    """Every point of `profile` that can be read at `address`, in the profile's order.

    A device that does not answer gives rows of quality `comms`; `tell` is told why. `file` says the endpoint. Raises
    ValueError for an address that is none, ConfigError for certificates and logins that cannot be read.
    """
    parsed = parse_address(address)
    rows = (
        await _modbus(parsed, profile, endpoint or Endpoint(), file, tell)
        if parsed.is_modbus
        else await _mqtt(parsed, profile, endpoint or Endpoint(), file, wait_s, tell)
    )
    order = {name: place for place, name in enumerate(profile.points)}
    return sorted(rows, key=lambda row: order[row.point])


async def _modbus(address: Address, profile: Profile, endpoint: Endpoint, file: str, tell: Tell) -> list[ProbeRow]:
    entry = PlantEquipment(id=_ID, profile=profile.profile, address=f"{address.endpoint}/{address.unit}")
    clock = SystemClock()
    bus = make_bus(address, endpoint, clock, Watch(), file=file)
    spare(bus, endpoint.quirks(profile.modbus))
    device = make_device(Equipment(_ID, profile, address, entry), bus, clock, endpoint)
    try:
        rows = [row for number in range(len(device.groups)) for row in await _read(device, number, tell)]
        if at := bus.main.connection.fallback:
            tell(f"{bus.main.reach.name(0)} does not serve: read at its fallback {at}")
    finally:
        bus.close()
    return rows


async def _read(device: ModbusDevice, number: int, tell: Tell) -> list[ProbeRow]:
    """The points of a group; read again as long as the device's refusals teach a plan that may do better."""
    group = device.groups[number]
    made, came = group.plan, await _cycle(device, number)
    for _ in range(2 * len(group.points)):
        if group.plan is made:
            break
        made, came = group.plan, await _cycle(device, number)
    for fault in came.faults:
        tell(fault)
    assert isinstance(came.received, Frame)  # noqa: S101
    return _rows(came.received, group, made)


async def _cycle(device: ModbusDevice, group: int) -> Outcome:
    """One cycle of a group. Its time is bounded by the device's time-outs."""
    over: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    device.begin(group, over.set_result)
    return await over


def _rows(came: Frame, group: Group, made: Plan) -> list[ProbeRow]:
    profile = group.device.profile
    read = made.layout.decode([came])
    columns = read.columns
    raw = {
        name: None if payload is None else _raw(group.points[name], request, payload)
        for request, payload in zip(made.requests, came.payloads, strict=True)
        for name in request.points
    }
    rows = [
        _row(profile, point, raw, None if np.isnan(value) else float(value), int(quality))
        for point, value, quality in zip(made.layout.points, columns.value, columns.quality, strict=True)
    ]
    texts = {point: text for _, point, text, _ in read.texts}
    for text in made.layout.texts:
        quality = GOOD if text.point in texts else (came.qualities or ())[text.request]
        rows.append(_row(profile, text.point, raw, texts.get(text.point), quality))
    return rows


def _row(profile: Profile, point: str, raw: dict[str, Any], value: float | str | None, quality: int) -> ProbeRow:
    return ProbeRow(point, raw.get(point), value, profile.points[point].unit, quality_name(quality))


def _raw(point: ModbusPoint, request: Request, payload: bytes) -> list[int] | int:
    at = point.address - request.address
    if request.table in BIT_TABLES:
        return payload[at // 8] >> at % 8 & 1
    words = np.frombuffer(payload, ">u2")[at : at + point.registers]
    return [int(word) for word in words]


async def _mqtt(
    address: Address, profile: Profile, endpoint: Endpoint, file: str, wait_s: float, tell: Tell
) -> list[ProbeRow]:
    entry = PlantEquipment(id=_ID, profile=profile.profile, address=f"{address.endpoint}/{address.prefix}")
    known = subscribe([Equipment(_ID, profile, address, entry)], Memory(), file=file)
    topics = {name: one for name, one in known.items() if isinstance(one.topic, StateTopic | ListTopic)}
    made = make_broker(address, endpoint, edge=_ID, file=file)
    broker = replace(made, client_id=f"vigil-probe-{secrets.token_hex(4)}", keeps=False)
    heard = await _listen(broker, topics, wait_s, tell)
    return [row for one in topics.values() for row in _said(one, heard.get(one.name), profile, tell)]


def _said(subscription: Subscription, payload: bytes | None, profile: Profile, tell: Tell) -> list[ProbeRow]:
    """The points of a topic by a message on it; None: there was none."""
    topic = subscription.topic
    assert isinstance(topic, StateTopic | ListTopic)  # noqa: S101
    raw: dict[str, Any] = {}
    read: dict[str, tuple[float | str | None, int]] = {}
    if payload is not None:
        said = topic.read(payload, SystemClock().now_us(), retained=False)
        for refusal in said.refusals:
            tell(f"{subscription.name}: {refusal.reason}: {refusal.detail}")
        raw = topic.raw(parse_json(payload)[0])
        read = {point: (text, GOOD) for point, text, _ in said.texts}
        for row in said.rows:
            point = split_signal(subscription.block.names[row.place])[1]
            read[point] = (None if np.isnan(row.value) else row.value, row.quality)
    return [_row(profile, field.point, raw, *read.get(field.point, (None, BAD_COMMS))) for field in topic.fields]


async def _listen(broker: Broker, topics: Mapping[bytes, Subscription], wait_s: float, tell: Tell) -> dict[str, bytes]:
    """The first payload on each topic, as far as they come within `wait_s`; by the edge's own session."""
    heard: dict[str, bytes] = {}
    trouble: list[str | None] = ["broker does not answer"]
    loop = asyncio.get_running_loop()
    complete: asyncio.Future[None] = loop.create_future()
    ended: asyncio.Future[None] = loop.create_future()

    def take(messages: Messages) -> bool:
        for subscription, payload in zip(messages.subscriptions, messages.payloads, strict=True):
            heard.setdefault(subscription.name, payload)
        messages.line.acknowledge(messages)
        if len(heard) == len(topics):
            loop.call_soon_threadsafe(finish, complete, None)
        return True

    session = Session(broker, topics, take, lambda _: None, trouble.append, SystemClock().now_us)
    start_thread("mqtt", session.run, lambda error: fail(ended, error) if error else finish(ended, None))
    await asyncio.wait([complete, ended], timeout=wait_s, return_when="FIRST_COMPLETED")
    if not complete.done():
        silent = [f"nothing on {one.name} within {wait_s:g} s" for one in topics.values() if one.name not in heard]
        for why in [trouble[-1]] if trouble[-1] else silent:
            tell(why)
    session.stop()
    await asyncio.wait([ended], timeout=END_S)
    if ended.done():
        ended.result()
    return heard
