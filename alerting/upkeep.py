"""What is looked after now and then: alarms that are nobody's yet, alarms that nobody was told of, numbers for metrics.

Invariant: a step is a bounded number of rows under a deadline of its own, so that much to do is never taken for a store
that is away, and a store that is away is noticed in every step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from alerting import metrics, notices
from alerting.lifecycle import State
from alerting.places import ANSWER_S, Connect
from alerting.register import adopt, orphans
from alerting.store import notify_alarm
from telemetry.clock import Clock

Connection = psycopg.AsyncConnection[Any]

EVERY_S: Final = 2.0
ORPHANS: Final = 500
"""Alarms that are nobody's, looked at in one round; the next round goes on behind them."""


@dataclass(slots=True)
class Upkeep:
    """Looks after alarms for as long as it runs."""

    clock: Clock
    connect: Connect
    channels: Sequence[str]
    changed: Callable[[], None]
    ready: Callable[[], None]
    _looked_at: str = field(default="", init=False)
    """The last orphan of the round before; empty at their beginning."""

    async def run(self) -> None:
        """Works until it is cancelled. Raises StoreError, psycopg.Error, TimeoutError: begin again."""
        connection = await self.connect()
        try:
            while True:
                await self.once(connection)
                self.ready()
                await asyncio.sleep(EVERY_S)
        finally:
            await connection.close()

    async def once(self, connection: Connection) -> None:
        """One round. Connection: autocommit. Raises psycopg.Error; TimeoutError where a step gets no answer."""
        async with asyncio.timeout(ANSWER_S):
            await self._adopt_orphans(connection)
        for channel in self.channels:
            async with asyncio.timeout(ANSWER_S), connection.transaction():
                untold = await notices.adopt_untold(connection, channel, now_us=self.clock.now_us())
            if untold:
                self.changed()
        async with asyncio.timeout(ANSWER_S):
            await _count(connection)

    async def _adopt_orphans(self, connection: Connection) -> None:
        """The next ORPHANS of them. Those that nobody will have for now hold up nobody behind them."""
        async with connection.transaction():
            found = await orphans(connection, after=self._looked_at, limit=ORPHANS)
            for alarm_id in await adopt(connection, found):
                await notify_alarm(connection, {"alarm_id": alarm_id, "transition": "register"})
        self._looked_at = found[-1] if len(found) == ORPHANS else ""


async def _count(connection: Connection) -> None:
    cursor = await connection.execute("SELECT state, count(*) FROM alarm.alarm WHERE state <> 'normal' GROUP BY state")
    found = dict(await cursor.fetchall())
    for state in (State.UNACKNOWLEDGED, State.ACKNOWLEDGED, State.RETURNED_UNACKNOWLEDGED):
        metrics.ALARMS.labels(state.value).set(found.get(state.value, 0))
