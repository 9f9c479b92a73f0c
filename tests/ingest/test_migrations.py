"""Forward from every released version with data in place; by several at once; killed in the middle; newer than the code."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import sys
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from ingest.aggregates import refresh
from ingest.migrate import LOCK, migrate, migrations
from ingest.service import run
from telemetry.errors import StoreError
from telemetry.service import Health
from telemetry.settings import Settings
from telemetry.store import INGEST, READER, SCHEMA_VERSION, connect, migrated, wait_for_schema
from tests.fixtures.parts import missing
from tests.fixtures.pglite import WasmTimescale, pglite_directory
from tests.fixtures.store import execute, fresh_database
from tests.fixtures.waiting import until
from tests.ingest import aged
from tests.ingest.line import Edge, batch, now_us, producing
from tests.ingest.test_migrate import ALLOWED, DENIED

RELEASED: Final = {
    False: (
        "df4fd80fc64429ca",  # 0001 register
        "cfa9b21192b31ccb",  # 0002 store
        "eda34f3e0bd7023f",  # 0003 samples
        "ecc323a1031bb21b",  # 0004 alarm
        "d7513f511eb07615",  # 0005 views
        "fc1e16da289d5795",  # 0006 roles
        "cc80abc6ed36e722",  # 0007 aggregates
        "a574ffec5b5e423f",  # 0008 signal_ids
        "e56388ecb98d7627",  # 0009 reading
        "e757a5732c4f80e9",  # 0010 ledger
        "a43fdbd46e59d6b4",  # 0011 first_hours
        "38f3672a35907d03",  # 0012 partitions_at_once
    ),
    True: (
        "df4fd80fc64429ca",  # 0001 register
        "cfa9b21192b31ccb",  # 0002 store
        "8a378f74d9e75929",  # 0003 samples
        "ecc323a1031bb21b",  # 0004 alarm
        "d7513f511eb07615",  # 0005 views
        "fc1e16da289d5795",  # 0006 roles
        "5dd9adfc171b9f99",  # 0007 aggregates
        "083175d0c90f2320",  # 0008 signal_ids
        "73ba1cd736bd7106",  # 0009 reading
        "e757a5732c4f80e9",  # 0010 ledger
        "73203514cc4f7f8a",  # 0011 first_hours
        "d6f0372d6ebac33a",  # 0012 partitions_at_once
    ),
}
"""First bytes of the hash of each released file, by number. A line is added by a release, none is ever changed."""
CONTRACT: Final = {
    "equipment": 'id, class, profile, area, owner, "user", maintainer, status',
    "samples": "equipment, point, time, value, quality",
    "latest": "equipment, point, time, value, quality",
    "samples_1m": "equipment, point, time, avg, min, max, count, count_bad, last",
    "samples_1h": "equipment, point, time, avg, min, max, count, count_bad, last",
    "events": "equipment, time, scheme, code, state",
    "findings": "id, equipment, point, detector",
    "alarms": "id, equipment, point, state, priority",
    "alarm_history": "alarm_id, transition, actor",
    "ingest_progress": "edge, epoch, accepted, missing, samples",
}
"""What ../shared/contracts.md promises to whoever reads by SQL."""


STEPS: Final = (1, 3, 7, SCHEMA_VERSION - 1)
"""Versions that each run of the suite begins with: nothing but a register, samples, their aggregates, the last release."""


@pytest.fixture(params=["plain", "timescale"])
def server(request: pytest.FixtureRequest) -> tuple[str, bool]:
    """URL of a server of either flavour, and whether it is TimescaleDB."""
    if request.param == "plain":
        return request.getfixturevalue("plain_server").url, False
    return request.getfixturevalue("timescale_url"), True


@pytest.mark.parametrize("timescale", [False, True])
def test_a_released_migration_is_never_changed(timescale: bool) -> None:
    found = [m.sha256[:16] for m in migrations(timescale=timescale)]
    assert tuple(found[: len(RELEASED[timescale])]) == RELEASED[timescale]


def expected_hours(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """The hourly aggregates, by plain counting of the rows."""
    query = "SELECT equipment, point, date_trunc('hour', time), time, value, quality FROM samples ORDER BY time"
    cells: dict[tuple[Any, ...], list[tuple[float | None, int]]] = {}
    for equipment, point, hour, _, value, quality in connection.execute(query):
        cells.setdefault((equipment, point, hour), []).append((value, quality))
    found = []
    for key in sorted(cells):
        good = [v for v, quality in cells[key] if v is not None and math.isfinite(v) and quality & 192]
        low, high, last = (min(good), max(good), good[-1]) if good else (None, None, None)
        found.append(
            (*key, sum(good) / len(good) if good else None, low, high, len(good), len(cells[key]) - len(good), last)
        )
    return found


def check(connection: psycopg.Connection[Any], before: dict[str, Any], *, timescale: bool, with_samples: bool) -> None:
    """Data, aggregates, the contract's views and everybody's rights after a migration."""
    for name, (columns, rows) in before.items():
        schema, _, table = name.partition(".")
        assert aged.rows(connection, schema, table, columns) == rows, name
    aged.bring_up_to_date(connection, timescale=timescale)
    connection.execute(f"SET ROLE {READER}".encode())
    for view, columns in CONTRACT.items():
        count = len(connection.execute(f"SELECT {columns} FROM public.{view}".encode()).fetchall())  # noqa: S608
        assert view not in before or count == len(before[view][1])
    hours = connection.execute(f"SELECT {CONTRACT['samples_1h']} FROM samples_1h ORDER BY 1, 2, 3".encode())  # noqa: S608
    assert [approximately(row) for row in hours] == [approximately(row) for row in expected_hours(connection)]
    if with_samples:
        assert (
            connection.execute("SELECT count(*) > 700, sum(count) FROM samples_1m").fetchone()
            == connection.execute("SELECT true, sum(count) FROM samples_1h").fetchone()
        )
    connection.execute("RESET ROLE")


def approximately(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(round(cell, 6) if isinstance(cell, float) else cell for cell in row)


def check_rights(connection: psycopg.Connection[Any]) -> None:
    for role, statement in ALLOWED:
        connection.execute(f"SET ROLE {role}".encode())
        with connection.transaction(force_rollback=True):
            connection.execute(statement.encode())
    for role, statement in DENIED:
        connection.execute(f"SET ROLE {role}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())
    connection.execute("RESET ROLE")


@pytest.mark.parametrize(
    "version",
    [v if v in STEPS else pytest.param(v, marks=pytest.mark.long) for v in range(1, SCHEMA_VERSION + 1)],
)
async def test_a_store_of_every_released_version_comes_forward_with_its_data(
    server: tuple[str, bool], version: int, tmp_path: Path
) -> None:
    url, timescale = server
    with fresh_database(url, template=None) as database:
        await aged.migrate_to(database, version, tmp_path / "then")
        with psycopg.connect(database, autocommit=True) as connection:
            aged.fill(connection, version, timescale=timescale)
            before = aged.snapshot(connection)
        applied = await migrate(Settings(store=database))
        assert [m.version for m in applied] == list(range(version + 1, SCHEMA_VERSION + 1))
        with psycopg.connect(database, autocommit=True) as connection:
            check(connection, before, timescale=timescale, with_samples=version >= 3)
            check_rights(connection)
        if not timescale:  # and once more, when ingest has made aggregates of the rows that it found
            async with await connect(Settings(store=database), INGEST, autocommit=True) as ingest:
                await refresh(ingest, now_us(), kept_days=90)
            with psycopg.connect(database, autocommit=True) as connection:
                check(connection, {}, timescale=False, with_samples=version >= 3)


HOURS_NOT_KEPT: Final = """
SELECT store.ensure_aggregate_partition('sample_1m', 'sample_1m_202603', '2026-03-01 00:00+00', '2026-04-01 00:00+00');
INSERT INTO store.signal (name, equipment, point, name_hash) VALUES ('a/x', 'a', 'x', 1), ('a/y', 'a', 'y', 2);
INSERT INTO store.sample_1m VALUES (1, '2026-03-05 10:07+00', 5, 5, 5, 1, 0, 5), (1, '2026-03-05 10:59+00', 7, 7, 7, 1, 0, 7),
    (2, '2026-03-04 01:00+00', 9, 9, 9, 1, 2, 9), (2, '2026-03-05 13:01+00', 3, 3, 3, 1, 0, 3);
UPDATE store.aggregated SET late_before = '2026-03-05 13:30+00', minutes_to = '2026-03-05 13:30+00',
    hours_to = '2026-03-05 13:00+00'
"""
"""What version 10 made of a new store whose first samples were old: minutes, and no hours of them."""


async def test_hours_that_version_10_did_not_keep_are_there_afterwards(plain_server: Any, tmp_path: Path) -> None:
    with fresh_database(plain_server.url, template=None) as url:
        await aged.migrate_to(url, 10, tmp_path / "then")
        for statement in HOURS_NOT_KEPT.split(";\n"):
            execute(url, statement)
        shown = "SELECT point, to_char(time AT TIME ZONE 'UTC', 'DD HH24'), avg, count, count_bad FROM samples_1h"
        shown += " ORDER BY 1, 2"
        assert execute(url, shown) == [("y", "05 13", 3.0, 1, 0)]
        await migrate(Settings(store=url))
        assert execute(url, shown) == [("x", "05 10", 6.0, 2, 0), ("y", "04 01", 9.0, 1, 2), ("y", "05 13", 3.0, 1, 0)]


async def test_the_schema_is_the_same_whatever_version_it_began_with(server: tuple[str, bool], tmp_path: Path) -> None:
    url, _ = server
    with fresh_database(url, template=None) as at_once, fresh_database(url, template=None) as in_steps:
        await migrate(Settings(store=at_once))
        for version in range(1, SCHEMA_VERSION + 1):
            await aged.migrate_to(in_steps, version, tmp_path / str(version))
        with psycopg.connect(at_once) as one, psycopg.connect(in_steps) as other:
            assert aged.schema(one) == aged.schema(other)
            assert len(aged.schema(one)) > 300


async def test_on_webassembly_a_store_of_an_earlier_version_comes_forward_with_its_data(tmp_path: Path) -> None:
    try:
        installed = await asyncio.to_thread(pglite_directory)
    except RuntimeError as error:
        missing("TimescaleDB as WebAssembly", not_tried="a migration with data on it", how=str(error))
        raise
    wasm = WasmTimescale(installed)
    try:
        await asyncio.to_thread(wasm.start)
        await aged.migrate_to(wasm.url, 7, tmp_path / "then")
        with wasm.connect() as connection:
            aged.fill(connection, 7, timescale=True)
            before = aged.snapshot(connection)
        await migrate(Settings(store=wasm.url))
        with wasm.connect() as connection:
            check(connection, before, timescale=True, with_samples=True)
            check_rights(connection)
    finally:
        wasm.remove()


MIGRATING = """
import asyncio, json, sys
from ingest.migrate import migrate
from telemetry.settings import Settings
print(json.dumps([m.version for m in asyncio.run(migrate(Settings(store=sys.argv[1])))]))
"""


async def migrating(url: str) -> asyncio.subprocess.Process:
    """A process of its own that migrates."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", MIGRATING, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )


async def test_three_processes_that_start_at_once_migrate_once(server: tuple[str, bool]) -> None:
    url, _ = server
    with fresh_database(url, template=None) as database:
        processes = [await migrating(database) for _ in range(3)]
        answers = [await process.communicate() for process in processes]
        assert [process.returncode for process in processes] == [0, 0, 0]
        applied = [json.loads(out.splitlines()[-1]) for out, _ in answers]
        assert sorted(applied) == [[], [], list(range(1, SCHEMA_VERSION + 1))]


STUCK = """
CREATE SEQUENCE public.stuck_at;
CREATE FUNCTION public.stuck() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_query() NOT LIKE '%store_meta.migration (%' AND nextval('public.stuck_at') = 3 THEN
        PERFORM pg_advisory_lock_shared(4711);
    END IF;
END $$;
CREATE EVENT TRIGGER stuck ON ddl_command_start EXECUTE FUNCTION public.stuck();
"""
"""Stops whoever migrates before the third statement of a migration that changes the schema."""


@pytest.mark.parametrize("version", [7, 9])  # of three statements and more
async def test_killed_in_the_middle_of_a_migration_it_leaves_the_version_before(
    server: tuple[str, bool], version: int, tmp_path: Path
) -> None:
    url, _ = server
    with fresh_database(url, template=None) as database, fresh_database(url, template=None) as wanted:
        await aged.migrate_to(wanted, version - 1, tmp_path / "wanted")
        await aged.migrate_to(database, version - 1, tmp_path / "then")
        with psycopg.connect(database, autocommit=True) as holder:
            holder.execute(STUCK)
            holder.execute("SELECT pg_advisory_lock(4711)")
            process = await migrating(database)
            waits = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"
            await until(lambda: bool(execute(database, waits)), what="a migration in its middle")
            assert execute(database, "SELECT last_value FROM stuck_at") == [(3,)]
            process.send_signal(signal.SIGKILL)
            await process.wait()
        others = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'vigil'"
        await until(lambda: not execute(database, others), what="the end of its session")
        execute(database, "DROP EVENT TRIGGER stuck; DROP FUNCTION public.stuck(); DROP SEQUENCE public.stuck_at")
        with psycopg.connect(database) as one, psycopg.connect(wanted) as other:
            assert one.execute("SELECT max(version) FROM store_meta.migration").fetchone() == (version - 1,)
            assert aged.schema(one) == aged.schema(other)
        applied = await migrate(Settings(store=database))
        assert [m.version for m in applied] == list(range(version, SCHEMA_VERSION + 1))
        await migrate(Settings(store=wanted))
        with psycopg.connect(database) as one, psycopg.connect(wanted) as other:
            assert aged.schema(one) == aged.schema(other)


async def test_a_migration_without_a_transaction_that_was_killed_is_finished_by_the_next_one(
    plain_server: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    first = "-- no-transaction\nCREATE TABLE IF NOT EXISTS one (a int);\n"
    (folder / "0001_one.sql").write_text(first + "SELECT 1 / 0;\n")
    with fresh_database(plain_server.url, template=None) as url:
        with pytest.raises(StoreError, match="division by zero"):
            await migrate(Settings(store=url), folder=folder)
        assert execute(url, "SELECT count(*) FROM store_meta.migration") == [(0,)]
        (folder / "0001_one.sql").write_text(first + "CREATE TABLE IF NOT EXISTS two (a int);\n")
        assert [m.version for m in await migrate(Settings(store=url), folder=folder)] == [1]
        assert execute(url, "SELECT to_regclass('one')::text, to_regclass('two')::text") == [("one", "two")]


async def test_a_database_of_a_newer_version_is_told_and_not_written_to(store: Settings) -> None:
    newer = SCHEMA_VERSION + 1
    execute(store.store, "INSERT INTO store_meta.migration VALUES (%s, 'of tomorrow', 'x')", (newer,))
    words = f"expected version {SCHEMA_VERSION} or older, found {newer}: this Vigil is older than its database"
    with pytest.raises(StoreError, match=words):
        await migrate(store)
    with pytest.raises(StoreError, match=words):
        async with migrated(store):
            pytest.fail("a command went on")
    stop, health = asyncio.Event(), Health("alert")
    waiting = asyncio.create_task(wait_for_schema(store, stop, health))
    await until(lambda: "schema" in health.waiting_for, what="a service that waits")
    assert words in health.waiting_for["schema"]
    stop.set()
    assert await waiting is False
    async with producing(store) as producer:
        await Edge(producer).send_samples(batch(["a/x"]))
        with pytest.raises(StoreError, match=words):
            await run(store, asyncio.Event(), Health("ingest"))
    assert execute(store.store, "SELECT count(*) FROM store.progress") == [(0,)]
    assert execute(store.store, "SELECT count(*) FROM store_meta.migration") == [(newer,)]


async def test_an_ingest_whose_database_was_migrated_by_a_newer_one_ends_and_writes_nothing_more(
    plain_store: Settings,
) -> None:
    health = Health("ingest")
    working = asyncio.create_task(run(plain_store, asyncio.Event(), health))
    async with producing(plain_store) as producer:
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x"]))
        await until(lambda: execute(plain_store.store, "SELECT count(*) FROM store.sample") == [(10,)])
        execute(plain_store.store, "INSERT INTO store_meta.migration VALUES (%s, 'x', 'x')", (SCHEMA_VERSION + 1,))
        execute(
            plain_store.store,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()",
        )
        await edge.send_samples(batch(["a/x"]))
        with pytest.raises(StoreError, match="older than its database"):
            async with asyncio.timeout(20):
                await working
    assert execute(plain_store.store, "SELECT count(*) FROM store.sample")[0][0] <= 20


async def test_who_finds_nothing_to_migrate_waits_for_nobody(plain_store: Settings) -> None:
    with psycopg.connect(plain_store.store, autocommit=True) as backup:
        backup.execute("SELECT pg_advisory_lock_shared(%s)", (LOCK,))
        async with asyncio.timeout(10):
            assert await migrate(plain_store) == []
