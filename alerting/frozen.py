"""Ends the session of another alerting process that froze in mid-transaction and holds what this one waits for.

Time-outs do not reach a client that was stopped (SIGSTOP, a paused virtual machine): its transaction stays open and keeps
its locks. Ending it is safe: it has not committed, and its successor does its work again from the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import psycopg
import structlog

from alerting.places import Connect
from alerting.store import SERVICE, report
from telemetry.clock import Clock
from telemetry.errors import StoreUnavailable
from telemetry.messages import VIGIL_SCHEME, Event
from telemetry.store import ALERT

log = structlog.get_logger()

PATIENCE_S: Final = 2.0
"""A transaction that takes longer is looked at."""
LOOK_EVERY_S: Final = 0.25
STRIKES: Final = 8
"""Looks in a row that find the holder waiting for its client, before it counts as frozen."""

_HOLDERS: Final = """
SELECT a.pid FROM unnest(pg_blocking_pids(%s)) AS b(pid) JOIN pg_stat_activity a USING (pid)
WHERE a.application_name = %s AND a.wait_event = 'ClientRead'
"""


@asynccontextmanager
async def unfrozen(connection: psycopg.AsyncConnection[Any], as_login: Connect, *, clock: Clock) -> AsyncIterator[None]:
    """While the body works in `connection`, ends frozen sessions that block it.

    `as_login` connects as logged in, without a role: a login may end its own sessions, whatever else it may do.
    """
    watch = asyncio.create_task(_watch(connection.info.backend_pid, as_login, clock))
    try:
        yield
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


async def _watch(pid: int, as_login: Connect, clock: Clock) -> None:
    await asyncio.sleep(PATIENCE_S)
    try:
        async with await as_login() as connection:
            await _end_frozen(connection, pid, clock)
    except (psycopg.Error, StoreUnavailable) as error:
        log.warning("cannot look for the holder of a lock", why=str(error).strip())


async def _end_frozen(connection: psycopg.AsyncConnection[Any], pid: int, clock: Clock) -> None:
    strikes: dict[int, int] = {}
    while True:
        cursor = await connection.execute(_HOLDERS, (pid, ALERT))
        strikes = {holder: strikes.get(holder, 0) + 1 for (holder,) in await cursor.fetchall()}
        for holder in [h for h, n in strikes.items() if n >= STRIKES]:
            await connection.execute("SELECT pg_terminate_backend(%s)", (holder,))
            log.warning("terminated a frozen session of alerting", backend=holder)
            code = "frozen-worker-terminated"
            await report(connection, Event(SERVICE, clock.now_us(), VIGIL_SCHEME, code, True, {"backend": holder}))
        await asyncio.sleep(LOOK_EVERY_S)
