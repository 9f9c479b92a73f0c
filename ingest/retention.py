"""How long each class of data is kept, and what drops the rest.

Invariants: raw samples are kept longer than late ones are taken, minutes at least as long as raw samples, hours at least as
long as minutes, the ledger longer than any raw sample that the audit would compare it with. Never deleted: the sets of
accepted records (exactly-once rests on them), open findings, the last event of each code, alarms and the register.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
import structlog
from psycopg.types.json import Jsonb

from ingest.accounts import time_of
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

    Connection: autocommit. Raises psycopg.Error.
    """
    total = 0
    at = time_of(settings.the_clock.now_us())
    for _ in range(PRUNE_ROUNDS):
        cursor = await connection.execute("SELECT store.prune(%s, %s, %s)", (Jsonb(kept(settings)), at, rows))
        row = await cursor.fetchone()
        deleted = int(row[0]) if row else 0
        total += deleted
        if deleted == 0:
            break
    return total
