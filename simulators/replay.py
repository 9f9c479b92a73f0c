"""Plays a recorded feed as a device: with its own spacing, N times as fast.

Over MQTT every row is published with QoS 1 and counted when the broker has acknowledged it; its time is the feed's,
moved so that the first row is now and shortened N times (or as recorded, with `keep_time`). Over Modbus every row stands
in the registers from its time until the next one's: a poller slower than the rows misses some, as with a real device.

What the feed says is what is sent: over MQTT the same float64; in float32 registers the nearest float32.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from simulators.codec import RegisterImage, payload
from simulators.feeds import Feed, iso_us, read_feed
from simulators.modbus_face import ModbusDevice, serve_modbus
from telemetry.clock import US_PER_S, Clock
from telemetry.errors import ConfigError, Fault
from telemetry.plant import Address, parse_address
from telemetry.profile import Profile
from telemetry.service import wait_until
from telemetry.settings import is_loopback, load_settings

WINDOW: Final = 1_000
"""Messages handed over and not yet acknowledged, at most."""
ACKNOWLEDGED_WITHIN_S: Final = 30.0
"""Without a single acknowledgement for so long, a replay gives up."""
KEEP_ALIVE_S: Final = 30
ROUND_PAUSE_S: Final = 1.0
"""Between the end of a feed that is played round and round and its next start, at least."""


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What became of a feed's rows."""

    address: str
    rows: int
    sent: int
    """Rows acknowledged by the broker, or served in the registers."""
    empty: int
    """Rows without any reading: nothing to send."""
    unreadable: int
    """Cells of a recorded set that are no numbers, taken as no reading."""
    seconds: float
    """Seconds of the world that it took."""

    def __str__(self) -> str:
        spoiled = f", {self.unreadable} cells without a readable number" if self.unreadable else ""
        return f"{self.address}: {self.sent} of {self.rows} rows played in {self.seconds:.1f} s, {self.empty} empty{spoiled}"


async def replay(
    feed: Path | Feed,
    address: str,
    profile: Profile,
    *,
    speed: float = 1.0,
    keep_time: bool = False,
    clock: Clock | None = None,
    stop: asyncio.Event | None = None,
) -> ReplayReport:
    """Plays a feed to modbus+tcp://127.0.0.1:PORT/UNIT (serves there) or mqtt://HOST:PORT/PREFIX (publishes there).

    Raises ConfigError with every fault of the feed or the address, OSError when the broker or port cannot be had.
    """
    where = _address(address)
    found = read_feed(feed, profile) if isinstance(feed, Path) else feed
    _check_points(found, profile, where)
    pace = _Pace(found, speed=speed, clock=clock or load_settings().the_clock, stop=stop or asyncio.Event())
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    if where.is_modbus:
        sent = await _replay_modbus(pace, where, profile)
    else:
        sent = await _replay_mqtt(pace, where, profile, keep_time=keep_time)
    return ReplayReport(address, len(found), sent, found.empty, found.unreadable, loop.time() - started_s)


async def replay_round(feed: Feed, address: str, profile: Profile, *, clock: Clock, stop: asyncio.Event) -> None:
    """Plays a feed round and round until told to stop; over Modbus without ever closing its port. Raises as `replay`."""
    where = _address(address)
    _check_points(feed, profile, where)
    if not where.is_modbus:
        while not stop.is_set():
            pace = _Pace(feed, speed=1.0, clock=clock, stop=stop)
            await _replay_mqtt(pace, where, profile, keep_time=False)
            await pace.wait(max(pace.last_gap_s, ROUND_PAUSE_S))
        return
    device = ModbusDevice(RegisterImage(profile))
    async with serve_modbus(where.host, where.port, {where.unit: device}):
        while not stop.is_set():
            pace = _Pace(feed, speed=1.0, clock=clock, stop=stop)
            await _play_into(pace, device.image)
            await pace.wait(max(pace.last_gap_s, ROUND_PAUSE_S))


class _Pace:
    """Hands out rows when they are due."""

    def __init__(self, feed: Feed, *, speed: float, clock: Clock, stop: asyncio.Event) -> None:
        self.feed = feed
        self.stop = stop
        self._clock = clock
        self._offset_us = np.round((feed.time_us - feed.time_us[0]) / speed).astype(np.int64)
        self._start_us = clock.now_us()

    def due_us(self, index: int) -> int:
        """When a row is due, by the clock."""
        return self._start_us + int(self._offset_us[index])

    async def rows(self) -> AsyncIterator[int]:
        """Indices of the rows, each not before it is due, until told to stop."""
        self._start_us, base_s = self._clock.now_us(), self._clock.monotonic_s()
        for index in range(len(self.feed)):
            ahead_s = int(self._offset_us[index]) / US_PER_S - (self._clock.monotonic_s() - base_s)
            if ahead_s > 0.0:
                await self.wait(ahead_s)
            elif index % 100 == 0:
                await asyncio.sleep(0)
            if self.stop.is_set():
                return
            yield index

    async def wait(self, seconds: float) -> None:
        """Waits seconds of the clock, or until told to stop."""
        await wait_until(self.stop, seconds / self._clock.speed)

    @property
    def last_gap_s(self) -> float:
        """How long the last row stands: as long as the one before it."""
        return float(self._offset_us[-1] - self._offset_us[-2]) / US_PER_S if len(self.feed) > 1 else 1.0


async def _replay_modbus(pace: _Pace, where: Address, profile: Profile) -> int:
    device = ModbusDevice(RegisterImage(profile))
    async with serve_modbus(where.host, where.port, {where.unit: device}):
        sent = await _play_into(pace, device.image)
        if not pace.stop.is_set():
            await pace.wait(pace.last_gap_s)
    return sent


async def _play_into(pace: _Pace, image: RegisterImage) -> int:
    """Writes every row into a register image when it is due. Returns rows with a reading."""
    feed, sent = pace.feed, 0
    async for index in pace.rows():
        row = feed.row(index)
        for point in (*feed.points, *feed.texts):
            if point in row:
                image.set(point, row[point])
            else:
                image.set_not_available(point)
        sent += bool(row)
    return sent


async def _replay_mqtt(pace: _Pace, where: Address, profile: Profile, *, keep_time: bool) -> int:
    feed = pace.feed
    async with _publisher(where) as publisher:
        async for index in pace.rows():
            row = feed.row(index)
            at = iso_us(int(feed.time_us[index]) if keep_time else pace.due_us(index))
            topics = dict.fromkeys(point.mqtt.topic for name in row if (point := profile.points[name]).mqtt)
            messages = [(f"{where.prefix}/{topic}", payload(profile, topic, row, at)) for topic in topics]
            await publisher.publish(index, messages)
        await publisher.drained()
        return publisher.acknowledged


class _Publisher:
    """Publishes with QoS 1 in a bounded window, and counts rows whose every message was acknowledged."""

    def __init__(self, client: mqtt.Client) -> None:
        self.acknowledged = 0
        self._client = client
        self._row_of: dict[int, int] = {}
        self._left: dict[int, int] = {}
        self._moved = asyncio.Event()

    async def publish(self, row: int, messages: list[tuple[str, bytes]]) -> None:
        """Hands a row over; waits while too many are not acknowledged. Raises OSError when the broker takes none."""
        while len(self._row_of) >= WINDOW:
            await self._progress()
        if messages:
            self._left[row] = len(messages)
        for topic, content in messages:
            self._row_of[self._client.publish(topic, content, qos=1).mid] = row

    async def drained(self) -> None:
        """Waits until everything is acknowledged."""
        while self._row_of:
            await self._progress()

    def acknowledge(self, number: int) -> None:
        """The broker has a message. Called on the loop, hence never before `publish` knows its number."""
        row = self._row_of.pop(number)
        self._moved.set()
        self._left[row] -= 1
        if self._left[row] == 0:
            del self._left[row]
            self.acknowledged += 1

    async def _progress(self) -> None:
        self._moved.clear()
        try:
            async with asyncio.timeout(ACKNOWLEDGED_WITHIN_S):
                await self._moved.wait()
        except TimeoutError:
            raise OSError(
                f"the broker acknowledged nothing for {ACKNOWLEDGED_WITHIN_S:.0f} s: {self.acknowledged} rows before that"
            ) from None


@asynccontextmanager
async def _publisher(where: Address) -> AsyncIterator[_Publisher]:
    loop = asyncio.get_running_loop()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"replay-{secrets.token_hex(6)}", clean_session=False)
    client.max_inflight_messages_set(WINDOW)
    publisher = _Publisher(client)
    connected: asyncio.Future[None] = loop.create_future()

    def on_connect(_client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        loop.call_soon_threadsafe(_settle_connection, connected, str(reason) if reason.is_failure else None)

    def on_publish(_client: mqtt.Client, _data: Any, number: int, _reason: Any, _properties: Any) -> None:
        loop.call_soon_threadsafe(publisher.acknowledge, number)

    client.on_connect = on_connect
    client.on_publish = on_publish
    try:
        await asyncio.to_thread(client.connect, where.host, where.port, KEEP_ALIVE_S)
    except OSError as error:
        raise OSError(f"{where.endpoint}: no MQTT broker there ({error.strerror or error})") from error
    client.loop_start()
    try:
        async with asyncio.timeout(ACKNOWLEDGED_WITHIN_S):
            await connected
        yield publisher
    finally:
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)


def _settle_connection(connected: asyncio.Future[None], refused: str | None) -> None:
    if connected.done():
        return
    if refused is None:
        connected.set_result(None)
    else:
        connected.set_exception(OSError(f"the broker refused the connection: {refused}"))


def _address(text: str) -> Address:
    try:
        where = parse_address(text)
    except ValueError as error:
        raise ConfigError([Fault("(command line)", 1, "--to", "an address", str(error))]) from error
    if where.is_modbus and not is_loopback(where.host):
        raise ConfigError([Fault("(command line)", 1, "--to", "a loopback address to serve Modbus on", text)])
    if where.scheme not in ("modbus+tcp", "mqtt"):
        raise ConfigError([Fault("(command line)", 1, "--to", "modbus+tcp:// or mqtt://", text)])
    return where


def _check_points(feed: Feed, profile: Profile, where: Address) -> None:
    """Raises ConfigError for columns that cannot travel to the address."""
    way = "modbus" if where.is_modbus else "mqtt"
    lacking = [name for name in (*feed.points, *feed.texts) if getattr(profile.points[name], way) is None]
    if lacking:
        raise ConfigError(
            [
                Fault(profile.profile, 1, f"points.{name}", f"{way}, to replay to {where.endpoint}", "none")
                for name in lacking
            ]
        )
