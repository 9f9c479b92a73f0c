"""A simulated device on MQTT, seen by another client through the embedded broker and through mosquitto."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from simulators.mqtt_face import STATISTICS_S, MqttDevice, event_payload
from simulators.physics.fleet import DeviceEvent
from telemetry.clock import US_PER_S, time_us
from telemetry.files import load_profile
from telemetry.plant import parse_address
from tests.fixtures.broker import EmbeddedBroker, Listener
from tests.fixtures.ports import free_port
from tests.fixtures.waiting import until

AT_US = time_us("2026-01-01T00:00:00.000001+00:00")
STATE = {"service_mode": 1.0, "car_status": 0.0, "door_zone": 1.0, "speed": 0.25, "run_count": 7.0}


@pytest.fixture(params=["embedded_broker", "mosquitto"])
def port(request: pytest.FixtureRequest) -> int:
    broker: Any = request.getfixturevalue(request.param)
    return int(broker.port)


@pytest.fixture
async def lift(port: int) -> AsyncIterator[tuple[MqttDevice, Listener, str]]:
    prefix = f"lifts/{secrets.token_hex(4)}"
    listener = await asyncio.to_thread(Listener(port, f"{prefix}/#", f"see-{prefix[-8:]}").start)
    address = parse_address(f"mqtt://127.0.0.1:{port}/{prefix}")
    device = MqttDevice(prefix[-8:], address, load_profile("lift-monitor"))
    device.start()
    await come(listener, f"{prefix}/connection", [b"ONLINE"])
    yield device, listener, prefix
    await device.stop()
    await asyncio.to_thread(listener.stop)


async def come(listener: Listener, topic: str, payloads: list[bytes]) -> None:
    await until(lambda: listener.payloads(topic) == payloads, what=f"{topic}: {payloads!r}")


async def test_the_state_comes_as_the_profile_has_it_and_only_when_it_changes(
    lift: tuple[MqttDevice, Listener, str],
) -> None:
    device, listener, prefix = lift
    assert device.publish_state(STATE, AT_US, only_changes=True) == 2
    assert device.publish_state(STATE, AT_US + US_PER_S, only_changes=True) == 0
    assert device.publish_state({**STATE, "speed": 1.0}, AT_US + 2 * US_PER_S, only_changes=True) == 1
    assert device.publish_state(STATE, AT_US + STATISTICS_S * US_PER_S, only_changes=False) == 2
    await until(lambda: len(listener.payloads(f"{prefix}/state")) == 3, what="three states")
    first = json.loads(listener.payloads(f"{prefix}/state")[0])
    assert first == {
        "time": "2026-01-01T00:00:00.000001Z",
        "values": {"service_mode": 1, "car_status": False, "door_zone": True, "speed": 0.25},
    }
    assert json.loads(listener.payloads(f"{prefix}/statistics")[0])["values"] == {"run_count": 7}


async def test_a_broken_connection_publishes_the_last_will_and_a_new_one_says_online(
    lift: tuple[MqttDevice, Listener, str],
) -> None:
    device, listener, prefix = lift
    await device.break_off()
    await come(listener, f"{prefix}/connection", [b"ONLINE", b"CONNECTIONBROKEN"])
    assert device.publish_state(STATE, AT_US, only_changes=False) == 0
    device.start()
    await come(listener, f"{prefix}/connection", [b"ONLINE", b"CONNECTIONBROKEN", b"ONLINE"])
    await device.stop()
    await come(listener, f"{prefix}/connection", [b"ONLINE", b"CONNECTIONBROKEN", b"ONLINE", b"OFFLINE"])


async def test_an_event_carries_scheme_code_state_and_what_else_the_device_says(
    lift: tuple[MqttDevice, Listener, str],
) -> None:
    device, listener, prefix = lift
    event = DeviceEvent(0, 1.0, "gbt24476-2017", "4", True, {"floor": 3})
    device.publish_event(event, AT_US)
    await come(listener, f"{prefix}/event", [event_payload(event, AT_US)])
    assert json.loads(event_payload(event, AT_US)) == {
        "time": "2026-01-01T00:00:00.000001Z", "scheme": "gbt24476-2017", "code": "4", "state": "on", "floor": 3,
    }  # fmt: skip


async def test_a_device_started_before_its_broker_stops_at_once() -> None:
    device = MqttDevice("alone", parse_address("mqtt://127.0.0.1:9/lifts/alone"), load_profile("lift-monitor"))
    device.start()
    device.publish_state(STATE, AT_US, only_changes=False)
    assert device.waiting
    async with asyncio.timeout(3):
        await device.stop()


async def test_a_device_started_before_its_broker_connects_when_it_comes() -> None:
    broker = EmbeddedBroker(free_port())
    address = parse_address(f"mqtt://127.0.0.1:{broker.port}/lifts/early")
    device = MqttDevice("early", address, load_profile("lift-monitor"))
    device.start()
    assert device.waiting
    await asyncio.to_thread(broker.start)
    listener = await asyncio.to_thread(Listener(broker.port, "lifts/#").start)
    await come(listener, "lifts/early/connection", [b"ONLINE"])
    assert not device.waiting
    await device.stop()
    await asyncio.to_thread(listener.stop)
    await asyncio.to_thread(broker.stop)
