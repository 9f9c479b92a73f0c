"""Reading the spool back from the disk: what an outage left behind, and what an earlier process did not forward.

Invariants: what is given out was checked against its CRC, and what fails is handed to `damaged`; a record is given out once;
events come before the rest, each in the order of their positions.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge.spool_bounds import CLASSES, EVENTS
from edge.spool_copies import mended
from edge.spool_tail import Stored, Tail
from telemetry.messages import Kind
from telemetry.wire import Encoded, Identity

_FIELDS: Final = "position, epoch, seq, kind, count, crc, value"


@dataclass(slots=True)
class SpoolReader:
    """Of the spool's thread."""

    db: sqlite3.Connection
    tail: Tail
    edge: str
    damaged: Callable[[list[int]], None]
    _events_to: int = 0
    _rest_to: int = 0
    """Of what only the disk has: given out up to these positions."""

    def read(self, after: int, *, max_records: int, max_bytes: int, where: str = "true") -> list[Stored]:
        """The next records beyond position `after` that are not out, each checked; at least one if there is any."""
        rows = self.db.execute(
            f"SELECT {_FIELDS} FROM record WHERE {where} AND position > ? ORDER BY position",  # noqa: S608
            (after,),
        )
        found: list[Stored] = []
        corrupt: list[int] = []
        taken = 0
        for position, epoch, seq, kind, count, crc, read in rows:
            if self.tail.is_out(position):
                continue
            value = mended(self.db, kind, position, crc, read)
            if not isinstance(value, bytes) or not _is_whole(kind, count, crc, value):
                corrupt.append(position)
                continue
            taken += len(value)
            if found and (taken > max_bytes or len(found) >= max_records):
                break
            found.append(Stored(position, Identity(self.edge, epoch, seq), Encoded(Kind(kind), count, crc, value)))
        rows.close()
        if corrupt:
            self.damaged(corrupt)
        return found

    @property
    def has_backlog(self) -> bool:
        """Whether only the disk has something that was not given out."""
        return min(self._events_to, self._rest_to) < self.tail.spilled

    def backlog(self, *, max_records: int, max_bytes: int) -> list[Stored]:
        """The next records that only the disk has. They are out from now on."""
        through = self.tail.spilled
        found: list[Stored] = []
        if self._events_to < through:
            where = f"class > 0 AND class = {EVENTS} AND position <= {through:d}"
            found = self.read(self._events_to, max_records=max_records, max_bytes=max_bytes, where=where)
            self._events_to = found[-1].position if found else through
        if not found and self._rest_to < through:
            where = f"class <> {EVENTS} AND position <= {through:d}"
            found = self.read(self._rest_to, max_records=max_records, max_bytes=max_bytes, where=where)
            self._rest_to = found[-1].position if found else through
        self.tail.hand_out(found)
        return found

    def fill_tail(self) -> None:
        """What was not forwarded before goes first, in order, as far as memory holds it; the rest is back-filled."""
        rows = self.db.execute("SELECT position, length(value) FROM record ORDER BY position DESC")
        size, after = 0, 0
        for position, length in rows:
            size += length
            if size > self.tail.max_bytes:
                after = position
                break
        rows.close()
        self.tail.spilled = after
        self.tail.push(self.read(after, max_records=1 << 40, max_bytes=1 << 60))


def _is_whole(kind: object, count: object, crc: object, value: bytes) -> bool:
    return zlib.crc32(value) == crc and isinstance(count, int) and kind in CLASSES
