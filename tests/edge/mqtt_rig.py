"""What the MQTT tests share: a device that publishes, a journal that acknowledges when told to, a driver at work."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge.columns import Columns
from edge.driver import Decoded, Put, Source
from edge.mqtt import MqttDriver, make_drivers
from edge.subscriptions import make_memory
from telemetry.clock import SystemClock
from telemetry.messages import Event
from telemetry.plant import Plant, PlantFile
from telemetry.profile import Profile
from telemetry.service import Health
from tests.edge.profiles import TEXT, make_equipment, make_profile
from tests.fixtures.broker import EmbeddedBroker
from tests.fixtures.mosquitto import Mosquitto
from tests.fixtures.waiting import until

PROFILE = make_profile({"x": {"mqtt": {}}, "y": {"mqtt": {}}}, mqtt={"online_topic": "connection"}, silent_after_s=30)


class Publisher:
    """A device that publishes with QoS 1 and waits until the broker has it."""

    def __init__(self, broker: Mosquitto | EmbeddedBroker) -> None:
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id="device")
        connected = threading.Event()
        self.client.on_connect = lambda *_: connected.set()
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        assert connected.wait(5)

    def say(self, topic: str, content: Any, *, retain: bool = False) -> None:
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        sent = self.client.publish(topic, payload, qos=1, retain=retain)
        sent.wait_for_publish(5)
        assert sent.is_published()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@dataclass
class Taking:
    """Stands for the journal: decodes what is put, keeps it; acknowledges when told to."""

    decoded: list[Decoded] = field(default_factory=list)
    waiting: list[tuple[Source, Any]] = field(default_factory=list)
    at_once: bool = True
    room: bool = True
    refused: int = 0

    def put(self, source: Source, received: Any, rows: int) -> bool:
        if not self.room:
            self.refused += 1
            return False
        self.decoded.append(source.decode([received]))
        if self.at_once:
            source.journaled([received])
        else:
            self.waiting.append((source, received))
        return True

    def values(self, point: str) -> list[float]:
        return [value for d in self.decoded for name, value in rows_of(d.columns) if name == f"e/{point}"]

    def xs(self) -> list[float]:
        return self.values("x")

    def events(self) -> list[Event]:
        return [event for d in self.decoded for event in d.events]

    def keys(self) -> list[bytes]:
        return [key for d in self.decoded for key in d.delivered]


def rows_of(columns: Columns) -> list[tuple[str, float]]:
    """(signal, value) of each row."""
    blocks = [block for block, n in zip(columns.blocks, columns.counts, strict=True) for _ in range(n)]
    return [(b.names[p], float(v)) for b, p, v in zip(blocks, columns.place, columns.value, strict=True)]


def make_driver(
    url: str,
    profile: Profile = PROFILE,
    names: tuple[str, ...] = ("e",),
    *,
    known: Sequence[bytes] = (),
    endpoint: Mapping[str, Any] | None = None,
) -> MqttDriver:
    """The driver of the broker at `url`, for equipment of these names."""
    equipment = tuple(make_equipment(n, profile, f"{url}/plant/{n}") for n in names)
    site = {
        "site": {"id": "s", "name": TEXT},
        "equipment": [e.entry.model_dump() for e in equipment],
        "endpoints": {url: endpoint or {}},
    }
    plant = Plant(PlantFile.model_validate(site), equipment)
    [driver] = make_drivers(
        plant,
        equipment,
        SystemClock(),
        edge="edge-1",
        file="plant.yaml",
        health=Health("edge"),
        memory=make_memory(known, {}),
    )
    return driver


async def begin(driver: MqttDriver, put: Put) -> asyncio.Task[None]:
    """Sets it to work. It has said that it is not connected, which is true until it is."""
    task = asyncio.create_task(driver.run(put))
    await asyncio.sleep(0)
    return task


async def end(task: asyncio.Task[None]) -> None:
    """Once or twice."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def at_work(driver: MqttDriver, put: Put) -> AsyncIterator[MqttDriver]:
    """It listens, and is stopped at the end."""
    task = await begin(driver, put)
    try:
        yield driver
    finally:
        await end(task)


async def connected(driver: MqttDriver) -> None:
    """Until nothing is missing."""
    await until(lambda: not driver.health.waiting_for, what=lambda: str(driver.health.waiting_for))


async def told(driver: MqttDriver, expected: str) -> None:
    """Until health says so."""
    health = driver.health.waiting_for
    await until(lambda: expected in health.get(driver.endpoint, ""), what=lambda: f"{expected}, but {health}")
