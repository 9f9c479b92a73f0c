"""Whether the store still answers on a connection: one that is half-open, and a server that is frozen, tell nobody.

TCP's own liveness (telemetry.store) does not see a proxy or a server whose kernel still acknowledges what nobody reads. So a
session asks on each connection that has no deadline of its own, and ends when no answer comes; the next one connects anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, Final

import psycopg

from telemetry.settings import Settings
from telemetry.store import OWNER, connect

Connection = psycopg.AsyncConnection[Any]
AtWork = Callable[[], Awaitable[bool]]

ASK_EVERY_S: Final = 5.0
ANSWER_S: Final = 30.0
"""Queries of others on the same connection come first; none of them takes so long, or the session has `at_work`."""
LOOK_AGAIN_S: Final = 1.0


@asynccontextmanager
async def answering(connection: Connection, at_work: AtWork | None = None) -> AsyncIterator[None]:
    """While the body works with an autocommit connection: ends it with psycopg.OperationalError when no answer comes.

    `at_work` is for a body whose statements may take any time: asked when no answer came, it says whether to go on waiting.
    """
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(_ask(connection, at_work), name="store answers")
        yield
        asking.cancel()


async def still_at_work(settings: Settings, pid: int) -> bool:
    """Whether the server is at work for the session `pid`, by another connection: not, when its answer has left or waits for
    a client that takes none. Raises StoreUnavailable."""
    async with await connect(settings, OWNER, autocommit=True) as other:
        before = await _statement(other, pid)
        await asyncio.sleep(LOOK_AGAIN_S)  # between two statements everybody is idle for a moment
        after = await _statement(other, pid)
    return after is not None and (after[0] or after != before)


async def _statement(connection: Connection, pid: int) -> tuple[bool, datetime | None] | None:
    """(whether it is being worked on, when it began) of a session's last statement; None where the session is gone."""
    cursor = await connection.execute(
        "SELECT state = 'active' AND wait_event_type IS DISTINCT FROM 'Client', query_start"
        " FROM pg_stat_activity WHERE pid = %s",
        (pid,),
    )
    row = await cursor.fetchone()
    return None if row is None else (bool(row[0]), row[1])


async def _ask(connection: Connection, at_work: AtWork | None) -> None:
    while True:
        await asyncio.sleep(ASK_EVERY_S)
        try:
            async with asyncio.timeout(ANSWER_S):
                # In the body's own transaction, when it has one; in one that failed there is nothing to ask.
                with suppress(psycopg.errors.InFailedSqlTransaction):
                    await connection.execute("SELECT 1")
        except TimeoutError as error:
            if at_work is not None and not connection.closed and await _said_in_time(at_work):
                continue
            raise psycopg.OperationalError(f"the store has not answered for {ANSWER_S:g} s") from error


async def _said_in_time(at_work: AtWork) -> bool:
    try:
        async with asyncio.timeout(ANSWER_S):
            return await at_work()
    except TimeoutError:
        return False
