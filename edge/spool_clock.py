"""What the spool knows of time: how old its records are, when it last saw a set clock, and what waits for one.

Invariants
- Age (`at_s`) is counted by a clock that never steps: a wall clock that is set forward ages nothing and drops nothing.
  Over a restart it advances by what the wall clock did, where that was set before and after, and never goes back.
- A provisional reading (edge.provisional) is held without a number. It is released once, in one transaction with its
  deletion, its ledger increments and the numbers it is given: exactly when the clock is set; estimated when it was held
  for `hold_s`, or when it is of an earlier boot.
- Estimates begin at the last time this spool knew, and never go back: not before what was already sent.

Of the spool's thread, within its transactions.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from edge.provisional import Provisional, Released, release
from edge.stamps import SET_US, Offset, Stamps
from telemetry.messages import Kind

RELEASED_BYTES: Final = 4 << 20
"""Of what was held, in one transaction: a minute of a large plant is more than memory should hold at once."""
_US: Final = 1_000_000


@dataclass(slots=True)
class SpoolClock:
    """Of one opening of the spool."""

    db: sqlite3.Connection
    stamps: Stamps
    _age_base_s: float = 0.0
    _opened_us: int = 0
    """Since boot."""
    _held_since_us: int | None = None
    """The earliest time that is held, of this boot."""
    held: int = 0
    """Records that wait for the clock."""
    _foreign: int = 0
    """Of them, records of earlier boots."""
    _marked: tuple[str, int | None] = ("", None)
    """The boot of the last mark, and its offset."""
    _floors: dict[str, int] = field(default_factory=dict)
    """Earlier boot → the estimate of when it began."""

    def load(self) -> None:
        """Takes over what is known from before. Within a transaction."""
        row = self.db.execute("SELECT wall_us, at_s, boot, offset_us FROM mark").fetchone()
        wall_us, at_s, boot, offset_us = row or (0, 0, "", None)
        newest = self.db.execute("SELECT wall_us, at_s FROM tally ORDER BY position DESC LIMIT 1").fetchone()
        if newest is not None:
            wall_us, at_s = newest[0] or wall_us, newest[1]
        now_us = self.stamps.clock.now_us()
        passed_s = max(now_us - wall_us, 0) / _US if now_us >= SET_US and wall_us else 0.0
        self._age_base_s = at_s + passed_s if at_s else first_age_s(self.stamps)
        self._opened_us = self.stamps.since_boot_us()
        self.stamps.floor_us = max(self.stamps.floor_us, wall_us)
        if boot == self.stamps.boot and offset_us is not None:
            self.stamps.estimate_us = offset_us
        self._marked = (boot, offset_us)
        self.count_held()

    def count_held(self) -> None:
        """Looks what is held on the disk. After each COMMIT or ROLLBACK of something that changed it."""
        mine, self.held, self._held_since_us = self.db.execute(
            "SELECT coalesce(sum(boot = ?1), 0), count(*), min(CASE boot WHEN ?1 THEN first_us END) FROM held",
            (self.stamps.boot,),
        ).fetchone()
        self._foreign = self.held - mine

    @property
    def age_s(self) -> int:
        """Now, by the clock that never steps."""
        return int(self._age_base_s + (self.stamps.since_boot_us() - self._opened_us) / _US)

    def wall_us(self) -> int:
        """Now, as best it is known; 0 while it is not. A clock that was set is remembered, should it be unset again."""
        offset = self.stamps.offset()
        if offset is None:
            return 0
        if offset.exact:
            self.stamps.estimate_us = offset.us
        return self.stamps.since_boot_us() + offset.us

    def mark(self) -> None:
        """Keeps what the next opening needs."""
        wall_us = self.wall_us() or self.stamps.floor_us
        self.db.execute(
            "INSERT OR REPLACE INTO mark VALUES (0, ?, ?, ?, ?)",
            (wall_us, self.age_s, self.stamps.boot, self.stamps.estimate_us),
        )

    def hold(self, one: Provisional) -> None:
        """Keeps readings until their time is known."""
        self.db.execute(
            "INSERT INTO held (boot, first_us, kind, count, crc, value) VALUES (?, ?, ?, ?, ?, ?)",
            (self.stamps.boot, one.first_us, one.kind, one.count, zlib.crc32(one.value), one.value),
        )

    def give_up(self) -> None:
        """No longer waits for the clock: what is held goes out by an estimate, and so does what comes until it is set."""
        if self.stamps.offset() is None:
            self.stamps.estimate_us = self.stamps.floor_us

    def is_due(self) -> bool:
        """Whether something is held that need not be any longer."""
        if not self.held:
            return False
        since_us = self._held_since_us
        if since_us is not None and (self.stamps.since_boot_us() - since_us) / _US > self.stamps.hold_s:
            self.give_up()
        return self._foreign > 0 or self.stamps.offset() is not None

    def due(self) -> Iterator[tuple[int, int, Released | None]]:
        """(bytes, samples, what is released) of records whose time is known now, oldest first, RELEASED_BYTES of them.

        None where it is damaged: it is set aside. They are deleted.
        """
        mine, now_us = self.stamps.offset(), self.stamps.clock.now_us()
        newest_us = now_us if now_us >= SET_US else None
        for position, boot, kind, count, crc, value in self._some(known=mine is not None):
            here = mine if boot == self.stamps.boot else None
            offset = here or Offset(self._began_us(boot), exact=False)
            known = None
            if zlib.crc32(value) == crc:
                known = release(Kind(kind), value, offset, newest_us=None if offset.exact else newest_us)
                if not offset.exact:
                    self.stamps.floor_us = max(self.stamps.floor_us, known.last_us)
            else:
                self.db.execute(
                    "INSERT INTO aside (kind, count, crc, value, reason) VALUES (?, ?, ?, ?, 'corrupt')",
                    (kind, count, crc, value),
                )
            self.db.execute("DELETE FROM held WHERE position = ?", (position,))
            yield len(value), count if kind == Kind.SAMPLES else 0, known

    def _some(self, *, known: bool) -> list[tuple[int, str, str, int, int, bytes]]:
        """The oldest that are due: of earlier boots and, where the time of this one is known, its own."""
        rows = self.db.execute(
            "SELECT position, boot, kind, count, crc, value FROM held WHERE boot <> ? OR ? ORDER BY position",
            (self.stamps.boot, known),
        )
        found, size = [], 0
        for row in rows:
            found.append(row)
            size += len(row[-1])
            if size >= RELEASED_BYTES:
                break
        rows.close()
        return found

    def at_once(self, several: Sequence[Provisional]) -> list[Released] | None:
        """Readings that need not be held, because the offset of this boot is known. None where it is not."""
        offset = self.stamps.offset()
        return None if offset is None else [release(one.kind, one.value, offset) for one in several]

    def _began_us(self, boot: str) -> int:
        """When an earlier boot began, as it is estimated: when the spool had last known the time."""
        known_boot, offset_us = self._marked
        if boot == known_boot and offset_us is not None:
            return offset_us
        return self._floors.setdefault(boot, self.stamps.floor_us)


def first_age_s(stamps: Stamps) -> int:
    """Where the age of a new spool begins: at today's time, so that a file says when it was made."""
    now_us = stamps.clock.now_us()
    return (now_us if now_us >= SET_US else stamps.floor_us) // _US
