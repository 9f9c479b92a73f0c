"""The spool's file: its schema, its lock, and what happens to one that cannot be read.

Invariant: opening never destroys anything. A file that is no sound database is moved aside under a new name.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Final

from telemetry.errors import StateLocked

CHECKED_BYTES: Final = 256 << 20
"""A file up to this size is checked whole at opening."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS record (
    position INTEGER PRIMARY KEY AUTOINCREMENT, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL,
    count INTEGER NOT NULL, crc INTEGER NOT NULL, class INTEGER NOT NULL, value BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS record_class ON record (class, position);
CREATE TABLE IF NOT EXISTS epoch (epoch INTEGER PRIMARY KEY, last INTEGER NOT NULL, published INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS ledger (
    epoch INTEGER NOT NULL, equipment TEXT NOT NULL, hour_us INTEGER NOT NULL, samples INTEGER NOT NULL,
    checksum INTEGER NOT NULL, PRIMARY KEY (epoch, equipment, hour_us)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dropped (
    epoch INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, samples INTEGER NOT NULL,
    PRIMARY KEY (epoch, first)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS aside (
    position INTEGER PRIMARY KEY, epoch INTEGER, seq INTEGER, kind TEXT, count INTEGER, crc INTEGER, value BLOB,
    reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


def open_file(path: Path, *, aside: str) -> tuple[sqlite3.Connection, Path | None]:
    """Opens or makes a spool's file. One that cannot be read is renamed to the suffix `aside`: its new path comes second.

    Raises sqlite3.OperationalError where the disk does not let it.
    """
    try:
        return _connect(path), None
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        moved = path.with_suffix(f".{aside}")
        path.rename(moved)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return _connect(path), moved


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA journal_size_limit = 16777216")
        if (
            path.stat().st_size <= CHECKED_BYTES
            and (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok"
        ):
            raise sqlite3.DatabaseError(found)
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


def lock(path: Path) -> int:
    """Takes the lock file of a spool. Raises StateLocked when another process has it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise StateLocked(
            f"{path}: expected a spool of this process's own, found another edge agent using it"
        ) from None
    return handle
