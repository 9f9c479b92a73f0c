"""A backup is one moment of the store, and a restore is that moment again; whatever is not right is refused by name."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingest.backup import backup
from ingest.backup_contents import contents, differences
from ingest.backup_jobs import PUT_OFF_S, put_off
from ingest.backup_manifest import DUMP, NAME, Manifest, read_manifest
from ingest.backup_restore import check_backup, restore
from ingest.backup_tools import Tools, split_secret
from ingest.migrate import LOCK, migrate
from telemetry.batch import from_rows
from telemetry.errors import StoreError
from telemetry.ledger import HOUR_US
from telemetry.messages import Event
from telemetry.settings import Settings
from telemetry.store import SCHEMA_VERSION, conninfo
from tests.fixtures.store import StoreServer, execute, fresh_database
from tests.ingest.backups import TOOLS
from tests.ingest.line import Edge, batch, ingesting, now_us, producing, until_stored
from tests.ingest.test_migrate import ALLOWED, DENIED

HOUR = (now_us() // HOUR_US - 72) * HOUR_US


async def filled(store: Settings) -> None:
    """Through ingest: samples good, bad, not a number and infinite, some long ago, some refused, an event, a ledger."""
    rows = [("a/x", HOUR + 1, 10.0, 192), ("a/x", HOUR + 2, float("nan"), 24), ("a/x", HOUR + 3, float("inf"), 192)]
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(batch([f"b/p{n}" for n in range(5)], samples=2_000, start_us=HOUR, step_us=1_000_000))
        await edge.send_samples(from_rows(rows), batch(["a/x", "a/y"]))
        await edge.send_samples(from_rows([("a/x", now_us() - 40 * 24 * HOUR_US, 1.0, 192)]))
        await edge.send_events(Event("a", HOUR, "gbt24476-2017", "4", True, {"floor": 3}))
        await edge.send_heartbeat(["a", "b"])
        await edge.send_ledger()
        await until_stored(store, edge)
    if execute(store.store, "SELECT FROM pg_extension WHERE extname = 'timescaledb'"):
        for view in ("sample_1m", "sample_1h"):
            execute(store.store, f"CALL refresh_continuous_aggregate('store.{view}', NULL, now() - interval '1 day')")
        execute(
            store.store, "SELECT compress_chunk(c) FROM show_chunks('store.sample', older_than => interval '1 day') c"
        )


def everything(store: Settings) -> dict[str, Any]:
    """Every table's count and checksum, and what the contract's aggregates say."""
    with psycopg.connect(conninfo(store), autocommit=True) as connection:
        found: dict[str, Any] = dict(contents(connection))
    for view in ("samples_1m", "samples_1h", "latest", "events", "ingest_progress"):
        found[view] = execute(store.store, f"SELECT * FROM {view} ORDER BY 1, 2, 3")  # noqa: S608
    return found


async def test_a_restored_store_is_the_one_that_was_backed_up(store: Settings, tmp_path: Path) -> None:
    await filled(store)
    manifest = backup(store, tmp_path / "backup", tools=TOOLS)
    before = everything(store)
    assert manifest.tables["store.sample"].rows == 10_023
    assert manifest.tables["store.dead_letter"].rows == 1
    with fresh_database(store.store, template=None) as url:
        restored = Settings(store=url, state_dir=tmp_path / "other")
        assert restore(restored, tmp_path / "backup", tools=TOOLS) == manifest == read_manifest(tmp_path / "backup")
        assert everything(restored) == before
        versions = "SELECT version, name, sha256, applied_at FROM store_meta.migration ORDER BY 1"
        assert execute(url, versions) == execute(store.store, versions)
        new = "INSERT INTO store.signal (name, equipment, point, name_hash) VALUES ('n/n', 'n', 'n', 1) RETURNING signal_id"
        assert execute(url, new) == execute(store.store, new)  # numbers go on where they were


async def test_a_restored_store_has_the_rights_of_every_role(store: Settings, tmp_path: Path) -> None:
    backup(store, tmp_path / "backup", tools=TOOLS)
    with fresh_database(store.store, template=None) as url:
        restore(Settings(store=url, state_dir=tmp_path / "other"), tmp_path / "backup", tools=TOOLS)
        with psycopg.connect(url, autocommit=True) as connection:
            for role, statement in ALLOWED:
                connection.execute(f"SET ROLE {role}".encode())
                connection.execute(statement.encode())
            for role, statement in DENIED:
                connection.execute(f"SET ROLE {role}".encode())
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())


async def test_roles_that_the_server_lacks_are_made_or_named(plain_store: Settings, tmp_path: Path) -> None:
    backup(plain_store, tmp_path / "backup", tools=TOOLS)
    server = StoreServer("plain")
    try:
        server.start()
        restore(Settings(store=server.url), tmp_path / "backup", tools=TOOLS)
        made = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'vigil%' AND NOT rolcanlogin ORDER BY 1"
        assert execute(server.url, made) == [
            (f"vigil_{name}",) for name in ("alert", "analyze", "console", "ingest", "reader")
        ]
        member = "SELECT pg_has_role('vigil_ingest', 'pg_signal_backend', 'member')"
        assert execute(server.url, member) == [(True,)]
        execute(plain_store.store, "CREATE ROLE test_somebody")
        try:
            execute(plain_store.store, "GRANT SELECT ON samples TO test_somebody")
            backup(plain_store, tmp_path / "second", tools=TOOLS)
            execute(server.url, "CREATE DATABASE second")
            with pytest.raises(StoreError, match="names roles that this server lacks: make test_somebody first"):
                restore(Settings(store=server.url.replace("/postgres?", "/second?")), tmp_path / "second", tools=TOOLS)
        finally:
            execute(plain_store.store, "DROP OWNED BY test_somebody")
            execute(plain_store.store, "DROP ROLE test_somebody")
    finally:
        server.remove()


def login(url: str, role: str) -> Settings:
    """Settings of a login of its own in the database of a superuser's URL."""
    return Settings(store=url.replace("postgres@", f"{role}@"))


async def test_a_superusers_restore_keeps_the_owner_and_anybody_elses_gives_all_to_him(
    plain_server: StoreServer, tmp_path: Path
) -> None:
    owner_of = "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname IN ('register', 'store', 'store_meta')"
    for role in ("test_owner", "test_other"):
        execute(plain_server.url, f"CREATE ROLE {role} LOGIN CREATEROLE")
    try:
        with fresh_database(plain_server.url, template=None) as url:
            execute(url, f"ALTER DATABASE {database(url)} OWNER TO test_owner")
            await migrate(login(url, "test_owner"))
            manifest = backup(login(url, "test_owner"), tmp_path / "backup", tools=TOOLS)
            assert manifest.owners == ("test_owner",)
        with fresh_database(plain_server.url, template=None) as url:
            restore(Settings(store=url), tmp_path / "backup", tools=TOOLS)
            assert execute(url, owner_of) == [("test_owner",)]
        with fresh_database(plain_server.url, template=None) as url:
            execute(url, f"ALTER DATABASE {database(url)} OWNER TO test_other")
            restore(login(url, "test_other"), tmp_path / "backup", tools=TOOLS)
            assert execute(url, owner_of) == [("test_other",)]
        manifest.model_copy(update={"owners": ("test_gone",)}).write(tmp_path / "backup")
        with (
            fresh_database(plain_server.url, template=None) as url,
            pytest.raises(StoreError, match="make test_gone first"),
        ):
            restore(Settings(store=url), tmp_path / "backup", tools=TOOLS)
        with fresh_database(plain_server.url, template=None) as url:
            execute(url, f"ALTER DATABASE {database(url)} OWNER TO test_other")
            restore(
                login(url, "test_other"), tmp_path / "backup", tools=TOOLS
            )  # who gives all to himself needs no owner
            assert execute(url, owner_of) == [("test_other",)]
    finally:
        for role in ("test_owner", "test_other"):
            execute(plain_server.url, f"DROP ROLE {role}")


def database(url: str) -> str:
    return url.rpartition("/")[2].partition("?")[0]


def test_only_a_superuser_restores_timescaledb_and_is_told_so(timescale_store: Settings, tmp_path: Path) -> None:
    backup(timescale_store, tmp_path / "backup", tools=TOOLS)
    execute(timescale_store.store, "CREATE ROLE test_restorer LOGIN")
    try:
        with fresh_database(timescale_store.store, template=None) as url:
            with pytest.raises(StoreError, match="only a superuser"):
                restore(login(url, "test_restorer"), tmp_path / "backup", tools=TOOLS)
            assert execute(url, "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'") == [(0,)]
    finally:
        execute(timescale_store.store, "DROP ROLE test_restorer")


async def test_a_row_that_is_not_as_it_was_is_noticed(store: Settings, tmp_path: Path) -> None:
    await filled(store)
    manifest = backup(store, tmp_path / "backup", tools=TOOLS)
    with psycopg.connect(store.store) as connection:
        assert differences(manifest, connection, checksums=True) == []
        connection.execute("UPDATE store.event SET code = '5'")
        connection.execute("DELETE FROM store.sample WHERE value = 10.0")
        assert [text.partition(" ")[0] for text in differences(manifest, connection, checksums=True)] == [
            "store.event:",
            "store.sample:",
        ]
        assert differences(manifest, connection, checksums=False) == [
            f"store.sample: expected 10023 rows, found {manifest.samples - deleted(connection)}"
        ]
        connection.rollback()


def deleted(connection: psycopg.Connection[Any]) -> int:
    ((found,),) = connection.execute("SELECT 10023 - count(*) FROM store.sample").fetchall()
    assert found > 0
    return int(found)


async def test_a_backup_holds_one_moment_whatever_is_written_meanwhile(store: Settings, tmp_path: Path) -> None:
    await filled(store)
    wanted = everything(store)

    class Interposed(Tools):
        """Somebody writes after the snapshot was taken and before pg_dump starts."""

        __slots__ = ()

        def find(self, name: str, major: int) -> tuple[Path, int]:
            execute(store.store, "INSERT INTO store.sample SELECT 1, now(), 5, 192 FROM generate_series(1, 100)")
            execute(store.store, "UPDATE store.log_position SET next = next + 1")
            return super().find(name, major)

    backup(store, tmp_path / "backup", tools=Interposed(TOOLS.directories, TOOLS.preexec_fn))
    assert everything(store) != wanted
    with fresh_database(store.store, template=None) as url:
        restored = Settings(store=url, state_dir=tmp_path / "other")
        restore(restored, tmp_path / "backup", tools=TOOLS)
        assert everything(restored) == wanted


def test_a_folder_that_is_there_is_not_overwritten(plain_store: Settings, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is there already"):
        backup(plain_store, tmp_path, tools=TOOLS)
    assert not list(tmp_path.parent.glob("*.partial"))


def test_a_store_that_is_not_migrated_is_not_backed_up(plain_server: StoreServer, tmp_path: Path) -> None:
    with fresh_database(plain_server.url, template=None) as url:
        store = Settings(store=url, state_dir=tmp_path)
        with pytest.raises(StoreError, match="not migrated"):
            backup(store, tmp_path / "backup", tools=TOOLS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["changed", "missing", "too many"])
def test_a_damaged_file_is_named_and_nothing_is_restored(plain_store: Settings, tmp_path: Path, damage: str) -> None:
    backup(plain_store, tmp_path / "backup", tools=TOOLS)
    victim = max((tmp_path / "backup" / DUMP).iterdir(), key=lambda path: path.stat().st_size)
    if damage == "changed":
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    elif damage == "missing":
        victim.unlink()
    else:
        victim = victim.with_name("other")
        victim.write_bytes(b"")
    with fresh_database(plain_store.store, template=None) as url:
        with pytest.raises(StoreError, match=f"damaged: store/{victim.name}: "):
            restore(Settings(store=url), tmp_path / "backup", tools=TOOLS)
        assert execute(url, "SELECT to_regclass('store.sample')") == [(None,)]


def rewritten(folder: Path, **changes: Any) -> None:
    """The manifest of a backup as another Vigil might have written it."""
    found = read_manifest(folder)
    Manifest.model_validate({**found.model_dump(), **changes}).write(folder)


def test_a_manifest_that_was_changed_by_hand_is_refused(plain_store: Settings, tmp_path: Path) -> None:
    backup(plain_store, tmp_path / "backup", tools=TOOLS)
    path = tmp_path / "backup" / NAME
    body = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**body, "flavour": "timescale"}), encoding="utf-8")
    with pytest.raises(StoreError, match="was changed since it was written"):
        check_backup(tmp_path / "backup")
    path.write_text(json.dumps({**body, "format": 2}), encoding="utf-8")
    with pytest.raises(StoreError, match="expected format 1, found 2"):
        check_backup(tmp_path / "backup")
    path.unlink()
    with pytest.raises(StoreError, match="not a backup, or one that was broken off"):
        check_backup(tmp_path / "backup")


def test_a_backup_of_a_newer_schema_is_refused(plain_store: Settings, tmp_path: Path) -> None:
    backup(plain_store, tmp_path / "backup", tools=TOOLS)
    found = read_manifest(tmp_path / "backup")
    newer = found.migrations[-1].model_copy(update={"version": SCHEMA_VERSION + 1})
    rewritten(tmp_path / "backup", migrations=[*found.migrations, newer])
    with pytest.raises(StoreError, match=f"version {SCHEMA_VERSION} or older, found {SCHEMA_VERSION + 1}"):
        check_backup(tmp_path / "backup")
    rewritten(tmp_path / "backup", migrations=[found.migrations[0].model_copy(update={"sha256": "0"})])
    with pytest.raises(StoreError, match=r"migrations \[1\] are not those"):
        check_backup(tmp_path / "backup")


def test_a_database_with_anything_in_it_is_refused(plain_store: Settings, tmp_path: Path) -> None:
    backup(plain_store, tmp_path / "backup", tools=TOOLS)
    with pytest.raises(StoreError, match="expected an empty database, found "):
        restore(plain_store, tmp_path / "backup", tools=TOOLS)
    with fresh_database(plain_store.store, template=None) as url:
        execute(url, "CREATE VIEW mine AS SELECT 1")
        with pytest.raises(StoreError, match=r"found public\.mine: make a new one"):
            restore(Settings(store=url), tmp_path / "backup", tools=TOOLS)


def test_beside_a_migration_nothing_is_backed_up_or_restored(plain_store: Settings, tmp_path: Path) -> None:
    """One that is under way holds this lock to its end."""
    with psycopg.connect(plain_store.store, autocommit=True) as migrating:
        migrating.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        with pytest.raises(StoreError, match="backup: a migration or a restore is under way"):
            backup(plain_store, tmp_path / "backup", tools=TOOLS)
    assert list(tmp_path.glob("backup*")) == []
    backup(plain_store, tmp_path / "backup", tools=TOOLS)
    with fresh_database(plain_store.store, template=None) as url, psycopg.connect(url, autocommit=True) as migrating:
        migrating.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        with pytest.raises(StoreError, match="restore: a migration, a backup or another restore is under way"):
            restore(Settings(store=url), tmp_path / "backup", tools=TOOLS)


def test_the_other_flavour_is_refused(plain_store: Settings, timescale_store: Settings, tmp_path: Path) -> None:
    backup(plain_store, tmp_path / "plain", tools=TOOLS)
    backup(timescale_store, tmp_path / "timescale", tools=TOOLS)
    with fresh_database(timescale_store.store, template=None) as url:
        execute(url, "CREATE EXTENSION timescaledb")
        with pytest.raises(StoreError, match="backup is of plain PostgreSQL"):
            restore(Settings(store=url), tmp_path / "plain", tools=TOOLS)
        rewritten(tmp_path / "timescale", timescaledb="2.1.0")
        with pytest.raises(StoreError, match=r"expected TimescaleDB 2\.1\.0 in this database, found"):
            restore(Settings(store=url), tmp_path / "timescale", tools=TOOLS)
    rewritten(tmp_path / "plain", postgres=99)
    with fresh_database(plain_store.store, template=None) as url:
        with pytest.raises(StoreError, match=r"expected a server with TimescaleDB .*, found plain PostgreSQL"):
            restore(Settings(store=url), tmp_path / "timescale", tools=TOOLS)
        with pytest.raises(StoreError, match="expected PostgreSQL 99 or newer"):
            restore(Settings(store=url), tmp_path / "plain", tools=TOOLS)


def test_jobs_that_need_a_chunk_for_themselves_are_put_off_and_due_again(timescale_store: Settings) -> None:
    url = timescale_store.store
    execute(url, "SELECT store.apply_retention('90 days', '30 days')")
    kinds = "('policy_compression', 'policy_retention')"
    due = f"SELECT job_id, next_start FROM timescaledb_information.jobs WHERE proc_name IN {kinds} ORDER BY 1"  # noqa: S608
    (first, second, *_) = [number for number, _ in execute(url, due)]
    soon = datetime.now(UTC) + timedelta(seconds=30)
    execute(url, "SELECT alter_job(%s, next_start => %s)", (first, soon))
    execute(url, "SELECT alter_job(%s, next_start => now() - interval '1 day')", (second,))
    began = datetime.now(UTC)
    with put_off(url):
        during = [at for _, at in execute(url, due)]
    assert all(at >= began + timedelta(seconds=PUT_OFF_S - 1) for at in during)
    (again, at_once, *_) = [at for _, at in execute(url, due)]
    assert again == soon
    assert began <= at_once <= datetime.now(UTC)


def fake(folder: Path, name: str, version: str) -> Path:
    folder.mkdir(parents=True)
    (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
    (folder / name).chmod(0o755)
    return folder


def test_the_tool_nearest_to_the_server_is_taken(tmp_path: Path) -> None:
    folders = [fake(tmp_path / v, "pg_made_up", v) for v in ("18.1", "14.2", "16.9 (Debian 16.9-1)")]
    tools = Tools(folders)
    assert tools.find("pg_made_up", 15) == (folders[2] / "pg_made_up", 16)
    assert tools.find("pg_made_up", 14) == (folders[1] / "pg_made_up", 14)
    with pytest.raises(
        StoreError, match="expected version 19 or newer, found 14, 16, 18: install postgresql-client-19"
    ):
        tools.find("pg_made_up", 19)
    with pytest.raises(StoreError, match="found none"):
        Tools().find("pg_made_up", 15)


def test_a_password_never_stands_on_a_command_line() -> None:
    public, secret = split_secret("host=db user=vigil password='a b' dbname=vigil sslmode=verify-full")
    assert secret == {"PGPASSWORD": "a b"}
    assert "a b" not in public
    assert "sslmode=verify-full" in public
    with pytest.raises(StoreError, match="sslpassword"):
        split_secret("host=db sslpassword=x")
