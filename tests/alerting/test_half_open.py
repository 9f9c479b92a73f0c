"""Connections to the store that are half-open: nothing comes back, and nobody is told."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import sql

from alerting.commands import CommandHandler
from alerting.delivery import Notifier
from alerting.places import Places
from alerting.service import keep
from alerting.upkeep import Upkeep
from alerting.webhook import Target
from telemetry.clock import SystemClock
from telemetry.errors import LogDiscontinuity, first_of
from telemetry.frozen import FrozenWatch
from telemetry.log import open_log
from telemetry.log.protocol import FINDINGS
from telemetry.messages import Event
from telemetry.service import Health
from telemetry.settings import Settings
from telemetry.store import ALERT, connect
from tests.alerting.line import acknowledge, alarm, alerting, finding, producing
from tests.chaos.relay import Relay
from tests.fixtures import half_open
from tests.fixtures.receiver import Receiver
from tests.fixtures.store import execute
from tests.fixtures.waiting import until

WITHIN_S = 60.0
ANSWER_S = 2.0
DEADLINES = ("commands.ANSWER_S", "upkeep.ANSWER_S", "places.ANSWER_S", "delivery.STORE_ANSWER_S", "service.ANSWER_S")
Connection = psycopg.AsyncConnection[Any]


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """For ways to a store that can fail; alerting waits ANSWER_S for it."""
    for deadline in DEADLINES:
        monkeypatch.setattr(f"alerting.{deadline}", ANSWER_S)
    monkeypatch.setattr("alerting.worker.FLUSH_S", ANSWER_S)
    with Relay() as relay:
        yield relay


class Way(half_open.Way):
    """One that alerting connects by."""

    async def connect(self) -> Connection:
        return await connect(self.settings, ALERT, autocommit=True)

    async def connect_and_hush(self) -> Connection:
        connection = await self.connect()
        self.hush()
        return connection


async def test_alerting_whose_connections_went_half_open_answers_commands_and_raises_alarms_again(
    plain_store: Settings, relay: Relay
) -> None:
    way = Way.to(plain_store, relay)
    async with producing(plain_store) as analytics, alerting(way.settings) as health:
        first, second = finding(), finding("lift-2")
        await analytics.publish(first)
        await alarm(plain_store, first.id)
        way.hush()
        await acknowledge(plain_store, first.id, "k1")
        await analytics.publish(second)
        await until(lambda: answered(plain_store, "k1"), WITHIN_S, "the command is carried out")
        await until(lambda: raised(plain_store, second.id), WITHIN_S, "the second alarm")
        await until(lambda: not health.waiting_for, WITHIN_S, "it is not ready again")


async def test_no_part_waits_forever_for_an_answer_whichever_it_is(
    plain_store: Settings, relay: Relay, receiver: Receiver
) -> None:
    """All at once, each on a way of its own, since each takes its deadline and what psycopg needs to give up."""
    found = finding()
    async with producing(plain_store) as analytics, alerting(plain_store):
        await analytics.publish(found)
        await alarm(plain_store, found.id)

    def way() -> Way:
        return Way.to(plain_store, relay)

    waits = {
        "to listen for commands": listening(way()),
        "for the places": placing(way(), plain_store),
        "for orphans": looking_after(way(), lambda way: (way.connect_and_hush, SystemClock(), nothing)),
        "for alarms that nobody was told of": looking_after(
            way(), lambda way: (way.connect, HushingClock(way=way), nothing)
        ),
        "for the count": looking_after(way(), lambda way: (way.connect, SystemClock(), way.hush)),
        "for notices at the start": telling(way(), receiver, lambda way: (way.connect_and_hush, time.time, nothing)),
        "for notices that are due": telling(way(), receiver, lambda way: (way.connect, time.time, way.hush)),
        "for a notice's row": telling(way(), receiver, lambda way: (way.connect, hushing(way), nothing)),
    }
    tasks = {what: asyncio.create_task(wait, name=what) for what, wait in waits.items()}
    _, pending = await asyncio.wait(tasks.values(), timeout=WITHIN_S)
    for task in pending:
        task.cancel()
    assert {task.get_name() for task in pending} == set()
    errors = {what: type(first_of(task.exception() or AssertionError())).__name__ for what, task in tasks.items()}
    assert errors == dict.fromkeys(waits, "TimeoutError") | {"for the places": "StoreUnavailable"}
    assert len(receiver.received) == 1, "the notice was told, and its row not settled"


def nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class HushingClock(SystemClock):
    """Asked between two questions to the store."""

    way: Way | None = None

    def now_us(self) -> int:
        assert self.way is not None
        self.way.hush()
        return SystemClock.now_us(self)


def hushing(way: Way) -> Callable[[], float]:
    """The time for a signature, asked when a notice is about to be sent."""

    def now_s() -> float:
        way.hush()
        return time.time()

    return now_s


async def listening(way: Way) -> None:
    async def tell(event: Event) -> None:
        raise AssertionError(event)

    watch = FrozenWatch("alert", ALERT, SystemClock(), way.connect, tell)
    await CommandHandler(SystemClock(), way.connect_and_hush, watch, (), nothing, nothing).run()


async def placing(way: Way, settings: Settings) -> None:
    reader = await Places(way.connect_and_hush).join(open_log(settings), [FINDINGS])
    try:
        await reader.fetch(max_records=1, max_wait_s=0.1)
    finally:
        await reader.close()


Connecting = Callable[[], Awaitable[Connection]]


async def looking_after(way: Way, seams: Callable[[Way], tuple[Connecting, SystemClock, Callable[[], None]]]) -> None:
    """Of a channel of its own, so that nobody was told there of the alarm. `seams`: to connect, the clock, `changed`."""
    connecting, clock, changed = seams(way)
    await Upkeep(clock, connecting, (f"channel-{way.link.port}",), changed, nothing).run()


async def telling(
    way: Way, receiver: Receiver, seams: Callable[[Way], tuple[Connecting, Callable[[], float], Callable[[], None]]]
) -> None:
    """`seams`: to connect, the time for a signature, `ready`."""
    connecting, wall_s, ready = seams(way)
    to = Target(receiver.url, None)
    await Notifier(to, 900.0, SystemClock(), wall_s, connecting, random.Random(1), ready).run()


async def test_a_discontinuity_that_the_store_does_not_take_holds_nobody_up(
    plain_store: Settings, relay: Relay
) -> None:
    way, health = Way.to(plain_store, relay), Health("alert")

    async def part() -> None:
        raise LogDiscontinuity("the log was wiped")

    async with await psycopg.AsyncConnection.connect(plain_store.store) as holder:
        await holder.execute("LOCK TABLE store.event IN ACCESS EXCLUSIVE MODE")
        kept = asyncio.create_task(keep("findings", part, health, way.settings))
        await until(lambda: waited_for(plain_store, "store.event"), what="its event waits for the table")
        way.hush()
    try:
        await until(lambda: "place on the log" in health.waiting_for or kept.done(), WITHIN_S, "it waits forever")
        assert not kept.done()
        assert health.waiting_for == {"place on the log": "the log was wiped"}
    finally:
        kept.cancel()
        await asyncio.wait([kept], timeout=WITHIN_S)


async def test_each_step_of_upkeep_has_a_deadline_of_its_own(
    plain_store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps that take two seconds each are within a deadline of three."""
    monkeypatch.setattr("alerting.upkeep.ANSWER_S", 3.0)

    async def hold(table: str, locked: asyncio.Event) -> None:
        async with await psycopg.AsyncConnection.connect(plain_store.store) as holder:
            await holder.execute(
                sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(*table.split(".")))
            )
            locked.set()
            await until(lambda: waited_for(plain_store, table), what=f"upkeep at {table}")
            await holder.execute("SELECT pg_sleep(2)")

    first, second = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        group.create_task(hold("register.equipment", first))
        group.create_task(hold("alarm.notice", second))
        await first.wait()
        await second.wait()
        began, done = time.monotonic(), asyncio.Event()
        connecting = partial(connect, plain_store, ALERT, autocommit=True)
        upkeep = group.create_task(Upkeep(SystemClock(), connecting, ("webhook",), nothing, done.set).run())
        await done.wait()
        assert time.monotonic() - began > 3.0
        upkeep.cancel()


def waited_for(store: Settings, table: str) -> bool:
    statement = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
    return bool(execute(store.store, statement, (table,)))


def answered(store: Settings, command: str) -> bool:
    statement = "SELECT outcome FROM alarm.command WHERE command_id = %s AND outcome = 'done'"
    return bool(execute(store.store, statement, (command,)))


def raised(store: Settings, alarm_id: str) -> bool:
    return bool(execute(store.store, "SELECT state FROM alarm.alarm WHERE alarm_id = %s", (alarm_id,)))
