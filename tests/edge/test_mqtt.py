"""The MQTT driver against a real mosquitto: acknowledged after the spool, sessions that survive, presence."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.mqtt import MqttDriver
from edge.mqtt_broker import make_broker, secure
from edge.mqtt_session import Session
from edge.subscriptions import Messages
from telemetry.clock import SystemClock, iso
from telemetry.errors import ConfigError
from telemetry.plant import Address, Endpoint, parse_address
from tests.edge.mqtt_rig import Publisher, Taking, at_work, begin, connected, end, make_driver, told
from tests.fixtures.mosquitto import Mosquitto
from tests.fixtures.waiting import until


@pytest.fixture
def device(mosquitto: Mosquitto) -> Iterator[Publisher]:
    publisher = Publisher(mosquitto)
    yield publisher
    publisher.close()


@dataclass
class Running:
    driver: MqttDriver
    taking: Taking
    task: asyncio.Task[None]

    async def stop(self) -> None:
        await end(self.task)


@pytest.fixture
async def start(mosquitto: Mosquitto) -> AsyncIterator[Callable[[Taking], Any]]:
    started: list[Running] = []

    async def go(taking: Taking) -> Running:
        driver = make_driver(mosquitto.url)
        running = Running(driver, taking, await begin(driver, taking.put))
        started.append(running)
        await connected(driver)
        return running

    yield go
    for running in started:
        await running.stop()


async def subscribed(taking: Taking, device: Publisher) -> None:
    """Until what the device says arrives: a subscription is made after the connection."""

    def say() -> bool:
        device.say("plant/e/state", {"values": {"y": 0}})
        return bool(taking.decoded)

    await until(say)
    taking.decoded.clear()


State = Callable[[Taking], Any]


async def test_a_message_is_not_acknowledged_before_the_journal_has_it_and_comes_again(
    start: State, device: Publisher
) -> None:
    first = await start(Taking())
    await subscribed(first.taking, device)
    first.taking.at_once = False
    device.say("plant/e/state", {"values": {"x": 1}})
    await until(lambda: first.taking.xs() == [1.0])
    await first.stop()
    again = await start(Taking())
    await until(lambda: again.taking.xs() == [1.0])
    await again.stop()
    last = await start(Taking())
    device.say("plant/e/state", {"values": {"x": 2}})
    await until(lambda: 2.0 in last.taking.xs())
    assert last.taking.xs() == [2.0], "what was acknowledged does not come again"


async def test_what_is_said_while_the_agent_is_away_is_kept_by_its_session(start: State, device: Publisher) -> None:
    first = await start(Taking())
    await subscribed(first.taking, device)
    await first.stop()
    for n in range(100):
        device.say("plant/e/state", {"values": {"x": n}})
    again = await start(Taking())
    await until(lambda: len(again.taking.xs()) >= 100)
    assert again.taking.xs() == [float(n) for n in range(100)]


async def test_a_broker_that_is_killed_and_comes_back_is_found_again(
    start: State, device: Publisher, mosquitto: Mosquitto
) -> None:
    running = await start(Taking())
    await subscribed(running.taking, device)
    mosquitto.kill()
    await until(lambda: running.driver.endpoint in running.driver.health.waiting_for)
    await asyncio.to_thread(mosquitto.start)
    await connected(running.driver)
    back = Publisher(mosquitto)
    await subscribed(running.taking, back)
    back.say("plant/e/state", {"values": {"x": 8.0}})
    assert await until(lambda: 8.0 in running.taking.xs())
    back.close()


async def test_a_journal_without_room_loses_nothing(start: State, device: Publisher) -> None:
    running = await start(Taking())
    await subscribed(running.taking, device)
    running.taking.room = False
    for n in range(5):
        device.say("plant/e/state", {"values": {"x": n}})
    await until(lambda: running.taking.refused >= 5)
    assert running.taking.xs() == []
    running.taking.room = True
    await until(lambda: len(running.taking.xs()) >= 5)
    assert running.taking.xs() == [float(n) for n in range(5)]


async def test_beyond_its_bound_of_memory_the_connection_is_given_up_and_the_broker_keeps_the_rest(
    device: Publisher, mosquitto: Mosquitto
) -> None:
    driver, room, refused = make_driver(mosquitto.url), threading.Event(), threading.Event()
    taken: list[float] = []

    def take(messages: Messages) -> bool:
        if not room.is_set():
            refused.set()
            return False
        taken.extend(json.loads(payload)["values"]["x"] for payload in messages.payloads)
        messages.line.acknowledge(messages)
        return True

    told: list[str | None] = []
    now_us = SystemClock().now_us
    session = Session(driver.broker, driver.subscriptions, take, lambda _: None, told.append, now_us, 20_000, 0.1)
    thread = threading.Thread(target=session.run, daemon=True)
    thread.start()
    await until(lambda: told and told[-1] is None)
    for n in range(60):
        device.say("plant/e/state", {"values": {"x": n}, "filler": "x" * 1_000})
    await until(refused.is_set)
    await until(lambda: "connection given up until there is room in the journal" in told)
    room.set()
    await until(lambda: len(taken) >= 60)
    session.stop()
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()
    assert taken == list(range(60))


async def test_what_is_delivered_again_after_a_lost_connection_is_known_and_acknowledged(
    start: State, device: Publisher, mosquitto: Mosquitto
) -> None:
    running = await start(Taking())
    await subscribed(running.taking, device)
    running.taking.at_once = False
    at = iso(SystemClock().now_us())
    device.say("plant/e/state", {"time": at, "values": {"x": 5}})
    await until(lambda: running.taking.xs() == [5.0])
    mosquitto.stop()
    await asyncio.to_thread(mosquitto.start)
    await until(lambda: len(running.taking.waiting) >= 2)
    running.taking.at_once = True
    for source, received in running.taking.waiting:
        source.journaled([received])
    back = Publisher(mosquitto)
    back.say("plant/e/state", {"values": {"x": 6}})
    await until(lambda: 6.0 in running.taking.xs())
    back.close()
    assert running.taking.xs() == [5.0, 6.0]
    assert len(running.taking.keys()) == 1
    await running.stop()
    again = await start(Taking())
    late = Publisher(mosquitto)
    late.say("plant/e/state", {"values": {"x": 7}})
    await until(again.taking.xs)
    late.close()
    assert again.taking.xs() == [7.0], "the second delivery was acknowledged"


async def test_a_bad_payload_is_acknowledged_and_told_and_the_next_one_is_read(start: State, device: Publisher) -> None:
    running = await start(Taking())
    await subscribed(running.taking, device)
    bad = [b"", b"not json", b'{"values": {"x": NaN, "y": 2}}', b'{"time": "1970-01-01T00:00:00Z", "values": {"x": 1}}']
    for payload in bad:
        device.say("plant/e/state", payload)
    device.say("plant/e/event", {"scheme": "vigil", "code": "x", "state": "on"})
    device.say("plant/e/state", {"values": {"x": 7}})
    await until(lambda: 7.0 in running.taking.xs())
    told = {e.attributes["reason"] for e in running.taking.events() if e.scheme == "vigil"}
    assert told == {"not-json", "time", "scheme"}
    assert all(e.code == "mqtt-payload" for e in running.taking.events())
    await running.stop()
    again = await start(Taking())
    device.say("plant/e/state", {"values": {"x": 8}})
    await until(lambda: again.taking.xs())
    assert again.taking.xs() == [8.0], "the bad ones were acknowledged as well"


async def test_a_retained_message_that_was_seen_does_not_count_again_after_a_reconnect(
    start: State, device: Publisher, mosquitto: Mosquitto
) -> None:
    at = iso(SystemClock().now_us() - 3_600_000_000)
    device.say("plant/e/state", {"time": at, "values": {"x": 5}}, retain=True)
    running = await start(Taking())
    await until(lambda: running.taking.xs() == [5.0])
    mosquitto.stop()
    await until(lambda: running.driver.endpoint in running.driver.health.waiting_for)
    await asyncio.to_thread(mosquitto.start)
    await connected(running.driver)
    back = Publisher(mosquitto)
    back.say("plant/e/state", {"values": {"x": 6}})
    await until(lambda: 6.0 in running.taking.xs())
    assert running.taking.xs() == [5.0, 6.0]
    back.close()


async def test_the_last_will_makes_a_device_unreachable_at_once_and_its_next_word_reachable(
    start: State, device: Publisher, mosquitto: Mosquitto
) -> None:
    running = await start(Taking())
    await subscribed(running.taking, device)
    clock = SystemClock()
    lift = paho.Client(CallbackAPIVersion.VERSION2, client_id="lift")
    lift.will_set("plant/e/connection", b"OFFLINE", qos=1, retain=True)
    lift.connect("127.0.0.1", mosquitto.port, keepalive=5)
    lift.loop_start()
    await until(lift.is_connected)
    assert running.driver.unreachable(clock.now_us()) == {}
    broken = lift.socket()
    assert broken is not None
    broken.shutdown(2)  # type: ignore[attr-defined]
    await until(lambda: "e" in running.driver.unreachable(clock.now_us()))
    await asyncio.to_thread(lift.loop_stop)
    device.say("plant/e/connection", b"ONLINE", retain=True)
    await until(lambda: not running.driver.unreachable(clock.now_us()))


async def test_a_message_on_a_topic_of_nobody_is_acknowledged_and_its_subscription_given_up(
    start: State, device: Publisher, mosquitto: Mosquitto
) -> None:
    taking = Taking()
    async with at_work(make_driver(mosquitto.url, names=("e", "gone")), taking.put) as both:
        await connected(both)
        await subscribed(taking, device)
    device.say("plant/gone/state", {"values": {"x": 1}})
    running = await start(Taking())
    device.say("plant/e/state", {"values": {"x": 2}})
    assert await until(lambda: running.taking.xs() == [2.0])


async def test_a_broker_that_is_not_there_at_start_is_waited_for(tmp_path: Path, mosquitto: Mosquitto) -> None:
    mosquitto.kill()
    async with at_work(make_driver(mosquitto.url), Taking().put) as driver:
        await told(driver, "cannot be reached")
        await asyncio.to_thread(mosquitto.start)
        await connected(driver)
        assert driver.health.waiting_for == {}


def address() -> Address:
    return parse_address("mqtt://broker/prefix")


def test_credentials_come_from_the_environment_or_a_file_as_it_is_at_each_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQTT_USER", "edge")
    file = tmp_path / "password"
    file.write_text("secret\n", encoding="utf-8")
    broker = make_broker(
        address(), Endpoint(username="env:MQTT_USER", password=f"file:{file}"), edge="edge-1", file="plant.yaml"
    )
    client = paho.Client(CallbackAPIVersion.VERSION2)
    for now in ("secret", "renewed"):
        file.write_text(f"{now}\n", encoding="utf-8")
        secure(client, broker)
        assert (client.username, client.password) == ("edge", now)
        assert now not in repr(broker)


def test_a_credential_that_is_not_there_is_a_fault_of_the_plant_file() -> None:
    with pytest.raises(
        ConfigError, match=r"plant\.yaml:0: endpoints\.mqtt://broker:1883\.password: expected env:NOT_SET"
    ):
        make_broker(address(), Endpoint(password="env:NOT_SET"), edge="edge-1", file="plant.yaml")


def test_the_client_id_is_the_same_at_every_start_and_another_for_each_edge_and_broker() -> None:
    ids = {
        make_broker(parse_address(f"mqtt://{host}/p"), Endpoint(), edge=edge, file="f").client_id
        for host in ("a", "b", "a")
        for edge in ("edge-1", "edge-2")
    }
    assert len(ids) == 4
