"""Minutes and hours that are kept: the same on both flavours, right for late samples, there when the raw ones are gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb

from ingest import aggregates, copy
from ingest.aggregates import MINUTE_US, SETTLED_US, late_runs, note_late, refresh
from ingest.copying import copy_rows
from ingest.retention import apply_retention, kept
from telemetry.batch import SampleBatch, from_rows
from telemetry.ledger import HOUR_US
from telemetry.settings import Settings
from telemetry.store import INGEST, connect
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, ingesting, now_us, producing, until_stored

HOUR = (now_us() // HOUR_US - 30) * HOUR_US
COLUMNS = "time, avg, min, max, count, count_bad, last"

Rows = list[tuple[Any, ...]]


async def refreshed(store: Settings, at_us: int) -> None:
    """Aggregates brought up to date, as the clock said `at_us`; on TimescaleDB, wholly."""
    if plain(store):
        async with await connect(store, INGEST, autocommit=True) as connection:
            await refresh(connection, at_us, kept_days=store.retention_days)
        return
    for view in ("sample_1m", "sample_1h"):
        execute(store.store, f"CALL refresh_continuous_aggregate('store.{view}', NULL, NULL)")


def run_jobs(store: Settings, name: str) -> None:
    """TimescaleDB's own jobs of that name, in the order in which they were made; on plain PostgreSQL there are none."""
    if not plain(store):
        jobs = "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name LIKE %s AND job_id >= 1000 ORDER BY 1"
        for (number,) in execute(store.store, jobs, (name,)):
            execute(store.store, f"CALL run_job({number})")


def plain(store: Settings) -> bool:
    return not execute(store.store, "SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'")


def aggregate(store: Settings, view: str, where: str = "true") -> Rows:
    return execute(store.store, f"SELECT equipment, point, {COLUMNS} FROM {view} WHERE {where} ORDER BY 1, 2, 3")  # noqa: S608


def kept_minutes(store: Settings) -> int:
    """Rows of minutes that are stored, not computed."""
    table = "store.sample_1m" if plain(store) else "_timescaledb_internal._materialized_hypertable_3"
    return int(execute(store.store, f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608


def mixed(seed: int, n: int, start_us: int, span_us: int) -> SampleBatch:
    """Readings of three signals, some bad, some no number, in no order."""
    random = np.random.default_rng(seed)
    value = np.round(random.normal(20, 5, n), 2)
    value[random.random(n) < 0.05] = np.nan
    value[random.random(n) < 0.02] = np.inf
    quality = np.where(random.random(n) < 0.1, 24, 192).astype(np.uint8)
    time = start_us + random.choice(span_us // 1_000, n, replace=False).astype(np.int64) * 1_000
    return SampleBatch(("a/x", "a/y", "b/x"), random.integers(0, 3, n).astype(np.int32), time, value, quality)


def oracle(batches: list[SampleBatch], bin_us: int) -> dict[tuple[str, int], tuple[Any, ...]]:
    """(signal, bin) → avg, min, max, count, count_bad, last: in plain loops."""
    found: dict[tuple[str, int], list[tuple[int, float, int]]] = {}
    for one in batches:
        for signal, time, value, quality in zip(one.signal, one.time_us, one.value, one.quality, strict=True):
            found.setdefault((one.names[signal], int(time) // bin_us * bin_us), []).append(
                (int(time), float(value), int(quality))
            )
    result: dict[tuple[str, int], tuple[Any, ...]] = {}
    for key, readings in found.items():
        good = sorted((t, v) for t, v, q in readings if q & 192 and np.isfinite(v))
        values = [v for _, v in good]
        result[key] = (None, None, None, 0, len(readings), None)
        if values:
            result[key] = (
                pytest.approx(sum(values) / len(values)),
                min(values),
                max(values),
                len(values),
                len(readings) - len(values),
                values[-1],
            )
    return result


def shown(store: Settings, view: str) -> dict[tuple[str, int], tuple[Any, ...]]:
    return {
        (f"{equipment}/{point}", round(time.timestamp()) * 1_000_000): tuple(rest)
        for equipment, point, time, *rest in aggregate(store, view)
    }


@pytest.mark.parametrize("kept_first", [False, True])
async def test_minutes_and_hours_are_those_of_the_rows_before_and_after_they_are_kept_and_with_late_ones(
    store: Settings, kept_first: bool
) -> None:
    batches = [mixed(1, 3_000, HOUR, 3 * HOUR_US), mixed(2, 500, HOUR + 30 * MINUTE_US, 2 * HOUR_US)]
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(batches[0])
        await until_stored(store, edge)
        if kept_first:
            await refreshed(store, HOUR + 2 * HOUR_US + 17 * MINUTE_US)
            assert kept_minutes(store) > 0
        await edge.send_samples(batches[1])
        await until_stored(store, edge)
    await refreshed(store, HOUR + 2 * HOUR_US + 25 * MINUTE_US)
    for view, bin_us in (("samples_1m", MINUTE_US), ("samples_1h", HOUR_US)):
        assert shown(store, view) == oracle(batches, bin_us), view
    await refreshed(store, now_us())
    for view, bin_us in (("samples_1m", MINUTE_US), ("samples_1h", HOUR_US)):
        assert shown(store, view) == oracle(batches, bin_us), f"{view}, all kept"


async def test_readings_so_great_that_a_sum_would_overflow_stop_no_refresh(store: Settings) -> None:
    rows = [
        ("a/x", HOUR + n * 1_000_000, value, 192) for n, value in enumerate([1.7e308, 1.7e308, -1.7e308, 1e290, 5.0])
    ]
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(from_rows(rows))
        await until_stored(store, edge)
    await refreshed(store, now_us())
    for view in ("samples_1m", "samples_1h"):
        ((*_, minimum, maximum, count, bad, last),) = aggregate(store, view)
        assert (minimum, maximum, count, bad, last) == (5.0, 1e290, 2, 3, 5.0)


async def test_a_turn_that_finds_nothing_new_changes_nothing(plain_store: Settings) -> None:
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge = Edge(producer)
        await edge.send_samples(mixed(3, 500, HOUR, HOUR_US))
        await until_stored(plain_store, edge)
    await refreshed(plain_store, now_us())
    before = execute(plain_store.store, "SELECT xmin::text, * FROM store.sample_1m ORDER BY signal_id, bucket")
    assert before
    await refreshed(plain_store, now_us())
    assert execute(plain_store.store, "SELECT xmin::text, * FROM store.sample_1m ORDER BY signal_id, bucket") == before


async def test_only_the_minutes_that_late_samples_touch_are_made_again(plain_store: Settings) -> None:
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x", "a/y"], samples=600, start_us=HOUR))
        await until_stored(plain_store, edge)
        await refreshed(plain_store, now_us())
        every = (
            "SELECT g.point, extract(epoch FROM bucket)::bigint * 1000000, k.xmin::text, k.count FROM store.sample_1m k"
        )
        every += " JOIN store.signal g USING (signal_id) ORDER BY 1, 2"
        before = execute(plain_store.store, every)
        await edge.send_samples(from_rows([("a/x", HOUR + 3 * MINUTE_US + 500_000, 7.0, 192)]))
        await until_stored(plain_store, edge)
        await until(lambda: execute(plain_store.store, "SELECT count(*) FROM store.late") == [(0,)])
    await refreshed(plain_store, now_us())
    changed = [new[:2] for old, new in zip(before, execute(plain_store.store, every), strict=True) if old != new]
    assert changed == [("x", HOUR + 3 * MINUTE_US)]
    assert execute(plain_store.store, "SELECT count(*) FROM store.late") == [(0,)]


@pytest.mark.parametrize(("late_us", "noted"), [(1, 1), (MINUTE_US, 1), (0, 0), (-1, 0)])
async def test_a_sample_is_late_that_is_older_than_what_is_closed_by_however_little(
    plain_store: Settings, late_us: int, noted: int
) -> None:
    time_us = np.array([HOUR - late_us])
    row = copy.Rows(np.ones(1, np.int32), time_us, np.ones(1), np.full(1, 192, np.uint8))
    async with await connect(plain_store, INGEST, autocommit=True) as connection:
        await refresh(connection, HOUR + SETTLED_US, kept_days=90)
        async with connection.transaction():
            await note_late(connection, row, first_us=HOUR - late_us)
    minute = (HOUR - late_us) // MINUTE_US
    found = execute(plain_store.store, "SELECT signal_id, first, last FROM store.late")
    assert found == [([1], [minute], [minute])] * noted


async def test_a_sample_of_the_very_moment_up_to_which_minutes_are_kept_is_seen(plain_store: Settings) -> None:
    moment = datetime.fromtimestamp(HOUR / 1e6, UTC)
    execute(
        plain_store.store, "INSERT INTO store.signal (name, equipment, point, name_hash) VALUES ('a/x', 'a', 'x', 1)"
    )
    execute(plain_store.store, "SELECT store.ensure_sample_partitions(%s, %s)", (moment, moment))
    await refreshed(plain_store, HOUR + SETTLED_US)
    execute(plain_store.store, "INSERT INTO store.sample VALUES (1, %s, 5.0, 192)", (moment,))
    for view in ("samples_1m", "samples_1h"):
        assert aggregate(plain_store, view) == [("a", "x", moment, 5.0, 5.0, 5.0, 1, 0, 5.0)]
    assert kept_minutes(plain_store) == 0


async def test_hours_of_a_back_fill_that_came_before_any_other_sample_are_kept(plain_store: Settings) -> None:
    """Minutes were closed while there were no samples at all; the first ones that come are old."""
    await refreshed(plain_store, HOUR + SETTLED_US)
    execute(
        plain_store.store, "INSERT INTO store.signal (name, equipment, point, name_hash) VALUES ('a/x', 'a', 'x', 1)"
    )
    times_us = np.array([HOUR - 50 * HOUR_US, HOUR - 2 * HOUR_US, HOUR - 1])
    rows = copy.Rows(np.ones(3, np.int32), times_us, np.full(3, 5.0), np.full(3, 192, np.uint8))
    ends = [datetime.fromtimestamp(us / 1e6, UTC) for us in (int(times_us[0]), HOUR + 3 * HOUR_US)]
    execute(plain_store.store, "SELECT store.ensure_sample_partitions(%s, %s)", tuple(ends))
    async with await connect(plain_store, INGEST, autocommit=True) as connection, connection.transaction():
        await copy_rows(connection, rows, direct=False)
        await note_late(connection, rows, first_us=int(times_us[0]))
    expected = [(us // HOUR_US * HOUR_US, 1) for us in times_us.tolist()]
    for hours in (0, 1, 2):  # read from minutes, at the moment when hours are first kept, and afterwards
        await refreshed(plain_store, HOUR + hours * HOUR_US + SETTLED_US)
        found = execute(
            plain_store.store, "SELECT (extract(epoch FROM time) * 1000000)::bigint, count FROM samples_1h ORDER BY 1"
        )
        assert found == expected, hours


async def test_one_turn_works_off_all_notes_of_late_samples(
    plain_store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregates, "NOTES_AT_ONCE", 2)
    await refreshed(plain_store, HOUR + HOUR_US)
    execute(
        plain_store.store,
        "INSERT INTO store.late (signal_id, first, last) SELECT ARRAY[1], ARRAY[n], ARRAY[n] FROM generate_series(1, 7) n",
    )
    await refreshed(plain_store, HOUR + HOUR_US)
    assert execute(plain_store.store, "SELECT count(*) FROM store.late") == [(0,)]


async def test_closing_waits_for_a_writer_that_has_not_heard_of_it(plain_store: Settings) -> None:
    """A flush in mid-transaction: its rows are neither seen nor noted yet, so their minutes may not be closed."""
    execute(
        plain_store.store,
        "INSERT INTO store.signal (name, equipment, point, name_hash) VALUES ('a/x', 'a', 'x', 1)",
    )
    moment = datetime.fromtimestamp(HOUR / 1e6, UTC)
    execute(plain_store.store, "SELECT store.ensure_sample_partitions(%s, %s)", (moment, moment))
    async with await connect(plain_store, INGEST, autocommit=True) as writer:
        async with writer.transaction():
            cursor = await writer.execute("SELECT store.late_before()")
            assert await cursor.fetchone() == (None,)
            await writer.execute("INSERT INTO store.sample VALUES (1, %s, 5.0, 192)", (moment,))
            with pytest.raises(psycopg.errors.LockNotAvailable):
                await refreshed(plain_store, HOUR + HOUR_US)
        await refreshed(plain_store, HOUR + HOUR_US)
        assert aggregate(plain_store, "samples_1m") == [("a", "x", moment, 5.0, 5.0, 5.0, 1, 0, 5.0)]
        assert kept_minutes(plain_store) == 1
        async with writer.transaction():  # who begins afterwards hears of it
            cursor = await writer.execute("SELECT store.late_before()")
            assert await cursor.fetchone() == (HOUR + HOUR_US - SETTLED_US,)


async def test_two_workers_that_aggregate_at_once_do_it_once(plain_store: Settings) -> None:
    async with (
        await connect(plain_store, INGEST, autocommit=True) as first,
        await connect(plain_store, INGEST, autocommit=True) as second,
    ):
        await first.execute("SELECT store.close_minutes(now())")
        async with first.transaction():
            await first.execute("SELECT store.aggregate('-infinity')")
            cursor = await second.execute("SELECT store.aggregate('-infinity')")
            assert await cursor.fetchone() == (False,), "no wait, and nothing left to do for the second"


async def test_kept_minutes_and_hours_outlive_the_raw_samples(store: Settings) -> None:
    """Samples of long ago kept, the raw ones dropped, later ones late: the old aggregates stay as they were."""
    old = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=120)
    recent = old + timedelta(days=119)
    execute(store.store, "INSERT INTO store.signal (name, equipment, point, name_hash) VALUES ('a/x', 'a', 'x', 1)")
    for start in (old, recent):
        execute(store.store, "SELECT store.ensure_sample_partitions(%s, %s)", (start, start + timedelta(hours=1)))
        execute(
            store.store,
            "INSERT INTO store.sample SELECT 1, %s + n * interval '1 second', n, 192 FROM generate_series(0, 1799) n",
            (start,),
        )
    await refreshed(store, now_us())
    views = {view: aggregate(store, view) for view in ("samples_1m", "samples_1h")}
    assert [len(rows) for rows in views.values()] == [60, 2]
    async with await connect(store, INGEST, autocommit=True) as connection:
        await apply_retention(store, connection)
    run_jobs(store, "policy_retention")
    assert execute(store.store, "SELECT count(*), min(time) FROM samples") == [(1_800, recent)]
    assert {view: aggregate(store, view) for view in views} == views

    late = recent + timedelta(minutes=40)
    execute(store.store, "INSERT INTO store.sample VALUES (1, %s, 5000.0, 192)", (late,))
    if plain(store):
        execute(
            store.store,
            "INSERT INTO store.late (signal_id, first, last) VALUES ('{1}', %s, %s)",
            ([int(late.timestamp()) // 60],) * 2,
        )
        await refreshed(store, now_us())
    run_jobs(store, "policy_refresh%")
    run_jobs(store, "policy_retention")
    for view, rows in views.items():
        now = aggregate(store, view)
        assert [row for row in now if row[2] < recent] == [row for row in rows if row[2] < recent]
        assert max(row[5] for row in now) == 5000.0, "the late one is in"


async def test_a_note_of_minutes_whose_rows_are_gone_changes_nothing(plain_store: Settings) -> None:
    """A replay of what retention has dropped half of would make an old minute again from what is left."""
    old = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=100)
    execute(
        plain_store.store, "INSERT INTO store.signal (name, equipment, point, name_hash) VALUES ('a/x', 'a', 'x', 1)"
    )
    execute(plain_store.store, "SELECT store.ensure_sample_partitions(%s, %s)", (old, old))
    insert = "INSERT INTO store.sample SELECT 1, %s + n * interval '1 second', 1.0, 192 FROM generate_series(0, 9) n"
    execute(plain_store.store, insert, (old,))
    await refreshed(plain_store, now_us())
    before = aggregate(plain_store, "samples_1m")
    assert [row[6] for row in before] == [10]
    execute(plain_store.store, "DELETE FROM store.sample WHERE time > %s", (old,))
    execute(
        plain_store.store,
        "INSERT INTO store.late (signal_id, first, last) VALUES ('{1}', %s, %s)",
        ([int(old.timestamp()) // 60],) * 2,
    )
    await refreshed(plain_store, now_us())
    assert aggregate(plain_store, "samples_1m") == before


async def test_raw_samples_that_are_not_aggregated_yet_are_not_dropped(plain_store: Settings) -> None:
    old = datetime.now(UTC) - timedelta(days=120)
    execute(plain_store.store, "SELECT store.ensure_sample_partitions(%s, %s)", (old, old))
    execute(
        plain_store.store, "INSERT INTO store.signal (name, equipment, point, name_hash) VALUES ('a/x', 'a', 'x', 1)"
    )
    execute(plain_store.store, "INSERT INTO store.sample VALUES (1, %s, 5.0, 192)", (old,))
    async with await connect(plain_store, INGEST, autocommit=True) as connection:
        await apply_retention(plain_store, connection)
        assert execute(plain_store.store, "SELECT count(*) FROM samples") == [(1,)]
        await refresh(connection, now_us(), kept_days=90)
        await apply_retention(plain_store, connection)
    assert execute(plain_store.store, "SELECT count(*) FROM samples") == [(0,)]
    assert [row[5] for row in aggregate(plain_store, "samples_1m")] == [5.0]


async def test_minutes_and_hours_have_a_retention_of_their_own(plain_store: Settings) -> None:
    now = datetime.now(UTC)
    execute(
        plain_store.store, "INSERT INTO store.signal (name, equipment, point, name_hash) VALUES ('a/x', 'a', 'x', 1)"
    )
    almost = {
        "samples": 89.9,
        "samples_1m": 399.9,
        "samples_1h": 3_659.9,
    }  # what lies beside it is dropped with it, not before
    for days in (4_100, 1_000, 10, *almost.values()):
        at = now - timedelta(days=days)
        execute(plain_store.store, "SELECT store.ensure_sample_partitions(%s, %s)", (at, at))
        execute(plain_store.store, "INSERT INTO store.sample VALUES (1, %s, %s, 192)", (at, days))
    async with await connect(plain_store, INGEST, autocommit=True) as connection:
        await refresh(connection, now_us(), kept_days=90)
        await apply_retention(plain_store, connection)
    found = {view: [row[5] for row in aggregate(plain_store, view)] for view in ("samples_1m", "samples_1h")}
    assert found == {"samples_1m": [399.9, 89.9, 10.0], "samples_1h": [3_659.9, 1_000.0, 399.9, 89.9, 10.0]}
    assert sorted(execute(plain_store.store, "SELECT value FROM samples")) == [(10.0,), (89.9,)]


def test_a_query_by_signal_of_long_ago_reads_no_raw_sample(plain_store: Settings) -> None:
    now = datetime.now(UTC)
    for days in range(5):
        execute(plain_store.store, "SELECT store.ensure_sample_partitions(%s, %s)", (now - timedelta(days=days),) * 2)
    execute(
        plain_store.store,
        "UPDATE store.aggregated SET minutes_to = now() - interval '2 minutes', hours_to = now() - interval '1 hour'",
    )
    plan = execute(
        plain_store.store,
        "EXPLAIN (ANALYZE, COSTS off, TIMING off) SELECT time, avg FROM samples_1m WHERE signal_id = ANY (ARRAY[1])"
        " AND time >= now() - interval '4 days' AND time < now() - interval '3 days'",
    )
    text = "\n".join(line for (line,) in plan)
    read = [line for line in text.splitlines() if " sample_2" in line and "never executed" not in line]
    assert len(read) <= 2, text


async def test_retention_is_told_to_whoever_may_read(store: Settings) -> None:
    async with await connect(store, INGEST, autocommit=True) as connection:
        await apply_retention(store, connection)
    found = {name: value for name, value in execute(store.store, "SELECT class, kept FROM retention")}
    assert found["samples"] == timedelta(days=90)
    assert found["samples_1m"] == timedelta(days=400)
    assert "late" not in found


def test_kept_is_never_shorter_for_what_is_made_of_it() -> None:
    long = kept(Settings(retention_days=500.0))
    assert (long["samples"], long["samples_1m"], long["samples_1h"]) == ("500 days", "500 days", "3660 days")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"samples": "30 days"}, "bound on late data"),
        ({"samples_1m": "80 days"}, "that of minutes"),
        ({"samples_1h": "399 days"}, "that of minutes"),
    ],
)
def test_a_retention_that_would_eat_what_is_made_of_it_is_refused(
    store: Settings, change: dict[str, str], why: str
) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match=why):
        execute(store.store, "SELECT store.apply_retention(%s)", (Jsonb(kept(store) | change),))


def test_late_runs_are_the_minutes_of_rows_before_the_moment() -> None:
    random = np.random.default_rng(4)
    batch = mixed(1, 1_000, HOUR, HOUR_US)
    ids = random.choice([1, 2, 7_000_000], 1_000).astype(np.int32)
    rows = copy.ordered(copy.Rows(ids, batch.time_us, batch.value, batch.quality))
    before = HOUR + 20 * MINUTE_US + 5_000_000
    signal_id, first, last = (column.tolist() for column in late_runs(rows, before))
    runs = list(zip(signal_id, first, last, strict=True))
    expected = sorted(
        {(int(i), int(t) // MINUTE_US) for i, t in zip(rows.signal_id, rows.time_us, strict=True) if t < before}
    )
    assert [(i, m) for i, low, high in runs for m in range(low, high + 1)] == expected
    assert all((i, low - 1) not in expected and (i, high + 1) not in expected for i, low, high in runs)
    assert len(runs) < len(expected)
    assert late_runs(rows, HOUR)[0].size == 0
