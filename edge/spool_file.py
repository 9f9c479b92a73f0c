"""The spool's file: its schema, its lock, and what happens to one that cannot be read.

Invariant: opening never destroys anything. A file that is no sound database is moved aside under a new name; one of an
earlier version (user_version) is brought up to this one in one transaction, without copying its records.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import structlog

from telemetry.errors import StateLocked
from telemetry.lock_file import try_lock

log = structlog.get_logger()

VERSION: Final = 2
CHECKED_BYTES: Final = 256 << 20
"""A file up to this size is checked whole at opening; a larger one only where damage was found while it was used."""
PAGE_BYTES: Final = 16_384
"""Of a new file. A record of 120 kB costs half the CPU that it costs on pages of 4 kB; benchmarks/spool.py."""
CHECKPOINT_BYTES: Final = 8 << 20
CHECKPOINT_MIN_BYTES: Final = 256 << 10
"""The write-ahead log is copied into the file when it has grown so far: the later, the fewer pages are written twice. On a
small disk earlier: when it has taken an eighth of what is free."""

_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS record (
    position INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL,
    count INTEGER NOT NULL, crc INTEGER NOT NULL, class INTEGER NOT NULL, at_s INTEGER NOT NULL, value BLOB NOT NULL)""",
    # Records of samples, nearly all of them, have no entry: an index of theirs would cost each commit a page.
    "CREATE INDEX IF NOT EXISTS record_kept ON record (class, position) WHERE class > 0",
    "CREATE TABLE IF NOT EXISTS epoch (epoch INTEGER PRIMARY KEY, last INTEGER NOT NULL, published INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS ledger (
    epoch INTEGER NOT NULL, equipment TEXT NOT NULL, hour_us INTEGER NOT NULL, samples INTEGER NOT NULL,
    checksum INTEGER NOT NULL, PRIMARY KEY (epoch, equipment, hour_us)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS dropped (
    epoch INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, samples INTEGER NOT NULL,
    PRIMARY KEY (epoch, first)) WITHOUT ROWID""",
    # Of what the samples of such a range were.
    """CREATE TABLE IF NOT EXISTS dropped_cell (
    epoch INTEGER NOT NULL, first INTEGER NOT NULL, equipment TEXT NOT NULL, hour_us INTEGER NOT NULL,
    samples INTEGER NOT NULL, PRIMARY KEY (epoch, first, equipment, hour_us)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS aside (
    position INTEGER PRIMARY KEY, epoch INTEGER, seq INTEGER, kind TEXT, count INTEGER, crc INTEGER, value BLOB,
    reason TEXT NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    # One row a commit: its ledger increments as JSON, and when it was.
    """CREATE TABLE IF NOT EXISTS tally (
    position INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, last INTEGER NOT NULL, wall_us INTEGER NOT NULL,
    at_s INTEGER NOT NULL, value BLOB NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS delivered (position INTEGER PRIMARY KEY, value BLOB NOT NULL)",
    """CREATE TABLE IF NOT EXISTS held (
    position INTEGER PRIMARY KEY, boot TEXT NOT NULL, first_us INTEGER NOT NULL, kind TEXT NOT NULL,
    count INTEGER NOT NULL, crc INTEGER NOT NULL, value BLOB NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS mark (
    id INTEGER PRIMARY KEY CHECK (id = 0), wall_us INTEGER NOT NULL, at_s INTEGER NOT NULL, boot TEXT NOT NULL,
    offset_us INTEGER)""",
)
_COPY: Final = "CREATE TABLE IF NOT EXISTS copy (position INTEGER PRIMARY KEY, value BLOB NOT NULL)"
"""Of edge.spool_copies. An earlier release of this version does without it, so it is no version of its own."""


def open_file(path: Path, *, aside: str, at_s: int = 0) -> tuple[sqlite3.Connection, Path | None]:
    """Opens or makes a spool's file. One that cannot be read is renamed to the suffix `aside`: its new path comes second.

    `at_s`: what records of a version that kept no time count as journaled at. Raises sqlite3.OperationalError where the
    disk does not let it, or where a later version wrote the file.
    """
    try:
        return _connect(path, at_s), None
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        moved = move_aside(path, aside)
        return _connect(path, at_s), moved


def until_sound(path: Path, aside: str, load: Callable[[], None]) -> Path | None:
    """Loads a spool; where damage made anything of its rows, it is moved aside, and a new one is loaded with what could be
    salvaged, and then, if that is no better, with nothing. Returns what was moved aside first.

    Raises sqlite3.OperationalError where the disk does not let it be opened.
    """
    moved = None
    for is_first in (True, False):
        try:
            load()
        except sqlite3.OperationalError:
            raise
        except (sqlite3.DatabaseError, TypeError, ValueError):
            again = move_aside(path, aside, to_salvage=is_first)
            moved = moved or again
        else:
            return moved
    load()
    return moved


def move_aside(path: Path, aside: str, *, to_salvage: bool = True) -> Path:
    """Renames a spool's file that cannot be read to the suffix `aside`, and its write-ahead log with it: it has what was
    committed last. First it leaves a mark: what can still be read is to be taken over (edge.spool_salvage).
    """
    moved = path.with_suffix(f".{aside}")
    again = 1
    while moved.exists():
        again += 1
        moved = path.with_suffix(f".{aside}-{again}")
    salvage_mark(path).unlink(missing_ok=True)
    if to_salvage:
        # A disk without room for a name keeps nobody from starting.
        with suppress(OSError), salvage_mark(path).open("w") as mark:
            mark.write(moved.name)
            mark.flush()
            os.fsync(mark.fileno())
    path.rename(moved)
    ahead = path.with_name(f"{path.name}-wal")
    if ahead.exists():
        ahead.rename(moved.with_name(f"{moved.name}-wal"))
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    _suspicion(path).unlink(missing_ok=True)
    return moved


def salvage_mark(path: Path) -> Path:
    """The file that names what is to be salvaged."""
    return path.with_suffix(".salvage")


def moved_by(path: Path) -> Path | None:
    """The file that the mark names. None where there is none, or it names no file beside it: a power cut may leave it
    empty, damage may make anything of it.
    """
    try:
        name = salvage_mark(path).read_bytes()
    except FileNotFoundError:
        return None
    beside = {os.fsencode(file.name): file for file in path.parent.iterdir() if file.is_file() and file != path}
    return beside.get(name)


def to_disk(folder: Path) -> None:
    """Makes what was renamed or deleted in a folder durable, where its file system lets it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def suspect(path: Path, why: str) -> None:
    """Damage was found while it was used: the next opening checks the file whole, however large it is."""
    log.error("spool is damaged; it is checked whole at the next start", file=str(path), why=why)
    with suppress(OSError):
        _suspicion(path).touch()


def _suspicion(path: Path) -> Path:
    return path.with_suffix(".damaged")


def _connect(path: Path, at_s: int) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    db.text_factory = as_text
    with ExitStack() as undo:
        undo.callback(db.close)
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a new file; else without effect
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        # Debian's SQLite overwrites what is deleted with zeros, page by page: a sixth of a commit's CPU, for bytes that the
        # log has in any case.
        db.execute("PRAGMA secure_delete = OFF")
        db.execute("PRAGMA journal_size_limit = 16777216")
        is_checked = path.stat().st_size <= CHECKED_BYTES or _suspicion(path).exists()
        if is_checked and (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)
        _suspicion(path).unlink(missing_ok=True)
        page = db.execute("PRAGMA page_size").fetchone()[0]
        disk = os.statvfs(path.parent)
        room = max(min(CHECKPOINT_BYTES, disk.f_bavail * disk.f_frsize // 8), CHECKPOINT_MIN_BYTES)
        db.execute(f"PRAGMA wal_autocheckpoint = {room // page}")
        _migrate(db, path, at_s)
        db.execute(_COPY)
        undo.pop_all()
    return db


def make_room(db: sqlite3.Connection) -> None:
    """After a commit that failed: what the write-ahead log took goes back to the disk, as far as it lets it."""
    with suppress(sqlite3.Error):
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def as_text(found: bytes) -> str:
    """Damage may make text of anything: it is for the reader to set aside, not for SQLite to fail at."""
    return found.decode(errors="replace")


def _migrate(db: sqlite3.Connection, path: Path, at_s: int) -> None:
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found > VERSION:
        raise sqlite3.OperationalError(f"{path}: expected a spool of version {VERSION} or before, found {found}")
    if found == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    with ExitStack() as undo:
        undo.callback(roll_back, db)
        columns = {row[1] for row in db.execute("PRAGMA table_info (record)")}
        if columns and "at_s" not in columns:
            db.execute(f"ALTER TABLE record ADD COLUMN at_s INTEGER NOT NULL DEFAULT {at_s:d}")
            db.execute("DROP INDEX IF EXISTS record_class")
        for statement in _SCHEMA:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
        undo.pop_all()


def roll_back(db: sqlite3.Connection) -> None:
    """Ends a transaction that failed, if SQLite has not done so already."""
    if db.in_transaction:
        db.execute("ROLLBACK")


def lock(path: Path) -> int:
    """Takes the lock file of a spool. Raises StateLocked when another process has it."""
    handle = try_lock(path)
    if handle is None:
        raise StateLocked(f"{path}: expected a spool of this process's own, found another edge agent using it")
    return handle
