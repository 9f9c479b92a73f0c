"""What keeps the store in shape beside the flushes: aggregates on plain PostgreSQL, retention of every class.

On a connection of its own, so that a long step holds up neither flushes nor `latest`. A step that the database refuses is
said and tried again in its next turn; a database that is away ends the session, as everywhere in ingest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from functools import partial
from typing import Any, Final

import psycopg
import structlog

from ingest import metrics
from ingest.aggregates import behind_s, refresh
from ingest.answering import answering, still_at_work
from ingest.retention import apply_retention, prune
from telemetry.settings import Settings
from telemetry.store import INGEST, connect

log = structlog.get_logger()

Connection = psycopg.AsyncConnection[Any]

REFRESH_EVERY_S: Final = 2.0
"""Late samples are in the aggregates after about so long."""
RETENTION_EVERY_S: Final = 3_600.0


async def keep_up(settings: Settings, *, timescale: bool) -> None:
    """Runs until cancelled. Raises StoreUnavailable, psycopg.OperationalError."""
    async with await connect(settings, INGEST, autocommit=True) as connection:
        # A step after a long stop may take an hour, so it has no deadline: it is asked whether the server is still at it.
        at_work = partial(still_at_work, settings, connection.info.backend_pid)
        async with answering(connection, at_work):
            await _steps(settings, connection, timescale=timescale)


async def _steps(settings: Settings, connection: Connection, *, timescale: bool) -> None:
    retained = -RETENTION_EVERY_S
    while True:
        if not timescale:
            await _said(_refresh(settings, connection), "aggregates")
        if time.monotonic() - retained >= RETENTION_EVERY_S:
            retained = time.monotonic()
            await _said(_retain(settings, connection), "retention")
        await asyncio.sleep(REFRESH_EVERY_S)


async def _refresh(settings: Settings, connection: Connection) -> None:
    now_us = settings.the_clock.now_us()
    await refresh(connection, now_us, kept_days=settings.retention_days)
    metrics.AGGREGATES_BEHIND_S.set(await behind_s(connection, now_us))


async def _retain(settings: Settings, connection: Connection) -> None:
    await apply_retention(settings, connection)
    deleted = await prune(settings, connection)
    if deleted:
        log.info("rows beyond their retention deleted", rows=deleted)


async def _said(step: Awaitable[None], what: str) -> None:
    """Awaits a step; what the database refuses (not: its absence) is a line in the log."""
    try:
        await step
    except psycopg.errors.LockNotAvailable:
        log.info(f"{what} wait for their next turn", why="others are busy")
    except (psycopg.DataError, psycopg.IntegrityError, psycopg.InternalError, psycopg.ProgrammingError) as error:
        log.error(f"{what}: refused by the database", why=str(error).strip())
