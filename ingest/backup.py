"""`vigil backup`: one moment of a store in a folder, from which `vigil restore` makes the store again.

Samples, the sets of accepted records and the places on the log are dumped in one snapshot, so that what a restored store
lacks is exactly what lies behind its places on the log. Ingest goes on meanwhile; migrations and TimescaleDB's jobs that
need a chunk for themselves wait.

Invariants: the folder gets its name when everything in it is on the disk (until then it is called NAME.partial, and has no
manifest); the manifest's counts are of the same snapshot as the dump.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
import structlog

from ingest.backup_contents import applied_migrations, contents, owners, positions, roles, timescale_version
from ingest.backup_jobs import put_off
from ingest.backup_log import copy_log, gaps
from ingest.backup_manifest import DUMP, FORMAT, LOG, LogPart, Manifest, Place, sums, sync
from ingest.backup_tools import Running, Tools
from ingest.migrate import LOCK
from telemetry.errors import StateLocked, StoreError
from telemetry.settings import Settings
from telemetry.store import SCHEMA_VERSION, away, conninfo

log = structlog.get_logger()

Connection = psycopg.Connection[Any]

LOCK_WAIT: Final = "60s"
"""How long a backup waits for a table that somebody holds for himself: pg_dump, and the counting beside it."""
LOOK_EVERY_S: Final = 0.2
"""How often is looked whether pg_dump still does its work, while the counting goes on."""
CANCEL_WITHIN_S: Final = 10.0
PARTIAL: Final = ".partial"
_DUMP_ARGUMENTS: Final = (
    "--format=directory",
    "--compress=1",
    "--exclude-table-data=store_meta.migration",
)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A transaction that is held open, and what is known of its moment."""

    connection: Connection
    name: str
    at: datetime


def backup(settings: Settings, out: Path, *, tools: Tools) -> Manifest:
    """Makes the folder `out`, which must not be there. Blocks until all of it is on the disk.

    Raises StoreUnavailable; StoreError where the store is not migrated, a tool fails or the folder is there already;
    LogUnavailable; StateLocked while another backup writes to it; OSError.
    """
    address = conninfo(settings)
    try:
        with _folder(out) as folder, _lock_of_migrations(address), _snapshot(address) as snapshot:
            manifest = _fill(folder, settings, snapshot, tools)
            manifest.write(folder)
        return manifest
    except psycopg.OperationalError as error:
        raise away(settings, error) from error
    except psycopg.Error as error:
        raise StoreError(f"backup: {str(error).strip()}") from error


def _fill(folder: Path, settings: Settings, snapshot: _Snapshot, tools: Tools) -> Manifest:
    connection = snapshot.connection
    applied = applied_migrations(connection)
    if not applied:
        raise StoreError(
            f"backup: expected a store of version {SCHEMA_VERSION} or older, found one that is not migrated"
        )
    places = positions(connection)
    parts = _copy_log(settings, folder, places)
    major = connection.info.server_version // 10_000
    path, dumped_by = tools.find("pg_dump", major)
    timescale = timescale_version(connection)
    with put_off(conninfo(settings)) if timescale else nullcontext():
        arguments = [
            *_DUMP_ARGUMENTS,
            f"--lock-wait-timeout={LOCK_WAIT}",
            f"--file={folder / DUMP}",
            f"--snapshot={snapshot.name}",
        ]
        dump = tools.start(path, arguments, conninfo(settings))
        try:
            with _broken_off_with(dump, connection):
                tables = contents(connection)
            dump.wait()
        finally:
            dump.end()
    return Manifest(
        format=FORMAT,
        made_at=snapshot.at,
        vigil=version("vigil-line"),
        flavour="timescale" if timescale else "plain",
        timescaledb=timescale,
        postgres=major,
        dumped_by=dumped_by,
        migrations=applied,
        roles=roles(connection),
        owners=owners(connection),
        positions=places,
        tables=tables,
        log=parts,
        files=_settled(folder),
    )


@contextmanager
def _broken_off_with(dump: Running, connection: Connection) -> Iterator[None]:
    """While the body counts: where the dump fails, the counting is cancelled, and what the dump said is raised at once."""
    done = threading.Event()
    watching = threading.Thread(target=_watch, args=(dump, connection, done), name="backup-dump", daemon=True)
    watching.start()
    try:
        yield
    except psycopg.errors.QueryCanceled:
        if dump.failed():
            dump.wait()
        raise
    finally:
        done.set()
        watching.join()


def _watch(dump: Running, connection: Connection, done: threading.Event) -> None:
    """Cancels again and again: one that comes between two statements changes nothing."""
    while not done.wait(LOOK_EVERY_S):
        if dump.failed():
            with suppress(psycopg.Error):  # the counting learns by itself that its connection is gone
                connection.cancel_safe(timeout=CANCEL_WITHIN_S)


def _copy_log(settings: Settings, folder: Path, places: Sequence[Place]) -> tuple[LogPart, ...]:
    """Of the embedded log; Kafka keeps itself."""
    if settings.log != "embedded:":
        return ()
    parts = copy_log(settings.state_dir / "log", folder / LOG)
    for fault in gaps(parts, places):
        log.warning("the log does not continue the store", what=fault)
    return parts


def _settled(folder: Path) -> dict[str, Any]:
    """The sums of all files, after they and the folders' names are on the disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
    return dict(sums(folder))


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `out` when the body is done, and is removed when it fails.

    Its lock is inherited by no child: a killed backup's leavings are cleared by the next one to the same place.
    """
    if out.exists():
        raise StoreError(f"{out}: is there already: a backup makes its folder itself")
    half = out.with_name(out.name + PARTIAL)
    half.mkdir(parents=True, exist_ok=True, mode=0o700)
    number = os.open(half, os.O_RDONLY)
    try:
        _take(number, half)
        for left in half.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield half
        except BaseException:
            shutil.rmtree(half, ignore_errors=True)
            raise
        half.rename(out)
        sync(out.parent)
    finally:
        os.close(number)


def _take(number: int, half: Path) -> None:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StateLocked(f"{half}: another backup writes to it") from None


@contextmanager
def _lock_of_migrations(address: str) -> Iterator[None]:
    """No migration begins while the body runs. Backups do not disturb each other."""
    with psycopg.connect(address, autocommit=True, application_name="vigil backup") as connection:
        row = connection.execute("SELECT pg_try_advisory_lock_shared(%s)", (LOCK,)).fetchone()
        if not (row and row[0]):
            raise StoreError("backup: a migration or a restore is under way: try again when it is done")
        yield
        with suppress(psycopg.Error):  # at once: a server may take a while to see that a session has ended
            connection.execute("SELECT pg_advisory_unlock_shared(%s)", (LOCK,))


@contextmanager
def _snapshot(address: str) -> Iterator[_Snapshot]:
    """Everything that is read on its connection, and by whoever is told its name, is of one moment."""
    options = f"-c timezone=UTC -c lock_timeout={LOCK_WAIT}"
    with psycopg.connect(address, options=options, application_name="vigil backup") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        ((name, at),) = connection.execute(_EXPORT)
        yield _Snapshot(connection, str(name), at.astimezone(UTC))


_EXPORT: Final[LiteralString] = "SELECT pg_export_snapshot(), now()"
