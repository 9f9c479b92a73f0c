"""How a notice is told: a pipeline of small stages, each of which says why.

    claim → relevant? → compose → sign and post → settle

Invariant: the row of a notice is settled after every attempt, in one transaction with what follows from it (the next
attempt, or the next telling of an alarm that nobody has acknowledged). Told at least once: a sender that dies between
the receiver's answer and the row sends again under the same Idempotency-Key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any, Final

import httpx
import psycopg
import structlog

from alerting import metrics, notices
from alerting.notices import RAISE, REPEAT, Notice
from alerting.payload import compose
from alerting.places import ANSWER_S as STORE_ANSWER_S
from alerting.places import Connect
from alerting.store import SERVICE, report
from alerting.webhook import ANSWER_S, CHANNEL, CONNECT_S, Answer, Attempt, Target, client, post
from telemetry.clock import US_PER_S, Clock
from telemetry.messages import VIGIL_SCHEME, Event

log = structlog.get_logger()

Connection = psycopg.AsyncConnection[Any]

AT_ONCE: Final = 8
LEASE_S: Final = CONNECT_S + ANSWER_S + 20.0
"""Longer than an attempt takes, with time to settle it."""
LOOK_S: Final = 5.0
"""The notices are looked at so often whatever happens."""
RETRY_FIRST_S: Final = 1.0
RETRY_MOST_S: Final = 60.0
REFUSALS: Final = 5
"""A notice that was refused so often is given up; its alarm is told again all the same."""


class Relevance(StrEnum):
    """Whether a notice still holds when it is to be sent."""

    DUE = "due"
    ACKNOWLEDGED_SINCE = "acknowledged_since"
    RETURNED_SINCE = "returned_since"


def relevance(notice: Notice, alarm: Mapping[str, Any]) -> Relevance:
    """A repeat holds while nobody has acknowledged, a late raise while the alarm is active; the rest always."""
    conditional = notice.transition == REPEAT or (notice.transition == RAISE and alarm["late"])
    if not conditional or alarm["state"] == "unacknowledged":
        return Relevance.DUE
    if alarm["state"] == "returned_unacknowledged":
        return Relevance.RETURNED_SINCE
    if notice.transition == RAISE and alarm["state"] == "acknowledged":
        return Relevance.DUE
    return Relevance.ACKNOWLEDGED_SINCE


def retry_in_s(attempts: int, random: Random) -> float:
    """Seconds until the next attempt: doubling from RETRY_FIRST_S to RETRY_MOST_S, less up to half by chance."""
    full = min(RETRY_MOST_S, RETRY_FIRST_S * 2.0 ** min(attempts - 1, 16))
    return full * (0.5 + 0.5 * random.random())


@dataclass(slots=True)
class Notifier:
    """Tells the webhook's receiver for as long as it runs."""

    to: Target
    repeat_s: float
    clock: Clock
    wall_s: Callable[[], float]
    """Seconds since 1970 of the real world: what a receiver compares a signature's time with."""
    connect: Connect
    random: Random
    ready: Callable[[], None]
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be something to send."""
    _in_flight: int = 0
    _failing: dict[str, set[int]] = field(default_factory=dict)
    """Texts of failures, and the notices that suffer them."""

    async def run(self) -> None:
        """Works until it is cancelled. Raises StoreError, psycopg.Error, TimeoutError, or a group of these: begin again."""
        self._in_flight = 0
        self._failing.clear()
        connection, turn = await self.connect(), asyncio.Lock()
        try:
            async with asyncio.timeout(STORE_ANSWER_S):
                await notices.adopt_untold(connection, CHANNEL, now_us=self.clock.now_us())
            self.ready()
            async with client(self.to) as http, asyncio.TaskGroup() as group:
                while True:
                    self.woken.clear()
                    async with turn, asyncio.timeout(STORE_ANSWER_S):
                        due, wait_s = await self._due(connection)
                    for notice, alarm in due:
                        self._in_flight += 1
                        group.create_task(self._tell(connection, turn, http, notice, alarm))
                    await self._wait(wait_s)
        finally:
            await connection.close()

    async def _due(self, connection: Connection) -> tuple[list[tuple[Notice, Mapping[str, Any]]], float]:
        """What is to be sent now, as far as there is room, and for how long there is nothing else."""
        now_us = self.clock.now_us()
        due = await notices.claim(
            connection,
            CHANNEL,
            now_us=now_us,
            lease_until_us=now_us + self._real_us(LEASE_S),
            limit=AT_ONCE - self._in_flight,
        )
        rows = await notices.alarms(connection, [n.alarm_id for n in due])
        metrics.NOTICES_OPEN.set(await notices.open_count(connection, CHANNEL, now_us=now_us))
        next_s = await notices.next_due_s(connection, CHANNEL, now_us=now_us)
        full = self._in_flight + len(due) >= AT_ONCE
        wait_s = LOOK_S if next_s is None or full else min(LOOK_S, max(0.0, next_s / self.clock.speed))
        return [(n, rows[n.alarm_id]) for n in due], wait_s

    async def _tell(
        self,
        connection: Connection,
        turn: asyncio.Lock,
        http: httpx.AsyncClient,
        notice: Notice,
        alarm: Mapping[str, Any],
    ) -> None:
        """One notice through the stages."""
        result = await self._send(http, notice, alarm)
        async with turn, asyncio.timeout(STORE_ANSWER_S), connection.transaction():
            label = await self._settle(connection, notice, result)
        metrics.NOTICES.labels(label).inc()
        self._in_flight -= 1
        self.woken.set()

    async def _send(self, http: httpx.AsyncClient, notice: Notice, alarm: Mapping[str, Any]) -> Attempt | Relevance:
        if (relevant := relevance(notice, alarm)) is not Relevance.DUE:
            return relevant
        body = compose(notice, alarm)
        return await post(http, self.to, notice_id=notice.notice_id, body=body, at_s=int(self.wall_s()))

    async def _settle(self, connection: Connection, notice: Notice, result: Attempt | Relevance) -> str:
        """Writes how it ended and what follows. Returns the word for it."""
        now_us = self.clock.now_us()
        if isinstance(result, Relevance):
            await notices.close(connection, notice, "withdrawn", now_us=now_us, error=result.value)
            await self._note(connection, notice, "")
            return result.value
        error = "" if result.answer is Answer.TAKEN else f"{result.answer.value}: {result.text}"
        await self._note(connection, notice, error)
        if result.answer is Answer.TAKEN:
            await notices.close(connection, notice, "sent", now_us=now_us, error=None)
            await notices.hurry(connection, CHANNEL, Answer.UNREACHABLE.value, now_us=now_us)
        elif result.answer is Answer.REFUSED and notice.attempts >= REFUSALS:
            await notices.close(connection, notice, "refused", now_us=now_us, error=error)
            attributes = {"alarm": notice.alarm_id, "notice": notice.notice_id, "why": result.text}
            await report(connection, Event(SERVICE, now_us, VIGIL_SCHEME, "notice-refused", True, attributes))
        else:
            due_us = now_us + self._real_us(retry_in_s(notice.attempts, self.random))
            await notices.put_off(connection, notice, error, due_us=due_us)
            return f"retry_{result.answer.value}"
        await notices.repeat(connection, notice.alarm_id, CHANNEL, now_us=now_us, repeat_s=self.repeat_s)
        return result.answer.value

    async def _note(self, connection: Connection, notice: Notice, failure: str) -> None:
        """Logs a failure when its text is new, and when nobody suffers it any longer; reports the first and the last."""
        failed_before = bool(self._failing)
        for text, suffering in list(self._failing.items()):
            suffering.discard(notice.notice_id)
            if not suffering and text != failure:
                del self._failing[text]
                log.info("webhook failure over", to=self.to.shown, why=text)
        if failure:
            if failure not in self._failing:
                log.warning("webhook failed", to=self.to.shown, why=failure, alarm=notice.alarm_id)
            self._failing.setdefault(failure, set()).add(notice.notice_id)
        if bool(self._failing) != failed_before:
            attributes = {"why": failure or "answers again"}
            event = Event(SERVICE, self.clock.now_us(), VIGIL_SCHEME, "webhook-failing", bool(failure), attributes)
            await report(connection, event)

    async def _wait(self, wait_s: float) -> None:
        """Until something may be due, or a slot is free."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):  # not wait_for: in Python 3.11 it can swallow a cancellation
                await self.woken.wait()

    def _real_us(self, seconds: float) -> int:
        """Seconds of the real world in µs of the service's clock: the network does not run faster in a replay."""
        return int(seconds * self.clock.speed * US_PER_S)
