"""Minutes and hours on plain PostgreSQL, kept beside the raw samples. TimescaleDB keeps its own (migration 0007).

Invariant: of a closed minute every row is seen by who aggregates it, or is noted as late. Minutes are closed under a lock
that writers share until their transaction ends (`store.late_before`), and what is noted is aggregated again. So a flush
pays one short query, and only late samples cost more: the runs of minutes of a signal that they touch.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import psycopg

from ingest.accounts import time_of
from ingest.copy import Rows
from telemetry.batch import Int64
from telemetry.pg_array import Int4s

Connection = psycopg.AsyncConnection[Any]

MINUTE_US: Final = 60_000_000
SETTLED_US: Final = 60_000_000
"""A minute is closed so long after its end; what comes later is late."""
NOTES_AT_ONCE: Final = 500
LOCK_TIMEOUT: Final = "1s"
"""How long closing may hold up flushes: it waits for those in progress, and new ones wait for it."""


async def note_late(connection: Connection, rows: Rows, *, first_us: int) -> None:
    """Notes which minutes of which signals got samples after they were closed. In the transaction of the rows.

    `rows` must be ordered; `first_us`: the oldest one's time. Raises psycopg.Error.
    """
    if not len(rows):
        return
    cursor = await connection.execute("SELECT store.late_before()")
    row = await cursor.fetchone()
    before_us = row[0] if row else None
    if before_us is None or first_us >= before_us:
        return
    signal_id, first, last = late_runs(rows, before_us)
    await connection.execute(
        "INSERT INTO store.late (signal_id, first, last) VALUES (%s::int[], %s::int[], %s::int[])",
        (Int4s(signal_id), Int4s(first), Int4s(last)),
    )


def late_runs(rows: Rows, before_us: int) -> tuple[Int64, Int64, Int64]:
    """Runs of neighbouring minutes of a signal with rows before a moment, by signal and time. `rows` must be ordered.

    signal_id (n,), first and last minute since 1970 (n,), the last included; all int64.
    """
    late = rows.time_us < before_us
    key = (rows.signal_id[late].astype(np.int64) << 32) | (rows.time_us[late] // MINUTE_US)
    apart = np.diff(key) > 1  # in order: no sorting, which would cost more than all the rest
    edge = np.ones(min(len(key), 1), np.bool_)
    first, last = key[np.append(edge, apart)], key[np.append(apart, edge)]
    return first >> 32, first & 0xFFFFFFFF, last & 0xFFFFFFFF


async def refresh(connection: Connection, now_us: int, *, kept_days: float) -> int:
    """Closes what has settled, and aggregates what was closed or noted. Returns how many steps that took.

    Connection: autocommit; a step is a transaction. `kept_days`: of raw samples; older minutes are left as they are.
    Raises psycopg.Error: LockNotAvailable where a writer is in the way for long (nothing is lost, the next turn goes on).
    """
    await _close(connection, (now_us - SETTLED_US) // MINUTE_US * MINUTE_US)
    oldest = time_of(now_us - int(kept_days * 86_400_000_000))
    steps, more = 0, True
    while more:
        cursor = await connection.execute("SELECT store.aggregate(%s, %s)", (oldest, NOTES_AT_ONCE))
        row = await cursor.fetchone()
        steps, more = steps + 1, bool(row and row[0])
    return steps


async def _close(connection: Connection, before_us: int) -> None:
    """Closes the minutes before a moment. The lock is asked for only when there are any."""
    before = time_of(before_us)
    cursor = await connection.execute("SELECT FROM store.aggregated WHERE late_before < %s", (before,))
    if cursor.rowcount:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            await connection.execute("SELECT store.close_minutes(%s)", (before,))


async def behind_s(connection: Connection, now_us: int) -> float:
    """Age of the newest minute that is kept: reading computes what is newer. 0 while there is none."""
    cursor = await connection.execute(
        "SELECT CASE WHEN isfinite(minutes_to) THEN extract(epoch FROM minutes_to)::float8 END FROM store.aggregated"
    )
    row = await cursor.fetchone()
    return max(now_us / 1e6 - row[0], 0.0) if row and row[0] is not None else 0.0
