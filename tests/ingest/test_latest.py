"""`latest` is written by several at once: the flushes' workers, and one that begins and looks what a dead one left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from ingest.copy import Rows, ordered
from ingest.copying import copy_rows
from ingest.latest import rebuild_latest, write_latest
from ingest.online import SILENT_S
from ingest.signals import SignalTable
from telemetry.settings import Settings
from telemetry.store import INGEST, LATEST_CHANNEL, connect
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, ingesting, now_us, producing, until_stored
from tests.ingest.test_register import equipment, plant

MIDNIGHT_US = 1_800_057_600_000_000
SIGNALS = 40
Connection = psycopg.AsyncConnection[Any]


@pytest.fixture
async def sessions(plain_store: Settings) -> AsyncIterator[tuple[Connection, Connection]]:
    """Of two workers."""
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(await connect(plain_store, INGEST, autocommit=True)) for _ in range(2)
        ]
        yield first, second


@pytest.fixture
async def numbers(sessions: tuple[Connection, Connection]) -> np.ndarray[Any, Any]:
    """Signals of the store, with a row each at midnight."""
    names = tuple(f"a/x{n}" for n in range(SIGNALS))
    found = (await SignalTable().resolve(sessions[0], [names]))[id(names)].signal_id
    at = MIDNIGHT_US // 1_000_000
    await sessions[0].execute("SELECT store.ensure_sample_partitions(to_timestamp(%s), to_timestamp(%s))", (at, at))
    async with sessions[0].transaction():
        await copy_rows(sessions[0], readings(found, MIDNIGHT_US, 1.0), direct=False)
    return found


def readings(numbers: np.ndarray[Any, Any], time_us: int, value: float) -> Rows:
    n = len(numbers)
    return ordered(Rows(numbers, np.full(n, time_us), np.full(n, value), np.full(n, 192, np.uint8)))


def latest(store: Settings) -> list[tuple[Any, ...]]:
    return execute(
        store.store,
        "SELECT (extract(epoch FROM time) * 1000000)::bigint, value, count(*)::int FROM store.latest GROUP BY 1, 2 ORDER BY 1",
    )


def backwards(rows: Rows) -> Rows:
    return Rows(rows.signal_id[::-1], rows.time_us[::-1], rows.value[::-1], rows.quality[::-1])


@pytest.mark.parametrize("way", ["rows", "rebuild"])
async def test_whoever_writes_takes_the_rows_by_their_number(
    plain_store: Settings, sessions: tuple[Connection, Connection], numbers: np.ndarray[Any, Any], way: str
) -> None:
    """It waits for the first row, which another holds, and has taken no later one: no two can wait in a circle."""
    await write_latest(sessions[0], readings(numbers, MIDNIGHT_US - 1, 0.0))
    first, last = int(numbers.min()), int(numbers.max())
    pid = sessions[1].info.backend_pid
    async with await psycopg.AsyncConnection.connect(plain_store.store) as holder:
        await holder.execute("SELECT 1 FROM store.latest WHERE signal_id = %s FOR UPDATE", (first,))
        if way == "rows":
            work = write_latest(sessions[1], backwards(readings(numbers, MIDNIGHT_US, 1.0)))
        else:
            # As after years of changes: the first signal lies behind all others, and is not looked up by its number.
            execute(plain_store.store, "UPDATE store.signal SET unit = 'm' WHERE signal_id = %s", (first,))
            await sessions[1].execute(
                "SET enable_mergejoin = off; SET enable_hashjoin = off;"
                " SET enable_indexscan = off; SET enable_indexonlyscan = off"
            )
            work = _rows_of(rebuild_latest(sessions[1]))
        writing = asyncio.create_task(work)
        await until(
            lambda: execute(
                plain_store.store, "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", (pid,)
            ),
            what="it waits for the first row",
        )
        await holder.execute("SELECT 1 FROM store.latest WHERE signal_id = %s FOR UPDATE NOWAIT", (last,))
        await holder.commit()
        async with asyncio.timeout(10):
            await writing
    assert latest(plain_store) == [(MIDNIGHT_US, 1.0, SIGNALS)]


async def test_of_two_writers_at_once_the_newer_reading_stays_whoever_is_first(
    plain_store: Settings, sessions: tuple[Connection, Connection], numbers: np.ndarray[Any, Any]
) -> None:
    for turn in range(20):
        newer, older = (readings(numbers, MIDNIGHT_US + 2 * turn + n, float(n)) for n in (1, 0))
        async with asyncio.timeout(20):
            await asyncio.gather(write_latest(sessions[0], newer), write_latest(sessions[1], backwards(older)))
        assert latest(plain_store) == [(MIDNIGHT_US + 2 * turn + 1, 1.0, SIGNALS)]


async def test_what_a_dead_worker_left_is_found_and_nothing_goes_back(
    plain_store: Settings, sessions: tuple[Connection, Connection], numbers: np.ndarray[Any, Any]
) -> None:
    await write_latest(sessions[0], readings(numbers[:5], MIDNIGHT_US + 1, 2.0))
    assert await rebuild_latest(sessions[1]) == SIGNALS - 5
    assert latest(plain_store) == [(MIDNIGHT_US, 1.0, SIGNALS - 5), (MIDNIGHT_US + 1, 2.0, 5)]
    assert await rebuild_latest(sessions[1]) == 0


async def test_a_rebuild_that_takes_long_lets_the_store_answer_in_between_and_what_is_new_go_out(
    plain_store: Settings, numbers: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one statement it took longer than a connection may be without an answer: ingest began again, for ever."""
    monkeypatch.setattr("ingest.answering.ASK_EVERY_S", 0.1)
    monkeypatch.setattr("ingest.answering.ANSWER_S", 2.0)
    monkeypatch.setattr("ingest.latest.REBUILT_AT_ONCE", 5)
    execute(
        plain_store.store,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.1); RETURN NEW; END';"
        " CREATE TRIGGER slow BEFORE INSERT ON store.latest FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    async with ingesting(plain_store):
        await until(lambda: latest(plain_store) == [(MIDNIGHT_US, 1.0, SIGNALS)], what="all are there")


async def test_between_two_parts_of_a_rebuild_the_caller_has_its_turn(
    sessions: tuple[Connection, Connection], numbers: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.latest.REBUILT_AT_ONCE", 15)
    found: list[int] = []

    async def look() -> None:
        cursor = await sessions[0].execute("SELECT count(*) FROM store.latest")
        found.extend(await cursor.fetchone() or ())

    assert await rebuild_latest(sessions[1], look) == SIGNALS
    assert found == [15, 30, SIGNALS]


async def test_who_listens_is_told_and_finds_what_changed_by_its_time(
    plain_store: Settings, sessions: tuple[Connection, Connection], numbers: np.ndarray[Any, Any]
) -> None:
    """As the console reads: it wakes by NOTIFY and asks for rows whose `changed_at` is later than what it has seen."""
    writer, listener = sessions
    await listener.execute(f"LISTEN {LATEST_CHANNEL}")
    steps = (
        (readings(numbers, MIDNIGHT_US - 2, 0.0), SIGNALS),
        (readings(numbers[:3], MIDNIGHT_US - 1, 1.0), 3),
        (readings(numbers[:2], MIDNIGHT_US - 1, 2.0), 2),
        (readings(numbers[:2], MIDNIGHT_US - 2, 3.0), 0),
    )
    for rows, changed in steps:
        seen = changed_last(plain_store)
        await write_latest(writer, rows)
        assert [note.channel async for note in listener.notifies(timeout=10, stop_after=1)] == [LATEST_CHANNEL]
        assert changed_since(plain_store, seen) == changed
    assert latest(plain_store) == [
        (MIDNIGHT_US - 2, 0.0, SIGNALS - 3),
        (MIDNIGHT_US - 1, 1.0, 1),
        (MIDNIGHT_US - 1, 2.0, 2),
    ]
    seen = changed_last(plain_store)
    assert await rebuild_latest(writer) == SIGNALS
    assert changed_since(plain_store, seen) == SIGNALS


def changed_last(store: Settings) -> Any:
    ((at,),) = execute(store.store, "SELECT coalesce(max(changed_at), '-infinity'::timestamptz)::text FROM latest")
    return at


def changed_since(store: Settings, seen: str) -> int:
    ((rows,),) = execute(store.store, "SELECT count(*) FROM latest WHERE changed_at > %s::timestamptz", (seen,))
    return int(rows)


async def _rows_of(rebuilding: Any) -> None:
    assert await rebuilding == SIGNALS


HELD_UP = {
    "latest": "SELECT value FROM latest WHERE value = 2",
    "equipment_online": "SELECT online FROM equipment WHERE NOT online",
}


@pytest.mark.parametrize(("held", "goes_on"), HELD_UP.items(), ids=HELD_UP)
async def test_a_frozen_session_is_ended_that_holds_up_what_goes_on_beside_the_flushes(
    plain_store: Settings, held: str, goes_on: str
) -> None:
    store = plain_store
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x"], samples=1, value=1.0))
        await edge.send_registry(plant(equipment("a")))
        await edge.send_heartbeat(["a"], time_us=now_us() - round((SILENT_S - 5) * 1e6))
        await until(lambda: bool(execute(store.store, "SELECT value FROM latest")), what="the first reading")
        await until_stored(store, edge)
        with suppress(psycopg.OperationalError):
            async with await connect(store, INGEST) as frozen:
                await frozen.execute(sql.SQL("SELECT FROM store.{} FOR UPDATE").format(sql.Identifier(held)))
                assert not execute(store.store, goes_on)
                await edge.send_samples(batch(["a/x"], samples=1, start_us=now_us(), value=2.0))
                await until(lambda: bool(execute(store.store, goes_on)), what="what the frozen session held up")
    assert ("vigil", "frozen-worker-terminated") in execute(store.store, "SELECT scheme, code FROM events")
