"""What is deleted by age, what never is; and TimescaleDB's own scheduler doing its part."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from ingest.migrate import migrate
from ingest.retention import apply_retention, kept, prune
from telemetry.settings import Settings
from telemetry.store import INGEST, connect
from tests.fixtures.store import StoreServer, execute, native_timescale, timescale_missing
from tests.fixtures.waiting import eventually

NOW = datetime.now(UTC).replace(microsecond=0)
WITHIN_S = 60.0
"""For eight jobs of a server's own, each a process, on a machine that has other work."""
OLD, RECENT = NOW - timedelta(days=1_200), NOW - timedelta(days=10)


async def pruned(store: Settings, **how: int) -> int:
    async with await connect(store, INGEST, autocommit=True) as connection:
        return await prune(store, connection, **how)


def column(store: Settings, query: str) -> list[Any]:
    return [row[0] for row in execute(store.store, query)]


async def put_events(store: Settings, *events: tuple[str, datetime, str, str, str]) -> None:
    """(equipment, time, scheme, code, state) each, numbered in this order."""
    insert = "INSERT INTO store.event (equipment, time, scheme, code, state, edge) VALUES (%s, %s, %s, %s, %s, 'e')"
    for event in events:
        execute(store.store, insert, event)


async def test_of_events_the_last_of_each_code_is_kept_whatever_its_age(store: Settings) -> None:
    await put_events(
        store,
        ("a", OLD, "text", "firmware", "on"),
        ("a", OLD + timedelta(days=1), "text", "firmware", "on"),
        ("a", OLD, "s", "4", "on"),
        ("a", OLD + timedelta(hours=1), "s", "4", "off"),
        ("a", RECENT, "s", "4", "on"),
        ("b", OLD, "s", "4", "on"),
    )
    assert await pruned(store) == 3
    assert execute(store.store, "SELECT equipment, time, code FROM store.event ORDER BY time") == [
        ("b", OLD, "4"),
        ("a", OLD + timedelta(days=1), "firmware"),
        ("a", RECENT, "4"),
    ]


async def test_a_later_event_of_another_code_or_of_the_same_code_in_another_scheme_takes_nobodys_place(
    store: Settings,
) -> None:
    kept_on = [
        ("a", OLD, "s", "4", "on"),
        ("a", OLD + timedelta(days=1), "s", "5", "on"),
        ("a", RECENT, "t", "5", "on"),
    ]
    await put_events(store, *kept_on)
    assert await pruned(store) == 0
    assert execute(store.store, "SELECT equipment, time, scheme, code, state FROM store.event ORDER BY time") == kept_on


async def test_of_events_of_one_moment_the_one_that_came_last_stands(store: Settings) -> None:
    await put_events(store, ("a", OLD, "s", "4", "on"), ("a", OLD, "s", "4", "off"))
    assert await pruned(store) == 1
    assert column(store, "SELECT state FROM store.event") == ["off"]


async def test_open_findings_and_recently_cleared_ones_are_kept(store: Settings) -> None:
    insert = (
        "INSERT INTO store.finding (finding_id, equipment, point, detector, onset, raised, cleared, score)"
        " VALUES (%s, 'a', 'x', 'd', %s, %s, %s, 1)"
    )
    for name, cleared in (("open", None), ("over", OLD + timedelta(days=1)), ("recent", RECENT)):
        execute(store.store, insert, (name, OLD, OLD, cleared))
    assert await pruned(store) == 1
    assert column(store, "SELECT finding_id FROM store.finding ORDER BY 1") == ["open", "recent"]


async def test_findings_are_kept_by_their_own_class_and_not_by_that_of_events(store: Settings) -> None:
    """What each class has in common with the one before it is its place in the function, and no more."""
    execute(
        store.store,
        "INSERT INTO store.finding (finding_id, equipment, point, detector, onset, raised, cleared, score)"
        " VALUES ('f', 'a', 'x', 'd', %s, %s, %s, 1)",
        (NOW - timedelta(days=20),) * 3,
    )
    for days in (30, 20):
        execute(
            store.store,
            "INSERT INTO store.equipment_online_history VALUES ('a', %s, true)",
            (NOW - timedelta(days=days),),
        )

    def go(**days: int) -> int:
        keep = kept(store) | {name: f"{value} days" for name, value in days.items()}
        ((deleted,),) = execute(store.store, "SELECT store.prune(%s, %s, 10)", (Jsonb(keep), NOW))
        return int(deleted)

    assert go(events=1, findings=25, online_history=40) == 0
    assert go(events=40, findings=10, online_history=40) == 1, "the finding"
    assert column(store, "SELECT count(*) FROM store.finding") == [0]
    assert go(events=40, findings=40, online_history=10) == 1, "and the older change"
    assert column(store, "SELECT time FROM store.equipment_online_history") == [NOW - timedelta(days=20)]


async def test_the_online_state_of_each_equipment_is_its_own(store: Settings) -> None:
    for equipment, days in (("a", 1_300), ("b", 1_200)):
        execute(
            store.store,
            "INSERT INTO store.equipment_online_history VALUES (%s, %s, true)",
            (equipment, NOW - timedelta(days=days)),
        )
    assert await pruned(store) == 0


@pytest.mark.parametrize(
    ("name", "insert"),
    [
        (
            "event",
            "INSERT INTO store.event (equipment, time, scheme, code, state, edge)"
            " SELECT 'a', %(old)s - mod(n * 7, 32) * interval '1 hour', 's', '4', 'on', 'e'"
            " FROM generate_series(0, 30) n"
            " UNION ALL SELECT 'a', %(recent)s, 's', '4', 'on', 'e'",
        ),
        (
            "finding",
            "INSERT INTO store.finding (finding_id, equipment, point, detector, onset, raised, cleared, score)"
            " SELECT n, 'a', 'x', 'd', %(old)s, %(old)s, CASE WHEN n > 0 THEN %(old)s END, 1"
            " FROM generate_series(0, 31) n",
        ),
        (
            "equipment_online_history",
            "INSERT INTO store.equipment_online_history"
            " SELECT 'a', %(old)s - n * interval '1 hour', true FROM generate_series(0, 31) n",
        ),
        (
            "dead_letter",
            'INSERT INTO store.dead_letter (at, service, topic, partition, "offset", reason, detail, key, headers, value)'
            " SELECT CASE WHEN n > 0 THEN %(old)s + mod(n * 7, 32) * interval '1 hour' ELSE %(recent)s END,"
            " 'ingest', 't', 0, n, '', '', '', '{}', '' FROM generate_series(0, 31) n",
        ),
        (
            "ledger",
            "INSERT INTO store.ledger SELECT 'e', 1, 'a', CASE WHEN n > 0 THEN %(old)s ELSE %(recent)s END"
            " + n * interval '1 hour', 5, 7 FROM generate_series(0, 31) n",
        ),
        (
            "dead_sample",
            "INSERT INTO store.dead_sample SELECT 'e', 1, 'a', CASE WHEN n > 0 THEN %(old)s ELSE %(recent)s END"
            " + n * interval '1 hour', 5, 7 FROM generate_series(0, 31) n",
        ),
    ],
)
async def test_a_call_deletes_no_more_of_a_class_than_it_is_told_and_says_how_many(
    plain_store: Settings, name: str, insert: str
) -> None:
    for word, moment in (("old", OLD), ("recent", RECENT)):
        insert = insert.replace(f"%({word})s", f"timestamptz '{moment.isoformat()}'")
    execute(plain_store.store, insert)
    left = 32
    for expected in (10, 10, 10, 1, 0):
        call = "SELECT store.prune(%s, %s, 10)"
        assert execute(plain_store.store, call, (Jsonb(kept(plain_store)), NOW)) == [(expected,)]
        left -= expected
        assert column(plain_store, f"SELECT count(*) FROM store.{name}") == [left]  # noqa: S608
    assert left == 1


async def test_what_is_oldest_goes_first_of_events_and_letters(plain_store: Settings) -> None:
    await put_events(
        plain_store,
        *(("a", OLD - timedelta(days=days), "s", "4", "on") for days in (3, 9, 1, 7, 5)),
        ("a", RECENT, "s", "4", "on"),
    )
    insert = (
        'INSERT INTO store.dead_letter (at, service, topic, partition, "offset", reason, detail, key, headers, value)'
        " VALUES (%s, 'ingest', 't', 0, 1, '', '', '', '{}', '')"
    )
    for days in (3, 9, 1, 7, 5):
        execute(plain_store.store, insert, (OLD - timedelta(days=days),))
    call = "SELECT store.prune(%s, %s, 2)"
    assert execute(plain_store.store, call, (Jsonb(kept(plain_store)), NOW)) == [(4,)]
    oldest = [OLD - timedelta(days=5)]
    assert column(plain_store, "SELECT min(time) FROM store.event") == oldest
    assert column(plain_store, "SELECT min(at) FROM store.dead_letter") == oldest


async def test_the_online_state_at_the_beginning_of_what_is_kept_is_known(store: Settings) -> None:
    for days, online in ((1_300, True), (1_200, False), (1_150, True), (50, False)):
        execute(
            store.store,
            "INSERT INTO store.equipment_online_history VALUES ('a', %s, %s)",
            (NOW - timedelta(days=days), online),
        )
    assert await pruned(store) == 2
    assert column(store, "SELECT time FROM online_history ORDER BY time") == [
        NOW - timedelta(days=1_150),
        NOW - timedelta(days=50),
    ]


async def test_dead_letters_wait_long_for_their_replay_and_are_kept_a_while_after_it(store: Settings) -> None:
    insert = (
        'INSERT INTO store.dead_letter (at, service, topic, partition, "offset", reason, detail, key, headers, value,'
        " replayed_at) VALUES (%s, 'ingest', 't', 0, 1, %s, '', '', '{}', '', %s)"
    )
    for name, at, replayed in (
        ("waits", 300, None),
        ("given up", 500, None),
        ("replayed", 300, 40),
        ("just replayed", 300, 5),
    ):
        ago = None if replayed is None else NOW - timedelta(days=replayed)
        execute(store.store, insert, (NOW - timedelta(days=at), name, ago))
    assert await pruned(store) == 2
    assert column(store, "SELECT reason FROM store.dead_letter ORDER BY reason") == ["just replayed", "waits"]


async def test_the_ledger_is_kept_longer_than_the_rows_that_it_is_compared_with(store: Settings) -> None:
    execute(
        store.store,
        "INSERT INTO store.progress (service, edge, epoch, first_at, last_at) VALUES ('ingest', 'e', 1, %s, %s)",
        (NOW - timedelta(days=300), NOW),
    )
    hours = {
        "long gone": NOW - timedelta(days=120),
        "just gone": NOW - timedelta(days=92),
        "there": NOW - timedelta(days=10),
        "a wrong clock's": datetime(2000, 1, 1, tzinfo=UTC),
    }
    for name, hour in hours.items():
        execute(store.store, "INSERT INTO store.ledger VALUES ('e', 1, %s, %s, 5, 7)", (name, hour))
        execute(store.store, "INSERT INTO store.dead_sample VALUES ('e', 1, %s, %s, 5, 7)", (name, hour))
    execute(store.store, "INSERT INTO store.dead_sample VALUES ('e', 1, '', 'epoch', 5, 0)")
    execute(store.store, "INSERT INTO store.ledger VALUES ('gone', 2, 'of no epoch', '2000-01-01', 5, 7)")
    execute(store.store, "INSERT INTO store.dead_sample VALUES ('gone', 2, '', 'epoch', 5, 0)")
    assert await pruned(store) == 3
    left = sorted(set(hours) - {"long gone"})
    assert column(store, "SELECT equipment FROM store.ledger ORDER BY 1") == left
    assert column(store, "SELECT equipment FROM store.dead_sample ORDER BY 1") == sorted([*left, "", ""]), (
        "never of what is not known"
    )
    assert column(store, "SELECT count(*) FROM store.progress") == [1], "exactly-once rests on it"


@pytest.mark.parametrize("table", ["ledger", "dead_sample"])
async def test_hours_that_an_epoch_cannot_have_had_go_with_the_epoch_and_no_other_row_speaks_for_it(
    plain_store: Settings, table: str
) -> None:
    """Two months before a run began are its own: what an edge had kept."""
    for service, epoch, first, last in (("ingest", 1, 300, 0), ("alert", 1, 5_000, 0), ("ingest", 2, 900, 200)):
        execute(
            plain_store.store,
            "INSERT INTO store.progress (service, edge, epoch, first_at, last_at) VALUES (%s, 'e', %s, %s, %s)",
            (service, epoch, NOW - timedelta(days=first), NOW - timedelta(days=last)),
        )
    for epoch, name, days in (
        (1, "of the run", 200),
        (1, "kept before it", 355),
        (1, "a wrong clock's", 365),
        (2, "a wrong clock's, of a run that is over", 9_000),
    ):
        insert = f"INSERT INTO store.{table} VALUES ('e', %s, %s, %s, 5, 7)"  # noqa: S608
        execute(plain_store.store, insert, (epoch, name, NOW - timedelta(days=days)))
    assert await pruned(plain_store) == 3
    assert column(plain_store, f"SELECT equipment FROM store.{table}") == ["a wrong clock's"]  # noqa: S608


async def test_what_is_much_is_deleted_in_small_transactions(store: Settings) -> None:
    execute(
        store.store,
        "INSERT INTO store.event (equipment, time, scheme, code, state, edge)"
        " SELECT 'a', %s::timestamptz + n * interval '1 minute', 's', '4', 'on', 'e' FROM generate_series(1, 96) n",
        (OLD,),
    )
    assert await pruned(store, rows=10) == 95
    assert column(store, "SELECT count(*) FROM store.event") == [1]


def test_a_ledger_shorter_than_the_raw_samples_is_refused(store: Settings) -> None:
    keep = kept(store) | {"ledger": "80 days"}
    with pytest.raises(psycopg.errors.RaiseException, match="retention of the ledger"):
        execute(store.store, "SELECT store.prune(%s, now(), 10)", (Jsonb(keep),))


@pytest.fixture
def with_scheduler(server_dir: Path) -> Iterator[StoreServer]:
    """A native TimescaleDB whose own background jobs run."""
    if native_timescale() is None:
        timescale_missing("the policies as TimescaleDB's own scheduler runs them")
    server = StoreServer("timescale", server_dir, background=True)
    try:
        server.start()
        yield server
    finally:
        server.remove()


async def test_the_scheduler_refreshes_compresses_and_drops_and_keeps_its_schedule(with_scheduler: StoreServer) -> None:
    """On PostgreSQL 15.20 every job of TimescaleDB 2.28.3 counts as failed; what it is there for is done all the same."""
    execute(with_scheduler.url, "CREATE DATABASE scheduled")
    url = with_scheduler.url.replace("/postgres?", "/scheduled?")
    store = Settings(store=url)
    await migrate(store)
    execute(url, "INSERT INTO store.signal (name, equipment, point, name_hash) VALUES ('a/x', 'a', 'x', 1)")
    for days in (100, 3):
        execute(
            url,
            "INSERT INTO store.sample SELECT 1, now() - %s + n * interval '1 second', n, 192"
            " FROM generate_series(0, 1000) n",
            (timedelta(days=days),),
        )
    async with await connect(store, INGEST, autocommit=True) as connection:
        await apply_retention(store, connection)
    # Dropped first: the columnstore's policy may take a chunk that retention has not come to yet.
    kept_only = "SELECT min(time) > now() - interval '4 days' FROM samples"
    eventually(lambda: column(store, kept_only) == [True], WITHIN_S, "old chunks dropped")
    chunks = (
        "SELECT count(*), bool_and(is_compressed) FROM timescaledb_information.chunks WHERE hypertable_name = 'sample'"
    )
    eventually(lambda: execute(url, chunks) in ([(1, True)], [(2, True)]), WITHIN_S, "the others compressed")
    hours = "SELECT coalesce(sum(count), 0)::int FROM store.sample_1h"
    eventually(lambda: column(store, hours) == [1_001], WITHIN_S, "aggregated")
    # Their next turn is the first of their schedule after the end of the last one, which may have begun in an earlier one.
    ran = (
        "SELECT j.proc_name, s.next_start <= s.last_run_started_at + coalesce(s.last_run_duration, interval '0')"
        " + j.schedule_interval + interval '1 second'"
        " FROM timescaledb_information.jobs j JOIN timescaledb_information.job_stats s USING (job_id)"
        " WHERE j.job_id >= 1000 AND s.total_runs > 0 AND s.last_run_status IS NOT NULL"
    )
    on_time = eventually(lambda: len(rows := execute(url, ran)) == 8 and rows, WITHIN_S, "every policy has run")
    assert all(is_so for _, is_so in on_time), on_time
