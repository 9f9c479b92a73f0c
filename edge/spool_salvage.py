"""What can still be read of a spool's file that was moved aside is taken over into the new one.

Invariants
- Records keep their (epoch, seq) and position, so whatever is sent again is known to the store. One whose own row cannot be
  trusted is left out: its number might be another's. Of one epoch, position − seq is the same for all records.
- A record whose bytes are gone but whose row is whole comes over without them: the spool sets it aside as corrupt and reports
  it as dropped, by seq and samples, like any other.
- The ledger comes over only where every record of the file is accounted for, and no ledger record among them is damaged with
  its copy: one after it would settle what it never said. Without it the audit takes what arrives by ingest's own count.
- Nothing is written to the file that was moved aside. A salvage that is killed is done again at the next start, from the
  beginning: the mark that asks for it goes last. One that the disk has no room for ends where it is.
"""

from __future__ import annotations

import sqlite3
import zlib
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
import structlog

from edge.spool_bounds import CLASSES, class_of
from edge.spool_copies import mended
from edge.spool_file import as_text, moved_by, roll_back, salvage_mark, to_disk
from edge.spool_keys import KEY_BYTES
from telemetry.messages import Kind

log = structlog.get_logger()

PART_BYTES: Final = 8 << 20
"""Taken over in one transaction."""
LOOKS: Final = 20_000
"""Stretches of positions that are tried before what is left of the damage is given up: under a second."""

_END: Final = 1 << 62
_ASCENDING: Final = """SELECT position, epoch, seq, kind, count, crc, class, at_s FROM record
    WHERE position > ? AND position < ? ORDER BY position LIMIT ?"""
_DESCENDING: Final = """SELECT position, epoch, seq, kind, count, crc, class, at_s FROM record
    WHERE position > ? AND position < ? ORDER BY position DESC LIMIT ?"""
_ALL: Final = -1
"""As a LIMIT."""
Row = tuple[Any, ...]


class Table(NamedTuple):
    """What reads the whole of a table that is taken over, and what writes a row of it."""

    read: str
    write: str


RECORD: Final = "INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
STATE: Final = Table("SELECT * FROM state", "INSERT OR IGNORE INTO state VALUES (?, ?)")
MARK: Final = Table("SELECT * FROM mark", "INSERT OR IGNORE INTO mark VALUES (?, ?, ?, ?, ?)")
HELD: Final = Table("SELECT * FROM held", "INSERT OR IGNORE INTO held VALUES (?, ?, ?, ?, ?, ?, ?)")
DELIVERED: Final = Table("SELECT * FROM delivered", "INSERT OR IGNORE INTO delivered VALUES (?, ?)")
DROPPED: Final = Table("SELECT * FROM dropped", "INSERT OR IGNORE INTO dropped VALUES (?, ?, ?, ?)")
DROPPED_CELL: Final = Table("SELECT * FROM dropped_cell", "INSERT OR IGNORE INTO dropped_cell VALUES (?, ?, ?, ?, ?)")
EPOCH: Final = Table("SELECT * FROM epoch", "INSERT OR IGNORE INTO epoch VALUES (?, ?, ?)")
LEDGER: Final = Table("SELECT * FROM ledger", "INSERT OR IGNORE INTO ledger VALUES (?, ?, ?, ?, ?)")
TALLY: Final = Table("SELECT * FROM tally", "INSERT OR IGNORE INTO tally VALUES (?, ?, ?, ?, ?, ?)")


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What came of a file that was moved aside."""

    moved_to: Path
    records: int
    """Taken over, those without their bytes included."""
    without_bytes: int
    is_whole: bool
    """Whether every row of a record was read, and the ledger with them: only then is it taken over."""


def salvage(db: sqlite3.Connection, path: Path, *, at_s: int = 0) -> Salvaged | None:
    """Takes over what the file that was moved aside last still holds, if a mark asks for it. `path`: the new spool's.

    `at_s`: what records of a version that kept no time count as journaled at.

    Raises sqlite3.OperationalError where the new file cannot be written at all; a disk that fills ends it early.
    """
    mark = salvage_mark(path)
    if not mark.exists():
        return None
    found, moved = None, moved_by(path)
    if moved is not None:
        log.warning("spool is salvaged; readings wait for it", file=str(moved), bytes=moved.stat().st_size)
        found = _taken_over(db, moved, at_s)
        log.warning(
            "spool was salvaged",
            file=str(moved),
            records=found.records,
            without_bytes=found.without_bytes,
            is_whole=found.is_whole,
        )
    mark.unlink()
    to_disk(path.parent)  # a mark that came back with the power would take the ledger over twice
    return found


def _taken_over(db: sqlite3.Connection, moved: Path, at_s: int) -> Salvaged:
    ahead = moved.with_name(f"{moved.name}-wal")
    had_ahead = ahead.exists()
    try:
        with closing(sqlite3.connect(f"{moved.absolute().as_uri()}?mode=ro", uri=True)) as old:
            old.text_factory = as_text
            _as_of_today(old, at_s)
            return _Salvage(db, old, moved).run()
    except sqlite3.DatabaseError as error:
        log.error("spool cannot be salvaged any further", file=str(moved), why=str(error))
        return Salvaged(moved, 0, 0, is_whole=False)
    finally:
        moved.with_name(f"{moved.name}-shm").unlink(missing_ok=True)
        if not had_ahead:
            ahead.unlink(missing_ok=True)


def _as_of_today(old: sqlite3.Connection, at_s: int) -> None:
    """Of version 0, whose records have no time: as if they had. The view is in memory; nothing is written."""
    columns = {row[1] for row in old.execute("PRAGMA table_info (record)")}
    if columns and "at_s" not in columns:
        old.execute(f"CREATE TEMP VIEW record AS SELECT *, {at_s:d} AS at_s FROM main.record")  # noqa: S608


class _Salvage:
    """From `old`, which is only read, into `db`."""

    def __init__(self, db: sqlite3.Connection, old: sqlite3.Connection, moved: Path) -> None:
        self._db, self._old, self._moved = db, old, moved
        self._records = self._without_bytes = self._ledgers_lost = 0

    def run(self) -> Salvaged:
        scan = Scan(self._old)
        rows = trusted(scan.rows)
        is_whole = scan.is_whole and len(rows) == len(scan.rows)
        try:
            for part in self._parts(rows):
                self._insert(RECORD, part)
                self._records += len(part)
            self._small_tables()
            is_whole = is_whole and not self._ledgers_lost and self._ledger()
        except sqlite3.OperationalError as error:
            roll_back(self._db)
            log.error("spool is salvaged in part only", file=str(self._moved), why=str(error))
            is_whole = False
        return Salvaged(self._moved, self._records, self._without_bytes, is_whole=is_whole)

    def _parts(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
        part: list[Row] = []
        size = 0
        for row in rows:
            value = self._value(row)
            self._without_bytes += not value
            self._ledgers_lost += row[3] == Kind.LEDGER and zlib.crc32(value) != row[5]
            part.append((*row, value))
            size += len(value)
            if size >= PART_BYTES:
                yield part
                part, size = [], 0
        if part:
            yield part

    def _value(self, row: Row) -> bytes:
        position, kind, crc, found = row[0], row[3], row[5], None
        with suppress(sqlite3.DatabaseError):
            found = self._old.execute("SELECT value FROM record WHERE position = ?", (position,)).fetchone()
        value = mended(self._old, kind, position, crc, found[0] if found else None)
        return value if isinstance(value, bytes) else b""

    def _small_tables(self) -> None:
        """What was learned and counted, keys of messages, readings that wait for the clock: row by row, each for itself."""
        self._insert(STATE.write, [row for row in self._readable(STATE) if _are(row, str, str)])
        self._insert(MARK.write, [row for row in self._readable(MARK) if _is_mark(row)])
        self._insert(HELD.write, [row for row in self._readable(HELD) if _is_held(row)])
        self._insert(DELIVERED.write, [row for row in self._readable(DELIVERED) if _is_keys(row)])
        dropped, cells = self._whole(DROPPED, _is_dropped), self._whole(DROPPED_CELL, _is_dropped_cell)
        if dropped is not None and cells is not None:
            self._insert(DROPPED.write, dropped)
            self._insert(DROPPED_CELL.write, cells)

    def _ledger(self) -> bool:
        tables = (
            (EPOCH, self._whole(EPOCH, _is_epoch)),
            (LEDGER, self._whole(LEDGER, _is_ledger)),
            (TALLY, self._whole(TALLY, _is_tally)),
        )
        if any(rows is None for _, rows in tables):
            return False
        self._db.execute("BEGIN IMMEDIATE")
        for table, rows in tables:
            self._write(table.write, rows or [])
        self._db.execute("COMMIT")
        return True

    def _readable(self, table: Table) -> list[Row]:
        """Its rows up to the first that cannot be read."""
        found: list[Row] = []
        with suppress(sqlite3.DatabaseError):
            found.extend(self._old.execute(table.read))
        return found

    def _whole(self, table: Table, fits: Callable[[Row], bool]) -> list[Row] | None:
        try:
            found = self._old.execute(table.read).fetchall()
        except sqlite3.DatabaseError:
            return None
        return found if all(map(fits, found)) else None

    def _insert(self, statement: str, rows: Sequence[Row]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._write(statement, rows)
        self._db.execute("COMMIT")

    def _write(self, statement: str, rows: Sequence[Row]) -> None:
        self._db.executemany(statement, rows)


class Scan:
    """The rows of `record` without their values, around whatever cannot be read."""

    def __init__(self, db: sqlite3.Connection, looks: int = LOOKS) -> None:
        """Reads at once. `looks`: stretches that are tried."""
        self._db = db
        self._looks = looks
        self._hints: Sequence[int] = ()
        self.rows: list[Row] = []
        low = self._read(0, _END, _ASCENDING)
        self.is_whole = low is None
        """Whether nothing was in the way."""
        if low is not None:
            self._hints = self._of_index()
        while low is not None and (found := self._next(low)) is not None:
            self._between(low, found)
            low = self._read(found - 1, _END, _ASCENDING)
        self.rows.sort(key=lambda row: row[0])

    def _between(self, after: int, before: int) -> None:
        """From either end of a stretch as far as it goes; what is left between is halved, the widest first."""
        stretches = deque([(after, before)])
        while stretches and self._looks > 0:
            self._looks -= 1
            after, before = stretches.popleft()
            low = self._read(after, before, _ASCENDING)
            high = None if low is None else self._read(low, before, _DESCENDING)
            if low is not None and high is not None and high - low > 3:
                middle = (low + high) // 2
                stretches += [(low + 1, middle), (middle - 1, high - 1)]

    def _next(self, low: int) -> int | None:
        """The position of some row beyond the damage at `low`: by the index, or in ever longer steps; None for none."""
        for hint in self._hints[bisect_right(self._hints, low + 1) :]:
            _, row = self._look(hint)
            if row is not None:
                return row
        failed, beyond = low, _END
        for width in range(62):
            readable, row = self._look(low + (1 << width))
            if row is not None:
                return row
            if readable:  # and no row: too far
                beyond = low + (1 << width)
                break
            failed = low + (1 << width)
        while beyond < _END and beyond - failed > 1:
            readable, row = self._look((failed + beyond) // 2)
            if row is not None:
                return row
            failed, beyond = (failed, (failed + beyond) // 2) if readable else ((failed + beyond) // 2, beyond)
        return None

    def _look(self, at: int) -> tuple[bool, int | None]:
        """(whether the file can be read there, the next position from there on)."""
        self._looks -= 1
        if self._looks <= 0:
            return False, None
        try:
            row = self._db.execute(
                "SELECT position FROM record WHERE position >= ? ORDER BY position LIMIT 1", (at,)
            ).fetchone()
        except sqlite3.DatabaseError:
            return False, None
        return True, row[0] if row is not None and row[0] >= at else None

    def _of_index(self) -> list[int]:
        """Positions of events, heartbeats and the like, which have an index of their own: where to look, no more."""
        found: set[int] = set()
        with suppress(sqlite3.DatabaseError):
            found.update(row[0] for row in self._db.execute("SELECT position FROM record WHERE class > 0"))
        return sorted(found)

    def _read(self, after: int, before: int, query: str) -> int | None:
        """Reads from one end; None when all was read, else the position next to the damage."""
        while True:
            try:
                for row in self._db.execute(query, (after, before, _ALL)):
                    after, before = self._took(row, after, before, query)
            except sqlite3.DatabaseError:
                # Python's sqlite3 steps ahead: the row before the damage went with the error.
                try:
                    last = self._db.execute(query, (after, before, 1)).fetchone()
                    if last is None:
                        return None
                    after, before = self._took(last, after, before, query)
                except sqlite3.DatabaseError:
                    return after if query is _ASCENDING else before
            else:
                return None

    def _took(self, row: Row, after: int, before: int, query: str) -> tuple[int, int]:
        position = row[0]
        if not after < position < before:  # damage may lead back to where it came from
            raise sqlite3.DatabaseError(f"expected a position between {after} and {before}, found {position}")
        self.rows.append(row)
        return (position, before) if query is _ASCENDING else (after, position)


def trusted(rows: Sequence[Row]) -> list[Row]:
    """The rows whose numbers can be believed. Pure."""
    sound = [row for row in rows if _is_row(row)]
    offsets: dict[int, Counter[int]] = {}
    for position, epoch, seq, *_ in sound:
        offsets.setdefault(epoch, Counter())[position - seq] += 1
    usual = {epoch: counts.most_common(1)[0][0] for epoch, counts in offsets.items()}
    return [row for row in sound if row[0] - row[2] == usual[row[1]]]


def _is_row(row: Row) -> bool:
    position, epoch, seq, kind, count, crc, class_, at_s = row
    return (
        _are((position, epoch, seq, count, crc, at_s), int, int, int, int, int, int)
        and min(position, epoch, seq, count, crc, at_s) >= 0
        and seq < 1 << 62
        and crc < 1 << 32
        and kind in CLASSES
        and class_ == class_of(kind)
    )


def _are(row: Sequence[object], *types: type) -> bool:
    return len(row) == len(types) and all(isinstance(value, one) for value, one in zip(row, types, strict=True))


def _is_mark(row: Row) -> bool:
    return _are(row[:4], int, int, int, str) and row[0] == 0 and (row[4] is None or isinstance(row[4], int))


def _is_held(row: Row) -> bool:
    return _are(row, int, str, int, str, int, int, bytes) and row[3] in CLASSES


def _is_keys(row: Row) -> bool:
    return _are(row, int, bytes) and len(row[1]) % KEY_BYTES == 0


def _is_dropped(row: Row) -> bool:
    return _are(row, int, int, int, int)


def _is_epoch(row: Row) -> bool:
    return _are(row, int, int, int)


def _is_dropped_cell(row: Row) -> bool:
    return _are(row, int, int, str, int, int)


def _is_ledger(row: Row) -> bool:
    return _are(row, int, str, int, int, int) and row[3] >= 0


def _is_tally(row: Row) -> bool:
    if not _are(row, int, int, int, int, int, bytes):
        return False
    try:
        return all(_are(cell, str, int, int, int) for cell in orjson.loads(row[5]))
    except (ValueError, TypeError):
        return False
