"""What is killed in mid-backup or mid-restore leaves nothing that looks whole, and can be begun again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from ingest.backup import backup
from ingest.backup_manifest import read_manifest
from ingest.backup_restore import check_backup, restore
from ingest.backup_tools import Tools
from ingest.migrate import LOCK, migrate
from telemetry.errors import StateLocked, StoreError
from telemetry.service import Health
from telemetry.settings import Settings
from telemetry.store import wait_for_schema
from tests.fixtures.store import execute, fresh_database
from tests.fixtures.waiting import until
from tests.ingest.backups import TOOLS

PASSWORD = "zx-never-to-be-seen-81"


def _hears_interrupts() -> None:
    """As from a terminal: whoever runs the suite in a shell's background has it ignore SIGINT, and its children, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def command(store: Settings, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`vigil …` on this store, with a password that its server does not ask for."""
    environment = {
        **os.environ,
        "VIGIL_STORE": store.store,
        "VIGIL_STORE_PASSWORD": PASSWORD,
        "VIGIL_STATE_DIR": str(store.state_dir),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "vigil", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=_hears_interrupts,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


@contextmanager
def held(store: Settings) -> Iterator[None]:
    """Somebody keeps a table for himself, so that a dump waits in the middle of its work."""
    with psycopg.connect(store.store) as connection:
        connection.execute("LOCK TABLE store.event IN ACCESS EXCLUSIVE MODE")
        yield


def dumping(store: Settings) -> list[int]:
    """Sessions of pg_dump in this database."""
    database = store.store.rpartition("/")[2].partition("?")[0]
    rows = execute(
        store.store, "SELECT pid FROM pg_stat_activity WHERE application_name = 'pg_dump' AND datname = %s", (database,)
    )
    return [pid for (pid,) in rows]


def waiting_dump(store: Settings) -> bool:
    """Whether pg_dump stands before the table that somebody holds."""
    waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND pid = ANY (%s)"
    return bool(execute(store.store, waits, (dumping(store),)))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def command_lines() -> str:
    """Of every process of this machine, as `ps` shows them."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(lines)


async def test_a_killed_backup_leaves_no_folder_of_its_name_and_ends_its_dump(
    plain_store: Settings, tmp_path: Path
) -> None:
    out, half = tmp_path / "backup", tmp_path / "backup.partial"
    with held(plain_store):
        with command(plain_store, "backup", "--out", str(out)) as process:
            await until(lambda: waiting_dump(plain_store), what="a dump that waits")
            shown = command_lines()
            assert "pg_dump" in shown
            assert PASSWORD not in shown
            with pytest.raises(StateLocked, match="another backup writes to it"):
                backup(plain_store, out, tools=TOOLS)
            process.send_signal(signal.SIGKILL)
            process.wait(20)
        await until(lambda: not dumping(plain_store), what="the end of its dump")
    assert half.is_dir()
    assert not out.exists()
    with pytest.raises(StoreError, match="not a backup, or one that was broken off"):
        check_backup(half)
    manifest = backup(plain_store, out, tools=TOOLS)
    assert not half.exists()
    assert check_backup(out) == manifest


async def test_an_interrupted_backup_takes_away_what_it_made(plain_store: Settings, tmp_path: Path) -> None:
    with held(plain_store), command(plain_store, "backup", "--out", str(tmp_path / "backup")) as process:
        await until(lambda: waiting_dump(plain_store), what="a dump that waits")
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 20) == 130
        await until(lambda: not dumping(plain_store), what="the end of its dump")
    assert names(tmp_path) == []


async def test_a_dump_that_fails_is_no_backup_and_its_words_are_told(plain_store: Settings, tmp_path: Path) -> None:
    with held(plain_store), command(plain_store, "backup", "--out", str(tmp_path / "backup")) as process:
        await until(lambda: waiting_dump(plain_store), what="a dump that waits")
        for pid in dumping(plain_store):
            execute(plain_store.store, "SELECT pg_terminate_backend(%s)", (pid,))
        _, words = await asyncio.to_thread(
            process.communicate, timeout=20
        )  # the table is still held, for the counting, too
        assert process.returncode == 1
    assert b"vigil: pg_dump: ended with 1: " in words
    assert PASSWORD.encode() not in words
    assert names(tmp_path) == []


def test_no_secret_and_no_address_is_in_a_backup(plain_store: Settings, tmp_path: Path) -> None:
    with command(plain_store, "backup", "--out", str(tmp_path / "backup")) as process:
        _, words = process.communicate(timeout=60)
    assert process.returncode == 0, words
    host = plain_store.store.partition("host=")[2].encode()
    files = [path.read_bytes() for path in (tmp_path / "backup").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not any(PASSWORD.encode() in data or host in data for data in [*files, words])
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0


def stopping_restore(folder: Path) -> Path:
    """A folder with a pg_restore that brings tables and rows, and then stands still before the indexes."""
    real, _ = TOOLS.find("pg_restore", 18)
    folder.mkdir()
    script = folder / "pg_restore"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec {real} --version\n'
        f'{real} --section=pre-data --section=data "$@" || exit\necho > {folder}/reached\nexec sleep 1000\n'
    )
    script.chmod(0o755)
    return folder


async def test_a_killed_restore_leaves_a_store_that_nobody_takes_for_one(plain_store: Settings, tmp_path: Path) -> None:
    backup(plain_store, tmp_path / "backup", tools=TOOLS)
    folder = stopping_restore(tmp_path / "tools")
    with fresh_database(plain_store.store, template=None) as url:
        half = Settings(store=url, state_dir=tmp_path / "state")
        with command(half, "restore", str(tmp_path / "backup"), "--tools", str(folder)) as process:
            await until((folder / "reached").exists, what="a restore in its middle")
            with pytest.raises(StoreError, match="another restore is under way"):
                restore(half, tmp_path / "backup", tools=TOOLS)
            process.send_signal(signal.SIGKILL)
            process.wait(20)
        assert execute(url, "SELECT count(*) FROM store.sample") == [(0,)]  # its tables are there
        stop, health = asyncio.Event(), Health("console")
        waiting = asyncio.create_task(wait_for_schema(half, stop, health))
        await until(lambda: "schema" in health.waiting_for, what="a service that waits")
        assert "found 0" in health.waiting_for["schema"]
        stop.set()
        assert await waiting is False
        with pytest.raises(StoreError, match="0001 register"):
            await migrate(half)
        with pytest.raises(StoreError, match="expected an empty database"):
            restore(half, tmp_path / "backup", tools=TOOLS)


async def test_a_store_that_lost_a_row_on_the_way_is_not_taken_for_restored(
    plain_store: Settings, tmp_path: Path
) -> None:
    backup(plain_store, tmp_path / "backup", tools=TOOLS)
    found = read_manifest(tmp_path / "backup")
    more = {**found.tables, "store.event": found.tables["store.event"].model_copy(update={"rows": 1})}
    found.model_copy(update={"tables": more}).write(tmp_path / "backup")
    with fresh_database(plain_store.store, template=None) as url:
        with pytest.raises(StoreError, match=r"store\.event: expected 1 rows, found 0"):
            restore(Settings(store=url), tmp_path / "backup", tools=TOOLS)
        assert execute(url, "SELECT count(*) FROM store_meta.migration") == [(0,)]


async def test_no_migration_begins_during_a_backup(plain_store: Settings, tmp_path: Path) -> None:
    class Migrating(Tools):
        """Somebody starts a newer ingest in mid-backup."""

        __slots__ = ()

        def find(self, name: str, major: int) -> tuple[Path, int]:
            with psycopg.connect(plain_store.store, autocommit=True) as connection:
                connection.execute("SET lock_timeout = '100ms'")
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
            return super().find(name, major)

    backup(plain_store, tmp_path / "backup", tools=Migrating(TOOLS.directories))
