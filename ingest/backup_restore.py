"""`vigil restore`: a backup's store into an empty database.

Invariant: a restored store is one when store_meta.migration has its rows, and they are written last, after every table was
counted against the manifest. A store whose restore was broken off has version 0: services wait at it, `vigil ingest` and
another restore refuse it. No migration begins meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from ingest.backup_contents import differences, relations, timescale_version
from ingest.backup_log import restore_log
from ingest.backup_manifest import DUMP, LOG, Manifest, check_files, read_manifest
from ingest.backup_tools import Tools
from ingest.migrate import LOCK, migrations
from telemetry.errors import StoreError
from telemetry.settings import Settings
from telemetry.store import ALERT, ANALYZE, CONSOLE, INGEST, READER, SCHEMA_VERSION, away, conninfo

Connection = psycopg.Connection[Any]

_OUR_ROLES: Final = (READER, INGEST, ANALYZE, ALERT, CONSOLE)
"""Are made where they are missing, without a login."""


def check_backup(folder: Path) -> Manifest:
    """A whole backup that this code can restore. Touches no database. Raises StoreError."""
    manifest = read_manifest(folder)
    if manifest.schema_version > SCHEMA_VERSION:
        raise StoreError(
            f"{folder}: expected schema version {SCHEMA_VERSION} or older, found {manifest.schema_version}: "
            f"restore it with Vigil {manifest.vigil} or newer"
        )
    known = {m.version: m.sha256 for m in migrations(timescale=manifest.flavour == "timescale")}
    strange = [m.version for m in manifest.migrations if known.get(m.version) != m.sha256]
    if strange:
        raise StoreError(f"{folder}: migrations {strange} are not those of this Vigil")
    check_files(folder, manifest)
    return manifest


def restore(settings: Settings, folder: Path, *, tools: Tools) -> Manifest:
    """Fills the empty database of the settings, and the embedded log where there is none. Blocks until it is done.

    Raises StoreUnavailable; StoreError where the backup is damaged, of another flavour or newer than this code, the database
    is not empty, lacks what it needs, or does not hold what the manifest says afterwards.
    """
    manifest = check_backup(folder)
    address = conninfo(settings)
    try:
        with _alone(address):
            superuser = _prepare(address, manifest)
            _load(address, folder, manifest, tools, keep_owners=superuser)
            _finish(address, manifest)
    except psycopg.OperationalError as error:
        raise away(settings, error) from error
    except psycopg.Error as error:
        raise StoreError(f"restore: {str(error).strip()}") from error
    return manifest


def restore_embedded_log(settings: Settings, folder: Path) -> bool:
    """Puts the backup's copy of the embedded log in where there is none. False where one is there, or the log is Kafka."""
    if settings.log != "embedded:" or not (folder / LOG).is_dir():
        return False
    return restore_log(folder / LOG, settings.state_dir / "log")


@contextmanager
def _alone(address: str) -> Iterator[None]:
    with _connect(address) as connection:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
        if not (row and row[0]):
            raise StoreError("restore: a migration, a backup or another restore is under way in this database")
        yield
        with suppress(psycopg.Error):  # at once: a server may take a while to see that a session has ended
            connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))


def _prepare(address: str, manifest: Manifest) -> bool:
    """Looks whether the backup fits, then makes the roles and the extension. Returns whether the login is a superuser."""
    with _connect(address) as connection:
        _refuse_unfit(connection, manifest)
        ((superuser,),) = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        if manifest.timescaledb is not None and not superuser:
            raise StoreError("restore: TimescaleDB lets only a superuser restore: give VIGIL_STORE with such a login")
        _make_roles(connection, [*manifest.roles, *(manifest.owners if superuser else ())])
    if manifest.timescaledb is not None:
        with _connect(address) as connection:  # the extension must be the first thing of its session
            version = sql.Literal(manifest.timescaledb)
            connection.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS timescaledb VERSION {}").format(version))
    return bool(superuser)


def _refuse_unfit(connection: Connection, manifest: Manifest) -> None:
    there = relations(connection)
    if there:
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        raise StoreError(
            f"restore: expected an empty database, found {', '.join(there[:3])}{more}: make a new one (CREATE DATABASE)"
        )
    found = timescale_version(connection)
    if manifest.timescaledb is None and found is not None:
        raise StoreError(
            "restore: the backup is of plain PostgreSQL, this database has the extension timescaledb: "
            "expected a database without it"
        )
    if manifest.timescaledb is not None:
        _refuse_other_timescale(connection, manifest.timescaledb, found)
    major = connection.info.server_version // 10_000
    if major < manifest.postgres:
        raise StoreError(f"restore: expected PostgreSQL {manifest.postgres} or newer, found {major}")


def _refuse_other_timescale(connection: Connection, wanted: str, found: str | None) -> None:
    """A dump holds the catalogue of its own version of the extension."""
    if found is not None and found != wanted:
        raise StoreError(f"restore: expected TimescaleDB {wanted} in this database, found {found}")
    rows = connection.execute("SELECT version FROM pg_available_extension_versions WHERE name = 'timescaledb'")
    offered = sorted(str(version) for (version,) in rows)
    if wanted not in offered:
        has = ", ".join(offered) if offered else "plain PostgreSQL without TimescaleDB"
        raise StoreError(f"restore: expected a server with TimescaleDB {wanted}, found {has}")


def _make_roles(connection: Connection, wanted: Sequence[str]) -> None:
    """Groups of ours as migration 0006 makes them; other roles are somebody's logins, which nobody can make up."""
    there = {str(name) for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
    missing = [name for name in wanted if name not in there]
    others = [name for name in missing if name not in _OUR_ROLES]
    if others:
        raise StoreError(f"restore: the backup names roles that this server lacks: make {', '.join(others)} first")
    for name in missing:
        connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)))
    if INGEST in missing:
        with suppress(psycopg.errors.InsufficientPrivilege):  # as in 0006: then workers must share one login
            connection.execute(_SIGNAL_RIGHTS)


def _major(address: str, manifest: Manifest) -> int:
    """The version that pg_restore must have: not older than the dump's, nor than the server's."""
    with _connect(address) as connection:
        return max(manifest.dumped_by, connection.info.server_version // 10_000)


def _load(address: str, folder: Path, manifest: Manifest, tools: Tools, *, keep_owners: bool) -> None:
    """Everything in the dump. Without `keep_owners` it belongs to who is logged in."""
    path, _ = tools.find("pg_restore", _major(address, manifest))
    if manifest.timescaledb is not None:
        _call(address, "SELECT timescaledb_pre_restore()")
    owners = [] if keep_owners else ["--no-owner"]
    running = tools.start(path, [*owners, "--exit-on-error", str(folder / DUMP)], address)
    try:
        running.wait()
    finally:
        running.end()
    if manifest.timescaledb is not None:
        _call(address, "SELECT timescaledb_post_restore()")


def _call(address: str, statement: LiteralString) -> None:
    """In a session of its own: TimescaleDB's restoring mode counts from the next one on."""
    with _connect(address) as connection:
        connection.execute(statement)


def _finish(address: str, manifest: Manifest) -> None:
    """Counts everything again; if it is what was backed up, the store is one from here on."""
    with _connect(address) as connection:
        same_hashes = connection.info.server_version // 10_000 == manifest.postgres
        faults = differences(manifest, connection, checksums=same_hashes)
        if faults:
            raise StoreError("restore: the store is not what was backed up: " + "; ".join(faults))
        connection.execute("ANALYZE")
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO store_meta.migration (version, name, sha256, applied_at) VALUES (%s, %s, %s, %s)",
                [(m.version, m.name, m.sha256, m.applied_at) for m in manifest.migrations],
            )


def _connect(address: str) -> Connection:
    return psycopg.connect(address, autocommit=True, options="-c timezone=UTC", application_name="vigil restore")


_SIGNAL_RIGHTS: Final[LiteralString] = "GRANT pg_signal_backend, pg_read_all_stats TO vigil_ingest"
