"""The spool: every record is on disk before it counts as read, and stays there until the log has it.

Invariants
- (epoch, seq) is fixed when a record is journaled: epoch is random for each opening, seq counts from 0 without holes.
  A spool restored from a copy opens under a new epoch, so no number is ever used twice; old records keep theirs.
- A record, its ledger increments and the state that goes with it are one transaction (WAL, synchronous=FULL).
- At most `max_bytes` of records are kept (their values and OVERHEAD each). Beyond it, the oldest samples and heartbeats
  are dropped first, then the oldest events and registries. What is dropped is kept as seq ranges and published as a
  record of its own; ledger and dropped records are never dropped (at most one of each waits at a time).
- What was handed to the forwarder is not dropped: else it could be both stored and reported as dropped.
- A record whose bytes are not what was journaled is set aside (table `aside`), counted and reported as dropped.

This module is synchronous and belongs to one thread (edge.journal). Crashes are simulated at the points named by `at`.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.ledger import Increment, Increments, add
from edge.spool_file import lock, open_file
from telemetry.messages import DroppedRange, Kind, Ledger, LedgerEntry
from telemetry.wire import Encoded, Identity, encode_dropped, encode_ledger

OVERHEAD: Final = 128
"""Bytes that a record costs beside its value: row, index and page slack."""
SLACK: Final = 64
"""When dropping, 1/SLACK of the bound is freed beyond what is needed, so that not every commit drops."""
ENTRIES_MAX: Final = 5_000
"""Ledger entries or dropped ranges in one record: keeps it below any log's record size."""
ASIDE_MAX: Final = 1_000

_SAMPLES, _EVENTS, _CONTROL = 0, 1, 2
_CLASSES: Final = {
    Kind.SAMPLES: _SAMPLES,
    Kind.HEARTBEAT: _SAMPLES,
    Kind.EVENTS: _EVENTS,
    Kind.REGISTRY: _EVENTS,
    Kind.LEDGER: _CONTROL,
    Kind.DROPPED: _CONTROL,
}
_SIGN: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Stored:
    """A record in the spool."""

    position: int
    identity: Identity
    encoded: Encoded


@dataclass(slots=True)
class Counts:
    """What the spool lost, since it was opened. Records and samples."""

    dropped_records: int = 0
    dropped_samples: int = 0
    corrupt_records: int = 0
    corrupt_samples: int = 0


class Spool:
    """An open spool. `epoch` is random, 63 bits, new for each opening."""

    def __init__(
        self, path: Path, *, edge: str, epoch: int, max_bytes: int, at: Callable[[str], None] = lambda point: None
    ) -> None:
        self.edge, self.epoch, self.max_bytes = edge, epoch, max_bytes
        self.counts = Counts()
        self._at = at
        self._lock = lock(path.with_suffix(".lock"))
        try:
            self._db, self.lost_file = open_file(path, aside=f"unreadable-{epoch:016x}")
        except BaseException:
            os.close(self._lock)
            raise
        self.seq = 0
        self.handed = 0
        self._acknowledged = 0
        self._pending: dict[tuple[str, int], Increment] = {}
        row = self._db.execute("SELECT coalesce(sum(length(value)), 0) + count(*) * ? FROM record", (OVERHEAD,))
        self.bytes = int(row.fetchone()[0])
        if self.bytes > self.max_bytes:  # It was opened with a larger bound before.
            with self._transaction():
                self._bound()

    def close(self) -> None:
        """Closes the file; what was journaled stays."""
        if self._lock >= 0:
            self._db.close()
            os.close(self._lock)
            self._lock = -1

    # ---- journaling

    def journal(
        self, records: Sequence[Encoded], increments: Increments, state: Mapping[str, str] | None = None
    ) -> list[Identity]:
        """Makes records durable, with their ledger increments and state. Returns their identities, in order.

        Raises sqlite3.OperationalError when the disk is full or cannot be written: then nothing was journaled.
        """
        with self._transaction():
            identities = [self._insert(record) for record in records]
            self._at("inserted")
            self._count(increments)
            if state:
                self._db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", state.items())
            self._bound()
        return identities

    def publish(self, *, force: bool = False) -> int:
        """Journals what the ledger counted and what was dropped, as records. Returns how many.

        Unless forced, none of a kind of which one still waits to be forwarded, so that an outage does not pile them up.
        """
        with self._transaction():
            waiting = {row[0] for row in self._db.execute("SELECT kind FROM record WHERE class = ?", (_CONTROL,))}
            made = 0
            if force or Kind.DROPPED not in waiting:
                made += self._publish_dropped()
            if force or Kind.LEDGER not in waiting:
                made += self._publish_ledger()
            self._bound()
        return made

    def state(self) -> dict[str, str]:
        """The state kept with the records."""
        return dict(self._db.execute("SELECT key, value FROM state"))

    # ---- forwarding

    def read(self, after: int, *, max_records: int, max_bytes: int) -> list[Stored]:
        """The next records beyond position `after`, each checked; at least one if there is any, whatever its size."""
        rows = self._db.execute(
            "SELECT position, epoch, seq, kind, count, crc, value FROM record WHERE position > ? ORDER BY position LIMIT ?",
            (after, max_records),
        )
        found: list[Stored] = []
        corrupt: list[int] = []
        taken = 0
        for position, epoch, seq, kind, count, crc, value in rows:
            if not isinstance(value, bytes) or zlib.crc32(value) != crc or kind not in _CLASSES:
                corrupt.append(position)
                continue
            taken += len(value)
            if found and taken > max_bytes:
                break
            encoded = Encoded(Kind(kind), count, crc, value)
            found.append(Stored(position, Identity(self.edge, epoch, seq), encoded))
        rows.close()
        if corrupt:
            self.set_aside(corrupt, "corrupt")
        self.handed = max([self.handed, *(s.position for s in found)])
        return found

    def acknowledge(self, through: int) -> None:
        """The log has everything up to position `through`. Deleted with the next transaction: repeated is harmless."""
        self._acknowledged = max(self._acknowledged, through)

    def settle(self) -> None:
        """Deletes what was acknowledged, now."""
        with self._transaction():
            pass

    def set_aside(self, positions: Sequence[int], reason: str) -> None:
        """Records that can never be forwarded: kept in `aside` (the last ASIDE_MAX), reported as dropped."""
        with self._transaction():
            for position in positions:
                self._db.execute(
                    "INSERT OR REPLACE INTO aside SELECT position, epoch, seq, kind, count, crc, value, ? FROM record"
                    " WHERE position = ?",
                    (reason, position),
                )
                samples = self._delete([position])
                if reason == "corrupt":
                    self.counts.corrupt_records += 1
                    self.counts.corrupt_samples += samples
            self._db.execute(
                "DELETE FROM aside WHERE position <= (SELECT position FROM aside ORDER BY position DESC LIMIT 1 OFFSET ?)",
                (ASIDE_MAX,),
            )

    def last_position(self) -> int:
        """The position of the newest record, 0 if there is none."""
        return int(self._db.execute("SELECT coalesce(max(position), 0) FROM record").fetchone()[0])

    def waiting(self) -> int:
        """Records that the log does not have yet."""
        row = self._db.execute("SELECT count(*) FROM record WHERE position > ?", (self._acknowledged,)).fetchone()
        return int(row[0])

    # ---- within a transaction

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        before = (self.seq, self.bytes, dict(self._pending), Counts(**_fields(self.counts)))
        self._db.execute("BEGIN IMMEDIATE")
        try:
            if self._acknowledged:
                self._forget()
            yield
            if self.seq:
                self._db.execute(
                    "INSERT INTO epoch VALUES (?, ?, -1) ON CONFLICT (epoch) DO UPDATE SET last = excluded.last",
                    (self.epoch, self.seq - 1),
                )
            self._at("before commit")
            self._db.execute("COMMIT")
        except BaseException:
            self.seq, self.bytes, self._pending, self.counts = before
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._at("after commit")

    def _insert(self, record: Encoded) -> Identity:
        identity = Identity(self.edge, self.epoch, self.seq)
        self._db.execute(
            "INSERT INTO record (epoch, seq, kind, count, crc, class, value) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (self.epoch, self.seq, record.kind, record.count, record.crc, _CLASSES[record.kind], record.value),
        )
        self.seq += 1
        self.bytes += len(record.value) + OVERHEAD
        return identity

    def _count(self, increments: Increments) -> None:
        rows = []
        for key, more in increments.items():
            add(self._pending, key, more)
            samples, checksum = self._pending[key]
            rows.append((self.epoch, *key, samples, checksum - _SIGN))
        self._db.executemany("INSERT OR REPLACE INTO ledger VALUES (?, ?, ?, ?, ?)", rows)

    def _forget(self) -> None:
        freed = self._db.execute(
            "SELECT coalesce(sum(length(value)), 0) + count(*) * ? FROM record WHERE position <= ?",
            (OVERHEAD, self._acknowledged),
        ).fetchone()[0]
        if freed:
            self._db.execute("DELETE FROM record WHERE position <= ?", (self._acknowledged,))
            self.bytes -= freed

    def _bound(self) -> None:
        if self.bytes <= self.max_bytes:
            return
        excess = self.bytes - self.max_bytes + self.max_bytes // SLACK
        for wanted in (_SAMPLES, _EVENTS):
            rows = self._db.execute(
                "SELECT position, length(value) + ? FROM record WHERE class = ? AND position > ? ORDER BY position",
                (OVERHEAD, wanted, self.handed),
            )
            positions = []
            for position, size in rows:
                if excess <= 0:
                    break
                positions.append(position)
                excess -= size
            rows.close()
            self.counts.dropped_records += len(positions)
            self.counts.dropped_samples += self._delete(positions)
            if excess <= 0:
                return

    def _delete(self, positions: Sequence[int]) -> int:
        """Takes records out and notes their ranges; returns how many samples were in them."""
        lost = 0
        for position in positions:
            epoch, seq, kind, count, size = self._db.execute(
                "SELECT epoch, seq, kind, count, length(value) + ? FROM record WHERE position = ?", (OVERHEAD, position)
            ).fetchone()
            samples = count if kind == Kind.SAMPLES else 0
            self._note_dropped(epoch, seq, samples)
            self._db.execute("DELETE FROM record WHERE position = ?", (position,))
            self.bytes -= size
            lost += samples
        return lost

    def _note_dropped(self, epoch: int, seq: int, samples: int) -> None:
        """Joins the range that ends just before, if there is one."""
        joined = self._db.execute(
            "UPDATE dropped SET last = ?, samples = samples + ? WHERE epoch = ? AND last = ?",
            (seq, samples, epoch, seq - 1),
        )
        if not joined.rowcount:
            self._db.execute("INSERT INTO dropped VALUES (?, ?, ?, ?)", (epoch, seq, seq, samples))

    def _publish_dropped(self) -> int:
        rows = self._db.execute("SELECT epoch, first, last, samples FROM dropped LIMIT ?", (ENTRIES_MAX,)).fetchall()
        if not rows:
            return 0
        self._insert(encode_dropped([DroppedRange(*row) for row in rows]))
        self._db.executemany("DELETE FROM dropped WHERE epoch = ? AND first = ?", [row[:2] for row in rows])
        return 1

    def _publish_ledger(self) -> int:
        epochs = self._db.execute(
            "SELECT epoch, last, published FROM epoch WHERE epoch = ? OR epoch IN (SELECT epoch FROM ledger)"
            " ORDER BY epoch = ?",
            (self.epoch, self.epoch),
        ).fetchall()
        made = 0
        for epoch, last, published in epochs:
            rows = self._db.execute(
                "SELECT equipment, hour_us, samples, checksum FROM ledger WHERE epoch = ?", (epoch,)
            ).fetchall()
            entries = [LedgerEntry(e, hour, samples, checksum + _SIGN) for e, hour, samples, checksum in rows]
            # Only the last record of an epoch may say that everything up to `last` is covered.
            for start in range(0, len(entries), ENTRIES_MAX):
                through = last if start + ENTRIES_MAX >= len(entries) else published
                part = tuple(entries[start : start + ENTRIES_MAX])
                self._insert(encode_ledger(Ledger(self.edge, epoch, through, part)))
                made += 1
            if epoch == self.epoch:
                self._db.execute("UPDATE epoch SET published = ? WHERE epoch = ?", (last, epoch))
        self._db.execute("DELETE FROM ledger")
        self._db.execute("DELETE FROM epoch WHERE epoch <> ?", (self.epoch,))
        self._pending.clear()
        return made


def _fields(counts: Counts) -> dict[str, int]:
    return {
        "dropped_records": counts.dropped_records,
        "dropped_samples": counts.dropped_samples,
        "corrupt_records": counts.corrupt_records,
        "corrupt_samples": counts.corrupt_samples,
    }
