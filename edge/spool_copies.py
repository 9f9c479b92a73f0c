"""A second copy of what the spool says of itself: records of the ledger and of drops, until the log has them.

A record of samples that the disk damages costs its own samples, and is reported. One of these would make the audit wrong about
what others hold: the ledger that follows settles what the damaged one never said, so all that it counted would look doubled.
They are few, one of each kind in some seconds, and lie in another table, so on other pages than the records.

Invariant: a copy is taken only for a record whose CRC it answers to. Of the spool's thread, within its transactions.
"""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import suppress

from edge.spool_bounds import CLASSES, CONTROL


def keep_copy(db: sqlite3.Connection, position: int, value: bytes) -> None:
    """Keeps a copy of the record at `position`; those of records that are gone go."""
    db.execute("DELETE FROM copy WHERE position NOT IN (SELECT position FROM record WHERE class > 0 AND class = 2)")
    db.execute("INSERT OR REPLACE INTO copy VALUES (?, ?)", (position, value))


def mended(db: sqlite3.Connection, kind: object, position: int, crc: object, value: object) -> object:
    """`value`, the bytes of a record, or those of its copy where they are not what was journaled and the copy is."""
    if not _is_control(kind) or (isinstance(value, bytes) and zlib.crc32(value) == crc):
        return value
    with suppress(sqlite3.DatabaseError):  # that of a file that is salvaged may be damaged, or have none
        found = db.execute("SELECT value FROM copy WHERE position = ?", (position,)).fetchone()
        if found is not None and isinstance(found[0], bytes) and zlib.crc32(found[0]) == crc:
            return found[0]
    return value


def _is_control(kind: object) -> bool:
    return isinstance(kind, str) and CLASSES.get(kind) == CONTROL
