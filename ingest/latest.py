"""The latest reading of every signal, derived after the samples are committed.

Invariants: at most one write a second for a signal; never back in time; nothing that is not committed is ever shown.
What a killed worker did not write is found again at the next start, from the rows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import numpy as np
import psycopg

from ingest.copy import Rows
from telemetry.batch import UInt8
from telemetry.pg_array import Float8s, Int2s, Int4s, Times
from telemetry.store import LATEST_CHANNEL

Connection = psycopg.AsyncConnection[Any]

WRITE_EVERY_S: Final = 1.0
"""A signal's row is written at most so often."""
REBUILT_AT_ONCE: Final = 2_000
"""Signals of a statement of the rebuild: it takes a second or two."""
_NEVER_US: Final = np.iinfo(np.int64).min


class Latest:
    """The newest committed reading of each signal, by signal_id. Of one task."""

    def __init__(self) -> None:
        self._time_us = np.full(0, _NEVER_US, np.int64)
        self._value = np.empty(0, np.float64)
        self._quality: UInt8 = np.empty(0, np.uint8)
        self._dirty = np.zeros(0, np.bool_)
        self._written_s = np.full(0, -np.inf)

    def add(self, rows: Rows) -> None:
        """Takes committed rows, at most one of each signal. An older reading than the known one is ignored."""
        if not len(rows):
            return
        self._grow(int(rows.signal_id.max()) + 1)
        newer = rows.time_us >= self._time_us[rows.signal_id]
        place = rows.signal_id[newer]
        self._time_us[place] = rows.time_us[newer]
        self._value[place] = rows.value[newer]
        self._quality[place] = rows.quality[newer]
        self._dirty[place] = True

    def due(self, now_s: float) -> Rows:
        """Rows to write now; they count as written."""
        place = np.flatnonzero(self._dirty & (self._written_s <= now_s - WRITE_EVERY_S))
        self._dirty[place] = False
        self._written_s[place] = now_s
        return Rows(place.astype(np.int32), self._time_us[place], self._value[place], self._quality[place])

    @property
    def pending(self) -> int:
        """Signals that wait for their second."""
        return int(self._dirty.sum())

    def _grow(self, size: int) -> None:
        more = max(size, 2 * len(self._dirty)) - len(self._dirty) if size > len(self._dirty) else 0
        if more:
            self._time_us = np.append(self._time_us, np.full(more, _NEVER_US, np.int64))
            self._value = np.append(self._value, np.full(more, np.nan))
            self._quality = np.append(self._quality, np.zeros(more, np.uint8))
            self._dirty = np.append(self._dirty, np.zeros(more, np.bool_))
            self._written_s = np.append(self._written_s, np.full(more, -np.inf))


async def write_latest(connection: Connection, rows: Rows) -> None:
    """Writes rows and tells listeners. Connection: autocommit. Raises psycopg.Error."""
    if not len(rows):
        return
    columns = (
        Int4s(rows.signal_id),
        Times(rows.time_us),
        Float8s(rows.value, np.isnan(rows.value)),
        Int2s(rows.quality),
    )
    await connection.execute(_UPSERT, columns)
    await connection.execute("SELECT pg_notify(%s, '')", (LATEST_CHANNEL,))


async def rebuild_latest(connection: Connection, meanwhile: Callable[[], Awaitable[None]] | None = None) -> int:
    """Brings `latest` up to the rows where a worker died in between. Returns how many signals were behind.

    Each signal is looked for in every chunk that may have it: 100,000 of 90 days take up to a minute, and a connection that
    does not answer for so long is given up (ingest.answering). So some signals a statement; `meanwhile` comes after each.
    """
    behind, after = 0, -1
    while True:
        cursor = await connection.execute(_NEXT, (after, REBUILT_AT_ONCE))
        row = await cursor.fetchone()
        if row is None or row[0] is None:
            return behind
        cursor = await connection.execute(_REBUILD, (after, row[0]))
        behind += cursor.rowcount
        after = row[0]
        if meanwhile is not None:
            await meanwhile()


# Both take rows in one order: two workers that write at once wait for one another and never in a circle.
_UPSERT: Final = """
INSERT INTO store.latest AS l (signal_id, time, value, quality)
SELECT * FROM unnest(%s::int[], %s::timestamptz[], %s::float8[], %s::smallint[]) ORDER BY 1
ON CONFLICT (signal_id) DO UPDATE SET time = excluded.time, value = excluded.value, quality = excluded.quality,
    changed_at = clock_timestamp()
WHERE excluded.time >= l.time
"""
_NEXT: Final = """
SELECT max(g.signal_id) FROM (SELECT signal_id FROM store.signal WHERE signal_id > %s ORDER BY 1 LIMIT %s) g
"""
_REBUILD: Final = """
INSERT INTO store.latest AS l (signal_id, time, value, quality)
SELECT g.signal_id, s.time, s.value, s.quality
FROM store.signal g LEFT JOIN store.latest k USING (signal_id)
CROSS JOIN LATERAL (
    SELECT s.time, s.value, s.quality FROM store.sample s
    WHERE s.signal_id = g.signal_id AND s.time > coalesce(k.time, '-infinity'::timestamptz)
    ORDER BY s.time DESC LIMIT 1
) AS s
WHERE g.signal_id > %s AND g.signal_id <= %s
ORDER BY g.signal_id
ON CONFLICT (signal_id) DO UPDATE SET time = excluded.time, value = excluded.value, quality = excluded.quality,
    changed_at = clock_timestamp()
WHERE excluded.time > l.time
"""
