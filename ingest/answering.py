"""Whether the store still answers on a connection: one that is half-open, and a server that is frozen, tell nobody.

TCP's own liveness (telemetry.store) does not see a proxy or a server whose kernel still acknowledges what nobody reads. So a
session asks on each connection that has no deadline of its own, and ends when no answer comes; the next one connects anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import psycopg

ASK_EVERY_S: Final = 5.0
ANSWER_S: Final = 30.0
"""Queries of others on the same connection come first; none of them takes so long."""


@asynccontextmanager
async def answering(connection: psycopg.AsyncConnection[Any]) -> AsyncIterator[None]:
    """While the body works with an autocommit connection: ends it with psycopg.OperationalError when no answer comes."""
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(_ask(connection), name="store answers")
        yield
        asking.cancel()


async def _ask(connection: psycopg.AsyncConnection[Any]) -> None:
    while True:
        await asyncio.sleep(ASK_EVERY_S)
        try:
            async with asyncio.timeout(ANSWER_S):
                # In the body's own transaction, when it has one; in one that failed there is nothing to ask.
                with suppress(psycopg.errors.InFailedSqlTransaction):
                    await connection.execute("SELECT 1")
        except TimeoutError as error:
            raise psycopg.OperationalError(f"the store has not answered for {ANSWER_S:g} s") from error
