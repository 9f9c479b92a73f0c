"""How long each class of data is kept, and what drops the rest.

Invariants: raw samples are kept longer than late ones are taken, minutes at least as long as raw samples, hours at least as
long as minutes, the ledger longer than any raw sample that the audit would compare it with. Never deleted: the sets of
accepted records (exactly-once rests on them), open findings, the last event of each code, alarms and the register.
"""

from __future__ import annotations

from typing import Any, Final, LiteralString

import psycopg
import structlog
from psycopg.types.json import Jsonb

from ingest.accounts import DROPPED, time_of
from telemetry.settings import Settings

log = structlog.get_logger()

Connection = psycopg.AsyncConnection[Any]

REPLAYED_LETTERS_DAYS: Final = 30.0
"""A dead letter that was replayed is in the store; it is kept so long for who asks what was done."""
PRUNE_ROWS: Final = 5_000
"""Rows of a class that are deleted in one transaction."""
PRUNE_ROUNDS: Final = 200
"""Transactions in one turn: a million rows a class and hour."""
LOCK_TIMEOUT: Final = "2s"
LEDGER_LONGER_DAYS: Final = 7.0
"""The ledger outlives the rows that it is compared with by so long (store.prune), and so does what was dropped of them."""
DAY_US: Final = 86_400_000_000


def kept(settings: Settings) -> dict[str, str]:
    """Class → interval, as the database's functions take it; and `late`, the bound on late data."""
    minutes = max(settings.retention_minutes_days, settings.retention_days)
    days = {
        "late": settings.late_bound_days,
        "samples": settings.retention_days,
        "samples_1m": minutes,
        "samples_1h": max(settings.retention_hours_days, minutes),
        "events": settings.retention_events_days,
        "findings": settings.retention_events_days,
        "online_history": settings.retention_events_days,
        "dead_letters": settings.retention_dead_letters_days,
        "replayed_letters": min(REPLAYED_LETTERS_DAYS, settings.retention_dead_letters_days),
        "ledger": settings.retention_days,
    }
    return {name: f"{value:g} days" for name, value in days.items()}


async def apply_retention(settings: Settings, connection: Connection) -> None:
    """Samples and their aggregates: sets TimescaleDB's policies, or drops partitions. Raises psycopg.Error."""
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            await connection.execute("SELECT store.apply_retention(%s)", (Jsonb(kept(settings)),))
    except psycopg.errors.LockNotAvailable:
        log.info("retention waits for its next turn", why="readers are busy")


async def prune(settings: Settings, connection: Connection, *, rows: int = PRUNE_ROWS) -> int:
    """Everything else, up to `rows` of a class in a transaction. Returns how many rows went.

    Connection: autocommit. Raises psycopg.Error: LockNotAvailable where a writer is in the way for long.
    """
    total = 0
    at = time_of(settings.the_clock.now_us())
    for _ in range(PRUNE_ROUNDS):
        cursor = await connection.execute("SELECT store.prune(%s, %s, %s)", (Jsonb(kept(settings)), at, rows))
        row = await cursor.fetchone()
        deleted = int(row[0]) if row else 0
        total += deleted
        if deleted == 0:
            # Last: of an hour whose ledger is there in part the audit must still know what explains its rest.
            return total + await _prune_dropped(settings, connection, rows)
    return total


async def _prune_dropped(settings: Settings, connection: Connection, rows: int) -> int:
    """What edges dropped of hours whose ledger is gone, too (rows of store.unledgered that no ledger covers).

    Its sum goes from store.progress in the same transaction: what is not told by cell any more is owed by the edge as a whole
    (ingest.audit), and would hide a loss or count as doubled. Rows of progress come first, in their order, as for ingest.
    """
    days = settings.retention_days + LEDGER_LONGER_DAYS
    values: dict[str, Any] = {
        "dropped": DROPPED,
        "before": settings.the_clock.now_us() - int(days * DAY_US),
        "rows": rows,
    }
    total = 0
    for _ in range(PRUNE_ROUNDS):
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            cursor = await connection.execute(_HOLD_DROPPED, values)
            held = await cursor.fetchall()
            values |= {"edges": [edge for edge, _ in held], "epochs": [epoch for _, epoch in held]}
            cursor = await connection.execute(_TAKE_DROPPED, values)
        if cursor.rowcount == 0:
            break
        total += cursor.rowcount
    return total


_GONE: Final[LiteralString] = "u.last_seq = %(dropped)s AND %(before)s > ALL (u.hour_us)"
_HOLD_DROPPED: Final[LiteralString] = f"""
SELECT p.edge, p.epoch FROM store.progress p
WHERE p.service = 'ingest' AND (p.edge, p.epoch) IN (
    SELECT u.edge, u.epoch FROM store.unledgered u WHERE {_GONE} LIMIT %(rows)s)
ORDER BY p.edge, p.epoch FOR UPDATE
"""  # noqa: S608
_TAKE_DROPPED: Final[LiteralString] = f"""
WITH gone AS (
    DELETE FROM store.unledgered WHERE ctid = ANY (ARRAY(
        SELECT u.ctid FROM store.unledgered u
        JOIN unnest(%(edges)s::text[], %(epochs)s::bigint[]) AS k(edge, epoch) USING (edge, epoch)
        WHERE {_GONE} LIMIT %(rows)s))
    RETURNING edge, epoch, (SELECT sum(n) FROM unnest(samples) AS n) AS samples
), taken AS (
    UPDATE store.progress p SET samples_dropped = p.samples_dropped - g.samples
    FROM (SELECT edge, epoch, sum(samples) AS samples FROM gone GROUP BY 1, 2) g
    WHERE p.service = 'ingest' AND p.edge = g.edge AND p.epoch = g.epoch
)
SELECT FROM gone
"""  # noqa: S608
