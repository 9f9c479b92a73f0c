"""What telemetry.log.protocol promises, tried on each implementation: SQLite files, and a real Kafka broker."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from telemetry.errors import LogDiscontinuity, LogRefused, LogUnavailable
from telemetry.log import open_log
from telemetry.log.embedded import EmbeddedLog, EmbeddedReader
from telemetry.log.kafka_reader import KafkaReader
from telemetry.log.protocol import MAX_RECORD_BYTES, Bounds, Log, Partition
from telemetry.log.topic_file import Retention
from telemetry.settings import Settings
from tests.fixtures.kafka import KafkaBroker
from tests.telemetry.log_rig import Owner, read_count, read_until, record, start_process

_NUMBERS = itertools.count()


@pytest.fixture(params=["embedded", "kafka"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = "embedded:"
    if request.param == "kafka":
        broker: KafkaBroker = request.getfixturevalue("kafka_broker")
        url = broker.url
    return Settings(log=url, state_dir=tmp_path, log_partitions=1)


@pytest.fixture
async def log(settings: Settings) -> AsyncIterator[Log]:
    log = open_log(settings)
    yield log
    await log.close()


@pytest.fixture
def topic() -> str:
    return f"test.{os.getpid()}.{next(_NUMBERS)}"


def wider(settings: Settings, partitions: int) -> tuple[Settings, Log]:
    settings = settings.model_copy(update={"log_partitions": partitions})
    return settings, open_log(settings)


async def trim_all(settings: Settings, topic: str, group: str, end: int) -> None:
    """Removes everything before `end`, as retention would."""
    if settings.log == "embedded:":
        log = EmbeddedLog(settings.state_dir / "log", 1 << 30)
        file = log.open(topic, durable=True)
        file.commit(group, {0: end + 1})  # the last one that a reader has passed stays
        while file.trim(Retention(1 << 30, 0, 0), time.time_ns() // 1000 + 1):
            pass
        file.close()
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.log.removeprefix("kafka://"))
    await admin.start()
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=end)})
    await admin.close()


async def test_records_of_a_key_come_back_in_the_order_sent_under_growing_offsets(
    settings: Settings, topic: str
) -> None:
    _, log = wider(settings, 3)
    producer = await log.producer()
    reader = await log.reader("g", [topic], Owner())
    keys = ["a", "b", "c", "d", "e"]
    for start in range(0, 40, 10):
        await producer.send(topic, [record(key, n) for n in range(start, start + 10) for key in keys])
    records = await read_count(reader, 200, max_records=7)
    assert len(records) == 200
    for key in keys:
        mine = [r for r in records if r.key == key.encode()]
        assert [int(r.value) for r in mine] == list(range(40))
        assert len({r.partition for r in mine}) == 1, "a key keeps its partition"
        assert sorted(r.offset for r in mine) == [r.offset for r in mine]
    assert len({(r.partition, r.offset) for r in records}) == 200
    assert len({r.partition for r in records}) > 1, "keys spread"
    homes = await reader.homes(topic, [r.key for r in records])
    assert [*homes] == [r.partition for r in records], "where a key's records go is known beforehand"
    await reader.close()
    await producer.close()


async def test_concurrent_sends_of_one_producer_lose_and_double_nothing(log: Log, topic: str) -> None:
    producer = await log.producer()
    await log.ensure_topics([topic])
    await asyncio.gather(*(producer.send(topic, [record("k", n)]) for n in range(200)))
    reader = await log.reader("g", [topic], Owner())
    assert [int(r.value) for r in await read_count(reader, 200)] == list(range(200))
    await reader.close()
    await producer.close()


async def test_headers_and_any_bytes_come_back_as_they_were(log: Log, topic: str) -> None:
    producer = await log.producer()
    sent = [
        record("", b""),
        record("k", bytes(range(256)), schema=b"1.0", empty=b"", binary=bytes(range(256))),
        record("键", os.urandom(900_000), größe="µ".encode()),
    ]
    before_us = time.time_ns() // 1000 - 2_000
    for one in sent:
        await producer.send(topic, [one])
    reader = await log.reader("g", [topic], Owner())
    records = await read_count(reader, 3)
    assert [(r.key, r.value, dict(r.headers)) for r in records] == [(r.key, r.value, dict(r.headers)) for r in sent]
    assert all(before_us <= r.appended_us <= time.time_ns() // 1000 + 2_000 for r in records)
    await reader.close()
    await producer.close()


async def test_an_empty_fetch_waits_as_long_as_it_may_and_no_longer(log: Log, topic: str) -> None:
    reader = await log.reader("g", [topic], Owner())
    await read_until(reader, lambda _: bool(reader._positions))  # type: ignore[attr-defined]
    start = time.monotonic()
    assert await reader.fetch(max_records=10, max_wait_s=0.4) == []
    assert 0.35 <= time.monotonic() - start < 1.5
    await reader.close()


async def test_two_groups_read_everything_each(log: Log, topic: str) -> None:
    producer = await log.producer()
    await producer.send(topic, [record("k", n) for n in range(20)])
    for group in ("one", "two"):
        reader = await log.reader(group, [topic], Owner())
        assert [int(r.value) for r in await read_count(reader, 20)] == list(range(20))
        await reader.close()
    await producer.close()


async def test_a_reader_of_two_topics_reads_both(log: Log, topic: str) -> None:
    producer = await log.producer()
    owner = Owner()
    reader = await log.reader("g", [topic, f"{topic}.b"], owner)
    await producer.send(topic, [record("k", "a")])
    await producer.send(f"{topic}.b", [record("k", "b")])
    assert {(r.partition.topic, r.value) for r in await read_count(reader, 2)} == {(topic, b"a"), (f"{topic}.b", b"b")}
    assert owner.held == {Partition(topic, 0), Partition(f"{topic}.b", 0)}
    await reader.close()
    await producer.close()


async def test_a_reader_starts_where_its_owner_says(log: Log, topic: str) -> None:
    producer = await log.producer()
    await producer.send(topic, [record("k", n) for n in range(10)])
    reader = await log.reader("g", [topic], Owner({Partition(topic, 0): 7}))
    assert [r.offset for r in await read_count(reader, 3)] == [7, 8, 9]
    await reader.commit({Partition(topic, 0): 10})
    await reader.close()
    again = await log.reader("g", [topic], Owner({Partition(topic, 0): 4}))
    assert [r.offset for r in await read_count(again, 6)] == [4, 5, 6, 7, 8, 9], "whatever the group has committed"
    await again.close()
    await producer.close()


async def test_the_owner_can_look_at_the_log_while_it_is_assigned(log: Log, topic: str) -> None:
    producer = await log.producer()
    await producer.send(topic, [record("k", n) for n in range(10)])

    class Careful(Owner):
        async def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
            seen.append(await reader.bounds(partitions[0]))
            before = await reader.read_at(partitions[0], 4)
            seen.append(before.value if before else None)
            return {p: 5 for p in partitions}

    seen: list[object] = []
    reader = await log.reader("g", [topic], Careful())
    records = await read_count(reader, 5)
    assert records[0].offset == 5
    assert seen == [Bounds(0, 10), b"4"]
    await reader.close()
    await producer.close()


async def test_what_the_owner_raises_comes_out_of_fetch_and_it_is_asked_again(log: Log, topic: str) -> None:
    class Failing(Owner):
        async def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
            starts = await Owner.assigned(self, partitions)
            if len(self.told) == 1:
                raise ConnectionError("the database is away")
            return {} if len(self.told) == 2 else starts

    producer = await log.producer()
    await producer.send(topic, [record("k", 1)])
    reader = await log.reader("g", [topic], Failing())
    with pytest.raises(ConnectionError, match="away"):
        await read_count(reader, 1)
    with pytest.raises(ValueError, match="expected an offset for each partition"):
        await read_count(reader, 1)
    assert [r.value for r in await read_count(reader, 1)] == [b"1"]
    await reader.close()
    await producer.close()


async def test_seek_read_at_bounds_and_lag_agree(log: Log, topic: str) -> None:
    place = Partition(topic, 0)
    producer = await log.producer()
    await producer.send(topic, [record("k", n) for n in range(30)])
    reader = await log.reader("g", [topic], Owner())
    await read_count(reader, 30)
    assert await reader.lag() == 0
    assert await reader.bounds(place) == Bounds(0, 30)
    await reader.seek(place, 10)
    assert await reader.lag() == 20
    at = await reader.read_at(place, 3)
    assert at is not None
    assert (at.offset, at.value) == (3, b"3")
    assert await reader.read_at(place, 30) is None
    assert [r.offset for r in await read_until(reader, bool, max_records=5)][:5] == [10, 11, 12, 13, 14]
    await reader.seek(place, 30)
    await producer.send(topic, [record("k", "new")])
    assert [r.value for r in await read_count(reader, 1)] == [b"new"]
    with pytest.raises(ValueError, match="not assigned"):
        await reader.seek(Partition("another", 0), 0)
    await reader.close()
    await producer.close()


async def test_a_cancelled_fetch_loses_nothing(log: Log, topic: str) -> None:
    producer = await log.producer()
    reader = await log.reader("g", [topic], Owner())
    got: list[int] = []
    for number in range(60):
        await producer.send(topic, [record("k", number)])
        fetch = asyncio.create_task(reader.fetch(max_records=10, max_wait_s=0.5))
        await asyncio.sleep(0.0005 * (number % 12))
        fetch.cancel()
        with suppress(asyncio.CancelledError):
            got += [int(r.value) for r in await fetch]
    got += [int(r.value) for r in await read_until(reader, lambda rs: len(got) + len(rs) >= 60)]
    assert got == list(range(60))
    await reader.close()
    await producer.close()


@pytest.mark.parametrize("offset", [-1, 11, 1 << 40])
async def test_an_offset_that_is_not_there_is_a_discontinuity_that_names_it(log: Log, topic: str, offset: int) -> None:
    place = Partition(topic, 0)
    producer = await log.producer()
    await producer.send(topic, [record("k", n) for n in range(10)])
    reader = await log.reader("g", [topic], Owner({place: offset}))
    with pytest.raises(LogDiscontinuity, match=rf"{topic}/0: wanted offset {offset}, the log holds 0 to 10"):
        await read_count(reader, 1)
    await reader.close()
    reader = await log.reader("h", [topic], Owner())
    await read_count(reader, 10)
    with pytest.raises(LogDiscontinuity, match=f"wanted offset {offset}"):
        await reader.seek(place, offset)
    await reader.close()
    await producer.close()


async def test_a_log_trimmed_under_its_reader_is_a_discontinuity_and_offsets_are_never_used_twice(
    settings: Settings, log: Log, topic: str
) -> None:
    place = Partition(topic, 0)
    producer = await log.producer()
    await producer.send(topic, [record("k", n) for n in range(10)])
    reader = await log.reader("g", [topic], Owner())
    await read_count(reader, 10)
    await trim_all(settings, topic, "g", 10)
    assert await reader.bounds(place) == Bounds(10, 10)
    assert await reader.read_at(place, 9) is None
    with pytest.raises(LogDiscontinuity):
        await reader.seek(place, 3)
    await producer.close()
    producer = await log.producer()
    await producer.send(topic, [record("k", "after")])
    assert [(r.offset, r.value) for r in await read_count(reader, 1)] == [(10, b"after")]
    await reader.close()
    await producer.close()


async def test_a_commit_survives(log: Log, topic: str) -> None:
    place = Partition(topic, 0)
    producer = await log.producer()
    await producer.send(topic, [record("k", n) for n in range(10)])
    for offset in (4, 9):
        reader = await log.reader("g", [topic], Owner())
        await read_count(reader, 10)
        await reader.commit({place: offset})
        await reader.commit({})
        await reader.close()
        reader = await log.reader("g", [topic], Owner())
        assert isinstance(reader, EmbeddedReader | KafkaReader)
        assert await reader.committed(place) == offset
        await reader.close()
    await producer.close()


async def test_a_record_that_is_too_large_is_refused_and_nothing_of_its_call_is_appended(log: Log, topic: str) -> None:
    producer = await log.producer()
    await producer.send(topic, [record("k", 0)])
    with pytest.raises(LogRefused, match=f"record 1 of 2: expected at most {MAX_RECORD_BYTES} bytes, found 1000001"):
        await producer.send(topic, [record("k", 1), record("k", bytes(MAX_RECORD_BYTES))])
    await producer.send(topic, [record("k", bytes(MAX_RECORD_BYTES - 1))])
    reader = await log.reader("g", [topic], Owner())
    assert [len(r.value) for r in await read_count(reader, 2)] == [1, MAX_RECORD_BYTES - 1]
    await reader.close()
    await producer.close()


async def test_a_closed_producer_takes_nothing(log: Log, topic: str) -> None:
    producer = await log.producer()
    await producer.send(topic, [record("k", 0)])
    await producer.close()
    await producer.close()
    with pytest.raises(LogUnavailable, match="closed"):
        await producer.send(topic, [record("k", 1)])


async def test_a_reader_sees_a_record_within_100_ms_of_send(log: Log, topic: str) -> None:
    producer = await log.producer()
    reader = await log.reader("g", [topic], Owner())
    await producer.send(topic, [record("k", 0)])
    await read_count(reader, 1)
    delays = []
    for number in range(15):
        fetch = asyncio.create_task(reader.fetch(max_records=10, max_wait_s=5.0))
        await asyncio.sleep(0.01)
        await producer.send(topic, [record("k", number)])
        durable = time.monotonic()
        assert await fetch
        delays.append(time.monotonic() - durable)
    assert sorted(delays)[len(delays) // 2] < 0.1
    await reader.close()
    await producer.close()


async def test_members_of_a_group_divide_the_partitions_and_take_over_from_one_that_leaves(
    settings: Settings, topic: str
) -> None:
    _, log = wider(settings, 4)
    everything = {Partition(topic, n) for n in range(4)}
    first, second = Owner(), Owner()
    one = await log.reader("g", [topic], first)
    await read_until(one, lambda _: first.held == everything)
    two = await log.reader("g", [topic], second)

    async def both_fetch() -> None:
        await asyncio.gather(*(r.fetch(max_records=10, max_wait_s=0.1) for r in (one, two)))
        assert not first.held & second.held, "never two at once"

    async with asyncio.timeout(20):
        while not (len(first.held) == len(second.held) == 2):
            await both_fetch()
    assert first.held | second.held == everything
    await two.close()
    await read_until(one, lambda _: first.held == everything)
    assert [what for what, _ in first.told].count("revoked") >= 1
    await one.close()


async def test_a_group_takes_over_from_a_member_that_is_killed(settings: Settings, topic: str) -> None:
    settings, log = wider(settings, 4)
    everything = {Partition(topic, n) for n in range(4)}
    owner = Owner()
    await log.ensure_topics([topic])
    other = start_process(settings, "read", topic, "g")
    assert other.stdout is not None
    try:
        assert (await asyncio.to_thread(other.stdout.readline)).split() == ["assigned", "0", "1", "2", "3"]
        reader = await log.reader("g", [topic], owner)
        await read_until(reader, lambda _: len(owner.held) == 2)
        other.send_signal(signal.SIGKILL)
        await read_until(reader, lambda _: owner.held == everything)
        await reader.close()
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


async def test_producers_in_four_processes_lose_and_double_nothing(settings: Settings, log: Log, topic: str) -> None:
    await log.ensure_topics([topic])
    processes = [start_process(settings, "produce", topic, f"p{n}", 100, 200) for n in range(4)]
    reader = await log.reader("g", [topic], Owner())
    records = await read_until(reader, lambda rs: len(rs) >= 400, seconds=60)
    for process in processes:
        out, _ = await asyncio.to_thread(process.communicate)
        assert process.returncode == 0
        assert len(out.split()) == 100
    assert await reader.fetch(max_records=10, max_wait_s=0.2) == []
    for n in range(4):
        assert [int(r.value) for r in records if r.key == f"p{n}".encode()] == list(range(100))
    await reader.close()


async def test_a_producer_killed_in_mid_send_leaves_a_prefix_with_everything_it_was_told_is_durable(
    settings: Settings, log: Log, topic: str
) -> None:
    await log.ensure_topics([topic])
    process = start_process(settings, "produce", topic, "p", 1_000_000, 50_000)
    assert process.stdout is not None
    for _ in range(40):
        await asyncio.to_thread(process.stdout.readline)
    process.send_signal(signal.SIGKILL)
    durable = 40 + len([line for line in process.stdout.read().split("\n") if line])
    process.wait()
    process.stdout.close()
    producer = await log.producer()
    await producer.send(topic, [record("p", "-1")])
    reader = await log.reader("g", [topic], Owner())
    records = await read_until(reader, lambda rs: bool(rs) and rs[-1].value == b"-1")
    numbers = [int(r.value) for r in records[:-1]]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= durable
    await reader.close()
    await producer.close()
