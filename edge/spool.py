"""The spool: every record is on disk before it counts as read, and stays there until the log has it.

Invariants
- (epoch, seq) is fixed when a record is journaled: epoch is random for each opening, seq counts from 0 without holes.
  A spool restored from a copy opens under a new epoch, so no number is ever used twice; old records keep theirs.
- A record, its ledger increments, the keys of its messages and the state that goes with it are one transaction (WAL,
  synchronous=FULL). Memory follows the disk: what a commit changes in memory is changed after COMMIT.
- Readings whose time is not known yet have no number: they get one when they are released (edge.spool_clock).
- What is kept is bounded in bytes and age (edge.spool_bounds); what goes is published as seq ranges and samples by
  equipment and hour, as a record of its own; at most one record of drops and one of the ledger waits at a time.
- A record whose bytes are not what was journaled is set aside (table `aside`), counted and reported as dropped.

This module is synchronous and belongs to one thread (edge.journal); `tail` is the forwarder's as well. Crashes are simulated
at the points named by `at`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from edge.ledger import Increments, add
from edge.provisional import Provisional, Released
from edge.spool_bounds import EVENTS, OVERHEAD, Bounds, Counts, Mark, Policy, Whole, class_of
from edge.spool_clock import SpoolClock, first_age_s
from edge.spool_copies import keep_copy
from edge.spool_dropped import Dropped
from edge.spool_file import lock, make_room, open_file, roll_back, suspect, until_sound
from edge.spool_keys import Keys
from edge.spool_ledger import Cells, SpoolLedger
from edge.spool_read import SpoolReader
from edge.spool_salvage import Salvaged, salvage
from edge.spool_tail import TAIL_BYTES, Stored, Tail
from edge.stamps import Stamps, machine_stamps
from telemetry.clock import SystemClock
from telemetry.messages import Kind
from telemetry.wire import Encoded, Identity

ASIDE_MAX: Final = 1_000
DELETE_EVERY_US: Final = 1_000_000
DELETE_BYTES: Final = 512 << 10
"""What the log has is deleted with the next commit after so long, or when it is so much: so that its pages are written
again before they are copied out of the write-ahead log."""


class Spool:
    """An open spool. `epoch` is random, 63 bits, new for each opening."""

    def __init__(
        self,
        path: Path,
        *,
        edge: str,
        epoch: int,
        max_bytes: int,
        max_age_s: float = 0.0,
        policy: Policy = "oldest",
        tail_bytes: int = TAIL_BYTES,
        stamps: Stamps | None = None,
        at: Callable[[str], None] = lambda point: None,
    ) -> None:
        """`max_age_s`: 0 for whatever age. `stamps`: this machine's clock where none is given.

        Raises StateLocked; sqlite3.OperationalError or OSError where the disk does not let it be opened.
        """
        self.edge, self.epoch = edge, epoch
        self.stamps = stamps or machine_stamps(SystemClock())
        self._at = at
        self._path = path
        self._lock = lock(path.with_suffix(".lock"))
        self.lost_file: Path | None = None
        self.salvaged: Salvaged | None = None
        with ExitStack() as undo:
            undo.callback(os.close, self._lock)
            opening = partial(self._open, max_bytes, max_age_s, policy, tail_bytes)
            moved = until_sound(path, self._aside, opening)
            self.lost_file = self.lost_file or moved
            undo.pop_all()

    @property
    def _aside(self) -> str:
        return f"unreadable-{self.epoch:016x}"

    def _open(self, max_bytes: int, max_age_s: float, policy: Policy, tail_bytes: int) -> None:
        with ExitStack() as undo:
            self._db, lost = open_file(self._path, aside=self._aside, at_s=first_age_s(self.stamps))
            undo.callback(self._db.close)
            self.salvaged = salvage(self._db, self._path, at_s=first_age_s(self.stamps)) or self.salvaged
            self.lost_file = self.lost_file or lost or (self.salvaged.moved_to if self.salvaged else None)
            self.tail = Tail(tail_bytes)
            self._bounds = Bounds(self._db, self.tail, max_bytes=max_bytes, max_age_s=max_age_s, policy=policy)
            self._dropped = Dropped(self._db)
            self._ledger = SpoolLedger(self._db, self.edge, self.epoch)
            self._clock = SpoolClock(self._db, self.stamps)
            self._keys = Keys(self._db)
            self._reader = SpoolReader(self._db, self.tail, self.edge, lambda bad: self.set_aside(bad, "corrupt"))
            self.seq = 0
            self._position = 0
            self._at_s = 0
            self._deleted_us: int | None = 0
            self._made: list[Stored] = []
            self._counted: Cells = {}
            self._staged: list[Callable[[], None]] = []
            self._load()
            undo.pop_all()

    def _load(self) -> None:
        self._bounds.load()
        self._keys.load()
        self._clock.load()
        self._position = self.last_position()
        self._reader.fill_tail()
        with self._transaction():
            self._ledger.load()
            self._clock.mark()
        self._release()

    def suspect(self, why: str) -> None:
        """Damage was found in the file: the next opening checks it whole."""
        suspect(self._path, why)

    def close(self) -> None:
        """Closes the file; what was journaled stays."""
        if self._lock >= 0:
            self._db.close()
            os.close(self._lock)
            self._lock = -1

    # ---- journaling

    def journal(
        self,
        records: Sequence[Encoded],
        increments: Increments,
        state: Mapping[str, str] | None = None,
        delivered: bytes = b"",
        *,
        provisional: Sequence[Provisional] = (),
        whole: bool = False,
    ) -> list[Identity]:
        """Makes records durable, with their ledger increments, state and message keys. Returns their identities, in order.

        `provisional`: readings and events whose time is µs since boot (edge.provisional): of times below SET_US, and no
        record of `records` has such. `delivered`: 16 bytes a message, end to end. `whole`: none of it may be dropped to make
        room for itself, for its sender still has it. Raises NoRoom where it does not fit, and sqlite3.OperationalError
        when the disk is full or cannot be written: then nothing was journaled.
        """
        self._release()
        kept = None
        if whole and self.refuses:
            values = [*(one.value for one in records), *(one.value for one in provisional)]
            size = sum(map(len, values)) + OVERHEAD * len(values)
            kept = Whole(self._position, size, any(class_of(one.kind) == EVENTS for one in records))
            if (self.bytes + size) * 2 > self._bounds.max_bytes:
                self._deleted_us = None  # what the log has is in nobody's way
        with self._transaction(kept):
            identities = [self._insert(record) for record in records]
            self._hold(provisional)
            self._at("inserted")
            self._count(increments)
            if state:
                self._db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", state.items())
            if delivered:
                self._keys.add(delivered)
        return identities

    def publish(self, *, force: bool = False) -> int:
        """Journals what the ledger counted and what was dropped, as records. Returns how many.

        Unless forced, none of a kind of which one still waits to be forwarded, so that an outage does not pile them up.
        """
        done = set(self.tail.acknowledged())
        waiting = {kind for position, kind in self._bounds.stock.control.items() if position not in done}
        self._release()
        with self._transaction():
            made = 0
            if force or Kind.DROPPED not in waiting:
                made += self._publish_dropped()
            if force or Kind.LEDGER not in waiting:
                made += self._publish_ledger()
            elif self.seq:
                self._ledger.fold(self.seq - 1)
                self._staged.append(self._ledger.folded)
            self._clock.mark()
        return made

    def state(self) -> dict[str, str]:
        """The state kept with the records."""
        return dict(self._db.execute("SELECT key, value FROM state"))

    def delivered(self) -> list[bytes]:
        """The keys of the newest messages, oldest first."""
        return self._keys.all()

    @property
    def bytes(self) -> int:
        """Of what is kept, OVERHEAD a record included."""
        return self._bounds.stock.bytes

    @property
    def refuses(self) -> bool:
        """Whether it refuses what comes when it is full, rather than to drop what it has."""
        return self._bounds.policy == "newest"

    @property
    def counts(self) -> Counts:
        """What was lost since the opening."""
        return self._bounds.counts

    @property
    def held(self) -> int:
        """Records that wait for the clock to be set."""
        return self._clock.held

    # ---- forwarding

    def read(self, after: int, *, max_records: int, max_bytes: int) -> list[Stored]:
        """The next records beyond position `after` that are not out, each checked; at least one if there is any."""
        return self._reader.read(after, max_records=max_records, max_bytes=max_bytes)

    @property
    def has_backlog(self) -> bool:
        """Whether only the disk has something that was not given out. From any thread."""
        return self._reader.has_backlog

    def backlog(self, *, max_records: int, max_bytes: int) -> list[Stored]:
        """The next records that only the disk has, events before the rest, oldest first. They are out from now on."""
        return self._reader.backlog(max_records=max_records, max_bytes=max_bytes)

    @property
    def backlog_records(self) -> int:
        """Records that only the disk has, about; from any thread."""
        return max(self._bounds.stock.records - self.tail.known, 0)

    def settle(self) -> None:
        """Deletes what the log has, now."""
        self._deleted_us = None
        with self._transaction():
            pass

    def set_aside(self, positions: Sequence[int], reason: str) -> None:
        """Records that can never be forwarded: kept in `aside` (the last ASIDE_MAX), reported as dropped."""
        with self._transaction():
            for position in positions:
                self._db.execute(
                    "INSERT INTO aside (epoch, seq, kind, count, crc, value, reason)"
                    " SELECT epoch, seq, kind, count, crc, value, ? FROM record WHERE position = ?",
                    (reason, position),
                )
            gone = self._bounds.find(positions)
            self._bounds.delete(gone)
            if reason == "corrupt":
                self.counts.corrupt_records += len(gone)
                self.counts.corrupt_samples += sum(one.samples for one in gone)
            self._db.execute(
                "DELETE FROM aside WHERE position <= (SELECT position FROM aside ORDER BY position DESC LIMIT 1 OFFSET ?)",
                (ASIDE_MAX,),
            )
            self._staged.append(lambda: self.tail.settled(positions))

    def last_position(self) -> int:
        """The position of the newest record, 0 if there is none."""
        return int(self._db.execute("SELECT coalesce(max(position), 0) FROM record").fetchone()[0])

    def waiting(self) -> int:
        """Records that the log does not have yet."""
        return self._bounds.stock.records - len(self.tail.acknowledged())

    # ---- within a transaction

    @contextmanager
    def _transaction(self, whole: Whole | None = None) -> Iterator[None]:
        seq, position, mark = self.seq, self._position, self._bounds.mark()
        self._made, self._counted, self._staged = [], {}, []
        self._at_s = self._clock.age_s
        self._db.execute("BEGIN IMMEDIATE")
        with ExitStack() as undo:
            undo.callback(self._undo, seq, position, mark)
            self._forget()
            yield
            went = self._bounds.keep(self._at_s, whole=whole)
            if self.seq > seq:
                self._ledger.commit(self.seq - 1, self._counted, wall_us=self._clock.wall_us(), at_s=self._at_s)
            self._at("before commit")
            self._db.execute("COMMIT")
            undo.pop_all()
        self.tail.forget()
        self.tail.push([record for record in self._made if record.position not in went])
        for follow in self._staged:
            follow()
        self._ledger.committed(self._counted)
        self._at("after commit")

    def _undo(self, seq: int, position: int, mark: Mark) -> None:
        """Memory as it was before a transaction that failed, and the disk."""
        self.seq, self._position = seq, position
        self._bounds.restore(mark)
        roll_back(self._db)
        make_room(self._db)
        self._clock.count_held()
        self._keys.load()

    def _insert(self, record: Encoded) -> Identity:
        identity = Identity(self.edge, self.epoch, self.seq)
        self._position += 1
        self._db.execute(
            "INSERT INTO record (position, epoch, seq, kind, count, crc, class, at_s, value)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._position,
                self.epoch,
                self.seq,
                record.kind,
                record.count,
                record.crc,
                class_of(record.kind),
                self._at_s,
                record.value,
            ),
        )
        self._made.append(Stored(self._position, identity, record))
        self._bounds.stock.add(self._position, self.epoch, record.kind, len(record.value))
        self.seq += 1
        return identity

    def _insert_twice(self, record: Encoded) -> None:
        self._insert(record)
        keep_copy(self._db, self._position, record.value)

    def _count(self, increments: Increments) -> None:
        if not self._counted:
            self._counted = dict(increments)
            return
        for cell, more in increments.items():
            add(self._counted, cell, more)

    def _hold(self, provisional: Sequence[Provisional]) -> None:
        if not provisional:
            return
        known = self._clock.at_once(provisional)
        if known is not None:
            for released in known:
                self._take(released)
            return
        for one in provisional:
            self._clock.hold(one)
            self._bounds.stock.held_bytes += len(one.value) + OVERHEAD
        self._staged.append(self._clock.count_held)

    def _release(self) -> None:
        """Numbers what was held for the clock and need not be any longer, a part in each transaction."""
        if self._bounds.stock.held_bytes * 2 > self._bounds.max_bytes:
            self._clock.give_up()
        while self._clock.is_due():
            with self._transaction():
                self._staged.append(self._clock.count_held)
                for size, samples, released in self._clock.due():
                    self._bounds.stock.held_bytes -= size + OVERHEAD
                    if released is None:
                        self.counts.corrupt_records += 1
                        self.counts.corrupt_samples += samples
                    else:
                        self._take(released)
                self._at("released")
                self._clock.mark()

    def _take(self, released: Released) -> None:
        for record in released.records:
            self._insert(record)
        self._count(released.increments)

    def _forget(self) -> None:
        """Deletes what the log has, when it is time."""
        done = self.tail.acknowledged()
        now_us = self.stamps.since_boot_us()
        is_time = self._deleted_us is None or now_us - self._deleted_us >= DELETE_EVERY_US
        if not done or not (is_time or self.tail.deletable_bytes >= DELETE_BYTES):
            return
        self._deleted_us = now_us
        self._bounds.forget(done)
        self._staged.append(lambda: self.tail.settled(done))

    def _publish_dropped(self) -> int:
        record = self._dropped.record()
        if record is None:
            return 0
        self._insert_twice(record)
        return 1

    def _publish_ledger(self) -> int:
        present = {epoch for epoch, left in self._bounds.stock.records_of.items() if left > 0}
        records = self._ledger.records(self.seq - 1, present)
        for record in records:
            self._insert_twice(record)
        self._staged.append(lambda: self._ledger.published(present))
        return len(records)
