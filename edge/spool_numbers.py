"""Puts right what the disk made of a record's number: its CRC is of its bytes alone.

A record under another's number would keep that one out of the store, and under one of an epoch that never was it would count
twice in the audit. Positions and seqs grow together, so of one epoch position − seq is the same for all records, and a row
that lies between two of an epoch that agree is of that epoch: its number follows from its position. The first and the last of
an epoch have only one neighbour, so they are left as they are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import structlog

log = structlog.get_logger()


def mend_numbers(db: sqlite3.Connection) -> int:
    """Gives records whose (epoch, seq) cannot be theirs the one that their position says. Returns how many.

    One pass over the rows, without their bytes; nothing is written where there are none. Raises sqlite3.OperationalError
    where there are some and the disk cannot be written.
    """
    found = db.execute(
        "SELECT epoch, position - seq, min(position), max(position) FROM record GROUP BY 1, 2 ORDER BY count(*) DESC, 3"
    ).fetchall()
    mended = 0
    for n, (epoch, offset, first, last) in enumerate(found):
        if _meets(first, last, found[:n]):
            continue  # of rows that were damaged alike, and were put right
        if not _meets(first, last, found[n + 1 :]):
            continue
        mended += db.execute(
            "UPDATE record SET epoch = ?1, seq = position - ?2"
            " WHERE position > ?3 AND position < ?4 AND (epoch <> ?1 OR position - seq <> ?2)",
            (epoch, offset, first, last),
        ).rowcount
    if mended:
        log.warning("numbers of damaged records in the spool were put right", records=mended)
    return mended


def _meets(first: int, last: int, others: Sequence[tuple[object, object, int, int]]) -> bool:
    return any(first < end and begin < last for _, _, begin, end in others)
