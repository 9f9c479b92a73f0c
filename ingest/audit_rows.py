"""Rows of store.sample, counted and hashed again by equipment and hour: the audit's own look at the table.

The server packs the rows of a signal and an hour into one byte string (18 bytes a row), so that millions of rows cross
as thousands of messages; hashing is vectorised. Memory: one group at a time, whatever the size of the table.
"""

from __future__ import annotations

from typing import Any, Final, LiteralString

import numpy as np
import psycopg

from ingest.accounts import Cell
from ingest.ledgers import MODULUS
from telemetry.ledger import hash_rows
from telemetry.pg_array import EPOCH_2000_US

Connection = psycopg.AsyncConnection[Any]

PACKED: Final = np.dtype([("time", ">i8"), ("value", ">f8"), ("quality", ">i2")])
GROUPS_AT_ONCE: Final = 200


async def counted_rows(connection: Connection) -> dict[Cell, tuple[int, int]]:
    """(samples, checksum modulo 2^64) of every equipment and hour in the table. Within the caller's snapshot."""
    found: dict[Cell, tuple[int, int]] = {}
    await connection.execute("SET LOCAL enable_hashagg = off")  # sorted groups: one string in memory, not all
    async with connection.cursor("audit", binary=True) as cursor:
        cursor.itersize = GROUPS_AT_ONCE
        await cursor.execute(_ROWS)
        async for equipment, name_hash, hour_us, packed in cursor:
            rows = np.frombuffer(packed, PACKED)
            hashes = hash_rows(
                np.full(len(rows), name_hash % MODULUS, np.uint64),
                rows["time"].astype(np.int64) + np.int64(EPOCH_2000_US),
                rows["value"].astype(np.float64),
                rows["quality"].astype(np.uint8),
            )
            count, checksum = found.get((equipment, hour_us), (0, 0))
            found[equipment, hour_us] = (
                count + len(rows),
                (checksum + int(hashes.sum(dtype=np.uint64))) % MODULUS,
            )
    return found


_ROWS: Final[LiteralString] = """
SELECT g.equipment, g.name_hash, (extract(epoch FROM r.hour) * 1000000)::bigint, r.packed
FROM (
    SELECT signal_id, date_bin('1 hour', time, '2000-01-01 00:00:00+00') AS hour,
           string_agg(timestamptz_send(time) || float8send(coalesce(value, 'NaN')) || int2send(quality), ''::bytea) AS packed
    FROM store.sample GROUP BY 1, 2
) r JOIN store.signal g USING (signal_id)
"""
