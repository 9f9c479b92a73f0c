"""The engine and its lane: any stream, stopped anywhere, repeated in part, gives the same findings byte for byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.engine import AHEAD_US, OLD_US, Engine
from analytics.lane import Lane
from analytics.rules import Catalogue
from telemetry.log.protocol import OutRecord
from telemetry.messages import Finding
from telemetry.position import Position
from telemetry.quality import BAD_COMMS, UNCERTAIN_OUT_OF_RANGE
from telemetry.wire import encode_findings
from tests.analytics.line import Edge, in_records
from tests.analytics.plants import POINTS, T0, S, alarm, catalogue, point, profile

CATALOGUE = catalogue("a", "b")
NOW_US = T0 + 10_000 * S
NAMES = [f"{e}/{p}" for e in "ab" for p in ("plain", "delayed", "mode", "guarded", "left", "right", "wander")]
VALUES = st.sampled_from([0.0, 1.0, 2.0, 3.0, 11.0, 51.0, 86.0, 91.0, float("nan")])


def lane(of: Catalogue = CATALOGUE) -> Lane:
    return Lane(Engine(of), Position(0, None, begun=False), 0, 0, None, None)


def owed(lane_: Lane) -> list[Finding]:
    found = [f for group in lane_.owed for f in group.findings]
    lane_.owed.clear()
    return found


def take(lane_: Lane, records: list[OutRecord], *, first: int = 0, at_once: int = 4) -> list[Finding]:
    """Takes records some at a time."""
    found: list[Finding] = []
    read = in_records(records, first=first)
    for i in range(0, len(read), at_once):
        lane_.take(read[i : i + at_once], now_us=NOW_US)
        found += owed(lane_)
    return found


@st.composite
def record_streams(draw: st.DrawFn) -> list[OutRecord]:
    """Records of two edges: samples (some late, some bad), events, heartbeats with lost equipment, a restart."""
    edges = {"a": Edge("edge-a"), "b": Edge("edge-b")}
    now, made = 0.0, []
    for _ in range(draw(st.integers(1, 30))):
        now += draw(st.sampled_from([0.0, 0.5, 1.0, 4.0]))
        which = draw(st.sampled_from("ab"))
        edge = edges[which]
        kind = draw(st.sampled_from(["samples", "samples", "samples", "beat", "beat", "event", "restart"]))
        if kind == "samples":
            rows = draw(
                st.lists(
                    st.tuples(
                        st.sampled_from([n for n in NAMES if n[0] == which]),
                        st.sampled_from([now, now, now + 0.1, now - 6.0]),
                        VALUES,
                        st.sampled_from([192, 192, 192, 64, 0, 24]),
                    ),
                    min_size=1,
                    max_size=6,
                )
            )
            made.append(edge.samples(*rows))
        elif kind == "beat":
            made.append(edge.beat(now, which, unreachable=draw(st.sampled_from([{}, {}, {}, {which: now}]))))
        elif kind == "event":
            made.append(
                edge.event(now, draw(st.sampled_from(["fault", "bump", "x"])), draw(st.booleans()), equipment=which)
            )
        else:
            edges[which] = Edge(edge.name, edge.epoch + 1)
    return made


@settings(max_examples=80, deadline=None, derandomize=True)
@given(record_streams(), st.data())
def test_stopped_and_restored_at_any_point_the_findings_are_the_same_byte_for_byte(
    records: list[OutRecord], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(records)))
    steady, stopped = lane(), lane()
    take(steady, records[:at])
    take(stopped, records[:at])
    restored = lane()
    assert restored.engine.restore(stopped.engine.snapshot()) == []
    expected = take(steady, records[at:], first=at)
    assert encode_findings(take(restored, records[at:], first=at)).value == encode_findings(expected).value
    assert restored.engine.snapshot() == steady.engine.snapshot()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(record_streams(), st.integers(1, 9), st.integers(1, 9))
def test_however_a_fetch_is_cut_the_findings_are_the_same(records: list[OutRecord], one: int, other: int) -> None:
    def key(finding: Finding) -> Any:
        return encode_findings([finding]).value

    live = [[f for f in take(lane(), records, at_once=n) if not f.late] for n in (one, other)]
    assert sorted(map(key, live[0])) == sorted(map(key, live[1]))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(record_streams(), st.data())
def test_records_that_come_again_touch_no_state(records: list[OutRecord], data: st.DataObject) -> None:
    again = sorted(data.draw(st.lists(st.integers(0, len(records)), max_size=5)))
    once, twice = lane(), lane()
    expected = take(once, records)
    doubled: list[OutRecord] = []
    for i, record in enumerate(records):
        doubled.append(record)
        doubled += [records[j] for j in again if j <= i]
    assert take(twice, doubled, at_once=1) == take(lane(), records, at_once=1)
    assert twice.engine.snapshot() == once.engine.snapshot()
    assert len(expected) <= 10 * len(records) * len(CATALOGUE.rules)


def test_a_late_sample_is_told_apart_and_leaves_live_state_alone() -> None:
    edge, it = Edge(), lane()
    found = take(it, [edge.beat(0), edge.samples(("a/plain", 10, 20.0)), edge.samples(("a/plain", 5, 95.0))])
    assert [(f.raised, f.late, f.time_us) for f in found] == [(True, True, T0 + 5 * S), (False, True, T0 + 5 * S)]
    assert it.engine.counts["late"] == 1
    assert [f.late for f in take(it, [edge.samples(("a/plain", 11, 95.0))], first=3)] == [False]


def test_a_sample_from_the_future_or_of_no_registered_signal_is_not_judged() -> None:
    edge, it = Edge(), lane()
    ahead = (AHEAD_US + S) / S
    found = take(it, [edge.beat(0), edge.samples(("a/plain", ahead, 95.0), ("a/zz", 1, 95.0), ("a/plain", 1, 20.0))])
    assert found == []
    assert (it.engine.counts["future"], it.engine.counts["unregistered"]) == (1, 1)
    assert [f.onset_us for f in take(it, [edge.samples(("a/plain", 2, 95.0))], first=2)] == [T0 + 2 * S]


@pytest.mark.parametrize("ahead_s", [0, 10_000])
def test_staleness_is_of_the_logs_time_whatever_the_readers_clock_says(ahead_s: int) -> None:
    edge, it = Edge(), lane(catalogue("a", of=profile(stale_after_s=5.0)))
    records = [edge.beat(0, "a"), edge.samples(("a/plain", 1, 20.0)), *(edge.beat(n, "a") for n in range(1, 12))]
    it.take(in_records(records), now_us=T0 + (12 + ahead_s) * S)
    assert [(f.detector, f.onset_us, f.time_us) for f in owed(it)] == [("stale", T0 + 6 * S, T0 + 7 * S)]


def test_a_sample_older_than_the_bound_on_late_data_is_not_judged_and_one_within_it_is() -> None:
    edge, it = Edge(), lane()
    beyond = -(OLD_US + S) / S
    assert take(it, [edge.beat(0), edge.samples(("a/plain", beyond, 95.0))]) == []
    assert it.engine.counts["old"] == 1
    assert [f.raised for f in take(it, [edge.samples(("a/plain", beyond + 2, 95.0))], first=2)] == [True]


def test_a_bad_reading_raises_nothing_whatever_value_it_carries_and_an_uncertain_one_counts() -> None:
    edge, it = Edge(), lane()
    assert take(it, [edge.beat(0), edge.samples(("a/plain", 1, 95.0, BAD_COMMS))]) == []
    found = take(it, [edge.samples(("a/plain", 2, 95.0, UNCERTAIN_OUT_OF_RANGE))], first=2)
    assert [(f.raised, f.onset_us) for f in found] == [(True, T0 + 2 * S)]
    assert take(it, [edge.samples(("a/plain", 3, 20.0, BAD_COMMS))], first=3) == [], "nor does it clear"


def test_before_the_first_heartbeat_the_future_is_bounded_by_the_readers_own_clock() -> None:
    edge, it = Edge(), lane()
    beyond = (NOW_US + AHEAD_US - T0) / S + 1
    assert take(it, [edge.samples(("a/plain", beyond, 95.0))]) == []
    assert it.engine.counts["future"] == 1


def test_a_heartbeat_from_the_future_does_not_move_the_logs_time() -> None:
    edge, it = Edge(), lane()
    take(it, [edge.beat(0), edge.beat((NOW_US + AHEAD_US - T0) / S + 1)])
    assert it.engine.edges["edge-1"].time_us == T0


def test_an_old_heartbeat_does_not_move_the_logs_time_back() -> None:
    """As from the spool of an edge that was away: its equipment's newest readings would be of the future."""
    edge, it = Edge(), lane()
    beyond_s = 2 * AHEAD_US / S
    take(it, [edge.beat(0), edge.beat(beyond_s), edge.beat(1)])
    assert it.engine.edges["edge-1"].time_us == T0 + beyond_s * S
    found = take(it, [edge.samples(("a/plain", beyond_s + 1, 95.0))], first=3)
    assert ([f.raised for f in found], it.engine.counts["future"]) == ([True], 0)


def test_a_heartbeat_of_a_back_fill_says_nothing_of_who_answers_now() -> None:
    edge, it = Edge(), lane()
    assert take(it, [edge.beat(0), edge.beat(100)]) == []
    assert take(it, [edge.beat(50, unreachable={"a": 40})], first=2) == [], "a answers now"
    (lost,) = take(it, [edge.beat(101, unreachable={"a": 101})], first=3)
    assert (lost.detector, lost.raised) == ("comms-loss", True)
    assert take(it, [edge.beat(60)], first=4) == [], "nor does it clear what stands"
    assert it.engine.counts["old_heartbeat"] == 2


@pytest.mark.parametrize(
    ("header", "value", "reason"),
    [
        ("kind", b"nonsense", "kind"),
        ("crc", b"00000000", "crc"),
        ("schema", b"9.0", "schema-version"),
        ("epoch", b"xyz", "headers"),
    ],
)
def test_a_record_that_cannot_be_read_is_skipped_and_the_others_are_taken(
    header: str, value: bytes, reason: str
) -> None:
    edge, it = Edge(), lane()
    bad = edge.samples(("a/plain", 1, 95.0))
    broken = OutRecord(bad.key, bad.value, {**bad.headers, header: value})
    found = take(it, [edge.beat(0), broken, edge.samples(("b/plain", 1, 95.0))])
    assert [f.equipment for f in found] == ["b"], reason
    assert it.next == 3


@pytest.mark.parametrize(
    "change",
    [{"time_us": "soon"}, {"time_us": None}, {"unreachable": {"a": "x"}}, {"unreachable": ["a"]}, {"equipments": [1]}],
)
def test_a_heartbeat_whose_fields_are_of_the_wrong_types_is_skipped(change: dict[str, Any]) -> None:
    import zlib

    import orjson

    edge, it = Edge(), lane()
    beat = edge.beat(0)
    value = orjson.dumps({**orjson.loads(beat.value), **change})
    crc = f"{zlib.crc32(value):08x}".encode()
    assert (
        take(it, [OutRecord(beat.key, value, {**beat.headers, "crc": crc}), edge.samples(("a/plain", 1, 95.0))]) != []
    )
    assert it.engine.edges == {}


def test_a_new_epoch_of_an_edge_ends_no_delay_by_the_time_that_nobody_looked() -> None:
    edge, it = Edge(), lane()
    assert take(it, [edge.beat(0), edge.samples(("a/delayed", 1, 95.0)), edge.beat(2)]) == []
    again = Edge(edge.name, edge.epoch + 1)
    assert take(it, [again.samples(("a/delayed", 3600, 50.0)), again.beat(3600)], first=3) == []


def test_an_equipment_that_does_not_answer_ends_no_delay() -> None:
    edge, it = Edge(), lane()
    take(it, [edge.beat(0), edge.samples(("a/delayed", 1, 95.0))])
    found = take(it, [edge.beat(s, unreachable={"a": 2.0}) for s in range(3, 30)], first=2)
    assert [f.detector for f in found] == ["comms-loss"]
    found = take(it, [edge.samples(("a/delayed", 40, 96.0))], first=29)
    assert [(f.detector, f.onset_us, f.time_us) for f in found] == [("limit:high", T0 + S, T0 + 40 * S)]


def test_an_edge_silent_finding_is_raised_once_survives_a_restore_and_clears_by_the_next_heartbeat() -> None:
    edge, it = Edge(), lane()
    take(it, [edge.beat(0)])
    (raised,) = it.engine.silence("edge-1", now_us=T0 + 60 * S)
    assert it.engine.silence("edge-1", now_us=T0 + 61 * S) == []
    restored = lane()
    restored.engine.restore(it.engine.snapshot())
    (cleared,) = take(restored, [edge.beat(90)], first=1)
    assert (raised.id, raised.raised, cleared.raised, cleared.time_us) == (cleared.id, True, False, T0 + 90 * S)


def test_a_changed_rule_starts_fresh_is_cleared_and_the_others_go_on() -> None:
    edge, it = Edge(), lane()
    take(it, [edge.beat(0), edge.samples(("a/plain", 1, 95.0), ("a/delayed", 1, 95.0), ("b/plain", 1, 20.0))])
    points = {
        **POINTS,
        "plain": point(alarms={"high": alarm(limit=99.0)}),
        "new": point(alarms={"high": alarm(limit=1.0)}),
    }
    changed = lane(catalogue("c", "a", of=profile(points=points)))
    cleared = changed.engine.restore(it.engine.snapshot())
    assert [(f.equipment, f.point, f.detector, f.raised, f.onset_us) for f in cleared] == [
        ("a", "plain", "limit:high", False, T0 + S)
    ]
    found = take(changed, [edge.samples(("a/plain", 2, 96.0)), edge.beat(6)], first=2)
    assert [(f.point, f.raised, f.onset_us) for f in found] == [("delayed", True, T0 + S)]


def test_a_finding_of_a_signal_with_many_rules_counts_each_rule_for_itself() -> None:
    edge, it = Edge(), lane()
    found = take(it, [edge.beat(0), edge.samples(("a/mode", 1, 3.0))])
    assert sorted(f.detector for f in found) == ["limit:odd", "limit:other"]


def test_an_engine_of_many_signals_is_restored_whole() -> None:
    many = catalogue(*(f"e{i}" for i in range(300)))
    edge, it = Edge(), lane(many)
    take(it, [edge.samples(*((f"e{i}/plain", 1, 80.0 + i % 20) for i in range(300)))])
    restored = lane(many)
    restored.engine.restore(it.engine.snapshot())
    assert restored.engine.snapshot() == it.engine.snapshot()
    found = take(restored, [edge.samples(*((f"e{i}/plain", 2, 0.0) for i in range(300)))], first=1)
    assert len(found) == int(np.sum(80 + np.arange(300) % 20 > 90))
