"""Schema migrations: numbered SQL files, forward only, each applied once and recorded with its hash.

Invariants: a file is applied in a transaction together with its record, so whoever is killed in the middle leaves the version
before it or the one after it; a file whose first line says `-- no-transaction` is applied statement by statement, and each of
its statements may be said again (IF NOT EXISTS). Instances that start at once migrate once (an advisory lock, which a backup
shares); one that finds nothing to do takes no lock. A file that was applied and then changed is refused, and so is a database
of a newer version: nothing is written to it.
`NNNN_name.sql` is for both flavours, `NNNN_name.timescale.sql` and `NNNN_name.plain.sql` are for one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final, LiteralString

import psycopg
import structlog

from telemetry.errors import StoreError, StoreUnavailable
from telemetry.settings import Settings
from telemetry.store import OWNER, answered, connect, too_new

log = structlog.get_logger()

Connection = psycopg.AsyncConnection[Any]

NO_TRANSACTION: Final = "-- no-transaction"
LOCK: Final = 0x5669_6769_6C00  # "Vigil", the advisory lock of migrations
_FILE: Final = re.compile(r"^(\d{4})_(\w+?)(?:\.(timescale|plain))?\.sql$")


@dataclass(frozen=True, slots=True, order=True)
class Migration:
    """One file."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Hash of the file's text, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations(*, timescale: bool, folder: Traversable | None = None) -> list[Migration]:
    """The files of one flavour, in order. Raises StoreError for a number that is missing or used twice."""
    found = []
    for path in (folder or files("ingest") / "migrations").iterdir():
        match = _FILE.match(path.name)
        if match and match[3] in (None, "timescale" if timescale else "plain"):
            found.append(Migration(int(match[1]), match[2], path.read_text(encoding="utf-8")))
    found.sort()
    if [m.version for m in found] != list(range(1, len(found) + 1)):
        raise StoreError(f"migrations: expected 1, 2, 3, …, found {[m.version for m in found]}")
    return found


async def migrate(settings: Settings, *, folder: Traversable | None = None) -> list[Migration]:
    """Brings the schema up to date, as the login of the settings (its owner). Returns what was applied.

    Raises StoreUnavailable, or StoreError where an applied file has changed, the database is newer than this code, a
    migration fails or the login may not.
    """
    if await _up_to_date(settings, folder):
        return []
    timescale = await _ensure_timescale(settings)
    wanted = migrations(timescale=timescale, folder=folder)
    connection = await connect(settings, OWNER, autocommit=True)
    try:
        await _lock(connection)
        await connection.execute(_META)
        todo = _todo(wanted, await _applied(connection))
        for migration in todo:
            await _apply(connection, migration)
        with suppress(psycopg.Error):  # at once: a server may take a while to see that a session has ended
            await connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))
    except psycopg.OperationalError as error:
        raise StoreUnavailable(str(error).strip()) from error
    except psycopg.Error as error:
        raise StoreError(f"migration: {error}") from error
    finally:
        await connection.close()  # lets go of the lock, too
    if todo:
        log.info("migrated", applied=[m.version for m in todo], flavour="timescale" if timescale else "plain")
    return todo


async def has_timescale(connection: Connection) -> bool:
    """Whether samples are in a hypertable in this database."""
    cursor = await connection.execute("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')")
    row = await cursor.fetchone()
    return bool(row and row[0])


async def _up_to_date(settings: Settings, folder: Traversable | None) -> bool:
    """Whether there is nothing to do. Takes no lock and writes nothing: an ingest that starts again waits for no backup."""
    connection = await connect(settings, OWNER, autocommit=True)
    try:
        async with answered():
            applied, timescale = await _applied(connection), await has_timescale(connection)
        return bool(applied) and not _todo(migrations(timescale=timescale, folder=folder), applied)
    except psycopg.OperationalError as error:
        raise StoreUnavailable(str(error).strip()) from error
    except psycopg.Error as error:
        raise StoreError(f"migration: {error}") from error
    finally:
        await connection.close()


async def _lock(connection: Connection) -> None:
    """Waits until no other migration, backup or restore is under way, and says so."""
    cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,))
    row = await cursor.fetchone()
    if not (row and row[0]):
        log.info("migration waits", why="another instance migrates, or a backup or restore is under way")
        await connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))


async def _ensure_timescale(settings: Settings) -> bool:
    """Makes the extension where the server has it, in a session of its own: it must be the first thing there."""
    connection = await connect(settings, OWNER, autocommit=True)
    try:
        if await has_timescale(connection):
            return True
        if await _flavour_was_plain(connection):
            return False
        cursor = await connection.execute(
            "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')"
            # A setting of the loader: the list of what is preloaded is shown to superusers only, not to a database's owner.
            " AND EXISTS (SELECT FROM pg_settings WHERE name = 'timescaledb.disable_load')"
        )
        row = await cursor.fetchone()
        if not (row and row[0]):
            return False
        await _lock(connection)
        await connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        return True
    except psycopg.OperationalError as error:
        raise StoreUnavailable(str(error).strip()) from error
    except psycopg.Error as error:
        raise StoreError(f"migration: timescaledb: {error}") from error
    finally:
        await connection.close()


async def _flavour_was_plain(connection: Connection) -> bool:
    """A database that was begun without the extension stays plain when the server gets it later."""
    cursor = await connection.execute("SELECT to_regclass('store.sample') IS NOT NULL")
    row = await cursor.fetchone()
    return bool(row and row[0])


async def _applied(connection: Connection) -> dict[int, tuple[str, str]]:
    cursor = await connection.execute("SELECT to_regclass('store_meta.migration') IS NOT NULL")
    row = await cursor.fetchone()
    if not (row and row[0]):
        return {}
    cursor = await connection.execute("SELECT version, name, sha256 FROM store_meta.migration")
    return {version: (name, sha256) for version, name, sha256 in await cursor.fetchall()}


def _todo(wanted: Sequence[Migration], applied: dict[int, tuple[str, str]]) -> list[Migration]:
    """What is missing. Raises StoreError where what was applied is not a beginning of what this code has."""
    newest = max(applied, default=0)
    if newest > len(wanted):
        raise StoreError(too_new(newest, len(wanted)))
    for migration in wanted:
        name, sha256 = applied.get(migration.version, (migration.name, migration.sha256))
        if sha256 != migration.sha256:
            raise StoreError(
                f"migration {migration.version:04d} {migration.name}: expected the file that was applied as {name} "
                f"({sha256[:12]}), found another ({migration.sha256[:12]}); an applied migration is never changed"
            )
    return [m for m in wanted if m.version not in applied]


async def _apply(connection: Connection, migration: Migration) -> None:
    record = "INSERT INTO store_meta.migration (version, name, sha256) VALUES (%s, %s, %s)"
    values = (migration.version, migration.name, migration.sha256)
    try:
        if migration.sql.startswith(NO_TRANSACTION):
            for statement in statements(migration.sql):
                await connection.execute(statement)
            await connection.execute(record, values)
            return
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(record, values)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise StoreError(f"migration {migration.version:04d} {migration.name}: {error}") from error


def statements(sql: str) -> list[str]:
    """The statements of a no-transaction file: each ends with `;` at the end of a line. No function bodies there."""
    return [part.strip() for part in re.split(r";\s*$", sql, flags=re.MULTILINE) if part.strip()]


_META: Final[LiteralString] = """
CREATE SCHEMA IF NOT EXISTS store_meta;
CREATE TABLE IF NOT EXISTS store_meta.migration (
    version    int PRIMARY KEY,
    name       text NOT NULL,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
GRANT USAGE ON SCHEMA store_meta TO PUBLIC;
GRANT SELECT ON store_meta.migration TO PUBLIC;
"""
