"""A spool that is full and refuses the newest: what a sender keeps stays with it, whole, and everything else goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge import journal as edge_journal
from edge.journal import Journal
from edge.service import run
from edge.spool import Spool
from telemetry.messages import Event, Kind
from tests.edge.build import NOW_US, columns_of_points
from tests.edge.mqtt_rig import Publisher
from tests.edge.running import Recorded, plant_of, read_log
from tests.edge.sources import Given, Thing, journal_in
from tests.fixtures.mosquitto import Mosquitto
from tests.fixtures.waiting import until

POLLED, MESSAGES = Given(), Given(sender_keeps=True)
BOUND = 60_000


@pytest.fixture
async def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Journal]:
    monkeypatch.setattr(edge_journal, "RETRY_S", 0.02)
    made = journal_in(tmp_path, max_bytes=BOUND, policy="newest")
    made.start()
    try:
        yield made
    finally:
        await made.close()


class Sender:
    """Sends messages of n samples each, and knows which were acknowledged."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.acknowledged: list[int] = []

    def send(self, number: int, n: int = 300, *, events: int = 0) -> bool:
        columns = columns_of_points("m", n, time_us=NOW_US + number * 1_000_000)
        told = [Event("m", NOW_US + number, "s", str(number), True)] * events
        thing = Thing(columns, events=told, done=lambda: self.acknowledged.append(number))
        return self.journal.put(MESSAGES, thing, n)


async def of_messages(journal: Journal) -> int:
    """Samples of messages that the spool has."""
    stored = await journal.call(lambda spool: spool.read(0, max_records=10_000, max_bytes=1 << 30))
    return sum(s.encoded.count for s in stored if s.encoded.kind is Kind.SAMPLES and b"m/" in s.encoded.value)


async def fill(sender: Sender) -> None:
    """Until one waits for room."""
    for number in range(1_000):
        if sender.journal._refusing:
            return
        sender.send(number)
        await until(lambda: number in sender.acknowledged or sender.journal._refusing)  # noqa: B023
    raise AssertionError("it never filled")


async def room(journal: Journal) -> None:
    """The log takes everything."""

    def taken(spool: Spool) -> None:
        spool.tail.acknowledge(spool.tail.take(max_records=10_000, max_bytes=1 << 30))

    await journal.call(taken)


async def test_what_was_acknowledged_is_in_the_spool_and_what_is_not_waits_with_its_sender(journal: Journal) -> None:
    sender = Sender(journal)
    await fill(sender)
    kept = len(sender.acknowledged)
    assert kept > 2
    assert await of_messages(journal) == kept * 300
    assert sender.send(1_000) is False, "nothing more is taken that a sender keeps"
    await room(journal)
    await until(lambda: len(sender.acknowledged) == kept + 1)
    assert journal.losses.dropped_samples == 0
    assert sender.send(1_001) is True


async def test_meanwhile_polled_readings_and_the_agents_own_words_are_taken_as_before(journal: Journal) -> None:
    sender = Sender(journal)
    await fill(sender)
    kept, done = len(sender.acknowledged), threading.Event()
    for n in range(5):
        columns = columns_of_points("e", 300, time_us=NOW_US + n)
        journal.put(POLLED, Thing(columns, done=done.set if n == 4 else lambda: None), 300)
    journal.put_events([Event("e", NOW_US, "s", "4", True)])
    await until(done.is_set)
    await journal.flush()
    stored = await journal.call(lambda spool: spool.read(0, max_records=10_000, max_bytes=1 << 30))
    assert [s.encoded.kind for s in stored].count(Kind.EVENTS) == 1
    assert journal.losses.dropped_samples > 0, "polled readings are refused by the spool, and told"
    assert len(sender.acknowledged) == kept


async def test_what_waits_costs_no_busy_thread(journal: Journal) -> None:
    sender = Sender(journal)
    await fill(sender)
    tried = 0
    before = journal.spool._at

    def at(point: str) -> None:
        nonlocal tried
        tried += point == "inserted"
        before(point)

    await journal.call(lambda spool: setattr(spool, "_at", at))
    began = asyncio.get_running_loop().time()
    await until(lambda: tried >= 5)
    assert asyncio.get_running_loop().time() - began > 4 * 0.02 * 0.9


async def test_a_message_with_an_event_is_taken_all_the_same(journal: Journal) -> None:
    sender = Sender(journal)
    for n in range(100):
        journal.put(POLLED, Thing(columns_of_points("e", 300, time_us=NOW_US + n)), 300)
    await journal.flush()
    sender.send(1, 3, events=1)
    await until(lambda: sender.acknowledged == [1])
    assert await of_messages(journal) == 3


async def test_stopped_while_a_message_waits_it_is_not_acknowledged(tmp_path: Path) -> None:
    made = journal_in(tmp_path, max_bytes=BOUND, policy="newest")
    made.start()
    sender = Sender(made)
    await fill(sender)
    kept = len(sender.acknowledged)
    async with asyncio.timeout(5):
        await made.close()
    assert len(sender.acknowledged) == kept


async def test_through_a_real_broker_nothing_that_it_was_told_is_kept_is_missing_after_an_outage(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """The log is away until the spool is full; the broker keeps what the spool refuses, and all of it arrives."""
    settings = plant_of(tmp_path, f"{mosquitto.url}/plant/1").model_copy(
        update={"spool_max_bytes": 100_000, "spool_policy": "newest", "log": "kafka://127.0.0.1:1"}
    )
    stop, health = asyncio.Event(), Recorded("edge")
    edge = asyncio.create_task(run(settings, stop, health))
    await until(lambda: mosquitto.url in health.were_found)
    device = Publisher(mosquitto)
    for n in range(600):
        device.say("plant/1/state", {"time": f"2026-11-01T00:00:00.{n:03}Z", "values": {"x": n}})
        await asyncio.sleep(0.002)
    stop.set()
    await edge
    settings = settings.model_copy(update={"log": "embedded:"})
    stop = asyncio.Event()
    edge = asyncio.create_task(run(settings, stop, Recorded("edge")))
    async with asyncio.timeout(20):
        while len((await read_log(settings)).of("e1/x")) < 600:
            pass
    stop.set()
    await edge
    device.close()
    seen = await read_log(settings)
    assert sorted(seen.of("e1/x")) == [float(n) for n in range(600)], "each once"
    assert Kind.DROPPED not in seen.kinds.values()
