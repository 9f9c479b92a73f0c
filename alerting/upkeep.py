"""What is looked after now and then: alarms that are nobody's yet, alarms that nobody was told of, numbers for metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(slots=True)
class Upkeep:
    """Looks after alarms for as long as it runs."""

    clock: Clock
    connect: Connect
    channels: Sequence[str]
    changed: Callable[[], None]
    ready: Callable[[], None]

    async def run(self) -> None:
        """Works until it is cancelled. Raises StoreError, psycopg.Error, TimeoutError: begin again."""
        connection = await self.connect()
        try:
            while True:
                async with asyncio.timeout(ANSWER_S):
                    await self.once(connection)
                self.ready()
                await asyncio.sleep(EVERY_S)
        finally:
            await connection.close()

    async def once(self, connection: Connection) -> None:
        """One round."""
        async with connection.transaction():
            for alarm_id in await adopt(connection, await orphans(connection)):
                await notify_alarm(connection, {"alarm_id": alarm_id, "transition": "register"})
        for channel in self.channels:
            async with connection.transaction():
                untold = await notices.adopt_untold(connection, channel, now_us=self.clock.now_us())
            if untold:
                self.changed()
        await _count(connection)


async def _count(connection: Connection) -> None:
    cursor = await connection.execute("SELECT state, count(*) FROM alarm.alarm WHERE state <> 'normal' GROUP BY state")
    found = dict(await cursor.fetchall())
    for state in (State.UNACKNOWLEDGED, State.ACKNOWLEDGED, State.RETURNED_UNACKNOWLEDGED):
        metrics.ALARMS.labels(state.value).set(found.get(state.value, 0))
