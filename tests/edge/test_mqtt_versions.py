"""MQTT 5 and 3.1.1: which is spoken with whom, and what of each is relied on. Real brokers."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from edge.mqtt import MqttDriver
from tests.edge.mqtt_rig import Publisher, Taking, at_work, connected, make_driver, told
from tests.fixtures.broker import EmbeddedBroker
from tests.fixtures.mosquitto import Mosquitto
from tests.fixtures.waiting import until

UNACKNOWLEDGED_3 = 20
"""What mosquitto hands out by itself before the first is acknowledged, to a client that names no number."""


def running(
    broker: Mosquitto | EmbeddedBroker, taking: Taking, **endpoint: Any
) -> AbstractAsyncContextManager[MqttDriver]:
    return at_work(make_driver(broker.url, endpoint=endpoint), taking.put)


@pytest.fixture
def narrow(tmp_path: Path, mosquitto: Mosquitto) -> Mosquitto:
    """A mosquitto with its own default of unacknowledged messages."""
    mosquitto.stop()
    mosquitto.options = f"max_inflight_messages {UNACKNOWLEDGED_3}\n"
    return mosquitto.start()


async def test_version_5_is_spoken_and_asks_for_more_unacknowledged_messages_than_the_broker_gives_by_itself(
    narrow: Mosquitto,
) -> None:
    taking, device = Taking(at_once=False), Publisher(narrow)
    async with running(narrow, taking) as driver:
        await connected(driver)
        for n in range(100):
            device.client.publish("plant/e/state", f'{{"values": {{"x": {n}}}}}', qos=1)
        assert await until(lambda: len(taking.xs()) == 100)
    device.close()


async def test_version_3_1_1_is_spoken_where_the_plant_file_says_so(narrow: Mosquitto) -> None:
    taking, device = Taking(at_once=False), Publisher(narrow)
    async with running(narrow, taking, mqtt_version="3.1.1") as driver:
        await connected(driver)
        for n in range(100):
            device.client.publish("plant/e/state", f'{{"values": {{"x": {n}}}}}', qos=1)
        assert await until(lambda: len(taking.xs()) >= UNACKNOWLEDGED_3)
        assert len(taking.xs()) == UNACKNOWLEDGED_3, "until they are acknowledged"
        taking.at_once = True
        for source, received in taking.waiting:
            source.journaled([received])
        assert await until(lambda: len(taking.xs()) == 100)
    device.close()


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_in_either_version_the_session_keeps_what_comes_while_the_edge_is_away(
    mosquitto: Mosquitto, version: str
) -> None:
    device, taking = Publisher(mosquitto), Taking()
    async with running(mosquitto, Taking(), mqtt_version=version) as driver:
        await connected(driver)
    for n in range(30):
        device.say("plant/e/state", {"values": {"x": n}})
    mosquitto.stop()
    await asyncio.to_thread(mosquitto.start)
    async with running(mosquitto, taking, mqtt_version=version):
        await until(lambda: len(taking.xs()) >= 30)
    assert taking.xs() == [float(n) for n in range(30)]


async def test_a_broker_that_knows_only_3_1_1_is_spoken_to_in_3_1_1_at_once(embedded_broker: EmbeddedBroker) -> None:
    taking, loop = Taking(), asyncio.get_running_loop()
    began_s = loop.time()
    async with running(embedded_broker, taking) as driver:
        await connected(driver)
        assert loop.time() - began_s < 5.0
        device = Publisher(embedded_broker)
        device.say("plant/e/state", {"values": {"x": 4}})
        await until(taking.xs)
        device.close()
    assert taking.xs() == [4.0]


async def test_where_the_plant_file_insists_on_5_such_a_broker_is_waited_for_and_why_is_said(
    embedded_broker: EmbeddedBroker,
) -> None:
    async with running(embedded_broker, Taking(), mqtt_version="5") as driver:
        await until(lambda: driver.health.waiting_for.get(driver.endpoint) == "broker does not answer")


async def test_a_broker_that_hangs_up_on_version_5_is_tried_in_3_1_1() -> None:
    """Some do, instead of refusing it."""
    versions: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(2)
        connect = await reader.readexactly(head[1])
        versions.append(connect[6])
        if connect[6] == 4:
            writer.write(b"\x20\x02\x00\x00")
            subscribe = await reader.readexactly(4)
            topics = (await reader.readexactly(subscribe[1] - 2)).count(b"plant/")
            writer.write(bytes([0x90, 2 + topics]) + subscribe[2:4] + b"\x01" * topics)
            await reader.read(100)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    broker = EmbeddedBroker(port=server.sockets[0].getsockname()[1])
    async with server, running(broker, Taking()) as driver:
        await connected(driver)
    assert versions == [5, 4]


async def test_a_broker_that_takes_the_connection_and_says_nothing_is_named() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        broker = EmbeddedBroker(port=silent.getsockname()[1])
        async with running(broker, Taking()) as driver:
            await until(lambda: driver.health.waiting_for.get(driver.endpoint) == "broker does not answer")


async def test_what_is_no_mqtt_ends_the_connection_and_not_the_edge() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x20\x02\x00\x00" + b"\x34\x05\x00\x01a\x00\x01x")
        await reader.read(1000)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    broker = EmbeddedBroker(port=server.sockets[0].getsockname()[1])
    async with server, running(broker, Taking(), mqtt_version="3.1.1") as driver:
        await told(driver, "QoS 2")
