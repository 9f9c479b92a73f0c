"""Ends the session of a worker that froze in mid-transaction while it holds what another worker waits for.

Time-outs and cancel do not reach a client that was stopped (SIGSTOP, a paused virtual machine) in mid-COPY: its backend
waits for bytes that never come, and keeps its row locks. Its transaction is lost, which is safe: it would have failed at
the compare-and-set, or its successor does the work again.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
import structlog

from ingest.events import insert_events, own_event
from ingest.metrics import TERMINATED
from telemetry.errors import StoreUnavailable
from telemetry.settings import Settings
from telemetry.store import INGEST, OWNER, connect

log = structlog.get_logger()

PATIENCE_S: Final = 2.0
"""A transaction that takes longer is looked at."""
LOOK_EVERY_S: Final = 0.25
STRIKES: Final = 8
"""Looks in a row that find the holder waiting for its client, before it counts as frozen."""


@dataclass(slots=True)
class LockWatch:
    """Watches one connection's transactions."""

    settings: Settings
    backend_pid: int
    busy_since_s: float | None = None
    """Monotonic time at which the transaction in progress began. Set by the worker."""
    _strikes: dict[int, int] = field(default_factory=dict)

    async def run(self) -> None:
        """Looks, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            since = self.busy_since_s
            if since is None or time.monotonic() - since < PATIENCE_S:
                self._strikes.clear()
                continue
            try:
                await self._look()
            except (psycopg.Error, StoreUnavailable) as error:
                log.warning("cannot look for the holder of a lock", why=str(error).strip())

    async def _look(self) -> None:
        # As logged in, not under the role: a login may end its own sessions, whatever else it may do.
        async with await connect(self.settings, OWNER, autocommit=True) as connection:
            cursor = await connection.execute(_HOLDERS, (self.backend_pid, INGEST))
            frozen = {pid for pid, waiting in await cursor.fetchall() if waiting}
            self._strikes = {pid: self._strikes.get(pid, 0) + 1 for pid in frozen}
            for pid in [pid for pid, strikes in self._strikes.items() if strikes >= STRIKES]:
                await self._terminate(connection, pid)

    async def _terminate(self, connection: psycopg.AsyncConnection[Any], pid: int) -> None:
        del self._strikes[pid]
        cursor = await connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        row = await cursor.fetchone()
        if not (row and row[0]):
            return
        log.warning("terminated a frozen worker's session", backend=pid)
        TERMINATED.inc()
        event = own_event("frozen-worker-terminated", "ingest", self.settings.the_clock.now_us(), backend=pid)
        async with await connect(self.settings, INGEST) as writer:
            await insert_events(writer, [event])


_HOLDERS: Final = """
SELECT a.pid, coalesce(a.wait_event = 'ClientRead', false)
FROM unnest(pg_blocking_pids(%s)) AS b(pid) JOIN pg_stat_activity a USING (pid) WHERE a.application_name = %s
"""
