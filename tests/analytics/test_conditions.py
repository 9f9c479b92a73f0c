"""Limits and conditions against the oracle, and their rules one by one."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.detectors.conditions import Conditions
from analytics.detectors.latch import NEVER_US
from analytics.kernels.segments import in_order
from telemetry.messages import Finding
from tests.analytics.conformance import Item, drive, items
from tests.analytics.naive import NaiveRule
from tests.analytics.plants import T0, S, catalogue
from tests.analytics.streams import Row, readings

CATALOGUE = catalogue("a", "b")
SIGNALS = CATALOGUE.signals
ALL = np.ones(2, np.bool_)
POINTS = ("plain", "delayed", "mode", "guarded", "left", "right")
VALUES = st.sampled_from([0.0, 1.0, 2.0, 3.0, 9.0, 11.0, 13.0, 46.0, 51.0, 85.0, 86.0, 90.0, 91.0, float("nan")])


def naive(stream: list[Item]) -> list[tuple[str, str, str, bool, int, int]]:
    found = []
    for rule in CATALOGUE.rules:
        oracle = NaiveRule(rule)
        for item in stream:
            if isinstance(item, int):
                oracle.latch.pass_time(item)
                continue
            if len(rule.clauses) == 1:
                for r in item:
                    oracle.read(r.time_us, [(r.signal, r.value, r.known)])
                continue
            mine = [r for r in item if any(c.signal == r.signal for c in rule.clauses)]
            for time_us, rows in groupby(sorted(mine, key=lambda r: r.time_us), key=lambda r: r.time_us):
                oracle.read(time_us, [(r.signal, r.value, r.known) for r in rows])
        subject = rule.subject
        found += [(subject.equipment, subject.point, subject.detector, *event) for event in oracle.latch.out]
    return sorted(found)


def told(findings: list[Finding]) -> list[tuple[str, str, str, bool, int, int]]:
    return sorted((f.equipment, f.point, f.detector, f.raised, f.onset_us, f.time_us) for f in findings)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(items([SIGNALS[f"{e}/{p}"] for e in "ab" for p in POINTS], VALUES, 60))
def test_many_samples_in_one_pass_are_handled_as_if_one_at_a_time(stream: list[Item]) -> None:
    assert told(drive(Conditions(CATALOGUE), stream, 2)) == naive(stream)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(items([SIGNALS[f"a/{p}"] for p in POINTS], VALUES, 30), st.data())
def test_signals_whose_clocks_disagree_are_handled_as_if_one_at_a_time(stream: list[Item], data: st.DataObject) -> None:
    skew = {s: data.draw(st.sampled_from([0, -3 * S, 2 * S, 7 * S])) for s in SIGNALS.values()}
    skewed: list[Item] = [
        item if isinstance(item, int) else [Row(r.signal, r.time_us + skew[r.signal], r.value, r.known) for r in item]
        for item in stream
    ]
    assert told(drive(Conditions(CATALOGUE), skewed, 2)) == naive(skewed)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(items([SIGNALS["a/delayed"]], st.sampled_from([95.0, 95.0, 88.0, 80.0, float("nan")]), 40))
def test_one_signal_that_comes_and_goes_through_its_band_is_handled_as_if_one_at_a_time(stream: list[Item]) -> None:
    assert told(drive(Conditions(CATALOGUE), stream, 2)) == naive(stream)


def test_a_pending_alarm_that_falls_back_into_its_band_starts_anew() -> None:
    rows = (("delayed", 0, 95.0), ("delayed", 2, 88.0), ("delayed", 3, 95.0))
    assert brief(drive_points(*rows, beats=(5.0, 7.0))) == [("limit:high", True, 3, 7)]


def drive_points(
    *rows: tuple[str, float, float] | tuple[str, float, float, bool], beats: tuple[float, ...] = ()
) -> list[Finding]:
    """Rows (point, seconds, value[, known]) one record each, then heartbeats."""
    stream: list[Item] = [
        [Row(SIGNALS[f"a/{r[0]}"], T0 + round(r[1] * S), r[2], r[3] if len(r) > 3 else True)] for r in rows
    ]
    return drive(Conditions(CATALOGUE), [*stream, *(T0 + round(b * S) for b in beats)], 2)


def brief(findings: list[Finding]) -> list[tuple[str, bool, float, float]]:
    return [(f.detector, f.raised, (f.onset_us - T0) / S, (f.time_us - T0) / S) for f in findings]


def test_a_value_at_the_limit_is_not_above_it() -> None:
    assert drive_points(("plain", 0, 90.0)) == []
    assert brief(drive_points(("plain", 0, 90.000001))) == [("limit:high", True, 0, 0)]


def test_a_raised_alarm_clears_only_when_the_value_is_back_by_its_hysteresis() -> None:
    rows = (("delayed", 0, 95.0), ("delayed", 5, 86.0), ("delayed", 20, 85.5), ("delayed", 30, 85.0))
    assert brief(drive_points(*rows, beats=(60.0,))) == [("limit:high", True, 0, 4), ("limit:high", False, 0, 36)]


def test_the_band_below_the_limit_does_not_feed_an_on_delay() -> None:
    assert drive_points(("delayed", 0, 95.0), ("delayed", 2, 88.0), ("delayed", 60, 88.0), beats=(90.0,)) == []


def test_a_raise_carries_the_time_at_which_its_delay_was_over_and_the_value_at_its_onset() -> None:
    (finding,) = drive_points(("delayed", 0, 95.0), ("delayed", 3, 99.0), beats=(7.5,))
    assert (finding.onset_us, finding.time_us) == (T0, T0 + 4 * S)
    assert finding.evidence == {"value": 95.0, "limit": 90.0, "condition": "above"}


def test_two_onsets_at_one_time_are_two_findings() -> None:
    found = drive_points(("plain", 0, 95.0), ("plain", 0, 1.0), ("plain", 0, 95.0))
    assert [f.raised for f in found] == [True, False, True]
    assert len({f.id for f in found}) == 2


def test_an_on_delay_ends_by_heartbeats_alone_and_not_before_its_time() -> None:
    assert drive_points(("delayed", 0, 95.0), beats=(1.0, 2.0, 3.9)) == []
    assert brief(drive_points(("delayed", 0, 95.0), beats=(3.9, 4.0, 5.0))) == [("limit:high", True, 0, 4)]


def test_a_bad_reading_neither_raises_nor_clears_and_a_delay_ends_only_at_a_known_one() -> None:
    nan = float("nan")
    assert drive_points(("delayed", 0, 95.0), ("delayed", 1, nan, False), beats=(30.0,)) == []
    late = drive_points(("delayed", 0, 95.0), ("delayed", 1, nan, False), ("delayed", 9, 96.0))
    assert brief(late) == [("limit:high", True, 0, 9)]
    assert drive_points(("delayed", 0, 95.0), ("delayed", 1, nan, False), ("delayed", 9, 50.0), beats=(30.0,)) == []
    standing = drive_points(("plain", 0, 95.0), ("plain", 1, 0.0, False), beats=(99.0,))
    assert brief(standing) == [("limit:high", True, 0, 0)]


def test_an_unless_term_suppresses_and_a_bad_reading_of_it_does_not_lift_that() -> None:
    mode = ("mode", 0.0, 2.0)
    assert [f for f in drive_points(mode, ("guarded", 1, 60.0)) if f.detector == "limit:high"] == []
    spoiled = drive_points(mode, ("guarded", 1, 60.0), ("mode", 2, 0.0, False), beats=(60.0,))
    assert [f for f in spoiled if f.detector == "limit:high"] == []
    lifted = [f for f in drive_points(mode, ("guarded", 1, 60.0), ("mode", 5, 1.0)) if f.point == "guarded"]
    assert brief(lifted) == [("limit:high", True, 5, 5)]


def test_an_unless_point_that_was_never_read_silences_no_alarm() -> None:
    assert brief(drive_points(("guarded", 1, 60.0))) == [("limit:high", True, 1, 1)]


def test_points_that_change_in_one_record_at_one_time_are_one_reading() -> None:
    left, right = SIGNALS["a/left"], SIGNALS["a/right"]
    together: list[Item] = [
        [Row(left, T0, 0.0), Row(right, T0, 0.0)],
        [Row(left, T0 + S, 1.0), Row(right, T0 + S, 1.0)],
    ]
    assert drive(Conditions(CATALOGUE), together, 2) == []
    apart: list[Item] = [[Row(left, T0, 0.0), Row(right, T0, 0.0)], [Row(left, T0 + S, 1.0)], [Row(right, T0 + S, 1.0)]]
    assert [f.detector for f in drive(Conditions(CATALOGUE), apart, 2) if f.raised] == ["condition:at_once"]


def test_a_conditions_delay_ends_by_the_logs_time_and_it_names_every_value() -> None:
    (finding,) = drive_points(("left", 0, 1.0), ("right", 2, 1.0), ("mode", 2, 1.0), beats=(4.9, 5.0))
    assert brief([finding]) == [("condition:both", True, 2, 5)]
    assert finding.evidence["values"] == {"left": 1.0, "right": 1.0, "mode": None}
    assert finding.point == ""


def test_what_was_lost_sight_of_ends_no_delay_until_it_is_read_again() -> None:
    detector = Conditions(CATALOGUE)
    signal = SIGNALS["a/delayed"]
    detector.update(readings([Row(signal, T0, 95.0)]))
    detector.lose(np.array([True, False]))
    assert detector.advance(T0 + 100 * S, ALL) == []
    assert detector.update(readings([Row(signal, T0 + 200 * S, 50.0)])) == []
    assert detector.advance(T0 + 300 * S, ALL) == []


def test_late_readings_raise_and_clear_within_and_touch_no_live_state() -> None:
    detector = Conditions(CATALOGUE)
    before = detector.snapshot()
    signal = SIGNALS["a/delayed"]
    rows = [Row(signal, T0 + i * S, v) for i, v in enumerate([50.0, 95.0, 96.0, 97.0, 96.0, 95.0, 50.0, 50.0])]
    found = detector.update_late(readings(rows[::-1]))
    assert [(f.raised, (f.onset_us - T0) / S, (f.time_us - T0) / S, f.late) for f in found] == [
        (True, 1, 5, True),
        (False, 1, 7, True),
    ]
    for name, column in detector.snapshot().items():
        np.testing.assert_array_equal(column, before[name])


def test_an_excursion_shorter_than_its_delay_is_not_raised_late() -> None:
    signal = SIGNALS["a/delayed"]
    rows = [Row(signal, T0 + i * S, v) for i, v in enumerate([50.0, 95.0, 50.0, 50.0])]
    assert Conditions(CATALOGUE).update_late(readings(rows)) == []


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=40))
def test_a_row_is_late_exactly_when_it_is_behind_the_newest_of_its_signal(rows: list[tuple[int, int]]) -> None:
    newest = [3, 5, NEVER_US, 0]
    expected = []
    for signal, time in rows:
        expected.append(time >= newest[signal])
        newest[signal] = max(newest[signal], time)
    last = np.array([3, 5, NEVER_US, 0], np.int64)
    signals, times = np.array([r[0] for r in rows], np.intp), np.array([r[1] for r in rows], np.int64)
    live, newest_us, signal_ = in_order(last, signals, times)
    last[signal_] = newest_us
    assert live.tolist() == expected
    assert last.tolist() == newest
