"""The console's connections to the database, under a role that may read views and write command rows.

Invariant: the pool lives exactly as long as the listening connection. While that is away every read fails at once with
StoreUnavailable, and the console goes on serving its page; when it is back the pool is new, to wherever store.url points.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, LiteralString

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from dashboards.console.metrics import STORE_UP
from telemetry import store
from telemetry.errors import StoreUnavailable
from telemetry.service import Health, wait_until
from telemetry.settings import Settings

STATEMENT_TIMEOUT_MS: Final = 10_000
POOL_SIZE: Final = 6
POOL_WAIT_S: Final = 5.0
RETRY_S: Final = (0.2, 0.5, 1.0, 2.0)

Row = dict[str, Any]
Connection = psycopg.AsyncConnection[DictRow]
Pool = AsyncConnectionPool[Connection]
Follow = Callable[[psycopg.AsyncConnection], Awaitable[None]]
"""Works on the listening connection until it breaks."""


class Store:
    """Reads and command rows. Every method raises StoreUnavailable while the database is away."""

    def __init__(self, settings: Settings, health: Health) -> None:
        self._settings = settings
        self._health = health
        self._pool: Pool | None = None
        self.why_away = "not connected yet"

    @property
    def available(self) -> bool:
        """Whether the database answered last."""
        return self._pool is not None

    async def rows(self, query: LiteralString, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """All rows of a query."""
        async with self.connection() as connection:
            cursor = await connection.execute(query, parameters)
            return await cursor.fetchall()

    async def row(self, query: LiteralString, parameters: Mapping[str, Any] | None = None) -> Row | None:
        """The first row of a query, if any."""
        found = await self.rows(query, parameters)
        return found[0] if found else None

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool, in autocommit."""
        pool = self._pool
        if pool is None:
            raise StoreUnavailable(self.why_away)
        try:
            async with pool.connection(timeout=POOL_WAIT_S) as connection:
                yield connection
        except psycopg.errors.QueryCanceled as error:
            raise StoreUnavailable(f"the query took longer than {STATEMENT_TIMEOUT_MS // 1000} s") from error
        except (PoolTimeout, PoolClosed) as error:
            raise StoreUnavailable("no connection is free") from error
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise StoreUnavailable(_first_line(error)) from error

    async def keep(self, stop: asyncio.Event, follow: Follow, on_away: Callable[[], None]) -> None:
        """Keeps the database connected until stopped: runs `follow` on a listening connection, again after each loss."""
        attempt = 0
        while not stop.is_set():
            try:
                async with self._connected() as listener:
                    attempt = 0
                    await _until(stop, follow(listener))
            except (StoreUnavailable, psycopg.Error) as error:
                self.why_away = _first_line(error)
                self._health.missing("store", self.why_away)
                on_away()
                await wait_until(stop, RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[psycopg.AsyncConnection]:
        listener = await store.connect(self._settings, store.CONSOLE, autocommit=True)
        async with listener:
            await listener.execute("SELECT FROM public.alarms LIMIT 0")  # fails before the schema is there
            async with self._new_pool() as pool:
                self._pool = pool
                self._health.found("store")
                STORE_UP.set(1)
                try:
                    yield listener
                finally:
                    self._pool = None
                    self.why_away = "the connection was lost"
                    STORE_UP.set(0)

    def _new_pool(self) -> Pool:
        return AsyncConnectionPool(
            store.conninfo(self._settings),
            connection_class=psycopg.AsyncConnection[DictRow],
            kwargs={
                "autocommit": True,
                "row_factory": dict_row,
                "application_name": "vigil_console",
                "options": f"-c timezone=UTC -c statement_timeout={STATEMENT_TIMEOUT_MS}",
            },
            configure=_take_role,
            min_size=1,
            max_size=POOL_SIZE,
            timeout=POOL_WAIT_S,
            reconnect_timeout=POOL_WAIT_S,
            open=False,
            name="console",
        )


async def _take_role(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute(psycopg.sql.SQL("SET ROLE {}").format(psycopg.sql.Identifier(store.CONSOLE)))


async def _until(stop: asyncio.Event, work: Awaitable[None]) -> None:
    """Runs `work` until it ends or `stop` is set; errors of `work` are raised."""
    running = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
    finally:
        for task in (running, stopping):
            task.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
