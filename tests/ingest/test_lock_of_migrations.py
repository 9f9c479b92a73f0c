"""Migrations, backups and restores hold each other off by one lock of the database."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingest.backup import backup
from ingest.backup_restore import restore
from ingest.migrate import LOCK, migrate
from telemetry.settings import Settings
from tests.fixtures.store import execute, fresh_database
from tests.ingest.backups import TOOLS


async def test_what_has_ended_holds_no_lock_though_the_server_does_not_see_that_its_session_is_over(
    plain_store: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore right after a migration found one "under way" on a busy machine."""
    left: list[Any] = []

    async def stays(connection: psycopg.AsyncConnection[Any]) -> None:
        left.append(connection)

    monkeypatch.setattr(psycopg.AsyncConnection, "close", stays)
    monkeypatch.setattr(psycopg.Connection, "close", lambda connection: left.append(connection))
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s"
    with (
        fresh_database(plain_store.store, template=None) as url,
        fresh_database(plain_store.store, template=None) as new,
    ):
        store, restored = Settings(store=url, state_dir=tmp_path), Settings(store=new, state_dir=tmp_path / "new")
        for work in (
            lambda: asyncio.run(migrate(store)),
            lambda: backup(store, tmp_path / "backup", tools=TOOLS),
            lambda: restore(restored, tmp_path / "backup", tools=TOOLS),
        ):
            await asyncio.to_thread(work)
            assert execute(url, locks, (LOCK & 0xFFFFFFFF,)) == [(0,)]
        assert left
        monkeypatch.undo()
        for connection in left:
            connection.pgconn.finish()
