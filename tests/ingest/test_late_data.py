"""Samples up to 30 days late: stored, counted, aggregates corrected; compressed chunks stay so; older ones are refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest

from ingest.audit import audit
from telemetry.batch import SampleBatch, from_rows
from telemetry.ledger import HOUR_US
from telemetry.settings import Settings
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, count, ingesting, now_us, producing, until_stored

DAY_US = 24 * HOUR_US
MONTH_US = 30 * DAY_US
OLD = (now_us() // DAY_US - 20) * DAY_US
"""Midnight, 20 days ago: a chunk that was compressed long since."""

Rows = list[tuple[Any, ...]]


def chunk_at(store: Settings, time_us: int) -> tuple[str, str]:
    """The chunk that holds a time, and the table of its compressed batches."""
    rows = execute(
        store.store,
        "SELECT format('%%I.%%I', c.schema_name, c.table_name), format('%%I.%%I', k.schema_name, k.table_name)"
        " FROM _timescaledb_catalog.chunk c JOIN _timescaledb_catalog.chunk k ON k.id = c.compressed_chunk_id"
        " JOIN timescaledb_information.chunks i ON i.chunk_schema = c.schema_name AND i.chunk_name = c.table_name"
        " WHERE i.hypertable_name = 'sample' AND range_start <= to_timestamp(%s) AND range_end > to_timestamp(%s)",
        (time_us // 10**6, time_us // 10**6),
    )
    ((chunk, compressed),) = rows
    return str(chunk), str(compressed)


def batches(store: Settings, compressed: str) -> Rows:
    """Each compressed batch by its place and maker: the same as before if and only if nobody rewrote it."""
    query = f"SELECT ctid::text, xmin::text, signal_id, _ts_meta_count FROM {compressed} ORDER BY ctid"  # noqa: S608
    return execute(store.store, query)


def in_rows(store: Settings, chunk: str) -> int:
    """Samples of a chunk that are not in the columnstore."""
    return int(execute(store.store, f"SELECT count(*) FROM ONLY {chunk}")[0][0])  # noqa: S608


def run_jobs(store: Settings, kind: str) -> None:
    """TimescaleDB's jobs of a kind, in the order in which they were made."""
    jobs = execute(
        store.store, "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = %s ORDER BY 1", (kind,)
    )
    assert jobs
    for (number,) in jobs:
        execute(store.store, f"CALL run_job({number})")


def aggregates(store: Settings, view: str, since_us: int) -> Rows:
    return execute(
        store.store,
        f"SELECT point, time, round(avg::numeric, 6), min, max, count, count_bad, last FROM {view}"  # noqa: S608
        " WHERE time >= to_timestamp(%s) ORDER BY 1, 2",
        (since_us // 10**6,),
    )


def counted(store: Settings, since_us: int, bin_: str) -> Rows:
    """What aggregates must be, from the rows."""
    good = "FILTER (WHERE value > '-Infinity' AND value < 'Infinity' AND quality >= 64)"
    return execute(
        store.store,
        f"SELECT point, date_trunc('{bin_}', time), round((avg(value) {good})::numeric, 6), min(value) {good},"  # noqa: S608
        f" max(value) {good}, count(*) {good}, count(*) - count(*) {good}, (array_agg(value ORDER BY time DESC) {good})[1]"
        " FROM samples WHERE time >= to_timestamp(%s) GROUP BY 1, 2 ORDER BY 1, 2",
        (since_us // 10**6,),
    )


@pytest.mark.parametrize(("late", "direct"), [(9, False), (10, True), (500, True)])
async def test_late_rows_leave_a_compressed_chunk_compressed_and_are_merged_by_the_policy(
    timescale_store: Settings, late: int, direct: bool
) -> None:
    """Few rows of a signal go by plain COPY beside the columnstore, many by Direct Compress into it."""
    store = timescale_store
    points = ["a/x", "a/y", "a/z"]
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(batch(points, samples=3_000, start_us=OLD, step_us=2_000_000))
        await until_stored(store, edge)
        run_jobs(store, "policy_compression")
        run_jobs(store, "policy_refresh_continuous_aggregate")
        chunk, compressed = chunk_at(store, OLD)
        before = batches(store, compressed)
        assert in_rows(store, chunk) == 0
        assert sum(n for *_, n in before) == 9_000
        await edge.send_samples(batch(points, samples=late, start_us=OLD + 1_000_000, step_us=4_000_000, value=-50.5))
        await edge.send_ledger()
        await until_stored(store, edge)
    after = batches(store, compressed)
    assert after[: len(before)] == before  # nothing was decompressed, nor written again
    assert in_rows(store, chunk) == (0 if direct else 3 * late)
    assert sum(n for *_, n in after) == 9_000 + (3 * late if direct else 0)
    assert count(store) == 9_000 + 3 * late
    run_jobs(store, "policy_compression")
    assert in_rows(store, chunk) == 0
    _, compressed = chunk_at(store, OLD)
    merged = batches(store, compressed)
    assert sum(n for *_, n in merged) == 9_000 + 3 * late
    times = [row[0] for row in execute(store.store, "SELECT time FROM samples WHERE point = 'x' ORDER BY time")]
    assert times == sorted(times)
    assert overlapping(store, compressed) == 0
    run_jobs(store, "policy_refresh_continuous_aggregate")
    for view, bin_ in (("samples_1m", "minute"), ("samples_1h", "hour")):
        assert aggregates(store, view, OLD) == counted(store, OLD, bin_)
    report = await audit(store)
    assert (report.lost, report.doubled) == (0, 0)


def overlapping(store: Settings, compressed: str) -> int:
    """Pairs of batches of one signal whose times overlap: none where everything was merged."""
    query = (
        f"SELECT count(*) FROM {compressed} a JOIN {compressed} b ON a.signal_id = b.signal_id AND a.ctid < b.ctid"  # noqa: S608
        " AND a._ts_meta_min_1 <= b._ts_meta_max_1 AND b._ts_meta_min_1 <= a._ts_meta_max_1"
    )
    return int(execute(store.store, query)[0][0])


async def test_samples_as_old_as_the_bound_are_stored_and_older_ones_are_dead_letters(store: Settings) -> None:
    now = now_us()
    inside, outside = now - MONTH_US + HOUR_US, now - MONTH_US - HOUR_US
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(
            from_rows([("a/x", outside, 1.0, 192), ("a/x", inside, 2.0, 192), ("a/x", now, 3.0, 192)])
        )
        await edge.send_samples(from_rows([("a/x", now - 5 * DAY_US, 4.0, 192), ("a/x", now - 6 * DAY_US, 5.0, 192)]))
        await edge.send_ledger()
        await until_stored(store, edge)
        await until(lambda: execute(store.store, "SELECT value FROM latest") == [(3.0,)])
    assert execute(store.store, "SELECT value FROM samples ORDER BY time") == [(2.0,), (5.0,), (4.0,), (3.0,)]
    assert execute(store.store, "SELECT reason, samples FROM store.dead_letter") == [("too-old", 1)]
    report = await audit(store)
    assert (report.journaled, report.stored, report.dead, report.lost, report.doubled) == (5, 4, 1, 0, 0)


async def test_a_month_of_back_fill_is_stored_once_and_every_aggregate_is_corrected(timescale_store: Settings) -> None:
    store = timescale_store
    random = np.random.default_rng(1)
    points = [f"a/p{n}" for n in range(8)]
    first = (now_us() // DAY_US - 28) * DAY_US

    def scattered(n: int) -> SampleBatch:
        times = first + random.integers(0, 27 * DAY_US, n)
        signals = random.integers(0, len(points), n).astype(np.int32)
        return SampleBatch(tuple(points), signals, times, random.normal(size=n), np.full(n, 192, np.uint8))

    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(scattered(3_000))
        await until_stored(store, edge)
        run_jobs(store, "policy_compression")
        run_jobs(store, "policy_refresh_continuous_aggregate")
        materialised = execute(store.store, "SELECT sum(count)::int FROM samples_1h")
        for _ in range(5):
            await edge.send_samples(scattered(1_000))  # out of order, over 27 compressed chunks
        await edge.send_ledger()
        await until_stored(store, edge)
    assert materialised == [(3_000,)]
    chunks = "SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = 'sample'"
    assert execute(store.store, chunks) == [(27,)]
    run_jobs(store, "policy_refresh_continuous_aggregate")
    for view, bin_ in (("samples_1m", "minute"), ("samples_1h", "hour")):
        assert aggregates(store, view, first) == counted(store, first, bin_)
    assert execute(store.store, "SELECT sum(count)::int FROM samples_1h") == [(8_000,)]
    report = await audit(store)
    assert (report.lost, report.doubled) == (0, 0)


async def test_aggregates_of_rows_that_retention_dropped_survive_every_later_refresh(timescale_store: Settings) -> None:
    """Design.md: a refresh over dropped chunks rewrites an aggregate from what is left (count 4,000 became 10)."""
    store = timescale_store
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x"], samples=600, start_us=OLD, step_us=60_000_000))
        await until_stored(store, edge)
    gone = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=95)
    with psycopg.connect(store.store, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO store.sample SELECT signal_id, %s + n * interval '30 s', n, 192 FROM store.signal,"
            " generate_series(0, 3999) n",
            (gone,),
        )
        for view in ("sample_1m", "sample_1h"):
            connection.execute(f"CALL refresh_continuous_aggregate('store.{view}', NULL, NULL)".encode())
    old = {view: aggregates(store, view, int(gone.timestamp()) * 10**6) for view in ("samples_1m", "samples_1h")}
    assert sum(row[5] for row in old["samples_1h"]) == 4_600
    run_jobs(store, "policy_retention")
    assert count(store) == 600  # what was older is gone
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer, "edge-2")
        await edge.send_samples(batch(["a/x"], samples=100, start_us=OLD + 500_000, step_us=60_000_000, value=9_000.0))
        await until_stored(store, edge)
    run_jobs(store, "policy_compression")
    run_jobs(store, "policy_refresh_continuous_aggregate")
    run_jobs(store, "policy_retention")
    for view, bin_ in (("samples_1m", "minute"), ("samples_1h", "hour")):
        found = aggregates(store, view, int(gone.timestamp()) * 10**6)
        before = [row for row in old[view] if row[1].timestamp() * 10**6 < OLD]
        assert found[: len(before)] == before, "what was dropped"
        assert aggregates(store, view, OLD) == counted(store, OLD, bin_), "what was late"


async def test_no_windows_of_refresh_reach_beyond_what_is_kept(timescale_store: Settings) -> None:
    async with ingesting(timescale_store):
        await until(lambda: bool(execute(timescale_store.store, "SELECT 1 FROM store.policy")))
    rows = execute(
        timescale_store.store,
        "SELECT max((config ->> 'start_offset')::interval) < min((config ->> 'drop_after')::interval),"
        " min((config ->> 'start_offset')::interval) = interval '30 days', count(*) FILTER (WHERE config ? 'start_offset')"
        " FROM timescaledb_information.jobs WHERE proc_name IN ('policy_retention', 'policy_refresh_continuous_aggregate')",
    )
    assert rows == [(True, True, 2)]


@pytest.mark.parametrize("late", [False, True])
async def test_what_is_no_number_or_bad_is_counted_apart_in_every_aggregate(store: Settings, late: bool) -> None:
    start = OLD if late else now_us() // HOUR_US * HOUR_US - 2 * HOUR_US
    inf, nan = float("inf"), float("nan")
    values = [
        (5.0, 192),
        (7.0, 64),
        (inf, 192),
        (-inf, 192),
        (nan, 192),
        (inf, 0),
        (-1e300, 0),
        (1e300, 24),
        (nan, 24),
        (6.0, 216),
    ]
    rows = [("a/x", start + (n + 1) * 1_000_000, value, quality) for n, (value, quality) in enumerate(values)]
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(from_rows(rows))
        await until_stored(store, edge)
        for view in ("samples_1m", "samples_1h"):
            query = f"SELECT avg, min, max, count, count_bad, last FROM {view}"  # noqa: S608
            await until(lambda query=query: bool(execute(store.store, query)), what=f"{view}")
            assert execute(store.store, query) == [(6.0, 5.0, 7.0, 3, 7, 6.0)]
