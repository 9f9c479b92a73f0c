"""A log that does not continue what was processed is noticed and named; nothing is skipped or replayed in silence."""

from __future__ import annotations

import shutil

from telemetry.settings import Settings
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, count, ingesting, producing, until_stored

PARTITION = "vigil.telemetry/0"


async def test_a_log_that_was_wiped_stops_its_partition_and_says_so_until_an_operator_decides(store: Settings) -> None:
    async with producing(store) as producer:
        before = Edge(producer)
        async with ingesting(store):
            await before.send_samples(batch(["a/x"]), batch(["a/x"]))
            await until_stored(store, before)
    shutil.rmtree(store.state_dir / "log")
    async with producing(store) as producer, ingesting(store) as health:
        after = Edge(producer)
        await after.send_samples(*(batch(["a/x"]) for _ in range(3)))
        await until(lambda: PARTITION in health.waiting_for, what="the discontinuity named")
        assert "wiped or restored" in health.waiting_for[PARTITION]
        assert count(store) == 20
        assert execute(store.store, "SELECT code, state FROM events") == [("log-discontinuity", "on")]
        execute(
            store.store,
            "UPDATE store.log_position SET next = 0, last_edge = NULL, last_epoch = NULL, last_seq = NULL, last_crc = NULL"
            " WHERE service = 'ingest' AND topic = 'vigil.telemetry'",
        )
        await until_stored(store, after)
        assert count(store) == 50
        await until(lambda: not health.waiting_for, what="ready again")
        assert execute(store.store, "SELECT state FROM events ORDER BY event_id") == [("on",), ("off",)]


async def test_the_same_log_read_again_from_its_beginning_doubles_nothing(store: Settings) -> None:
    async with producing(store) as producer:
        edge = Edge(producer)
        async with ingesting(store):
            await edge.send_samples(batch(["a/x"]), batch(["b/x"]))
            await until_stored(store, edge)
        execute(store.store, "UPDATE store.log_position SET next = 0, last_crc = NULL WHERE topic = 'vigil.telemetry'")
        async with ingesting(store):
            await edge.send_samples(batch(["c/x"]))
            await until_stored(store, edge)
    assert count(store) == 30


async def test_the_offset_and_the_mark_of_the_last_record_are_kept(store: Settings) -> None:
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(*(batch(["a/x"]) for _ in range(5)))
        await until_stored(store, edge)
    rows = execute(
        store.store,
        "SELECT next, last_edge, last_epoch, last_seq FROM store.log_position WHERE topic = 'vigil.telemetry'",
    )
    assert rows == [(5, "edge-1", edge.epoch, 4)]
