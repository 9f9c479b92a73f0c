"""A connection to the store that is half-open: nothing comes back, and nobody is told (found by chaos, seed 31)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest

from ingest.answering import answering, still_at_work
from ingest.migrate import migrate
from ingest.upkeep import keep_up
from telemetry.errors import StoreUnavailable, first_of
from telemetry.service import Health
from telemetry.settings import Settings
from telemetry.store import INGEST, connect, wait_for_schema
from tests.chaos.relay import Relay
from tests.fixtures.half_open import Way
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, count, ingesting, producing, until_stored

WITHIN_S = 60.0


@pytest.fixture
def way(plain_store: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    """To a store that is asked often whether it still answers, and given little time."""
    monkeypatch.setattr("ingest.answering.ASK_EVERY_S", 0.2)
    monkeypatch.setattr("ingest.answering.ANSWER_S", 2.0)
    with Relay() as relay:
        yield Way.to(plain_store, relay)


async def test_a_worker_whose_connections_went_half_open_while_it_was_idle_connects_anew(
    plain_store: Settings, way: Way
) -> None:
    async with producing(plain_store) as producer, ingesting(way.settings) as health:
        edge = Edge(producer)
        await edge.send_samples(batch(["pump-1/flow"]))
        await until_stored(plain_store, edge)
        way.hush()
        # A name that is new is asked for on a connection that no flush's deadline watches over.
        await edge.send_samples(batch(["pump-1/pressure"]))
        await until(lambda: "store" in health.waiting_for, WITHIN_S, "it does not notice")
        assert health.waiting_for["store"] == "the store has not answered for 2 s"
        await until_stored(plain_store, edge, within_s=WITHIN_S)
        assert count(plain_store) == 20
        await until(lambda: "store" not in health.waiting_for, WITHIN_S, "it is not ready again")


async def test_upkeep_whose_connection_went_half_open_ends_and_is_begun_anew(plain_store: Settings, way: Way) -> None:
    steps = asyncio.create_task(keep_up(way.settings, timescale=False))
    await until(lambda: upkeep_at_rest(plain_store), WITHIN_S, "it is at work")
    way.hush()
    await asyncio.wait([steps], timeout=WITHIN_S)
    assert steps.done(), "it does not notice"
    error = steps.exception()
    assert error is not None
    assert isinstance(first_of(error), psycopg.OperationalError)


async def test_upkeep_is_not_disturbed_in_a_step_that_takes_longer_than_an_answer_may(
    plain_store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.answering.ASK_EVERY_S", 0.1)
    monkeypatch.setattr("ingest.answering.ANSWER_S", 0.3)
    monkeypatch.setattr("ingest.answering.LOOK_AGAIN_S", 0.1)
    async with await connect(plain_store, INGEST, autocommit=True) as connection:
        at_work = partial(still_at_work, plain_store, connection.info.backend_pid)
        async with answering(connection, at_work):
            await connection.execute("SELECT pg_sleep(2)")
            cursor = await connection.execute("SELECT 7")
            assert await cursor.fetchone() == (7,)


# ---- connections that go half-open before anybody works with them


@pytest.fixture
def hushed_at_birth(way: Way, monkeypatch: pytest.MonkeyPatch) -> Way:
    """The next connection is half-open as soon as the store has let it in; those after it work."""
    monkeypatch.setattr("telemetry.store.ANSWER_S", 2.0)
    let_in = psycopg.AsyncConnection.connect

    async def hush(*arguments: Any, **how: Any) -> psycopg.AsyncConnection[Any]:
        monkeypatch.setattr(psycopg.AsyncConnection, "connect", let_in)
        connection = await let_in(*arguments, **how)
        way.hush()
        return connection

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", hush)
    return way


async def test_a_connection_that_goes_half_open_before_it_has_its_role_is_given_up(hushed_at_birth: Way) -> None:
    async with asyncio.timeout(WITHIN_S):
        with pytest.raises(StoreUnavailable, match="the store has not answered for 2 s"):
            await connect(hushed_at_birth.settings, INGEST)
        async with await connect(hushed_at_birth.settings, INGEST) as again:
            assert await (await again.execute("SELECT current_user")).fetchone() == (INGEST,)


async def test_who_waits_for_the_schema_on_a_half_open_connection_says_so_and_asks_again(hushed_at_birth: Way) -> None:
    said: list[str] = []

    class Listening(Health):
        def missing(self, what: str, why: str) -> None:
            said.append(f"{what}: {why}")
            super().missing(what, why)

    health = Listening("console")
    async with asyncio.timeout(WITHIN_S):
        assert await wait_for_schema(hushed_at_birth.settings, asyncio.Event(), health) is True
    assert said == ["store: the store has not answered for 2 s"]
    assert health.waiting_for == {}


async def test_a_migration_that_looks_what_there_is_to_do_on_a_half_open_connection_ends(hushed_at_birth: Way) -> None:
    async with asyncio.timeout(WITHIN_S):
        with pytest.raises(StoreUnavailable, match="the store has not answered for 2 s"):
            await migrate(hushed_at_birth.settings)
        assert await migrate(hushed_at_birth.settings) == []


def upkeep_at_rest(store: Settings) -> bool:
    """Whether its first steps are done: then it asks whether the store answers."""
    statement = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle' AND query = 'SELECT 1'"
    )
    return bool(execute(store.store, statement))
