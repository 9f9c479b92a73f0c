"""A connection to the store that is half-open: nothing comes back, and nobody is told (found by chaos, seed 31)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from psycopg.conninfo import conninfo_to_dict

from telemetry.settings import Settings
from tests.chaos.relay import Link, Relay
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
    database = conninfo_to_dict(plain_store.store)["dbname"]
    through = plain_store.model_copy(update={"store": f"postgresql://postgres@127.0.0.1:{way.port}/{database}"})
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
