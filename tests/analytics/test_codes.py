"""Codes become findings by their priority in the profile's scheme."""

from __future__ import annotations

from typing import Any

import numpy as np

from analytics import snapshot
from analytics.detectors.codes import MAX_UNKNOWN, UNKNOWN_HOLD_S, Codes
from telemetry.messages import Event, Finding
from tests.analytics.plants import CODES, T0, S, catalogue, profile, text

ALL = np.ones(2, np.bool_)


def codes() -> Codes:
    return Codes(catalogue("a", "b"))


def event(second: float, code: str, on: bool = True, **keys: Any) -> Event:
    return Event(keys.pop("equipment", "a"), T0 + round(second * S), keys.pop("scheme", "rig"), code, on, keys)


def brief(findings: list[Finding]) -> list[tuple[str, bool, float, float]]:
    return [(f.detector, f.raised, (f.onset_us - T0) / S, (f.time_us - T0) / S) for f in findings]


def test_a_code_is_raised_when_it_begins_once_and_cleared_when_it_ends() -> None:
    found = codes().update(
        [event(1, "fault", floor=3), event(2, "fault"), event(5, "fault", False), event(6, "fault", False)]
    )
    assert brief(found) == [("code:rig/fault", True, 1, 1), ("code:rig/fault", False, 1, 5)]
    assert found[0].evidence == {"floor": 3}


def test_a_code_without_priority_and_a_scheme_of_nobodys_make_no_finding() -> None:
    events = [event(1, "seen"), event(1, "fault", scheme="text"), event(1, "fault", equipment="zz")]
    assert codes().update(events) == []


def test_an_unknown_code_of_a_known_scheme_is_raised_and_says_so() -> None:
    detector = codes()
    (finding,) = detector.update([event(1, "x99")])
    assert finding.evidence == {"unknown": True}
    assert brief(detector.advance(T0 + S + round(UNKNOWN_HOLD_S * S), ALL)) == [
        ("code:rig/x99", False, 1, 1 + UNKNOWN_HOLD_S)
    ]


def test_a_device_gone_mad_raises_a_bounded_number_of_unknown_codes() -> None:
    assert len(codes().update([event(i, f"x{i}") for i in range(1000)])) == MAX_UNKNOWN


def test_a_momentary_code_clears_after_its_hold_counted_from_its_last_occurrence() -> None:
    detector = codes()
    assert brief(detector.update([event(0, "bump"), event(4, "bump")])) == [("code:rig/bump", True, 0, 0)]
    assert detector.advance(T0 + 13 * S, ALL) == []
    assert detector.advance(T0 + 14 * S, np.array([False, True])) == []
    assert brief(detector.advance(T0 + 15 * S, ALL)) == [("code:rig/bump", False, 0, 14)]


def test_a_momentary_code_that_comes_again_after_its_hold_is_a_new_one() -> None:
    found = codes().update([event(0, "bump"), event(30, "bump")])
    assert brief(found) == [
        ("code:rig/bump", True, 0, 0),
        ("code:rig/bump", False, 0, 10),
        ("code:rig/bump", True, 30, 30),
    ]


def test_an_event_behind_the_newest_of_its_code_changes_nothing() -> None:
    detector = codes()
    detector.update([event(10, "fault"), event(12, "fault", False)])
    assert detector.update([event(11, "fault")]) == []
    assert detector.late == 1


def test_a_snapshot_restores_what_stands_and_a_code_that_lost_its_priority_is_cleared() -> None:
    detector = codes()
    detector.update([event(1, "fault"), event(2, "bump"), event(2, "x99")])
    arrays, _ = snapshot.unpack(snapshot.pack(detector.snapshot(), {}))
    same = codes()
    assert same.restore(arrays) == []
    assert brief(same.update([event(5, "fault", False)])) == [("code:rig/fault", False, 1, 5)]
    schemes = {"rig": {"name": text("rig"), "codes": {**CODES, "fault": CODES["seen"]}}}
    changed = Codes(catalogue("a", "b", of=profile(schemes=schemes)))
    assert brief(changed.restore(arrays)) == [("code:rig/fault", False, 1, 1)]


def test_no_events_make_an_empty_snapshot_that_restores() -> None:
    arrays, _ = snapshot.unpack(snapshot.pack(codes().snapshot(), {}))
    assert codes().restore(arrays) == []


def test_a_code_that_begins_twice_at_one_time_makes_two_findings() -> None:
    found = codes().update([event(1, "fault"), event(1, "fault", False), event(1, "fault")])
    assert [f.raised for f in found] == [True, False, True]
    assert len({f.id for f in found}) == 2


def test_a_code_that_no_label_can_hold_and_attributes_beyond_measure_flood_nothing() -> None:
    assert codes().update([event(1, "x" * 65), event(2, "a\nb")]) == []
    for picture in ("x" * 5000, "\0"):
        (finding,) = codes().update([event(1, "fault", picture=picture)])
        assert finding.evidence == {"attributes": "not shown; see the event"}
