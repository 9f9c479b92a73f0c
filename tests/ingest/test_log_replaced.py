"""A topic trimmed, made anew or wiped under its reader: named, that partition stops, the others go on, an operator decides.

The decision is the statement of docs/positions.md, word for word.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from ingest import audit as auditing
from telemetry import wire
from telemetry.log.protocol import FINDINGS, TELEMETRY
from telemetry.settings import Settings
from tests.fixtures.kafka import KafkaBroker
from tests.fixtures.places import forget_topic, grow, make_anew, rows_of, send_to, trim_before
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, count, ingesting, producing, until_stored

POSITIONS_PAGE = Path(__file__).parents[2] / "docs" / "positions.md"
FIRST, SECOND = f"{TELEMETRY}/0", f"{TELEMETRY}/1"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients look at the topics every second, and stopped partitions are looked at again as often."""
    monkeypatch.setattr("telemetry.log.kafka_access.METADATA_S", 1.0)
    monkeypatch.setattr("ingest.worker.RECHECK_S", 0.5)


def edge_named(name: str, producer: Any) -> Edge:
    return Edge(producer, f"{name}-{secrets.token_hex(4)}")


def decide(store: Settings, partition: int, following: int) -> None:
    """What the page tells an operator to do."""
    (statement,) = re.findall(r"```sql\n(INSERT .*?)```", POSITIONS_PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert "('alert', 'vigil.findings', 0, 0)" in statement
    meant = f"('ingest', '{TELEMETRY}', {partition}, {following})"
    execute(store.store, statement.replace("('alert', 'vigil.findings', 0, 0)", meant))


async def test_a_topic_made_anew_is_named_though_it_grew_past_our_offset_and_goes_in_when_an_operator_says_so(
    on_kafka: Settings,
) -> None:
    store = on_kafka.model_copy(update={"log_partitions": 2})
    await forget_topic(store, TELEMETRY)
    async with producing(store) as producer, ingesting(store) as health:
        before, after, other = (edge_named(name, producer) for name in ("before", "after", "other"))
        await send_to(store, TELEMETRY, 0, [before.samples(batch([f"{before.name}/x"])) for _ in range(3)])
        await until_stored(store, before)
        await make_anew(store, TELEMETRY)
        await send_to(store, TELEMETRY, 0, [after.samples(batch([f"{after.name}/x"])) for _ in range(6)])
        await send_to(store, TELEMETRY, 1, [other.samples(batch([f"{other.name}/x"]))])
        await until(lambda: FIRST in health.waiting_for, what=lambda: f"named; {rows_of(store, after.name)} rows in")
        assert "wiped or restored" in health.waiting_for[FIRST]
        await until_stored(store, other)
        assert SECOND not in health.waiting_for
        assert rows_of(store, after.name) == 0, "nothing of it is taken before somebody decides"
        decide(store, 0, 0)
        await until_stored(store, after)
        await until(lambda: not health.waiting_for, what="ready again")
    assert (rows_of(store, before.name), rows_of(store, after.name)) == (30, 60)


def overwrite_last(store: Settings, value: bytes) -> None:
    """As a topic that was made anew too fast for anybody to notice: another record stands before our place."""
    (topic_file,) = (store.state_dir / "log").glob("vigil.telemetry.*.sqlite")
    with sqlite3.connect(topic_file) as log:
        found = log.execute("UPDATE record SET value = ? WHERE position = (SELECT max(position) FROM record)", (value,))
        assert found.rowcount == 1


@pytest.mark.parametrize("restarted", [False, True])
async def test_records_of_another_log_at_our_offset_are_never_taken_for_ours(
    plain_store: Settings, restarted: bool
) -> None:
    """Behind what this worker stored, and behind what the one before it had stored."""
    async with producing(plain_store) as producer, AsyncExitStack() as stack:
        health = await stack.enter_async_context(ingesting(plain_store))
        before, after, other = (edge_named(name, producer) for name in ("before", "after", "other"))
        await before.send_samples(batch(["a/x"]), batch(["a/x"]))
        await until_stored(plain_store, before)
        if restarted:
            await stack.aclose()
            health = await stack.enter_async_context(ingesting(plain_store))
            await producer.send(FINDINGS, [other.record(wire.encode_findings([]))])
            await until_stored(plain_store, other)  # so it has its partitions, and has compared them
        foreign = after.samples(batch(["b/x"], value=9.0))
        overwrite_last(plain_store, foreign.value)
        await after.send(foreign)
        await until(lambda: FIRST in health.waiting_for, what="the other log is named")
        assert count(plain_store) == 20
        decide(plain_store, 0, 2)
        await until_stored(plain_store, after)
        assert count(plain_store) == 30


async def test_what_retention_took_before_it_was_read_is_named_and_counted_as_lost_once_an_operator_goes_on(
    on_kafka: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = on_kafka.model_copy(update={"log_partitions": 2})
    await forget_topic(store, TELEMETRY)
    async with producing(store) as producer:
        edge, other = edge_named("edge", producer), edge_named("other", producer)
        async with ingesting(store):
            await send_to(store, TELEMETRY, 0, [edge.samples(batch([f"{edge.name}/x"])) for _ in range(3)])
            await until_stored(store, edge)
        while_down = [edge.samples(batch([f"{edge.name}/x"])) for _ in range(4)]
        await send_to(store, TELEMETRY, 0, [*while_down, edge.ledger()])
        await trim_before(store, TELEMETRY, 0, 5)
        await send_to(store, TELEMETRY, 1, [other.samples(batch([f"{other.name}/x"])), other.ledger()])
        async with ingesting(store) as health:
            await until(lambda: FIRST in health.waiting_for, what="the gap is named")
            assert re.search(r"offset 3: the log was trimmed: .*5\.\.8", health.waiting_for[FIRST])
            await until_stored(store, other)
            assert rows_of(store, edge.name) == 30
            decide(store, 0, 5)
            await until(lambda: rows_of(store, edge.name) == 50, what="the rest is in")
            await until(lambda: not health.waiting_for, what="ready again")
    monkeypatch.setattr(auditing, "HOLE_YOUNG_S", 0.0)
    report = await auditing.audit(store)
    assert (report.lost, report.doubled) == (20, 0)
    assert [(e.equipment, e.lost) for e in report.equipment if e.lost] == [(edge.name, 20)]


async def test_of_a_new_partition_that_was_trimmed_before_it_was_ever_read_an_operator_says_where_it_begins(
    on_kafka: Settings,
) -> None:
    await forget_topic(on_kafka, TELEMETRY)
    async with producing(on_kafka) as producer:
        edge = edge_named("edge", producer)
        async with ingesting(on_kafka):
            await edge.send_samples(batch([f"{edge.name}/x"]))
            await until_stored(on_kafka, edge)
        await grow(on_kafka, TELEMETRY, 2)
        await send_to(on_kafka, TELEMETRY, 1, [edge.samples(batch([f"{edge.name}/x"])) for _ in range(3)])
        await trim_before(on_kafka, TELEMETRY, 1, 2)
        async with ingesting(on_kafka) as health:
            await until(lambda: SECOND in health.waiting_for, what="the partition is named")
            assert (
                "trimmed below records never processed: expected first offset 0, found 2" in health.waiting_for[SECOND]
            )
            decide(on_kafka, 1, 2)
            await until(lambda: rows_of(on_kafka, edge.name) == 20, what="what is left of it is in")
            await until(lambda: not health.waiting_for, what="ready again")


async def test_retention_that_takes_only_what_is_stored_disturbs_nobody(on_kafka: Settings) -> None:
    await forget_topic(on_kafka, TELEMETRY)
    async with producing(on_kafka) as producer, ingesting(on_kafka) as health:
        edge = edge_named("edge", producer)
        await edge.send_samples(*(batch([f"{edge.name}/x"]) for _ in range(3)))
        await until_stored(on_kafka, edge)
        await trim_before(on_kafka, TELEMETRY, 0, 3)
        await edge.send_samples(batch([f"{edge.name}/x"]))
        await until_stored(on_kafka, edge)
        assert not health.waiting_for
        assert rows_of(on_kafka, edge.name) == 40


@pytest.mark.long
async def test_a_kafka_that_comes_back_without_its_data_is_named_and_goes_on_when_an_operator_says_so(
    on_kafka: Settings, kafka_broker: KafkaBroker
) -> None:
    await forget_topic(on_kafka, TELEMETRY)
    async with producing(on_kafka) as producer, ingesting(on_kafka) as health:
        before, after = edge_named("before", producer), edge_named("after", producer)
        await before.send_samples(*(batch([f"{before.name}/x"]) for _ in range(3)))
        await until_stored(on_kafka, before)
        await asyncio.to_thread(kafka_broker.kill)
        shutil.rmtree(kafka_broker.directory / "data")
        await asyncio.to_thread(kafka_broker.start)
        async with producing(on_kafka):
            await send_to(on_kafka, TELEMETRY, 0, [after.samples(batch([f"{after.name}/x"])) for _ in range(6)])
        await until(lambda: FIRST in health.waiting_for, what="the wiped log is named")
        assert rows_of(on_kafka, after.name) == 0
        decide(on_kafka, 0, 0)
        await until_stored(on_kafka, after)
    assert (rows_of(on_kafka, before.name), rows_of(on_kafka, after.name)) == (30, 60)
