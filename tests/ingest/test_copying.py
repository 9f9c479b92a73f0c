"""COPY by a thread: what is sent is what is stored, and a COPY that is cancelled leaves nobody on the connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import pytest

from ingest import copying
from ingest.copy import NO_ROWS, SLICE_ROWS, Rows, encoded, ordered
from ingest.copying import copy_rows
from telemetry.settings import Settings
from telemetry.store import INGEST, connect
from tests.fixtures.store import execute
from tests.fixtures.waiting import until

MIDNIGHT_US = 1_800_057_600_000_000
"""2027-01-16, UTC."""
DAY_US = 86_400_000_000
Connection = psycopg.AsyncConnection[Any]


@pytest.fixture
async def connection(plain_store: Settings) -> AsyncIterator[Connection]:
    """As ingest's, with a day to write to."""
    async with await connect(plain_store, INGEST, autocommit=True) as found:
        await found.execute(
            "SELECT store.ensure_sample_partitions(to_timestamp(%(at)s), to_timestamp(%(at)s))",
            {"at": MIDNIGHT_US // 1_000_000},
        )
        yield found


def some_rows(count: int) -> Rows:
    """Of a day; every seventh value is absent, and the first ones are extreme."""
    drawn = np.random.default_rng(1)
    value = drawn.normal(size=count)
    value[::7] = np.nan
    value[1:6] = [np.inf, -np.inf, -0.0, 5e-324, 1.7976931348623157e308]
    return ordered(
        Rows(
            drawn.integers(1, 2**31 - 1, count, np.int32, endpoint=True),
            MIDNIGHT_US + drawn.integers(0, DAY_US, count),
            value,
            drawn.integers(0, 256, count).astype(np.uint8),
        )
    )


async def test_rows_sent_by_the_thread_are_the_rows_that_are_read_back(
    plain_store: Settings, connection: Connection
) -> None:
    sent = some_rows(2 * SLICE_ROWS + 11)
    sent.value[SLICE_ROWS : 2 * SLICE_ROWS] = 3.5  # one slice without any NULL
    async with connection.transaction():
        await copy_rows(connection, sent, direct=False)
    found = execute(
        plain_store.store,
        "SELECT signal_id, (extract(epoch FROM time) * 1000000)::bigint, coalesce(value, 'NaN'), quality FROM store.sample",
    )
    columns = (column.tolist() for column in (sent.signal_id, sent.time_us, sent.value, sent.quality))
    assert sorted(map(repr, found)) == sorted(map(repr, zip(*columns, strict=True)))


@pytest.mark.parametrize("direct", [False, True])
async def test_nothing_to_send_asks_the_server_nothing(
    plain_store: Settings, connection: Connection, *, direct: bool
) -> None:
    last = "SELECT query_start, query FROM pg_stat_activity WHERE pid = %s"
    pid = (connection.info.backend_pid,)
    before = execute(plain_store.store, last, pid)
    await copy_rows(connection, NO_ROWS, direct=direct)
    assert execute(plain_store.store, last, pid) == before
    await connection.execute("SELECT 'so it would show'")
    assert execute(plain_store.store, last, pid) != before


def test_slices_share_their_memory() -> None:
    rows = some_rows(3 * SLICE_ROWS)
    rows.value[:] = 1.0
    parts = [np.frombuffer(part, np.uint8) for part in encoded(rows) if isinstance(part, memoryview)]
    assert len(parts) == 3
    assert all(np.shares_memory(parts[0], part) for part in parts)


class Watched:
    """Whether the thread is at work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inside = False
        self.entered = 0
        send = copying._send

        def watched(*arguments: Any) -> None:
            self.inside, self.entered = True, self.entered + 1
            try:
                send(*arguments)
            finally:
                self.inside = False

        monkeypatch.setattr(copying, "_send", watched)
        monkeypatch.setattr(copying, "SEND_BUFFER_BYTES", 1 << 16)  # or all of it is sent before the server reads any


@dataclass(frozen=True, slots=True)
class Stuck:
    """A COPY that the server has begun to read and reads no more of."""

    writing: asyncio.Task[None]
    pid: int


@asynccontextmanager
async def stuck(store: Settings, connection: Connection) -> AsyncIterator[Stuck]:
    """One in the middle of its rows: the partition is locked until the end of the block."""

    async def write() -> None:
        async with connection.transaction():
            await copy_rows(connection, some_rows(4 * SLICE_ROWS), direct=False)

    async with await psycopg.AsyncConnection.connect(store.store) as holder:
        await holder.execute("LOCK TABLE ONLY store.sample_20270116 IN ACCESS EXCLUSIVE MODE")
        pid = connection.info.backend_pid
        writing = asyncio.create_task(write())
        await until(
            lambda: execute(
                store.store, "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", (pid,)
            ),
            what="the server waits for the lock",
        )
        yield Stuck(writing, pid)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_copy_ends_at_once_with_the_connection_closed_and_the_thread_gone(
    plain_store: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Also while the server reads nothing more of it, and when it is cancelled over and over."""
    watched = Watched(monkeypatch)
    async with stuck(plain_store, connection) as copy:
        assert watched.inside
        began = time.monotonic()
        for _ in range(times):
            copy.writing.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([copy.writing], timeout=5)
        assert copy.writing.cancelled(), "it waits for a server that does not answer"
        assert time.monotonic() - began < 3
        assert (watched.entered, watched.inside, connection.closed) == (1, False, True)
    await until(
        lambda: not execute(plain_store.store, "SELECT 1 FROM pg_stat_activity WHERE pid = %s", (copy.pid,)),
        what="its session ends",
    )
    assert execute(plain_store.store, "SELECT count(*) FROM store.sample") == [(0,)]


async def test_a_session_that_is_ended_in_the_middle_of_a_copy_is_told_as_an_error(
    plain_store: Settings, connection: Connection
) -> None:
    async with stuck(plain_store, connection) as copy:
        assert execute(plain_store.store, "SELECT pg_terminate_backend(%s)", (copy.pid,)) == [(True,)]
        with pytest.raises(psycopg.OperationalError):
            async with asyncio.timeout(10):
                await copy.writing
