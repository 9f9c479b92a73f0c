"""Migrations: once, in order, never changed afterwards; each role gets what it needs and no more."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ingest.migrate import Migration, migrate, migrations, statements
from telemetry.errors import StoreError, StoreUnavailable
from telemetry.service import Health
from telemetry.settings import Settings
from telemetry.store import (
    ALERT,
    ANALYZE,
    CONSOLE,
    INGEST,
    OWNER,
    READER,
    SCHEMA_VERSION,
    connect,
    schema_version,
    wait_for_schema,
)
from tests.fixtures.store import StoreServer, execute, fresh_database
from tests.fixtures.waiting import until


@pytest.mark.parametrize("timescale", [False, True])
def test_the_code_expects_the_last_migration_of_either_flavour(timescale: bool) -> None:
    assert migrations(timescale=timescale)[-1].version == SCHEMA_VERSION


async def test_a_second_run_applies_nothing(store: Settings) -> None:
    assert await migrate(store) == []


@pytest.mark.parametrize("server", ["plain", "timescale"])
async def test_two_instances_that_start_at_once_migrate_once(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue("plain_server").url if server == "plain" else request.getfixturevalue("timescale_url")
    with fresh_database(url, template=None) as database:
        settings = Settings(store=database, state_dir=tmp_path)
        first, second = await asyncio.gather(migrate(settings), migrate(settings))
        assert sorted([len(first), len(second)]) == [0, SCHEMA_VERSION]


@pytest.fixture
def owner(timescale_url: str, tmp_path: Path) -> Iterator[Settings]:
    """Of an empty database on a server with TimescaleDB, as the login that owns it and may make roles, and nothing else."""
    name = f"owner_{secrets.token_hex(4)}"
    execute(timescale_url, f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD '{name}'")
    try:
        with fresh_database(timescale_url, template=None) as url:
            execute(url, f"ALTER DATABASE {conninfo_to_dict(url)['dbname']} OWNER TO {name}")
            yield Settings(store=make_conninfo(url, user=name, password=name), state_dir=tmp_path)
    finally:
        execute(timescale_url, f"DROP ROLE {name}")


async def test_the_owner_of_a_database_makes_the_extension_and_migrates(owner: Settings) -> None:
    assert len(await migrate(owner)) == SCHEMA_VERSION
    assert execute(owner.store, "SELECT extname FROM pg_extension WHERE extname = 'timescaledb'")


async def test_a_login_that_is_no_member_of_a_services_role_is_told_how_it_becomes_one(owner: Settings) -> None:
    await migrate(owner)
    name = conninfo_to_dict(owner.store)["user"]
    with pytest.raises(StoreUnavailable, match=f'"{name}" is no member .*: GRANT vigil_ingest TO "{name}"'):
        await connect(owner, INGEST)


async def test_a_file_that_was_applied_and_changed_is_refused(plain_store: Settings) -> None:
    execute(plain_store.store, "UPDATE store_meta.migration SET sha256 = 'other' WHERE version = 2")
    with pytest.raises(StoreError, match="0002 store: expected the file that was applied"):
        await migrate(plain_store)


async def test_a_failing_migration_leaves_nothing_behind(plain_server: StoreServer, tmp_path: Path) -> None:
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE one (a int);")
    (tmp_path / "0002_two.sql").write_text("CREATE TABLE two (a int); SELECT 1 / 0;")
    with fresh_database(plain_server.url, template=None) as url:
        with pytest.raises(StoreError, match="0002 two: division by zero"):
            await migrate(Settings(store=url), folder=tmp_path)
        assert execute(url, "SELECT to_regclass('one')::text, to_regclass('two')::text") == [("one", None)]
        assert execute(url, "SELECT version FROM store_meta.migration") == [(1,)]


async def test_a_migration_may_ask_for_no_transaction(plain_server: StoreServer, tmp_path: Path) -> None:
    (tmp_path / "0001_one.sql").write_text(
        "-- no-transaction\nCREATE TABLE one (a int);\nCREATE INDEX CONCURRENTLY ON one (a);\n"
    )
    with fresh_database(plain_server.url, template=None) as url:
        applied = await migrate(Settings(store=url), folder=tmp_path)
        assert [m.name for m in applied] == ["one"]
        assert execute(url, "SELECT count(*) FROM pg_indexes WHERE tablename = 'one'") == [(1,)]


def test_a_gap_in_the_numbers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0001_one.sql").write_text("SELECT 1;")
    (tmp_path / "0003_three.sql").write_text("SELECT 1;")
    with pytest.raises(StoreError, match=r"expected 1, 2, 3, …, found \[1, 3\]"):
        migrations(timescale=False, folder=tmp_path)


def test_each_flavour_takes_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "0001_one.plain.sql").write_text("SELECT 'plain';")
    (tmp_path / "0001_one.timescale.sql").write_text("SELECT 'timescale';")
    assert migrations(timescale=True, folder=tmp_path) == [Migration(1, "one", "SELECT 'timescale';")]


def test_statements_end_at_a_semicolon_at_the_end_of_a_line() -> None:
    assert statements("-- no-transaction\nSELECT ';' AS a;\nSELECT 2;\n") == [
        "-- no-transaction\nSELECT ';' AS a",
        "SELECT 2",
    ]


async def test_waiting_for_the_schema_says_what_is_missing_and_stops_when_told(plain_server: StoreServer) -> None:
    stop, health = asyncio.Event(), Health("console")
    with fresh_database(plain_server.url, template=None) as url:
        waiting = asyncio.create_task(wait_for_schema(Settings(store=url), stop, health))
        await until(lambda: "schema" in health.waiting_for, what="waiting for the schema")
        assert "expected version" in health.waiting_for["schema"]
        stop.set()
        assert await waiting is False


async def test_waiting_for_the_schema_ends_when_it_is_there(store: Settings) -> None:
    health = Health("console")
    assert await wait_for_schema(store, asyncio.Event(), health) is True
    assert health.waiting_for == {}


DENIED = [
    (READER, "SELECT FROM store.sample"),
    (READER, "SELECT FROM alarm.command"),
    (INGEST, "DELETE FROM store.sample"),
    (INGEST, "UPDATE store.sample SET value = 0"),
    (INGEST, "UPDATE register.audit SET actor = 'nobody'"),
    (INGEST, "SELECT FROM alarm.alarm"),
    (ANALYZE, "INSERT INTO store.sample VALUES (1, now(), 1, 192)"),
    (ANALYZE, "SELECT FROM alarm.alarm"),
    (ANALYZE, "SELECT store.apply_retention('90 days', '30 days')"),
    (ANALYZE, "SELECT store.apply_retention('{}'::jsonb)"),
    (ALERT, "SELECT FROM store.sample"),
    (ALERT, "DELETE FROM alarm.history"),
    (CONSOLE, "INSERT INTO store.sample VALUES (1, now(), 1, 192)"),
    (CONSOLE, "UPDATE alarm.alarm SET state = 'normal'"),
    (CONSOLE, "UPDATE register.equipment SET address = ''"),
]
ALLOWED = [
    *((role, f"SELECT FROM public.{view}") for role in (READER, CONSOLE) for view in (
        "areas", "organisations", "equipment", "signals", "samples", "latest", "events", "findings", "edges",
        "online_history", "alarms", "alarm_history", "ingest_progress", "samples_1m", "samples_1h",
    )),
    (INGEST, "SELECT store.ensure_sample_partitions(now(), now())"),
    (INGEST, "SELECT store.apply_retention('90 days', '30 days')"),
    (INGEST, "INSERT INTO store.event (equipment, time, scheme, code, state, edge) VALUES ('e', now(), 's', '1', 'on', 'x')"),
    (ANALYZE, "DELETE FROM store.snapshot"),
    (ALERT, "SELECT FROM register.equipment"),
    (CONSOLE, "INSERT INTO alarm.command (command_id, alarm_id, command, by) VALUES ('1', 'a', 'acknowledge', 'b')"),
]  # fmt: skip


async def test_roles_may_do_their_own_work_and_nothing_else(store: Settings) -> None:
    for role, statement in ALLOWED:
        connection = await connect(store, role, autocommit=True)
        async with connection:
            await connection.execute(statement)
    for role, statement in DENIED:
        connection = await connect(store, role, autocommit=True)
        async with connection:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement)


async def test_raw_retention_must_be_longer_than_the_bound_on_late_data(store: Settings) -> None:
    async with await connect(store, INGEST, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.RaiseException, match="must be longer"):
            await connection.execute("SELECT store.apply_retention('30 days', '30 days')")


async def test_the_version_of_an_empty_database_is_zero(plain_server: StoreServer) -> None:
    with fresh_database(plain_server.url, template=None) as url:
        async with await connect(Settings(store=url), OWNER) as connection:
            assert await schema_version(connection) == 0
