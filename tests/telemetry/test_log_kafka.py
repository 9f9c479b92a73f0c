"""What only a real broker can show: its death and return, a log wiped under its reader."""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from telemetry.errors import LogDiscontinuity, LogError, LogUnavailable
from telemetry.log import open_log
from telemetry.log.kafka_reader import KafkaReader
from telemetry.log.protocol import Bounds, Log, OutRecord, Partition, Producer
from telemetry.settings import Settings
from tests.fixtures.kafka import KafkaBroker
from tests.fixtures.ports import free_port
from tests.fixtures.waiting import until
from tests.telemetry.log_rig import Owner, read_count, read_until, record

_NUMBERS = itertools.count()


@pytest.fixture
def topic() -> str:
    return f"kafka.{os.getpid()}.{next(_NUMBERS)}"


@pytest.fixture
def log(kafka_broker: KafkaBroker, tmp_path: Path) -> Log:
    return open_log(Settings(log=kafka_broker.url, state_dir=tmp_path))


async def send_until_taken(producer: Producer, topic: str, records: list[OutRecord]) -> int:
    """What a service does: again until it is taken. Returns how often it was not."""
    async with asyncio.timeout(60):
        for failures in itertools.count():
            try:
                await producer.send(topic, records)
                return failures
            except LogError:
                await asyncio.sleep(0.2)
    raise AssertionError


async def test_producer_and_reader_survive_a_broker_that_is_killed_and_returns(
    kafka_broker: KafkaBroker, log: Log, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telemetry.log.kafka_access.ANSWER_S", 3.0)
    producer = await log.producer()
    owner = Owner()
    reader = await log.reader("g", [topic], owner)
    await producer.send(topic, [record("k", n) for n in range(50)])
    assert len(await read_count(reader, 50)) == 50
    await asyncio.to_thread(kafka_broker.kill)
    sending = asyncio.create_task(send_until_taken(producer, topic, [record("k", n) for n in range(50, 60)]))
    assert await reader.fetch(max_records=10, max_wait_s=0.5) == [], "waits, and says nothing wrong"
    with pytest.raises(LogUnavailable):
        await reader.lag()
    await asyncio.to_thread(kafka_broker.start)
    await sending
    records = await read_until(reader, lambda rs: {int(r.value) for r in rs} >= set(range(50, 60)), seconds=60)
    assert records[0].offset == 50, "nothing again, nothing left out"
    assert [r.offset for r in records] == list(range(50, 50 + len(records)))
    assert await reader.bounds(Partition(topic, 0)) == Bounds(0, 50 + len(records))
    await reader.close()
    await producer.close()


async def test_a_topic_that_was_made_anew_under_its_reader_is_a_discontinuity(
    kafka_broker: KafkaBroker, log: Log, topic: str
) -> None:
    producer = await log.producer()
    reader = await log.reader("g", [topic], Owner())
    await producer.send(topic, [record("k", n) for n in range(50)])
    await read_count(reader, 50)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_broker.url.removeprefix("kafka://"))
    await admin.start()
    await admin.delete_topics([topic])
    await admin.close()
    await producer.close()
    producer = await log.producer()
    await send_until_taken(producer, topic, [record("k", "new")])
    with pytest.raises(LogDiscontinuity, match=rf"{topic}/0: wanted offset 50, the log holds 0 to 1"):
        await read_until(reader, bool)
    await reader.close()
    await producer.close()


async def test_what_the_group_committed_moves_nobody(log: Log, topic: str) -> None:
    producer = await log.producer()
    await producer.send(topic, [record("k", n) for n in range(10)])
    reader = await log.reader("g", [topic], Owner())
    await read_count(reader, 10)
    await reader.commit({Partition(topic, 0): 10})
    await reader.close()
    reader = await log.reader("g", [topic], Owner({Partition(topic, 0): 2}))
    assert [r.offset for r in await read_count(reader, 8)] == list(range(2, 10))
    await reader.close()
    await producer.close()


async def test_without_a_broker_a_producer_and_a_reader_are_unavailable_and_no_socket_is_left(
    topic: str, tmp_path: Path
) -> None:
    log = open_log(Settings(log=f"kafka://127.0.0.1:{free_port()}", state_dir=tmp_path))
    with pytest.raises(LogUnavailable):
        await log.producer()
    with pytest.raises(LogUnavailable):
        await log.reader("g", [topic], Owner())
    await log.close()


async def test_a_reader_can_be_closed_while_a_fetch_that_failed_waits_for_its_next_try(
    kafka_broker: KafkaBroker, log: Log, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by chaos (seed 165): aiokafka let a cancellation of its own out of `stop`, and ingest ended with status 1."""
    # In a group of its own: it can tell no broker that it leaves, and who comes after it would wait for it (up to 30 s).
    producer, reader = await log.producer(), await log.reader(f"closed-{topic}", [topic], Owner())
    assert isinstance(reader, KafkaReader)
    await producer.send(topic, [record("k", 0)])
    assert len(await read_count(reader, 1)) == 1
    fetcher, client = reader._consumer._fetcher, reader._consumer._client
    monkeypatch.setattr(fetcher, "_retry_backoff", 60.0)
    await asyncio.to_thread(kafka_broker.kill)
    try:
        await until(lambda: any(waits_for_its_next_try(task) for task in fetcher._pending_tasks))
        await reader.close()
        assert not [connection for connection in client._conns.values() if connection.connected()]
    finally:
        await producer.close()
        await asyncio.to_thread(kafka_broker.start)


def waits_for_its_next_try(fetch: asyncio.Task[Any]) -> bool:
    return getattr(getattr(fetch.get_coro(), "cr_await", None), "__name__", "") == "sleep"


async def test_topics_are_made_with_the_partitions_that_the_settings_say(
    kafka_broker: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    log = open_log(Settings(log=kafka_broker.url, log_partitions=5, state_dir=tmp_path))
    await log.ensure_topics([topic])
    await log.ensure_topics([topic])
    owner = Owner()
    reader = await log.reader(f"partitions-{topic}", [topic], owner)  # nobody that an earlier test left is waited for
    await read_until(reader, lambda _: bool(owner.held))
    assert owner.held == {Partition(topic, n) for n in range(5)}
    await reader.close()


async def test_replicas_that_the_cluster_has_not_are_said_so(kafka_broker: KafkaBroker, topic: str) -> None:
    log = open_log(Settings(log=kafka_broker.url, log_replication=3))
    with pytest.raises(LogUnavailable, match="the topic cannot be made: InvalidReplicationFactor"):
        await log.ensure_topics([topic])
