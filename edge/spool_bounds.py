"""What the spool holds, and what goes when it is too much or too old.

Invariants
- Bytes count each record's value and OVERHEAD. Beyond `max_bytes`, samples and heartbeats go before events and registries;
  ledger and dropped records never go. Policy `oldest`: the oldest of a class first; `newest`: what came last, so that
  what is kept has no gap.
- Under `newest`, a commit that is to be kept whole (its sender has it still) is kept whole or refused whole.
- What is out with the forwarder does not go: else it could be both stored and reported as dropped.
- What goes is noted in the same transaction (edge.spool_dropped).

Of the spool's thread, within its transactions: `mark` and `restore` undo what a rollback undoes on the disk.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from edge.spool_dropped import Dropped, Gone
from edge.spool_numbers import mend_numbers
from edge.spool_tail import Tail
from telemetry.messages import Kind

Policy = Literal["oldest", "newest"]

OVERHEAD: Final = 128
"""Bytes that a record costs beside its value: row, index and page slack."""
SLACK: Final = 64
"""When dropping the oldest, 1/SLACK of the bound is freed beyond what is needed, so that not every commit drops."""
RESERVE: Final = 16
"""What is to be kept whole leaves 1/RESERVE of the bound to what is never refused: else that would drive out what was kept."""
SAMPLES, EVENTS, CONTROL = 0, 1, 2
CLASSES: Final[dict[str, int]] = {
    Kind.SAMPLES: SAMPLES,
    Kind.HEARTBEAT: SAMPLES,
    Kind.EVENTS: EVENTS,
    Kind.REGISTRY: EVENTS,
    Kind.LEDGER: CONTROL,
    Kind.DROPPED: CONTROL,
}
_OF_CLASS: Final = {SAMPLES: "class = 0", EVENTS: "class > 0 AND class = 1"}
"""`class > 0` lets SQLite use the index of what is no sample."""
_FIELDS: Final = "position, epoch, seq, kind, count, length(value)"


class NoRoom(Exception):
    """A commit that is to be kept whole does not fit. Nothing of it was journaled."""


@dataclass(slots=True)
class Counts:
    """What the spool lost, since it was opened."""

    dropped_records: int = 0
    dropped_samples: int = 0
    corrupt_records: int = 0
    corrupt_samples: int = 0
    dropped_events: int = 0

    def copy(self) -> Counts:
        """Another one of the same numbers."""
        return Counts(
            self.dropped_records,
            self.dropped_samples,
            self.corrupt_records,
            self.corrupt_samples,
            self.dropped_events,
        )


@dataclass(slots=True)
class Stock:
    """What is on the disk, counted."""

    bytes_of: list[int] = field(default_factory=lambda: [0, 0, 0])
    """By class."""
    records_of: Counter[int] = field(default_factory=Counter)
    """By epoch. Those with the log count until they are deleted."""
    control: dict[int, str] = field(default_factory=dict)
    """Position → kind of ledger and dropped records."""
    held_bytes: int = 0
    """Of readings that wait for the clock."""

    @property
    def bytes(self) -> int:
        """All of them."""
        return sum(self.bytes_of) + self.held_bytes

    @property
    def records(self) -> int:
        """All of them."""
        return sum(self.records_of.values())

    def add(self, position: int, epoch: int, kind: str, size: int) -> None:
        """A record came."""
        self._change(epoch, kind, size, 1)
        if kind in (Kind.LEDGER, Kind.DROPPED):
            self.control[position] = kind

    def remove(self, gone: Gone) -> None:
        """A record went."""
        self._change(gone.epoch, gone.kind, gone.size, -1)
        self.control.pop(gone.position, None)

    def _change(self, epoch: int, kind: str, size: int, sign: int) -> None:
        self.bytes_of[class_of(kind)] += sign * (size + OVERHEAD)
        self.records_of[epoch] += sign

    def copy(self) -> Stock:
        """Another one of the same numbers."""
        return Stock([*self.bytes_of], Counter(self.records_of), {**self.control}, self.held_bytes)


@dataclass(frozen=True, slots=True)
class Whole:
    """The records of a commit that is to be kept whole."""

    after: int
    """They have positions beyond this."""
    size: int
    """Bytes that they take, OVERHEAD included."""
    has_events: bool


Mark = tuple[Stock, Counts, int]


class Bounds:
    """Counts what is there and lets go what is too much."""

    def __init__(
        self, db: sqlite3.Connection, tail: Tail, *, max_bytes: int, max_age_s: float = 0.0, policy: Policy = "oldest"
    ) -> None:
        """`max_age_s`: 0 for no bound on age."""
        self.max_bytes, self.max_age_s, self.policy = max_bytes, max_age_s, policy
        self.counts = Counts()
        self.stock = Stock()
        self._db, self._tail = db, tail
        self._dropped = Dropped(db)
        self._no_samples_to = 0
        """No sample that may go has a position up to this."""
        self._aged_s = 0

    def load(self) -> None:
        """Counts what is on the disk, once damaged numbers are put right."""
        mend_numbers(self._db)
        for kind, epoch, records, size in self._db.execute(
            "SELECT kind, epoch, count(*), sum(length(value)) FROM record GROUP BY kind, epoch"
        ):
            self.stock.bytes_of[class_of(kind)] += size + OVERHEAD * records
            self.stock.records_of[epoch] += records
        control = self._db.execute("SELECT position, kind FROM record WHERE class > 0 AND class = 2")
        self.stock.control = dict(control.fetchall())
        held = self._db.execute("SELECT coalesce(sum(length(value)), 0) + count(*) * ? FROM held", (OVERHEAD,))
        self.stock.held_bytes = int(held.fetchone()[0])

    def mark(self) -> Mark:
        """What `restore` needs."""
        return self.stock.copy(), self.counts.copy(), self._no_samples_to

    def restore(self, mark: Mark) -> None:
        """As it was at `mark`."""
        self.stock, self.counts, self._no_samples_to = mark
        self._aged_s = 0
        self._tail.restore()

    def keep(self, now_s: int, *, whole: Whole | None = None) -> set[int]:
        """Lets go what is too old and too much. Returns the positions that went. `now_s`: the spool's own time.

        Raises NoRoom under `newest`, where the records of `whole` do not fit.
        """
        went = self._expire(now_s) if self.max_age_s and now_s != self._aged_s else set()
        if (
            self.policy == "newest" and whole is not None and whole.size * 2 <= self.max_bytes
        ):  # else it would never fit
            return went | self._make_room(whole)
        excess = self.stock.bytes - self.max_bytes
        if excess <= 0:
            return went
        if self.policy == "oldest":
            excess += self.max_bytes // SLACK
        for wanted in (SAMPLES, EVENTS):
            if excess > 0 and self.stock.bytes_of[wanted]:
                gone = self._drop(self._candidates(wanted, excess))
                excess -= sum(one.size + OVERHEAD for one in gone)
                went.update(one.position for one in gone)
        return went

    def _make_room(self, whole: Whole) -> set[int]:
        """Events drive out the newest samples that were kept before. Without any, nothing has to go."""
        excess = self.stock.bytes - self.max_bytes
        if not whole.has_events and excess + self.max_bytes // RESERVE > 0:
            raise NoRoom
        if excess <= 0:
            return set()
        gone = self._drop(self._candidates(SAMPLES, excess, before=whole.after + 1))
        if sum(one.size + OVERHEAD for one in gone) < excess:
            raise NoRoom
        return {one.position for one in gone}

    def _candidates(self, wanted: int, excess: int, *, before: int = 1 << 62) -> list[Gone]:
        oldest = self.policy == "oldest"
        after = self._no_samples_to if oldest and wanted == SAMPLES else 0
        rows = self._db.execute(
            f"SELECT {_FIELDS} FROM record WHERE {_OF_CLASS[wanted]} AND position > ? AND position < ?"  # noqa: S608
            f" ORDER BY position {'ASC' if oldest else 'DESC'}",
            (after, before),
        )
        found: list[Gone] = []
        for row in rows:
            if excess <= 0:
                break
            if self._tail.is_out(row[0]):
                continue
            found.append(Gone(*row))
            excess -= row[-1] + OVERHEAD
        rows.close()
        return found

    def _expire(self, now_s: int) -> set[int]:
        self._aged_s = now_s
        rows = self._db.execute(f"SELECT {_FIELDS}, at_s FROM record WHERE class < 2 ORDER BY position")  # noqa: S608
        found: list[Gone] = []
        for *row, at_s in rows:
            if at_s + self.max_age_s >= now_s:
                break
            if not self._tail.is_out(row[0]):
                found.append(Gone(*row))
        rows.close()
        return {one.position for one in self._drop(found)}

    def _drop(self, candidates: Sequence[Gone]) -> list[Gone]:
        granted = self._tail.withdraw(one.position for one in candidates)
        gone = [one for one in candidates if one.position in granted]
        self.delete(gone)
        if self.policy == "oldest" and (samples := [one.position for one in gone if class_of(one.kind) == SAMPLES]):
            self._no_samples_to = max(samples)
        self.counts.dropped_records += len(gone)
        self.counts.dropped_samples += sum(one.samples for one in gone)
        self.counts.dropped_events += sum(one.count for one in gone if one.kind == Kind.EVENTS)
        return gone

    def delete(self, gone: Sequence[Gone]) -> None:
        """Takes records out and notes their ranges as dropped."""
        self._dropped.note(gone)
        self._db.executemany("DELETE FROM record WHERE position = ?", [(one.position,) for one in gone])
        for one in gone:
            self.stock.remove(one)

    def find(self, positions: Iterable[int]) -> list[Gone]:
        """The records at these positions, those that are there."""
        query = f"SELECT {_FIELDS} FROM record WHERE position = ?"  # noqa: S608
        rows = (self._db.execute(query, (position,)).fetchone() for position in positions)
        return [Gone(*row) for row in rows if row is not None]

    def forget(self, positions: Sequence[int]) -> None:
        """Deletes what the log has: not dropped, nothing is noted."""
        for first, last in _ranges(sorted(positions)):
            rows = self._db.execute(f"SELECT {_FIELDS} FROM record WHERE position BETWEEN ? AND ?", (first, last))  # noqa: S608
            gone = [Gone(*row) for row in rows]
            self._db.execute("DELETE FROM record WHERE position BETWEEN ? AND ?", (first, last))
            for one in gone:
                self.stock.remove(one)


def class_of(kind: str) -> int:
    """The priority class of a kind; of one that does not exist (a damaged row) that of samples."""
    return CLASSES.get(kind, SAMPLES)


def _ranges(positions: Iterable[int]) -> list[tuple[int, int]]:
    """Runs of consecutive numbers, [first, last], of sorted ones."""
    found: list[tuple[int, int]] = []
    for position in positions:
        if found and position == found[-1][1] + 1:
            found[-1] = (found[-1][0], position)
        else:
            found.append((position, position))
    return found
