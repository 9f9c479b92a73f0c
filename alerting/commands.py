"""What people ask of alarms: command rows in, outcomes out. The console writes them, alerting alone changes alarms.

Invariant: a command is carried out once: its outcome is written in the transaction of its transition, under the row's
lock. Commands are heard by NOTIFY, and looked for every POLL_S in case none came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import structlog

from alerting import metrics
from alerting.lifecycle import Input, Outcome, Reason, Trigger, step
from alerting.places import ANSWER_S, Connect
from alerting.store import lock_alarms, notify_alarm, write
from telemetry.clock import Clock
from telemetry.frozen import FrozenWatch
from telemetry.store import COMMAND_CHANNEL

log = structlog.get_logger()

Connection = psycopg.AsyncConnection[Any]

POLL_S: Final = 1.0
MAX_COMMANDS: Final = 50

OUTCOMES: Final[dict[Reason, str]] = {
    Reason.ALREADY_ACKNOWLEDGED: "already_acknowledged",
    Reason.UNKNOWN_ALARM: "unknown_alarm",
}
"""What the asker is told; every other reason is `done`."""


@dataclass(frozen=True, slots=True)
class Command:
    """A row that nobody handled yet."""

    command_id: str
    alarm_id: str
    by: str
    note: str


@dataclass(slots=True)
class CommandHandler:
    """Carries out commands for as long as it runs."""

    clock: Clock
    connect: Connect
    watch: FrozenWatch
    channels: Sequence[str]
    changed: Callable[[], None]
    ready: Callable[[], None]

    async def run(self) -> None:
        """Works until it is cancelled. Raises StoreError, psycopg.Error, TimeoutError: begin again."""
        connection = await self.connect()
        try:
            async with asyncio.timeout(ANSWER_S):
                await connection.execute(f"LISTEN {COMMAND_CHANNEL}")
            self.ready()
            while True:
                while await self._handle_in_time(connection) == MAX_COMMANDS:
                    pass
                async for _ in connection.notifies(timeout=POLL_S, stop_after=1):
                    pass
        finally:
            await connection.close()

    async def _handle_in_time(self, connection: Connection) -> int:
        """Raises TimeoutError where the store does not answer: a half-open connection tells nobody."""
        async with asyncio.timeout(ANSWER_S):
            return await self.handle(connection)

    async def handle(self, connection: Connection) -> int:
        """Handles what is there, each in a transaction of its own. Returns how many."""
        cursor = await connection.execute(
            "SELECT command_id FROM alarm.command WHERE outcome IS NULL ORDER BY requested_at, command_id LIMIT %s",
            (MAX_COMMANDS,),
        )
        waiting = [command_id for (command_id,) in await cursor.fetchall()]
        for command_id in waiting:
            await self._one(connection, command_id)
        return len(waiting)

    async def _one(self, connection: Connection, command_id: str) -> None:
        async with self.watch.over(connection), connection.transaction():
            command = await _lock(connection, command_id)
            if command is None:
                return  # another instance has it
            outcome = await self._acknowledge(connection, command)
            answer = OUTCOMES.get(outcome.reason, "done")
            delay_s = await _answer(connection, command, answer)
        metrics.COMMANDS.labels(answer).inc()
        metrics.COMMAND_DELAY.observe(delay_s)
        metrics.DECISIONS.labels(outcome.reason.value).inc()
        log.info(outcome.reason.value, alarm=command.alarm_id, by=command.by, command=command.command_id)
        self.changed()

    async def _acknowledge(self, connection: Connection, command: Command) -> Outcome:
        alarm = (await lock_alarms(connection, [command.alarm_id]))[command.alarm_id]
        now_us = self.clock.now_us()
        outcome = step(alarm, Input(Trigger.ACKNOWLEDGE, now_us, command.by, command.note))
        await write(connection, command.alarm_id, outcome, subject=None, channels=self.channels, now_us=now_us)
        return outcome


async def _lock(connection: Connection, command_id: str) -> Command | None:
    cursor = await connection.execute(
        "SELECT command_id, alarm_id, by, note FROM alarm.command WHERE command_id = %s AND outcome IS NULL"
        " FOR UPDATE SKIP LOCKED",
        (command_id,),
    )
    row = await cursor.fetchone()
    return Command(*row) if row else None


async def _answer(connection: Connection, command: Command, answer: str) -> float:
    """Writes the outcome and tells who waits for it. Returns seconds since the command was given."""
    cursor = await connection.execute(
        "UPDATE alarm.command SET outcome = %s, handled_at = clock_timestamp() WHERE command_id = %s"
        " RETURNING extract(epoch FROM clock_timestamp() - requested_at)::float8",
        (answer, command.command_id),
    )
    row = await cursor.fetchone()
    content = {
        "alarm_id": command.alarm_id,
        "transition": "acknowledge",
        "command_id": command.command_id,
        "outcome": answer,
    }
    await notify_alarm(connection, content)
    return float(row[0]) if row else 0.0
