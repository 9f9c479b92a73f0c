"""A store as a fleet leaves it: 10,000 equipments of 10 points in the register and in `latest`, and samples of some.

Samples are one a second and signal up to now, with noise in the second decimal, a gap and some bad readings; they go in as
ingest writes them: sorted by (signal, time), 500,000 a COPY, Direct Compress on TimescaleDB. The binary rows are made once
and get their times anew, so that the filling measures the store.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import psycopg

from ingest.aggregates import refresh
from ingest.copy import HEADER, ROW, TRAILER
from ingest.transaction import DIRECT_COMPRESS_ROWS
from telemetry.pg_array import EPOCH_2000_US
from telemetry.settings import Settings
from telemetry.store import INGEST, OWNER, connect

EQUIPMENTS: Final = 10_000
POINTS: Final = 10
FLUSH_ROWS: Final = 500_000
SECOND_US: Final = 1_000_000
SLICE_ROWS: Final = 26_000
SILENT_S: Final = (36_000, 37_800)
"""Half an hour in which nothing was read, in seconds after the beginning."""

Connection = psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class Filled:
    """What was filled, and how long it took."""

    rows: int
    signals: int
    first_s: int
    end_s: int
    fill_s: float
    aggregate_s: float
    bytes_per_row: float


async def fill(settings: Settings, *, rows: int, signals: int, now_s: int, timescale: bool) -> Filled:
    """Fills an empty, migrated store. `now_s`: where the samples end, a whole minute."""
    seconds = rows // signals + SILENT_S[1] - SILENT_S[0]
    first_s = now_s - seconds
    async with await connect(settings, OWNER, autocommit=True) as connection:
        await connection.execute(_REGISTER, {"n": EQUIPMENTS})
        await connection.execute(_SIGNALS, {"n": EQUIPMENTS, "points": POINTS})
        await connection.execute(_LATEST, {"now": now_s})
        await connection.execute(
            "SELECT store.ensure_sample_partitions(to_timestamp(%s), to_timestamp(%s))", (first_s, now_s)
        )
        began = time.monotonic()
        written = await _samples(connection, signals, first_s, now_s, timescale=timescale)
        filled = time.monotonic()
        if timescale:
            for view in ("sample_1m", "sample_1h"):
                await connection.execute(f"CALL refresh_continuous_aggregate('store.{view}', NULL, NULL)")
        else:
            async with await connect(settings, INGEST, autocommit=True) as ingest:
                await refresh(ingest, now_s * SECOND_US, kept_days=settings.retention_days)
        aggregated = time.monotonic()
        await connection.execute("VACUUM (ANALYZE) store.signal")
        await connection.execute("VACUUM (ANALYZE) store.latest")
        await connection.execute("VACUUM (ANALYZE) store.sample")
        size = await (await connection.execute(_SIZE_TIMESCALE if timescale else _SIZE_PLAIN)).fetchone()
    assert size is not None
    return Filled(written, signals, first_s, now_s, filled - began, aggregated - filled, size[0] / written)


async def _samples(connection: Connection, signals: int, first_s: int, end_s: int, *, timescale: bool) -> int:
    """Flush after flush. Returns how many rows."""
    each = max(FLUSH_ROWS // signals, 1)
    flushes = [_rows(signals, each, seed) for seed in range(4)]
    written = 0
    for number, start_s in enumerate(range(first_s, end_s, each)):
        if SILENT_S[0] <= start_s - first_s < SILENT_S[1]:
            continue
        table = flushes[number % len(flushes)]
        steps = min(each, end_s - start_s)
        table = table if steps == each else table.reshape(signals, each)[:, :steps].reshape(-1).copy()
        times = (start_s + np.arange(steps, dtype=np.int64)) * SECOND_US - EPOCH_2000_US
        table["time"] = np.tile(times, signals)
        async with connection.transaction():
            if timescale and steps >= DIRECT_COMPRESS_ROWS:
                await connection.execute("SET LOCAL timescaledb.enable_direct_compress_copy = on")
                await connection.execute("SET LOCAL timescaledb.enable_direct_compress_copy_client_sorted = off")
                await connection.execute("SET LOCAL timescaledb.enable_direct_compress_copy_sort_batches = off")
            async with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
                await copy.write(HEADER)
                for at in range(0, len(table), SLICE_ROWS):
                    await copy.write(table[at : at + SLICE_ROWS].tobytes())
                await copy.write(TRAILER)
        written += len(table)
    return written


def _rows(signals: int, each: int, seed: int) -> np.ndarray[Any, Any]:
    """(signals × each,) rows of the binary COPY by signal and time; times are put in later. One in 2,000 is bad."""
    random = np.random.default_rng(seed)
    n = signals * each
    table = np.empty(n, ROW)
    table["fields"] = 4
    table["id_length"], table["time_length"], table["value_length"], table["quality_length"] = 4, 8, 8, 2
    table["id"] = np.repeat(np.arange(1, signals + 1, dtype=np.int32), each)
    table["value"] = np.round(20 + np.repeat(random.normal(0, 5, signals), each) + random.normal(size=n), 2)
    table["quality"] = np.where(random.random(n) < 1 / 2000, 24, 192)
    return table


_COPY: Final = "COPY store.sample (signal_id, time, value, quality) FROM STDIN (FORMAT binary)"
_REGISTER: Final = """
INSERT INTO register.equipment (id, class, class_name_zh, class_name_en, profile, profile_version, edge, name_zh, name_en)
SELECT format('unit-%%s', lpad(n::text, 5, '0')), 'boiler', '锅炉', 'Boiler', 'sola-boiler', 1, 'edge-1',
       format('%%s 号', n), format('Unit %%s', n)
FROM generate_series(0, %(n)s - 1) n
"""
_SIGNALS: Final = """
INSERT INTO store.signal (name, equipment, point, name_hash, registered, name_zh, name_en, unit)
SELECT format('unit-%%s/p%%s', lpad(n::text, 5, '0'), p), format('unit-%%s', lpad(n::text, 5, '0')), format('p%%s', p),
       n * 100 + p, true, format('%%s 点', p), format('Point %%s', p), '°C'
FROM generate_series(0, %(n)s - 1) n, generate_series(0, %(points)s - 1) p ORDER BY n, p
"""
_LATEST: Final = """
INSERT INTO store.latest (signal_id, time, value, quality)
SELECT signal_id, to_timestamp(%(now)s - signal_id %% 7), 20 + signal_id %% 50, 192 FROM store.signal
"""
_SIZE_TIMESCALE: Final = "SELECT hypertable_size('store.sample')"
_SIZE_PLAIN: Final = """
SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits WHERE inhparent = 'store.sample'::regclass
"""
