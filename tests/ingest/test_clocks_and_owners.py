"""An edge whose clock is wrong, an equipment that two edges claim, a reader that is behind: nothing is flagged by mistake."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Final

import psycopg
from prometheus_client import REGISTRY

from ingest import metrics
from ingest.deadletters import list_dead_letters, replay_dead_letters
from ingest.online import SILENT_S, Online, Seen
from telemetry.batch import from_rows
from telemetry.clock import iso
from telemetry.messages import Heartbeat
from telemetry.service import cancel_all
from telemetry.settings import Settings
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, ingesting, now_us, producing, until_stored
from tests.ingest.test_register import equipment, plant

S = 1_000_000
HOUR_S = 3600
DAY_US = 24 * HOUR_S * S


def heard(online: Online, edge: str, time_s: float, *equipments: str, lost: str = "", newest_s: float = 1e9) -> Seen:
    seen = Seen()
    beat = Heartbeat(edge, round(time_s * S), equipments, {lost: round(time_s * S)} if lost else {})
    online.hear(beat, 1, seen, newest_us=round(newest_s * S))
    return seen


def states(seen: Seen) -> list[tuple[str, str, bool]]:
    return [(c.edge, c.equipment, c.online) for c in seen.changes]


# ---- clocks


def test_a_heartbeat_from_the_future_changes_nothing_and_those_after_it_count() -> None:
    online = Online()
    heard(online, "e", 10, "a", newest_s=310)
    assert heard(online, "e", 90_000, "a", lost="a", newest_s=311) == Seen()
    assert states(heard(online, "e", 12, "a", lost="a", newest_s=312)) == [("e", "a", False)]
    assert heard(Online(), "new", 90_000, "a", newest_s=311) == Seen(), "nor does one of an edge never heard before"


async def test_an_edge_whose_clock_was_a_day_ahead_is_believed_again_once_it_is_set(store: Settings) -> None:
    now = now_us()
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_registry(plant(equipment("boiler-1", location="tomorrow")), time_us=now + DAY_US)
        await edge.send_heartbeat(["boiler-1"], time_us=now + DAY_US)
        await edge.send_registry(plant(equipment("boiler-1", location="today")), time_us=now)
        await edge.send_heartbeat(["boiler-1"], {"boiler-1": now}, time_us=now)
        await until_stored(store, edge)
    assert execute(store.store, "SELECT address, online FROM equipment") == [("today", False)]
    assert execute(store.store, "SELECT heartbeat <= now() + interval '1 min' FROM edges") == [(True,)]
    (letter,) = await list_dead_letters(store)
    assert (letter.reason, letter.seq) == ("future", 0)
    assert f"found {now + DAY_US}" in letter.detail
    still = await replay_dead_letters(store, None)
    assert "has not come" in still.refused[letter.dead_letter_id]


async def test_a_time_more_than_five_minutes_ahead_is_never_the_latest_not_even_after_a_restart(
    store: Settings,
) -> None:
    now = now_us()
    latest = "SELECT point, value FROM latest ORDER BY point"
    async with producing(store) as producer:
        edge = Edge(producer)
        async with ingesting(store):
            rows = [("a/x", now, 1.0, 192), ("a/x", now + 301 * S, 2.0, 192), ("a/y", now + 299 * S, 3.0, 192)]
            await edge.send_samples(from_rows(rows))
            await until(lambda: execute(store.store, latest) == [("x", 1.0), ("y", 3.0)])
        execute(store.store, "DELETE FROM store.latest")
        async with ingesting(store):
            await until(lambda: execute(store.store, latest) == [("x", 1.0), ("y", 3.0)])
    (letter,) = await list_dead_letters(store)
    assert (letter.reason, letter.samples) == ("future", 1)
    assert iso(now + 301 * S) in letter.detail


# ---- owners


def test_of_two_edges_that_list_one_equipment_the_first_decides_whether_it_answers() -> None:
    online = Online()
    assert states(heard(online, "first", 10, "a")) == [("first", "a", True)]
    assert states(heard(online, "second", 11, "a", "b", lost="a")) == [("second", "b", True)]
    assert states(heard(online, "first", 12, "a")) == []
    assert states(heard(online, "first", 13, "a", lost="a")) == [("first", "a", False)]
    assert states(heard(online, "second", 14, "a", "b")) == []


def test_what_its_owner_gives_up_or_falls_silent_about_another_edge_may_tell() -> None:
    for given_up in (True, False):
        online = Online()
        heard(online, "first", 10, "a", "z")
        heard(online, "second", 11, "a", lost="a")
        if given_up:
            heard(online, "first", 12, "z")
        else:
            heard(online, "second", 24, "a", lost="a")
            gone = online.silent(round((10 + SILENT_S) * S))
            assert [(c.equipment, c.online) for c in gone] == [("a", False), ("z", False)]
        assert states(heard(online, "second", 26, "a")) == [("second", "a", True)]


# ---- silence


def two_edges() -> Online:
    """What a worker knows that heard one edge, and read of the other one in the store."""
    online = Online()
    heard(online, "mine", 10, "a")
    online._edges["other"] = online._edges["mine"].__class__(1, 0, 10 * S, equipments=("b",))
    online._online["b"] = True
    return online


LATE: Final = round((11 + SILENT_S) * S)


def test_of_several_workers_each_judges_only_the_edges_that_it_hears() -> None:
    online = two_edges()
    assert [c.equipment for c in online.silent(LATE)] == ["a"]
    heard(online, "mine", 40, "a")
    online.forget_heard()
    assert online.silent(LATE * 3) == []
    assert online.unheard(LATE * 3) == ["mine", "other"]


def test_an_edge_that_nobody_hears_is_judged_by_the_stores_heartbeat_by_whoever_has_its_partition() -> None:
    online = two_edges()
    assert online.unheard(round((10 + SILENT_S) * S) - 1) == []
    assert online.unheard(LATE) == ["other"]
    just_now = {"other": LATE - S}
    assert [c.equipment for c in online.silent(LATE, also=just_now)] == ["a"], "another worker has heard it since"
    assert online.unheard(LATE) == [], "and that is remembered"
    last = {"other": LATE - S, "gone meanwhile": 0}
    assert [(c.equipment, c.since_us) for c in online.silent(LATE * 2, also=last)] == [("b", LATE - S)]
    assert online.silent(LATE * 3, also=last) == [], "told once"


async def test_a_service_that_was_down_for_an_hour_catches_up_without_calling_anybody_offline(
    plain_store: Settings,
) -> None:
    """Its last flush is held up by a lock for as long as a look at silent edges takes: read is not yet stored."""
    store, now = plain_store, now_us()
    async with producing(store) as producer:
        edge = Edge(producer)
        async with ingesting(store):
            await edge.send_heartbeat(["a", "b"], time_us=now - HOUR_S * S)
            await until_stored(store, edge)
        for ago in range(HOUR_S - 10, -1, -10):
            await edge.send_heartbeat(["a", "b"], time_us=now - ago * S)
        with psycopg.connect(store.store) as holder:
            holder.execute("LOCK TABLE store.edge IN EXCLUSIVE MODE")
            async with ingesting(store):
                await until(lambda: waits_for_a_lock(store), what="the flush is held up")
                for _ in range(2):
                    metrics.LAG.set(-1)
                    await until(lambda: lag() != -1, what="a look at silent edges")
                    assert lag() != 0, "what is read and not yet stored is a lag"
                holder.rollback()
                await until_stored(store, edge)
    assert execute(store.store, "SELECT equipment, online FROM online_history") == [("a", True), ("b", True)]


def waits_for_a_lock(store: Settings) -> bool:
    return execute(store.store, "SELECT count(*) FROM pg_locks WHERE NOT granted") != [(0,)]


def lag() -> float | None:
    return REGISTRY.get_sample_value("vigil_ingest_lag_records")


async def test_edges_that_died_while_every_worker_was_down_are_called_offline_by_the_one_of_their_partition(
    plain_store: Settings,
) -> None:
    """Their last heartbeats are so old that they are silent when both workers have their share."""
    store = plain_store.model_copy(update={"log_partitions": 4})
    async with producing(store) as producer, AsyncExitStack() as workers:
        edges = [Edge(producer, f"edge-{n}") for n in range(6)]
        async with ingesting(store):
            for edge in edges:
                await edge.send_heartbeat([f"{edge.name}-unit"], time_us=now_us() - 9 * S)
                await until_stored(store, edge)
        for _ in range(2):
            await workers.enter_async_context(ingesting(store))
        await until(
            lambda: execute(store.store, "SELECT count(*) FROM store.equipment_online WHERE NOT online") == [(6,)],
            what="all six are offline",
        )


async def test_two_workers_call_nobody_offline_whom_the_other_one_hears(plain_store: Settings) -> None:
    start = iso(now_us()).replace("Z", "+00:00")
    store = plain_store.model_copy(update={"log_partitions": 4, "clock": f"scaled:{start},10"})
    clock = store.the_clock
    async with producing(store) as producer, AsyncExitStack() as workers:
        edges = [Edge(producer, f"edge-{n}") for n in range(6)]

        async def beat() -> None:
            """Often, whatever a busy machine makes of the looks: silence is 1.5 s here."""
            while True:
                for edge in edges:
                    await edge.send_heartbeat([f"{edge.name}-unit"], time_us=clock.now_us())
                await asyncio.sleep(0.1)

        async def look() -> bool:
            metrics.LAG.set(-1)
            await until(lambda: lag() != -1, what="a look at silent edges")
            return clock.now_us() > until_us

        beating = asyncio.create_task(beat())
        workers.push_async_callback(cancel_all, [beating])
        await workers.enter_async_context(ingesting(store))
        await until(lambda: execute(store.store, "SELECT count(*) FROM online_history") == [(6,)], what="all are heard")
        await workers.enter_async_context(ingesting(store))
        until_us = clock.now_us() + round(6 * SILENT_S * S)
        await until(look)
        assert not beating.done()
    assert execute(store.store, "SELECT count(*), bool_and(online) FROM online_history") == [(6, True)]
