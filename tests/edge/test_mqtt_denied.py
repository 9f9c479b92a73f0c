"""A broker that does not give all topics: which ones is said, and they are asked for again until it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from edge.mqtt import MqttDriver
from edge.mqtt_session import SUBSCRIBE_AT_ONCE, Session
from tests.edge.mqtt_rig import Taking, at_work, make_driver, told
from tests.fixtures.broker import EmbeddedBroker
from tests.fixtures.waiting import until

MANY = SUBSCRIBE_AT_ONCE + 20
CONNACK, SUBACK = b"\x20\x02\x00\x00", 0x90


@dataclass
class Warden:
    """Speaks as much of MQTT 3.1.1 as is needed, by hand: SUBACK 0x80 for what is denied (MQTT 3.1.1, 3.9.3)."""

    denied: set[str]
    asked: list[list[str]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                kind, body = (await reader.readexactly(1))[0] & 0xF0, b""
                body = await reader.readexactly(await _length(reader))
                if kind == 0x10:
                    writer.write(CONNACK)
                elif kind == 0x80:
                    topics = list(_topics(body[2:]))
                    self.asked.append(topics)
                    codes = bytes(0x80 if topic in self.denied else 1 for topic in topics)
                    writer.write(bytes([SUBACK]) + _spell(2 + len(codes)) + body[:2] + codes)
                else:
                    return
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


async def _length(reader: asyncio.StreamReader) -> int:
    """Remaining Length (2.2.3): seven bits a byte, the lowest first."""
    value, shift = 0, 0
    while True:
        byte = (await reader.readexactly(1))[0]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value


def _spell(length: int) -> bytes:
    return bytes([length]) if length < 128 else bytes([length & 0x7F | 0x80, length >> 7])


def _topics(payload: bytes) -> list[str]:
    found = []
    while payload:
        end = 2 + int.from_bytes(payload[:2], "big")
        found.append(payload[2:end].decode())
        payload = payload[end + 1 :]
    return found


@asynccontextmanager
async def serving(warden: Warden) -> AsyncIterator[MqttDriver]:
    """A driver of MANY equipments behind it, not at work yet."""
    server = await asyncio.start_server(warden.serve, "127.0.0.1", 0)
    broker = EmbeddedBroker(port=server.sockets[0].getsockname()[1])
    names = tuple(f"e{n:03}" for n in range(MANY))
    async with server:
        yield make_driver(broker.url, names=names, endpoint={"mqtt_version": "3.1.1"})


@asynccontextmanager
async def listening(warden: Warden) -> AsyncIterator[MqttDriver]:
    async with serving(warden) as driver, at_work(driver, Taking().put):
        yield driver


async def test_a_topic_that_the_broker_denies_is_named_although_it_gives_all_that_are_asked_for_after_it() -> None:
    warden = Warden({"plant/e003/state"})
    async with listening(warden) as driver:
        await until(lambda: sum(map(len, warden.asked)) >= MANY)
        await told(driver, "broker refused to subscribe plant/e003/state: look at its access list")
        assert driver.health.waiting_for, "what was given after it does not make it well"


async def test_of_many_denied_topics_the_first_are_named_and_the_rest_counted() -> None:
    async with listening(Warden({f"plant/e{n:03}/state" for n in range(10)})) as driver:
        await told(driver, "plant/e000/state, plant/e001/state, plant/e002/state and 7 more")


async def test_denied_topics_alone_are_asked_for_again_and_it_is_well_once_they_are_given() -> None:
    warden, told_why = Warden({"plant/e003/state"}), list[str | None]()
    async with serving(warden) as driver:
        session = Session(
            driver.broker,
            driver.subscriptions,
            lambda messages: True,
            lambda heard: None,
            told_why.append,
            lambda: 0,
            denied_again_s=0.05,
        )
        thread = asyncio.create_task(asyncio.to_thread(session.run))
        try:
            await until(lambda: warden.asked[-1:] == [["plant/e003/state"]])
            assert told_why[-1] is not None
            warden.denied.clear()
            await until(lambda: told_why[-1] is None, what=lambda: str(told_why))
        finally:
            session.stop()
            await thread
    assert sum(len(asked) > 1 for asked in warden.asked) == len(range(0, len(driver.subscriptions), SUBSCRIBE_AT_ONCE))
