"""The end of a frozen session is told even though it sets free what the watch was there for."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from telemetry.clock import SystemClock
from telemetry.frozen import FrozenWatch
from telemetry.messages import Event
from telemetry.settings import Settings
from telemetry.store import INGEST, OWNER, connect
from tests.fixtures.store import execute


async def test_the_event_is_written_although_the_watch_is_not_needed_any_more(plain_store: Settings) -> None:
    told: list[Event] = []
    free = asyncio.Event()

    async def report(event: Event) -> None:
        await free.wait()  # until the body is done and the watch cancelled
        told.append(event)

    async def as_login() -> psycopg.AsyncConnection[tuple[object, ...]]:
        return await connect(plain_store, OWNER, autocommit=True)

    watch = FrozenWatch("ingest", INGEST, SystemClock(), as_login, report)
    execute(plain_store.store, "CREATE TABLE public.t (a int); GRANT ALL ON public.t TO vigil_ingest")
    frozen, waiting = await connect(plain_store, INGEST), await connect(plain_store, INGEST)
    await frozen.execute("LOCK TABLE public.t")
    async with waiting, asyncio.timeout(30), watch.over(waiting):
        await waiting.execute("LOCK TABLE public.t")
        asyncio.get_running_loop().call_later(0.2, free.set)
    with pytest.raises(psycopg.OperationalError):
        await frozen.execute("SELECT 1")
    await frozen.close()
    assert [(e.equipment, e.code) for e in told] == [("ingest", "frozen-worker-terminated")]
