"""Who is online, from heartbeats; every change is kept; two live epochs of an edge are noticed."""

from __future__ import annotations

from telemetry.messages import Heartbeat
from telemetry.settings import Settings
from tests.fixtures.store import execute
from tests.ingest.line import Edge, ingesting, now_us, producing, until_stored

from ingest.online import SILENT_S, Online, Seen  # isort: skip
from tests.fixtures.waiting import until

S = 1_000_000


def heard(online: Online, edge: str, epoch: int, time_s: int, **unreachable_s: int) -> Seen:
    seen = Seen()
    unreachable = {name: since * S for name, since in unreachable_s.items()}
    online.hear(Heartbeat(edge, time_s * S, ("a", "b"), unreachable), epoch, seen)
    return seen


def test_a_first_heartbeat_says_who_is_online() -> None:
    seen = heard(Online(), "e", 1, 10, b=7)
    assert [(c.equipment, c.online, c.since_us) for c in seen.changes] == [("a", True, 10 * S), ("b", False, 7 * S)]


def test_only_changes_are_changes() -> None:
    online = Online()
    heard(online, "e", 1, 10)
    assert heard(online, "e", 1, 11).changes == []
    assert [(c.equipment, c.online) for c in heard(online, "e", 1, 12, a=12).changes] == [("a", False)]
    assert [(c.equipment, c.online) for c in heard(online, "e", 1, 13).changes] == [("a", True)]


def test_a_heartbeat_from_the_past_changes_nothing() -> None:
    online = Online()
    heard(online, "e", 1, 10)
    seen = heard(online, "e", 1, 9, a=9)
    assert (seen.changes, seen.edges) == ([], {})


def test_a_restarted_edge_is_no_conflict() -> None:
    online = Online()
    heard(online, "e", 1, 10)
    assert heard(online, "e", 2, 11).events == []
    assert heard(online, "e", 1, 10).events == []  # its backlog


def test_an_epoch_that_is_first_heard_in_the_back_fill_does_not_become_the_edges_own() -> None:
    """An edge that was restarted while the log was away sends what is new first, then what that opening had left."""
    online = Online()
    heard(online, "e", 1, 10)
    heard(online, "e", 3, 30)
    seen = heard(online, "e", 2, 20, a=20)
    assert (seen.changes, seen.edges, seen.events) == ([], {}, [])
    seen = heard(online, "e", 3, 31, a=31)
    assert seen.events == [], "the edge's own epoch is still the newest one"
    assert [(c.equipment, c.online) for c in seen.changes] == [("a", False)], "and is still heard"
    assert heard(online, "e", 2, 32).edges != {}, (
        "an epoch that goes on from there is the edge's, whatever its clock said"
    )


def test_an_epoch_that_speaks_on_after_it_was_left_is_an_event_once() -> None:
    online = Online()
    heard(online, "e", 1, 10)
    heard(online, "e", 2, 11)
    (event,) = heard(online, "e", 1, 12).events
    assert (event.event.code, event.event.equipment) == ("two-live-epochs", "e")
    assert heard(online, "e", 1, 13).events == []


def test_an_edge_that_falls_silent_takes_its_equipment_offline_until_it_speaks() -> None:
    online = Online()
    heard(online, "e", 1, 10)
    assert online.silent(int((10 + SILENT_S) * S) - 1) == []
    assert [(c.equipment, c.online, c.since_us) for c in online.silent(int((10 + SILENT_S) * S))] == [
        ("a", False, 10 * S),
        ("b", False, 10 * S),
    ]
    assert online.silent(1000 * S) == []
    assert [(c.equipment, c.online) for c in heard(online, "e", 1, 2000).changes] == [("a", True), ("b", True)]


async def test_online_state_and_its_history_are_in_the_store_and_survive_a_restart(store: Settings) -> None:
    now = now_us()
    async with producing(store) as producer:
        edge = Edge(producer)
        async with ingesting(store):
            await edge.send_heartbeat(["a", "b"], time_us=now - 3 * S)
            await edge.send_heartbeat(["a", "b"], {"b": now - 2 * S}, time_us=now - S)
            await until_stored(store, edge)
        async with ingesting(store):
            await edge.send_heartbeat(["a", "b"], {"b": now - 2 * S}, time_us=now)
            await until_stored(store, edge)
    states = execute(store.store, "SELECT equipment, online FROM store.equipment_online ORDER BY 1")
    assert states == [("a", True), ("b", False)]
    history = execute(store.store, "SELECT equipment, online FROM online_history ORDER BY equipment, time")
    assert history == [("a", True), ("b", True), ("b", False)]
    assert execute(store.store, "SELECT (extract(epoch FROM heartbeat) * 1000000)::bigint FROM edges") == [(now,)]


async def test_two_live_epochs_of_one_edge_raise_an_event(store: Settings) -> None:
    async with producing(store) as producer, ingesting(store):
        original, copied = Edge(producer), Edge(producer)
        for edge in (original, copied, original, copied, original):
            await edge.send_heartbeat(["a"])
        await until_stored(store, original)
        await until(lambda: execute(store.store, "SELECT count(*) FROM events") == [(1,)])
    assert execute(store.store, "SELECT code, attributes->>'newer' FROM events") == [
        ("two-live-epochs", f"{copied.epoch:016x}")
    ]
