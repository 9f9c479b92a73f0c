"""Two edges that list one equipment: the first speaks for it, and the second raises and clears nothing."""

from __future__ import annotations

from analytics.detectors.presence import COMMS_LOSS
from analytics.engine import EDGE_SILENT, Engine
from analytics.owners import Owners
from telemetry.messages import Finding, Heartbeat
from tests.analytics.plants import T0, S, catalogue

FAR_US = T0 + 10_000 * S


def beat(edge: str, second: int, *equipments: str, lost: str = "") -> Heartbeat:
    return Heartbeat(edge, T0 + second * S, equipments, {lost: T0 + second * S} if lost else {})


def heard(engine: Engine, *beats: Heartbeat) -> list[tuple[str, str, bool]]:
    found: list[Finding] = [f for b in beats for f in engine.heartbeat(b, now_us=FAR_US)]
    return [(f.equipment, f.detector, f.raised) for f in found]


def test_a_second_edge_that_cannot_reach_what_the_first_reads_raises_nothing() -> None:
    engine = Engine(catalogue("a", "b"))
    beats = [b for s in range(1, 30) for b in (beat("one", s, "a"), beat("two", s, "a", "b", lost="a"))]
    assert heard(engine, *beats) == []
    assert heard(engine, beat("two", 30, "a", "b", lost="b")) == [("b", COMMS_LOSS, True)]
    assert heard(engine, beat("one", 30, "a", lost="a")) == [("a", COMMS_LOSS, True)]
    assert heard(engine, beat("two", 31, "a", "b")) == [("b", COMMS_LOSS, False)]


def test_a_restored_engine_knows_whose_it_is() -> None:
    engine = Engine(catalogue("a", "b"))
    heard(engine, beat("two", 1, "b"), beat("one", 1, "a"), beat("two", 2, "a", "b"))
    again = Engine(catalogue("a", "b"))
    again.restore(engine.snapshot())
    assert heard(again, beat("two", 3, "a", "b", lost="a")) == []


def test_an_edge_that_fell_silent_speaks_for_nothing_until_it_is_heard_again() -> None:
    engine = Engine(catalogue("a", "b"))
    heard(engine, beat("one", 1, "a"), beat("two", 1, "a", "b"))
    assert [f.detector for f in engine.silence("one", now_us=T0 + 60 * S)] == [EDGE_SILENT]
    assert heard(engine, beat("two", 61, "a", "b", lost="a")) == [("a", COMMS_LOSS, True)]
    assert heard(engine, beat("one", 62, "a")) == [("one", EDGE_SILENT, False)]


def test_what_an_edge_stops_to_list_goes_to_who_lists_it() -> None:
    owners = Owners({"one": ("a", "b"), "two": ("b",)})
    assert owners.own(beat("two", 1, "b")).equipments == ()
    assert owners.own(beat("one", 2, "a")).equipments == ("a",)
    assert owners.own(beat("two", 3, "b")).equipments == ("b",)
    assert owners.own(beat("one", 4, "a", "b", lost="b")) == beat("one", 4, "a")


def test_what_is_only_listed_as_unreachable_is_the_owners_to_say() -> None:
    owners = Owners({"one": ("a",)})
    assert owners.own(beat("two", 1, lost="a")).unreachable == {}
    assert owners.own(beat("two", 1, lost="z")).unreachable == {"z": T0 + S}
