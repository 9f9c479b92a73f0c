"""A database that is full, may only be read, restarts or moves to another address costs time, not data."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from ingest.audit import audit
from ingest.migrate import migrate
from telemetry.settings import Settings
from tests.fixtures.disk import fill, small_disk
from tests.fixtures.store import StoreServer, database_url, execute, native_timescale, timescale_missing
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, count, ingesting, producing, until_stored


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that the server's own user can reach."""
    path = Path(tempfile.mkdtemp(prefix="vigil-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


async def test_a_full_disk_of_the_database_is_waited_for_and_nothing_is_lost_or_doubled(
    open_folder: Path, tmp_path: Path
) -> None:
    async with small_disk(open_folder, size="220m", not_tried="a database on a full disk") as disk:
        disk.chmod(0o755)
        (disk / "server").mkdir()
        server = StoreServer("plain", disk / "server")
        await asyncio.to_thread(server.start)
        settings = Settings(store=server.url, state_dir=tmp_path / "state")
        try:
            await migrate(settings)
            async with producing(settings) as producer, ingesting(settings) as health:
                edge = Edge(producer)
                await edge.send_samples(batch(["a/x"], samples=10))
                await until_stored(settings, edge)
                fill(disk / "ballast")
                for _ in range(12):
                    await edge.send_samples(batch([f"a/x{n}" for n in range(200)], samples=100))
                await until(lambda: "store" in health.waiting_for, what="the full disk is noticed")
                (disk / "ballast").unlink()
                if server.process is not None and server.process.poll() is not None:
                    server.start()  # no room for its own log: PostgreSQL stops rather than lie
                await edge.send_ledger()
                await until_stored(settings, edge, within_s=60)
                await until(lambda: not health.waiting_for, what="ready again")
            assert count(settings) == 240_010
            assert (await audit(settings)).clean
            assert execute(settings.store, "SELECT count(*) FROM store.dead_letter") == [(0,)]
        finally:
            server.remove()


async def test_tables_without_room_are_waited_for_and_no_record_is_blamed(
    plain_server: StoreServer, open_folder: Path, tmp_path: Path
) -> None:
    """Only the tables are on the full disk, not PostgreSQL's own log: it says so, and goes on."""
    async with small_disk(open_folder, size="64m", not_tried="tables on a full disk") as disk:
        shutil.chown(disk, (plain_server.directory / "pg").owner())
        execute(plain_server.url, f"CREATE TABLESPACE small LOCATION '{disk}'")
        try:
            execute(plain_server.url, "CREATE DATABASE small TABLESPACE small TEMPLATE vigil_template")
            settings = Settings(store=database_url(plain_server.url, "small"), state_dir=tmp_path / "state")
            async with producing(settings) as producer, ingesting(settings) as health:
                edge = Edge(producer)
                await edge.send_samples(batch(["a/x"], samples=10))
                await until_stored(settings, edge)
                fill(disk / "ballast")
                for _ in range(5):
                    await edge.send_samples(batch([f"a/x{n}" for n in range(200)], samples=100))
                await until(lambda: "No space left" in health.waiting_for.get("store", ""), what="said what it lacks")
                (disk / "ballast").unlink()
                await edge.send_ledger()
                await until_stored(settings, edge, within_s=60)
                await until(lambda: not health.waiting_for, what="ready again")
            assert count(settings) == 100_010
            assert (await audit(settings)).clean
            assert execute(settings.store, "SELECT count(*) FROM store.dead_letter") == [(0,)]
        finally:
            execute(plain_server.url, "DROP DATABASE IF EXISTS small WITH (FORCE)")
            execute(plain_server.url, "DROP TABLESPACE small")


async def test_a_database_that_may_only_be_read_is_waited_for(store: Settings) -> None:
    name = execute(store.store, "SELECT current_database()")[0][0]
    async with producing(store) as producer, ingesting(store) as health:
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x"]))
        await until_stored(store, edge)
        execute(store.store, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        execute(
            store.store,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'vigil_ingest' AND datname = current_database()",
        )
        await edge.send_samples(batch(["a/x"]), batch(["new/signal"]))
        await until(lambda: "read-only" in health.waiting_for.get("store", ""), what="said why it waits")
        assert count(store) == 10
        async with ingesting(store) as started_now:
            await until(
                lambda: "read-only" in started_now.waiting_for.get("store", ""), what="one that starts waits, too"
            )
        with_rights = store.store + "&options=-c%20default_transaction_read_only%3Doff"
        execute(with_rights, f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await until_stored(store, edge)
        await until(lambda: not health.waiting_for, what="ready again")
    assert count(store) == 30
    assert execute(store.store, "SELECT count(*) FROM store.dead_letter") == [(0,)]


@contextmanager
def two_servers(folder: Path) -> Iterator[tuple[StoreServer, StoreServer]]:
    """A primary and its streaming standby, made by pg_basebackup."""
    binaries = native_timescale()
    if binaries is None:
        timescale_missing("failover of the database to a standby at another address")
    for name in ("primary", "standby"):
        (folder / name).mkdir()
    primary, standby = (StoreServer("timescale", folder / name) for name in ("primary", "standby"))
    try:
        primary.start()
        data = standby.directory / "pg"
        data.mkdir(mode=0o700)
        shutil.chown(data, "postgres", "postgres")
        command = [
            f"{binaries}/pg_basebackup",
            "-h",
            str(primary.directory / "pg"),
            "-U",
            "postgres",
            "-R",
            "-c",
            "fast",
        ]
        subprocess.run([*command, "-D", str(data)], check=True, capture_output=True, user="postgres", cwd="/")
        for lock in data.glob(".s.PGSQL.*"):
            lock.unlink()  # the primary's socket lies in its data
        standby.start()
        yield primary, standby
    finally:
        standby.remove()
        primary.remove()


@pytest.mark.long
async def test_after_a_failover_to_a_standby_at_another_address_nothing_is_lost_or_doubled(
    open_folder: Path, tmp_path: Path
) -> None:
    """The store's URL names both; the one that may be written is taken. What the standby had not heard of comes again."""
    with two_servers(open_folder) as (primary, standby):
        hosts = ",".join(quote(str(server.directory / "pg"), safe="") for server in (primary, standby))
        both = f"postgresql://postgres@/postgres?host={hosts}&target_session_attrs=read-write"
        settings = Settings(store=both, state_dir=tmp_path / "state")
        await migrate(settings)
        async with producing(settings) as producer, ingesting(settings) as health:
            edge = Edge(producer)
            await edge.send_samples(*(batch(["a/x"]) for _ in range(5)))
            await until_stored(settings, edge)
            await until(lambda: count(Settings(store=standby.url)) == 50, what="the standby follows")
            standby.stop()
            await edge.send_samples(*(batch(["a/x"]) for _ in range(5)))
            await until_stored(settings, edge)
            primary.kill()
            await edge.send_samples(*(batch(["a/x"]) for _ in range(5)))
            await until(lambda: "store" in health.waiting_for, what="the loss noticed")
            standby.start()
            assert count(Settings(store=standby.url)) == 50, "it has never heard of the rest"
            execute(standby.url, "SELECT pg_promote()")
            await edge.send_ledger()
            await until_stored(settings, edge, within_s=60)
            await until(lambda: not health.waiting_for, what="ready again")
        assert count(Settings(store=standby.url)) == 150
        assert (await audit(settings)).clean
