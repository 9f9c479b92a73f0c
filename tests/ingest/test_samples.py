"""What is in the table and in the aggregates: late and overlapping data, NaN, bad quality, the latest of each signal."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from telemetry.batch import SampleBatch, from_rows
from telemetry.ledger import HOUR_US
from telemetry.messages import Event
from telemetry.settings import Settings
from telemetry.store import INGEST, connect
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, count, ingesting, now_us, producing, until_stored

MINUTE_US = 60_000_000
HOUR = (now_us() // HOUR_US - 30) * HOUR_US


async def test_a_late_flush_that_overlaps_leaves_order_max_and_last_right(store: Settings) -> None:
    """600 rows, then 100 that overlap in time: on TimescaleDB both are rows enough for Direct Compress."""
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x"], samples=600, start_us=HOUR))
        await until(lambda: count(store) == 600)
        late = batch(["a/x"], samples=100, start_us=HOUR + 250_500_000, step_us=5_000_000, value=10_000.0)
        await edge.send_samples(late)
        await until_stored(store, edge)
        await until_aggregated(store, 700)
    times = [row[0] for row in execute(store.store, "SELECT time FROM samples WHERE equipment = 'a' ORDER BY time")]
    assert len(times) == 700
    assert times == sorted(times)
    newest = HOUR + 250_500_000 + 99 * 5_000_000
    assert execute(
        store.store,
        "SELECT (extract(epoch FROM max(time)) * 1000000)::bigint, (array_agg(value ORDER BY time DESC))[1] FROM samples",
    ) == [(newest, 10_099.0)]
    assert execute(store.store, "SELECT value FROM samples ORDER BY time DESC LIMIT 1") == [(10_099.0,)]
    assert execute(store.store, "SELECT value FROM samples ORDER BY time LIMIT 1") == [(1.5,)]


async def until_aggregated(store: Settings, rows: int) -> None:
    """On plain PostgreSQL, late samples are in the aggregates some seconds after they are stored."""
    total = "SELECT sum(count + count_bad)::int FROM samples_1m"
    await until(lambda: execute(store.store, total) == [(rows,)], what=f"{rows} readings aggregated")


async def test_two_workers_with_the_first_samples_of_a_day_make_its_partition_once(plain_store: Settings) -> None:
    """The one that waits had looked the partition up before the other one made it."""
    make = "SELECT store.ensure_sample_partitions('2026-01-05', '2026-01-06')"
    async with (
        await connect(plain_store, INGEST, autocommit=True) as waiting,
        await connect(plain_store, INGEST) as first,
    ):
        await first.execute(make)
        task = asyncio.create_task(waiting.execute(make))
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        await until(lambda: execute(plain_store.store, waits) == [(1,)], what="the second one waits")
        await first.commit()
        await task
    made = "SELECT right(relname, 8) FROM pg_inherits JOIN pg_class ON oid = inhrelid"
    made += " WHERE inhparent = 'store.sample'::regclass ORDER BY 1"
    assert execute(plain_store.store, made) == [("20260105",), ("20260106",)]


async def test_rows_enough_of_a_signal_go_straight_into_the_columnstore(timescale_store: Settings) -> None:
    async with producing(timescale_store) as producer, ingesting(timescale_store):
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x"], samples=5_000, step_us=1_000, start_us=HOUR))
        await until_stored(timescale_store, edge)
        await edge.send_samples(batch([f"b/p{n}" for n in range(50)], samples=2, start_us=HOUR))
        await until_stored(timescale_store, edge)
    chunks = execute(
        timescale_store.store,
        "SELECT format('%I.%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks"
        " WHERE hypertable_name = 'sample'",
    )
    in_rows = sum(
        execute(timescale_store.store, f"SELECT count(*) FROM ONLY {name}")[0][0]  # noqa: S608
        for (name,) in chunks
    )
    assert count(timescale_store) == 5_100
    assert in_rows == 100


async def test_not_a_number_is_null_and_only_good_finite_values_are_aggregated(store: Settings) -> None:
    rows = [
        ("a/x", HOUR + 1_000_000, 10.0, 192),
        ("a/x", HOUR + 2_000_000, 20.0, 64),
        ("a/x", HOUR + 3_000_000, float("nan"), 24),
        ("a/x", HOUR + 4_000_000, 99.0, 0),
        ("a/x", HOUR + 5_000_000, float("inf"), 192),
        ("a/x", HOUR + 6_000_000, float("nan"), 192),
    ]
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(from_rows(rows))
        await until_stored(store, edge)
        await until_aggregated(store, 6)
    values = [row[0] for row in execute(store.store, "SELECT value FROM samples ORDER BY time")]
    assert values == [10.0, 20.0, None, 99.0, float("inf"), None]
    for view in ("samples_1m", "samples_1h"):
        found = execute(store.store, f"SELECT avg, min, max, count, count_bad, last FROM {view}")  # noqa: S608
        assert found == [(15.0, 10.0, 20.0, 2, 4, 20.0)]


async def test_aggregates_are_corrected_for_late_data_by_a_refresh(timescale_store: Settings) -> None:
    async with producing(timescale_store) as producer, ingesting(timescale_store):
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x"], samples=100, start_us=HOUR))
        await until_stored(timescale_store, edge)
        for view in ("sample_1m", "sample_1h"):
            execute(timescale_store.store, f"CALL refresh_continuous_aggregate('store.{view}', NULL, NULL)")
        await edge.send_samples(from_rows([("a/x", HOUR + 500_000, 1_000.0, 192)]))
        await until_stored(timescale_store, edge)
    job = "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name LIKE 'policy_refresh%' ORDER BY job_id"
    for (number,) in execute(timescale_store.store, job):
        execute(timescale_store.store, f"CALL run_job({number})")
    assert execute(timescale_store.store, "SELECT max, count FROM samples_1h") == [(1_000.0, 101)]
    assert execute(timescale_store.store, "SELECT max(max), sum(count)::int FROM samples_1m") == [(1_000.0, 101)]


@pytest.mark.parametrize("minutes", [1, 10])
async def test_a_range_of_aggregates_is_right_across_bins(store: Settings, minutes: int) -> None:
    random = np.random.default_rng(minutes)
    n = 3_000
    time = HOUR + random.integers(0, 3 * HOUR_US, n)
    value = random.normal(size=n)
    many = SampleBatch(("a/x",), np.zeros(n, np.int32), time.astype(np.int64), value, np.full(n, 192, np.uint8))
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(many)
        await until_stored(store, edge)
        await until_aggregated(store, n)
    first, end = HOUR + HOUR_US, HOUR + HOUR_US + minutes * MINUTE_US
    inside = (time >= first) & (time < end)
    found = execute(
        store.store,
        "SELECT sum(count)::int, min(min), max(max), sum(avg * count) FROM samples_1m WHERE equipment = 'a' AND point = 'x'"
        " AND time >= to_timestamp(%s) AND time < to_timestamp(%s)",
        (first // 10**6, end // 10**6),
    )[0]
    assert found[0] == inside.sum()
    assert found[1:3] == (value[inside].min(), value[inside].max())
    assert found[3] == pytest.approx(value[inside].sum(), abs=1e-9)


async def test_latest_follows_and_never_goes_back(store: Settings) -> None:
    now = now_us()
    latest = "SELECT point, value FROM latest ORDER BY point"
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(from_rows([("a/x", now - 2_000_000, 1.0, 192), ("a/y", now, float("nan"), 24)]))
        await until(lambda: execute(store.store, latest) == [("x", 1.0), ("y", None)])
        await edge.send_samples(from_rows([("a/x", now - 1_000_000, 2.0, 192)]))
        await until(lambda: execute(store.store, latest) == [("x", 2.0), ("y", None)])
        await edge.send_samples(from_rows([("a/x", now - 9_000_000, 3.0, 192), ("a/y", now + 1, 4.0, 192)]))
        await until(lambda: execute(store.store, latest) == [("x", 2.0), ("y", 4.0)])
        assert count(store) == 5


async def test_latest_does_not_go_back_over_a_restart(store: Settings) -> None:
    now = now_us()
    latest = "SELECT point, value FROM latest ORDER BY point"
    async with producing(store) as producer:
        edge = Edge(producer)
        async with ingesting(store):
            await edge.send_samples(from_rows([("a/x", now - 1_000_000, 2.0, 192)]))
            await until(lambda: execute(store.store, latest) == [("x", 2.0)])
        async with ingesting(store):
            await edge.send_samples(from_rows([("a/x", now - 9_000_000, 3.0, 192), ("a/y", now, 4.0, 192)]))
            await until(lambda: execute(store.store, latest) == [("x", 2.0), ("y", 4.0)])


async def test_latest_is_rebuilt_from_the_rows_at_start(store: Settings) -> None:
    now = now_us()
    async with producing(store) as producer:
        edge = Edge(producer)
        async with ingesting(store):
            await edge.send_samples(from_rows([("a/x", now - 5_000_000, 1.0, 192), ("a/x", now, 2.0, 192)]))
            await edge.send_samples(from_rows([("b/x", now - 400_000_000_000, 3.0, 192)]))
            await until_stored(store, edge)
        execute(store.store, "DELETE FROM store.latest WHERE value = 3")
        execute(store.store, "UPDATE store.latest SET time = time - interval '5 s', value = 1")
        async with ingesting(store):
            await until(
                lambda: (
                    execute(store.store, "SELECT equipment, value FROM latest ORDER BY 1") == [("a", 2.0), ("b", 3.0)]
                )
            )


async def test_events_and_their_order_are_stored(store: Settings) -> None:
    now = now_us()
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_events(
            Event("lift-1", now, "gbt24476-2017", "4", True, {"floor": 3, "x": float("nan")}),
            Event("lift-1", now + 1, "gbt24476-2017", "4", False),
        )
        await until_stored(store, edge)
    rows = execute(store.store, "SELECT equipment, scheme, code, state, edge FROM events ORDER BY time")
    assert rows == [("lift-1", "gbt24476-2017", "4", "on", "edge-1"), ("lift-1", "gbt24476-2017", "4", "off", "edge-1")]
    assert execute(store.store, "SELECT attributes FROM events ORDER BY time LIMIT 1") == [({"floor": 3, "x": None},)]
