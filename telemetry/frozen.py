"""Ends the session of another process that froze in mid-transaction while it holds what this process waits for.

Time-outs and cancel do not reach a client that was stopped (SIGSTOP, a paused virtual machine): its backend waits for
bytes that never come, and keeps its row locks. Ending it is safe: it has not committed; it would have failed at the
compare-and-set, or its successor does the work again from the database.

Invariant: only sessions of the same role are ended, and only after STRIKES looks in a row found them idle in the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import structlog

from telemetry.clock import Clock
from telemetry.errors import StoreUnavailable
from telemetry.messages import VIGIL_SCHEME, Event

log = structlog.get_logger()

Connection = psycopg.AsyncConnection[Any]

PATIENCE_S: Final = 2.0
"""A transaction that takes longer is looked at."""
LOOK_EVERY_S: Final = 0.25
END_WITHIN_S: Final = 5.0
"""A session's end and its event have so long, also when nobody needs the watch any more."""
STRIKES: Final = 8
"""Looks in a row that find the holder waiting for its client, before it counts as frozen."""

_HOLDERS: Final = """
SELECT a.pid FROM unnest(pg_blocking_pids(%s)) AS b(pid) JOIN pg_stat_activity a USING (pid)
WHERE a.application_name = %s AND a.wait_event = 'ClientRead'
"""


@dataclass(frozen=True, slots=True)
class FrozenWatch:
    """Watches over the transactions of one service."""

    service: str
    """Stands for equipment in the event."""
    role: str
    """Whose sessions may be ended: the role that the service connects under (its sessions' application_name)."""
    clock: Clock
    as_login: Callable[[], Awaitable[Connection]]
    """An autocommit connection as logged in, without a role: a login may end its own sessions, whatever else it may do."""
    report: Callable[[Event], Awaitable[None]]
    """Keeps the event `frozen-worker-terminated`. May raise psycopg.Error or StoreUnavailable."""
    patience_s: float = PATIENCE_S
    look_every_s: float = LOOK_EVERY_S

    @asynccontextmanager
    async def over(self, connection: Connection) -> AsyncIterator[None]:
        """While the body works in `connection`, ends frozen sessions that block it."""
        watch = asyncio.create_task(self._watch(connection.info.backend_pid), name="frozen watch")
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.wait([watch])
        if not watch.cancelled():
            watch.result()  # an unexpected error of the watch is not lost

    async def _watch(self, pid: int) -> None:
        await asyncio.sleep(self.patience_s)
        while True:
            try:
                async with await self.as_login() as connection:
                    await self._look(connection, pid)
            except (psycopg.Error, StoreUnavailable) as error:
                log.warning("cannot look for the holder of a lock", why=str(error).strip())
            await asyncio.sleep(self.patience_s)

    async def _look(self, connection: Connection, pid: int) -> None:
        strikes: dict[int, int] = {}
        while True:
            cursor = await connection.execute(_HOLDERS, (pid, self.role))
            strikes = {holder: strikes.get(holder, 0) + 1 for (holder,) in await cursor.fetchall()}
            for holder in [h for h, n in strikes.items() if n >= STRIKES]:
                del strikes[holder]
                await _to_its_end(self._end(connection, holder))
            await asyncio.sleep(self.look_every_s)

    async def _end(self, connection: Connection, holder: int) -> None:
        cursor = await connection.execute("SELECT pg_terminate_backend(%s)", (holder,))
        row = await cursor.fetchone()
        if row and row[0]:
            log.warning("terminated a frozen session", role=self.role, backend=holder)
            code = "frozen-worker-terminated"
            await self.report(Event(self.service, self.clock.now_us(), VIGIL_SCHEME, code, True, {"backend": holder}))


async def _to_its_end(ending: Coroutine[Any, Any, None]) -> None:
    """Awaits it, and finishes it when cancelled: what the holder's end sets free is done before the event is written."""
    task = asyncio.ensure_future(ending)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=END_WITHIN_S)
        if not task.done():
            task.cancel()
        elif not task.cancelled() and (error := task.exception()) is not None:
            log.warning("the end of a frozen session is not told", why=str(error).strip())
        raise
