"""A restored store and the log meet: what came after the backup is read again, nothing is lost, nothing doubled."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from ingest.audit import audit
from ingest.backup import backup
from ingest.backup_log import copy_log, gaps, restore_log
from ingest.backup_manifest import LogPart, Place
from ingest.backup_restore import restore, restore_embedded_log
from telemetry.log.protocol import TELEMETRY, TOPICS
from telemetry.settings import Settings
from tests.fixtures.kafka import KafkaBroker, require_kafka_jars
from tests.fixtures.store import execute, fresh_database
from tests.fixtures.waiting import until
from tests.ingest.backups import TOOLS
from tests.ingest.line import Edge, batch, count, ingesting, producing, until_stored

PARTITION = f"{TELEMETRY}/0"


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A Kafka that these tests may trim."""
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"), require_kafka_jars("a restored store on Kafka"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(params=["embedded-plain", "embedded-timescale", "kafka-timescale"])
def line(request: pytest.FixtureRequest) -> Settings:
    """A store of either flavour, beside either log."""
    log, flavour = request.param.split("-")
    store: Settings = request.getfixturevalue(f"{flavour}_store")
    if log == "embedded":
        return store
    broker: KafkaBroker = request.getfixturevalue("own_broker")
    return store.model_copy(update={"log": broker.url})


async def test_what_came_after_the_backup_is_read_again_and_doubles_nothing(line: Settings, tmp_path: Path) -> None:
    async with producing(line) as producer:
        edge = Edge(producer, f"edge-{secrets.token_hex(4)}")

        async def publish(records: int) -> None:
            for _ in range(records):
                await edge.send_samples(batch([f"{edge.name}/x", f"{edge.name}/y"], samples=20))

        async with ingesting(line):
            await publish(10)
            await until_stored(line, edge)
            backing = asyncio.create_task(asyncio.to_thread(backup, line, tmp_path / "backup", tools=TOOLS))
            while not backing.done():  # the line goes on while it is backed up
                await publish(1)
                await asyncio.wait({backing}, timeout=0.05)
            manifest = await backing
            await publish(10)
            await edge.send_ledger()
            await until_stored(line, edge)
        with fresh_database(line.store, template=None) as url:
            restored = line.model_copy(update={"store": url})
            restore(restored, tmp_path / "backup", tools=TOOLS)
            assert 0 < manifest.samples == count(restored) < count(line)
            async with ingesting(restored) as health:
                await until_stored(restored, edge)
                assert PARTITION not in health.waiting_for
            assert count(restored) == count(line)
            place = (
                "SELECT service, topic, partition, next, last_seq, last_crc FROM store.log_position ORDER BY 1, 2, 3"
            )
            assert execute(url, place) == execute(line.store, place)
            report = await audit(restored)
            assert (report.lost, report.doubled, report.in_flight) == (0, 0, 0)


async def test_a_log_that_was_trimmed_beyond_the_backup_is_named_and_an_operator_decides(
    plain_store: Settings, own_broker: KafkaBroker, tmp_path: Path
) -> None:
    line = plain_store.model_copy(update={"log": own_broker.url})
    async with producing(line) as producer:
        edge = Edge(producer, f"edge-{secrets.token_hex(4)}")
        async with ingesting(line):
            await edge.send_samples(batch([f"{edge.name}/x"]))
            await until_stored(line, edge)
            backup(line, tmp_path / "backup", tools=TOOLS)
            await edge.send_samples(*(batch([f"{edge.name}/x"]) for _ in range(5)))
            await edge.send_ledger()
            await until_stored(line, edge)
        ((end,),) = execute(line.store, "SELECT next FROM store.log_position WHERE topic = %s", (TELEMETRY,))
        await trim(own_broker, end - 3)  # of the six records after the backup three are gone
        with fresh_database(line.store, template=None) as url:
            restored = line.model_copy(update={"store": url})
            restore(restored, tmp_path / "backup", tools=TOOLS)
            async with ingesting(restored) as health:
                await until(lambda: PARTITION in health.waiting_for, what="the trimmed log named")
                assert f"offset {end - 6}: the log was trimmed" in health.waiting_for[PARTITION]
                assert f"{end - 3}..{end}" in health.waiting_for[PARTITION]
                before = count(restored)
                execute(
                    url,
                    "UPDATE store.log_position SET next = %s, last_edge = NULL, last_epoch = NULL, last_seq = NULL,"
                    " last_crc = NULL WHERE service = 'ingest' AND topic = %s AND partition = 0",
                    (end - 3, TELEMETRY),
                )
                await until(lambda: count(restored) == before + 20, what="what is left of the log")
                await until(lambda: not health.waiting_for, what="ready again")
            execute(
                url,
                "UPDATE store.progress SET first_at = first_at - interval '1 h', last_at = last_at - interval '1 h'",
            )
            report = await audit(restored)
            assert (report.lost, report.doubled) == (30, 0)


async def trim(broker: KafkaBroker, first: int) -> None:
    """Deletes the records before an offset."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.url.removeprefix("kafka://"))
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(TELEMETRY, 0): RecordsToDelete(first)})
    finally:
        await admin.close()


async def test_a_disk_with_store_and_embedded_log_comes_back_whole(plain_store: Settings, tmp_path: Path) -> None:
    async with producing(plain_store) as producer:
        edge = Edge(producer)
        async with ingesting(plain_store):
            await edge.send_samples(batch(["a/x"]), batch(["a/y"]))
            await until_stored(plain_store, edge)
        await edge.send_samples(batch(["a/x"]))  # on the log, not yet in the store
        await edge.send_ledger()
        manifest = backup(plain_store, tmp_path / "backup", tools=TOOLS)
    assert [part for part in manifest.log if part.topic == TELEMETRY] == [
        LogPart(topic=TELEMETRY, partition=0, first=0, end=4)
    ]
    with fresh_database(plain_store.store, template=None) as url:
        new = Settings(store=url, state_dir=tmp_path / "new-disk")
        restore(new, tmp_path / "backup", tools=TOOLS)
        assert restore_embedded_log(new, tmp_path / "backup") is True
        async with producing(new) as producer, ingesting(new):
            await until_stored(new, edge)
            later = Edge(producer)  # the edge goes on
            await later.send_samples(batch(["a/x"]))
            await later.send_ledger()
            await until_stored(new, later)
        assert count(new) == 40
        report = await audit(new)
        assert (report.lost, report.doubled) == (0, 0)


async def test_a_log_that_is_there_is_kept(plain_store: Settings, tmp_path: Path) -> None:
    async with producing(plain_store):
        backup(plain_store, tmp_path / "backup", tools=TOOLS)
    before = sorted((plain_store.state_dir / "log").glob("*.sqlite"))
    assert restore_embedded_log(plain_store, tmp_path / "backup") is False
    assert sorted((plain_store.state_dir / "log").glob("*.sqlite")) == before
    on_kafka = plain_store.model_copy(update={"log": "kafka://db:9092", "state_dir": tmp_path / "other"})
    assert restore_embedded_log(on_kafka, tmp_path / "backup") is False
    assert not (tmp_path / "other").exists()


async def test_a_copy_of_the_log_is_one_moment_of_it_while_it_is_written(plain_store: Settings, tmp_path: Path) -> None:
    async with producing(plain_store) as producer:
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x"]))
        copying = asyncio.create_task(asyncio.to_thread(copy_log, plain_store.state_dir / "log", tmp_path / "copy"))
        while not copying.done():
            await edge.send_samples(batch(["a/x"]))
            await asyncio.wait({copying}, timeout=0.002)
        parts = {part.topic: part for part in await copying}
    assert set(parts) == set(TOPICS)
    copied = plain_store.model_copy(update={"state_dir": tmp_path / "copied"})
    assert restore_log(tmp_path / "copy", copied.state_dir / "log") is True
    async with producing(copied), ingesting(copied):
        end = parts[TELEMETRY].end
        await until(lambda: count(copied) == 10 * end, what="every record of the copy")
        place = "SELECT next FROM store.log_position WHERE topic = %s"
        assert execute(copied.store, place, (TELEMETRY,)) == [(end,)]
    assert not list(copied.state_dir.glob("*.restoring"))


def test_a_place_that_the_log_does_not_continue_is_said() -> None:
    parts = [LogPart(topic="t", partition=0, first=10, end=20)]

    def place(next: int, partition: int = 0) -> Place:
        return Place(service="ingest", topic="t", partition=partition, next=next)

    assert gaps(parts, [place(10), place(20)]) == []
    assert gaps(parts, [place(9), place(21), place(10, 1)]) == [
        "ingest: t/0: next 9, the log holds 10..20",
        "ingest: t/0: next 21, the log holds 10..20",
        "ingest: t/1: next 10, the log holds nothing",
    ]
