"""A connection to the store that is half-open: nothing comes back, and nobody is told (found by chaos, seed 31)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from ingest.answering import answering, still_at_work
from ingest.upkeep import keep_up
from telemetry.errors import first_of
from telemetry.settings import Settings
from telemetry.store import INGEST, connect
from tests.chaos.relay import Link, Relay
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, count, ingesting, producing, until_stored

WITHIN_S = 60.0


@pytest.fixture
def link(plain_store: Settings) -> Iterator[tuple[Relay, Link]]:
    """A way to the store's socket."""
    folder = Path(parse_qs(urlsplit(plain_store.store).query)["host"][0])
    with Relay() as relay:
        yield relay, relay.add("store", folder / ".s.PGSQL.5432")


async def test_a_worker_whose_connections_went_half_open_while_it_was_idle_connects_anew(
    plain_store: Settings, link: tuple[Relay, Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.answering.ASK_EVERY_S", 0.2)
    monkeypatch.setattr("ingest.answering.ANSWER_S", 2.0)
    relay, way = link
    through = through_link(plain_store, way)
    async with producing(plain_store) as producer, ingesting(through) as health:
        edge = Edge(producer)
        await edge.send_samples(batch(["pump-1/flow"]))
        await until_stored(plain_store, edge)
        relay.do(lambda: way.begin("black-hole", random.Random(1)))
        # A name that is new is asked for on a connection that no flush's deadline watches over.
        await edge.send_samples(batch(["pump-1/pressure"]))
        await until(lambda: "store" in health.waiting_for, WITHIN_S, "it does not notice")
        assert health.waiting_for["store"] == "the store has not answered for 2 s"
        await until_stored(plain_store, edge, within_s=WITHIN_S)
        assert count(plain_store) == 20
        await until(lambda: "store" not in health.waiting_for, WITHIN_S, "it is not ready again")


async def test_upkeep_whose_connection_went_half_open_ends_and_is_begun_anew(
    plain_store: Settings, link: tuple[Relay, Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.answering.ASK_EVERY_S", 0.2)
    monkeypatch.setattr("ingest.answering.ANSWER_S", 2.0)
    relay, way = link
    steps = asyncio.create_task(keep_up(through_link(plain_store, way), timescale=False))
    await until(lambda: upkeep_at_rest(plain_store), WITHIN_S, "it is at work")
    relay.do(lambda: way.begin("black-hole", random.Random(1)))
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


def through_link(store: Settings, way: Link) -> Settings:
    database = conninfo_to_dict(store.store)["dbname"]
    return store.model_copy(update={"store": f"postgresql://postgres@127.0.0.1:{way.port}/{database}"})


def upkeep_at_rest(store: Settings) -> bool:
    """Whether its first steps are done: then it asks whether the store answers."""
    statement = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle' AND query = 'SELECT 1'"
    )
    return bool(execute(store.store, statement))
