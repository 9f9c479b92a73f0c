"""Whose session is ended when it holds what is waited for, and whose is not. Sessions of a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psycopg
import pytest

from telemetry.clock import SystemClock
from telemetry.errors import StoreUnavailable
from telemetry.frozen import Connection, FrozenWatch
from telemetry.messages import VIGIL_SCHEME, Event
from telemetry.settings import Settings
from telemetry.store import ALERT, INGEST, OWNER, connect

PATIENCE_S = 0.1
LOOK_EVERY_S = 0.02
LOCK = "SELECT pg_advisory_xact_lock(1)"


@dataclass
class Rig:
    settings: Settings
    refusals: int = 0
    """How often the store cannot be reached for a look."""
    looks: int = 0
    events: list[Event] = field(default_factory=list)

    async def as_login(self) -> Connection:
        self.looks += 1
        if self.looks <= self.refusals:
            raise StoreUnavailable("not now")
        return await connect(self.settings, OWNER, autocommit=True)

    async def report(self, event: Event) -> None:
        self.events.append(event)

    async def get_lock(self, *, within_s: float = 10.0) -> None:
        """What a service does: a transaction under its role, watched over."""
        watch = FrozenWatch("alert", ALERT, SystemClock(), self.as_login, self.report, PATIENCE_S, LOOK_EVERY_S)
        async with (
            await connect(self.settings, ALERT, autocommit=True) as waiting,
            asyncio.timeout(within_s),
            watch.over(waiting),
            waiting.transaction(),
        ):
            await waiting.execute(LOCK)


@pytest.fixture
def rig(plain_store: Settings) -> Rig:
    return Rig(plain_store)


@asynccontextmanager
async def holder(settings: Settings, role: str) -> AsyncIterator[Connection]:
    """A session in a transaction that holds the lock, and does nothing."""
    connection = await connect(settings, role)
    try:
        await connection.execute(LOCK)
        yield connection
    finally:
        await connection.close()


async def test_an_idle_session_of_the_same_role_is_ended_and_told_once(rig: Rig) -> None:
    async with holder(rig.settings, ALERT) as frozen:
        await rig.get_lock()
        [event] = rig.events
        assert (event.equipment, event.scheme, event.code) == ("alert", VIGIL_SCHEME, "frozen-worker-terminated")
        assert event.attributes == {"backend": frozen.info.backend_pid}
        with pytest.raises(psycopg.OperationalError):
            await frozen.execute("SELECT 1")


async def test_a_session_of_another_role_is_left_alone(rig: Rig) -> None:
    async with holder(rig.settings, INGEST) as other:
        with pytest.raises(TimeoutError):
            await rig.get_lock(within_s=1.0)
        assert rig.looks == 1
        assert rig.events == []
        await other.execute("SELECT 1")


async def test_a_session_at_work_is_waited_for(rig: Rig) -> None:
    async with holder(rig.settings, ALERT) as busy, asyncio.TaskGroup() as group:

        async def work() -> None:
            await busy.execute("SELECT pg_sleep(1)")
            await busy.commit()

        group.create_task(work())
        await rig.get_lock()
    assert rig.looks == 1
    assert rig.events == []


async def test_when_the_store_cannot_be_reached_for_a_look_it_is_tried_again(rig: Rig) -> None:
    rig.refusals = 2
    async with holder(rig.settings, ALERT) as frozen:
        await rig.get_lock()
        assert rig.looks == 3
        assert [dict(event.attributes) for event in rig.events] == [{"backend": frozen.info.backend_pid}]


async def test_a_quick_transaction_is_not_looked_at(rig: Rig) -> None:
    await rig.get_lock()
    assert rig.looks == 0
