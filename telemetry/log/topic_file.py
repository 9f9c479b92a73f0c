"""A topic of the embedded log: one SQLite file, opened directly by every process that writes or reads it.

Each making of a topic has a random log id, in the file's name and inside it: a file that was wiped and made anew never
shares a write-ahead log with its forerunner, and whoever has the old one open notices. A record's row id is
partition · 2^48 + offset, so a partition is one range of one B-tree and appends go to its end. `partition.next` outlives
the records: an offset is never used twice. Everything here is synchronous and belongs to one thread.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from telemetry.errors import LogDiscontinuity, LogFull, LogUnavailable
from telemetry.log.protocol import Bounds, InRecord, OutRecord, Partition
from telemetry.log.record_headers import pack_headers, unpack_headers

BUSY_S: Final = 5.0
"""How long a writer waits for the writers of other processes."""
RETRY_S: Final = 0.001
FETCH_BYTES: Final = 32 << 20
"""A read stops here, however many records it may take."""
TRIM_CHUNK: Final = 1000
"""Records removed in one transaction: bounds how long a trim holds the write lock."""
WAL_BYTES: Final = 64 << 20
"""The write-ahead log is cut back to this after it has grown beyond."""
RECORD_OVERHEAD: Final = 64
"""Bytes on disk beside key, headers and value, roughly."""
_SHIFT: Final = 48

_SCHEMA: Final = """
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE meta (log_id TEXT NOT NULL, topic TEXT NOT NULL, partitions INTEGER NOT NULL, made_us INTEGER NOT NULL);
CREATE TABLE partition (number INTEGER PRIMARY KEY, first INTEGER NOT NULL, next INTEGER NOT NULL);
CREATE TABLE record (position INTEGER PRIMARY KEY, appended_us INTEGER NOT NULL,
                     key BLOB NOT NULL, headers BLOB NOT NULL, value BLOB NOT NULL);
CREATE TABLE reader (grp TEXT NOT NULL, partition INTEGER NOT NULL, committed INTEGER NOT NULL,
                     PRIMARY KEY (grp, partition)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Retention:
    """What a topic may hold.

    cap_bytes   beyond this it refuses
    keep_bytes  what every reader has read is removed beyond this …
    keep_us     … or when it is older than this
    """

    cap_bytes: int
    keep_bytes: int
    keep_us: int


def open_topic(directory: Path, topic: str, *, partitions: int, durable: bool) -> TopicFile:
    """Opens a topic, made first where it is missing. `durable`: every commit reaches the disk before it returns.

    Raises LogUnavailable, LogFull.
    """
    with _translated(directory / topic):
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / f"{topic}.making").open("a") as lock:
            _lock(lock.fileno(), topic)
            path = _find(directory, topic) or _make(directory, topic, partitions)
    with _translated(path):
        return TopicFile(topic, path, durable=durable)


class TopicFile:
    """An open topic. Its methods raise LogUnavailable for what ails the disk, LogFull where there is no room."""

    def __init__(self, topic: str, path: Path, *, durable: bool) -> None:
        self.topic = topic
        self.path = path
        self._inode = path.stat().st_ino
        self._version = -1
        self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        try:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            self.log_id, self.partitions = self._db.execute("SELECT log_id, partitions FROM meta").fetchone()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def present(self) -> bool:
        """Whether the path still leads to the file that was opened."""
        try:
            return self.path.stat().st_ino == self._inode
        except OSError:
            return False

    def changed(self) -> bool:
        """Whether another connection has written since the last time this was asked.

        Raises nothing: a file that cannot be asked counts as changed, and the next read says what ails it.
        """
        before = self._version
        try:
            self._version = self._db.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            return True
        return self._version != before

    def partition_of(self, key: bytes) -> int:
        """The partition of a key: the same on every machine while the number of partitions stays."""
        return zlib.crc32(key) % int(self.partitions)

    def append(self, records: Sequence[OutRecord], retention: Retention) -> None:
        """Appends all in one transaction. Raises LogFull at the cap, with nothing appended."""
        rows = [(self.partition_of(r.key), r.key, pack_headers(r.headers), r.value) for r in records]
        size = sum(len(key) + len(headers) + len(value) + RECORD_OVERHEAD for _, key, headers, value in rows)
        self._make_room(size, retention)
        now_us = time.time_ns() // 1000
        with self._writing():
            following = dict(self._db.execute("SELECT number, next FROM partition").fetchall())
            placed = []
            for number, key, headers, value in rows:
                placed.append(((number << _SHIFT) + following[number], now_us, key, headers, value))
                following[number] += 1
            self._db.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?)", placed)
            self._db.executemany(
                "UPDATE partition SET next = ? WHERE number = ?", [(n, number) for number, n in following.items()]
            )
        if not self.present():
            raise LogUnavailable(f"{self.path}: was removed while records were appended to it")

    def bounds(self, number: int) -> Bounds:
        """What a partition holds. Raises LogDiscontinuity when the file was wiped."""
        with _translated(self.path):
            return self._bounds(number)

    def check(self, number: int, offset: int) -> None:
        """Raises LogDiscontinuity unless reading may start at `offset`."""
        self._continues(number, offset, self.bounds(number))

    def read(self, number: int, offset: int, *, max_records: int) -> list[InRecord]:
        """The records from `offset` on, at most `max_records` or FETCH_BYTES. Raises LogDiscontinuity."""
        with _translated(self.path), self._snapshot():
            bounds = self._bounds(number)
            self._continues(number, offset, bounds)
            records: list[InRecord] = []
            size = 0
            for record in self._select(number, offset, bounds.end, max_records):
                records.append(record)
                size += len(record.value)
                if size >= FETCH_BYTES:
                    break
        if offset < bounds.end and (not records or records[0].offset != offset):
            raise LogDiscontinuity(f"{self.topic}/{number}: offset {offset} is missing from {self.path}")
        return records

    def at(self, number: int, offset: int) -> InRecord | None:
        """The record at an offset, if it is there."""
        with _translated(self.path), self._snapshot():
            self._bounds(number)
            return next(iter(self._select(number, offset, offset + 1, 1)), None)

    def register(self, group: str) -> None:
        """From now on nothing is trimmed that `group` has not committed. Its place starts at what is kept now."""
        with self._writing():
            self._db.execute("INSERT OR IGNORE INTO reader SELECT ?, number, first FROM partition", (group,))

    def forget(self, group: str) -> None:
        """What `group` has not read keeps nothing any more."""
        with self._writing():
            self._db.execute("DELETE FROM reader WHERE grp = ?", (group,))

    def commit(self, group: str, positions: Mapping[int, int]) -> None:
        """Notes how far a group is, by partition."""
        with self._writing():
            self._db.executemany(
                "INSERT OR REPLACE INTO reader VALUES (?, ?, ?)",
                [(group, n, offset) for n, offset in positions.items()],
            )

    def committed(self, group: str) -> dict[int, int]:
        """How far a group said it is, by partition."""
        with _translated(self.path):
            found = self._db.execute("SELECT partition, committed FROM reader WHERE grp = ?", (group,))
            return dict(found.fetchall())

    def trim(self, retention: Retention, now_us: int) -> int:
        """Removes what every registered reader has passed and is too old or too much; one chunk a partition.

        Returns how many records went; more may be due. The last record that the slowest reader has passed stays, so
        that it can be compared after a restart.
        """
        old_us = now_us - retention.keep_us
        return self._trim(lambda: old_us if self.used_bytes() <= retention.keep_bytes else now_us + 1)

    def used_bytes(self) -> int:
        """Bytes of pages in use; free pages inside the file do not count, they are used again."""
        with _translated(self.path):
            (pages,) = self._db.execute("PRAGMA page_count").fetchone()
            (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
            (size,) = self._db.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * size)

    def slowest(self) -> str:
        """Who keeps the log from being trimmed, for people."""
        rows = self._db.execute(
            "SELECT grp, partition, committed, next FROM reader JOIN partition ON number = partition"
            " WHERE committed < next ORDER BY next - committed DESC LIMIT 3"
        ).fetchall()
        return ", ".join(f"{g}/{n} at {c} of {e}" for g, n, c, e in rows) or "no reader is registered"

    def _make_room(self, size: int, retention: Retention) -> None:
        while self.used_bytes() + size > retention.cap_bytes:
            if not self._trim(lambda: 1 << 62):
                raise LogFull(
                    f"{self.topic}: {self.used_bytes()} of {retention.cap_bytes} bytes are in use, {size} more asked for;"
                    f" kept for: {self.slowest()}"
                )

    def _trim(self, before_us: Callable[[], int]) -> int:
        removed = 0
        for number in range(self.partitions):
            with self._writing():
                first, floor = self._db.execute(
                    "SELECT first, (SELECT min(committed) - 1 FROM reader WHERE partition = number)"
                    " FROM partition WHERE number = ?",
                    (number,),
                ).fetchone()
                if floor is None or floor <= first:
                    continue
                base = number << _SHIFT
                kept = self._db.execute(
                    "SELECT position FROM record WHERE position >= ? AND position < ? AND appended_us >= ? LIMIT 1",
                    (base + first, base + min(floor, first + TRIM_CHUNK), before_us()),
                ).fetchone()
                end = kept[0] - base if kept else min(floor, first + TRIM_CHUNK)
                self._db.execute("DELETE FROM record WHERE position >= ? AND position < ?", (base + first, base + end))
                self._db.execute("UPDATE partition SET first = ? WHERE number = ?", (end, number))
                removed += end - first
        return removed

    def _bounds(self, number: int) -> Bounds:
        if not self.present():
            raise LogDiscontinuity(f"{self.topic}: {self.path} was removed under its reader")
        found = self._db.execute(
            "SELECT log_id, first, next FROM meta LEFT JOIN partition ON number = ?", (number,)
        ).fetchone()
        if found is None or found[0] != self.log_id or found[1] is None:
            raise LogDiscontinuity(f"{self.topic}/{number}: {self.path} is another log than {self.log_id}")
        return Bounds(found[1], found[2])

    def _continues(self, number: int, offset: int, bounds: Bounds) -> None:
        if not bounds.first <= offset <= bounds.end:
            raise LogDiscontinuity(
                f"{self.topic}/{number}: wanted offset {offset}, the log holds {bounds.first} to {bounds.end}"
            )

    def _select(self, number: int, start: int, end: int, limit: int) -> Iterator[InRecord]:
        base = number << _SHIFT
        rows = self._db.execute(
            "SELECT position, appended_us, key, headers, value FROM record WHERE position >= ? AND position < ?"
            " ORDER BY position LIMIT ?",
            (base + start, base + end, limit),
        )
        partition = Partition(self.topic, number)
        for position, appended_us, key, headers, value in rows:
            yield InRecord(partition, position - base, appended_us, key, value, unpack_headers(headers))

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with _translated(self.path):
            self._begin()
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def _begin(self) -> None:
        # SQLite's own busy handler sleeps up to 100 ms at a time; writers here hold the lock for one fsync only.
        give_up = time.monotonic() + BUSY_S
        self._db.execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                try:
                    self._db.execute("BEGIN IMMEDIATE")
                    return
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                        raise
                time.sleep(RETRY_S)
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")


def _find(directory: Path, topic: str) -> Path | None:
    found = sorted(directory.glob(f"{topic}.????????????????.sqlite"))
    if len(found) > 1:
        raise LogUnavailable(f"{topic}: more than one log in {directory}: {', '.join(p.name for p in found)}; keep one")
    return found[0] if found else None


def _make(directory: Path, topic: str, partitions: int) -> Path:
    log_id = secrets.token_hex(8)
    path = directory / f"{topic}.{log_id}.sqlite"
    half_made = directory / f"{topic}.half-made"
    for left_over in directory.glob(f"{half_made.name}*"):
        left_over.unlink()
    db = sqlite3.connect(half_made, isolation_level=None)
    try:
        db.executescript(_SCHEMA)
        db.execute("INSERT INTO meta VALUES (?, ?, ?, ?)", (log_id, topic, partitions, time.time_ns() // 1000))
        db.executemany("INSERT INTO partition VALUES (?, 0, 0)", [(n,) for n in range(partitions)])
        db.execute("COMMIT")
    finally:
        db.close()
    half_made.rename(path)
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return path


def _lock(handle: int, topic: str) -> None:
    give_up = time.monotonic() + BUSY_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise LogUnavailable(f"{topic}: another process has been making it for {BUSY_S:.0f} s") from None
        time.sleep(RETRY_S)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """SQLite's and the system's errors in the log's own words."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            raise LogFull(f"{path}: no space left on the disk") from error
        raise LogUnavailable(f"{path}: {error}") from error
    except OSError as error:
        raise LogUnavailable(f"{path}: {error.strerror or error}") from error
