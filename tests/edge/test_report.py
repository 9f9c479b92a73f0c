"""Report by exception: against its oracle, its bounds, and each rule of what is reported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.columns import Columns
from edge.report import Policy, Reporter, Thinned
from telemetry.quality import BAD_COMMS, BAD_SENSOR, GOOD, UNCERTAIN_OUT_OF_RANGE
from tests.edge.naive_report import NaiveReporter
from tests.edge.readings import Reading, Row, block_of, by_signal, columns_of, rows_of

NAN = math.nan
S = 1_000_000
T0 = 1_795_000_000 * S

POLICIES = (
    Policy(deadband=1.0, heartbeat_s=20.0),
    Policy(deadband_percent=5.0, heartbeat_s=30.0),
    Policy(swinging_door=1.0, heartbeat_s=20.0),
    Policy(swinging_door=0.3, heartbeat_s=math.inf),
)
BOILER = block_of("boiler", "band", "free", "percent")
LIFT = block_of("lift", "door", "narrow")
PLAIN = block_of("plain", "a", "b")
POLICY_OF = {
    "boiler/band": POLICIES[0],
    "boiler/percent": POLICIES[1],
    "lift/door": POLICIES[2],
    "lift/narrow": POLICIES[3],
}


def reporter() -> Reporter:
    made = Reporter()
    for block in (BOILER, LIFT):
        made.add(block, [POLICY_OF.get(name) for name in block.names])
    return made


PLACES = [(block, place) for block in (BOILER, LIFT, PLAIN) for place in range(len(block.names))]
VALUES = st.one_of(
    st.integers(-8, 8).map(lambda i: i / 4),
    st.floats(-1e6, 1e6),
    st.sampled_from([NAN, 0.0, -0.0, 1e300, math.inf, -math.inf]),
)
STEPS = st.tuples(
    st.sampled_from(PLACES),
    st.sampled_from([1, S, S, S, 2 * S, 5 * S, 19 * S, 25 * S, 0, -S, -3 * S, -21 * S]),
    VALUES,
    st.sampled_from([GOOD, GOOD, GOOD, GOOD, UNCERTAIN_OUT_OF_RANGE, BAD_COMMS]),
)


def rows_from(steps: Sequence[tuple[tuple[object, int], int, float, int]]) -> list[Row]:
    """Each signal has a clock of its own, which its steps move on, and back."""
    clock: dict[tuple[int, int], int] = {}
    rows: list[Row] = []
    for (block, place), step_us, value, quality in steps:
        assert block is BOILER or block is LIFT or block is PLAIN
        at = (id(block), place)
        clock[at] = clock.get(at, T0) + step_us
        rows.append((block, place, clock[at], value, quality))
    return rows


def cut(rows: list[Row], cuts: Sequence[int]) -> list[Columns]:
    ends = sorted({0, len(rows), *(c % (len(rows) + 1) for c in cuts)})
    return [columns_of(rows[a:b]) for a, b in pairwise(ends)]


def same(readings: list[Reading]) -> list[tuple[int, str, int]]:
    """Readings that can be compared, NaN and −0.0 too."""
    return [(time_us, repr(value), quality) for time_us, value, quality in readings]


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=80), st.lists(st.integers(0, 10**6), max_size=20))
def test_however_readings_are_cut_into_commits_each_reports_what_the_oracles_do(
    steps: list[tuple[tuple[object, int], int, float, int]], cuts: list[int]
) -> None:
    stage = reporter()
    oracles = {signal: NaiveReporter(policy) for signal, policy in POLICY_OF.items()}
    for commit in cut(rows_from(steps), cuts):
        expected: dict[str, list[Reading]] = {}
        for signal, reading in rows_of(commit):
            told = oracles[signal].read(reading) if signal in oracles else [reading]
            expected.setdefault(signal, []).extend(told)
        reported = by_signal([stage.thin(commit)])
        for signal, readings in expected.items():
            assert same(reported.pop(signal, [])) == same(readings)
        assert not reported
    held = by_signal([stage.flush()])
    assert {s: same(h) for s, h in held.items()} == {s: same(h) for s, o in oracles.items() if (h := o.flush())}


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=60), st.lists(st.integers(0, 10**6), max_size=8))
def test_read_is_reported_and_suppressed_and_held(
    steps: list[tuple[tuple[object, int], int, float, int]], cuts: list[int]
) -> None:
    rows = rows_from(steps)
    watched = [row for row in rows if row[0].names[row[1]] in POLICY_OF]
    stage = reporter()
    out = sum(len(stage.thin(commit)) for commit in cut(rows, cuts)) - (len(rows) - len(watched))
    counts = stage.counts
    assert (counts.read, counts.reported) == (len(watched), out)
    assert len(stage.flush()) == counts.held
    assert stage.counts == Thinned(len(watched), out + counts.held, 0)
    assert stage.counts.suppressed == counts.suppressed >= 0


# ---- the bounds

NOISE = st.lists(
    st.tuples(
        st.sampled_from([1, 1000, 99_999, S, S, 7 * S]),
        st.one_of(
            st.integers(-3, 3).map(lambda i: i / 10),
            st.integers(-12, 12).map(lambda i: i / 8),
            st.floats(-30, 30),
            st.floats(1e9, 1.0000001e9),
        ),
    ),
    min_size=1,
    max_size=60,
)


def one(policy: Policy, readings: Sequence[Reading]) -> list[Reading]:
    """What is reported of one signal, each reading a commit."""
    block, stage = block_of("e", "p"), Reporter()
    stage.add(block, [policy])
    commits = [stage.thin(columns_of([(block, 0, *reading)])) for reading in readings]
    return by_signal([*commits, stage.flush()]).get("e/p", [])


def advancing(noise: Sequence[tuple[int, float]]) -> list[Reading]:
    times = np.cumsum([step_us for step_us, _ in noise]).tolist()
    return [(T0 + t, value, GOOD) for t, (_, value) in zip(times, noise, strict=True)]


@settings(max_examples=200)
@given(NOISE, st.sampled_from([Policy(deadband=0.3), Policy(deadband=5.0), Policy(deadband_percent=10.0)]))
def test_the_last_reported_value_is_never_off_by_more_than_the_deadband(
    noise: list[tuple[int, float]], policy: Policy
) -> None:
    readings = advancing(noise)
    reported = dict((time_us, value) for time_us, value, _ in one(policy, readings))
    last = NAN
    for time_us, value, _ in readings:
        last = reported.get(time_us, last)
        band = policy.deadband if policy.deadband_percent is None else policy.deadband_percent * abs(last) / 100
        assert band is not None
        assert abs(value - last) <= band


GRID = st.lists(
    st.tuples(st.sampled_from([S, 2 * S]), st.integers(-3, 3).map(lambda i: i * 0.1)), min_size=4, max_size=30
)
"""On which a door's edges and slopes are often equal but for rounding."""


@settings(max_examples=300)
@given(
    st.one_of(NOISE, GRID), st.sampled_from([0.1, 0.3, 1.0, 5.0, 1e-7, 1e5]), st.sampled_from([600.0, 8.0, math.inf])
)
def test_the_line_between_reported_readings_is_never_off_by_more_than_the_deviation_in_exact_arithmetic(
    noise: list[tuple[int, float]], deviation: float, heartbeat_s: float
) -> None:
    readings = advancing(noise)
    reported = one(Policy(swinging_door=deviation, heartbeat_s=heartbeat_s), readings)
    assert reported[0] == readings[0]
    assert reported[-1] == readings[-1]
    assert set(reported) <= set(readings)
    for left, right in pairwise(reported):
        for reading in readings:
            if left[0] < reading[0] < right[0]:
                assert miss(left, right, reading) <= Fraction(deviation)


@settings(max_examples=200)
@given(NOISE, st.sampled_from([0.3, 1.0, 5.0]))
def test_the_door_reports_no_reading_that_a_longer_line_could_have_spared(
    noise: list[tuple[int, float]], deviation: float
) -> None:
    readings = advancing(noise)
    reported = one(Policy(swinging_door=deviation, heartbeat_s=math.inf), readings)
    for left, right in pairwise(reported[:-1]):
        longer = readings[readings.index(right) + 1]
        between = [r for r in readings if left[0] < r[0] < longer[0]]
        rounding = Fraction(1, 2**45) * (Fraction(deviation) + max(abs(Fraction(r[1] - left[1])) for r in between))
        assert max(miss(left, longer, r) for r in between) > Fraction(deviation) - rounding


def miss(left: Reading, right: Reading, reading: Reading) -> Fraction:
    """How far the line passes from a reading, exactly."""
    slope = (Fraction(right[1]) - Fraction(left[1])) / (right[0] - left[0])
    return abs(Fraction(left[1]) + slope * (reading[0] - left[0]) - Fraction(reading[1]))


# ---- the rules, one by one

BAND = Policy(deadband=1.0, heartbeat_s=60.0)
PERCENT = Policy(deadband_percent=10.0, heartbeat_s=60.0)
DOOR = Policy(swinging_door=1.0, heartbeat_s=60.0)


def at_seconds(policy: Policy, *readings: tuple[float, ...]) -> list[float]:
    """The seconds of the reported ones of (second, value, quality = good)."""
    reported = one(policy, [(T0 + round(r[0] * S), r[1], int(r[2]) if len(r) > 2 else GOOD) for r in readings])
    return [(time_us - T0) / S for time_us, _, _ in reported]


def test_a_deadband_compares_with_the_last_reported_value_so_a_slow_drift_cannot_creep_away() -> None:
    drift = [(i, 0.4 * i) for i in range(10)]
    assert at_seconds(BAND, *drift) == [0, 3, 6, 9]


def test_a_difference_of_just_the_deadband_is_suppressed_and_more_is_reported() -> None:
    assert at_seconds(BAND, (0, 5.0), (1, 6.0), (2, 4.0), (3, math.nextafter(6.0, 7.0))) == [0, 3]


def test_a_percentage_is_of_the_magnitude_of_the_last_reported_value() -> None:
    assert at_seconds(PERCENT, (0, 100.0), (1, 109.0), (2, 111.0), (3, 100.0), (4, 99.8)) == [0, 2, 4]
    assert at_seconds(PERCENT, (0, -100.0), (1, -109.0), (2, -111.0)) == [0, 2]


def test_after_a_reported_zero_every_change_is_reported_by_percentage() -> None:
    assert at_seconds(PERCENT, (0, 0.0), (1, 0.0), (2, 1e-9), (3, 0.0), (4, 0.0)) == [0, 2, 3]


@pytest.mark.parametrize("policy", [BAND, PERCENT, DOOR])
def test_a_constant_value_is_reported_once_a_heartbeat_by_sample_time(policy: Policy) -> None:
    assert at_seconds(policy, *((i * 10, 7.0) for i in range(13))) == [0, 60, 120]


@pytest.mark.parametrize("policy", [BAND, PERCENT, DOOR])
def test_every_change_of_the_quality_byte_is_reported_and_a_bad_spell_when_it_begins_and_ends(policy: Policy) -> None:
    spell = [(0, 7.0), (10, 7.0), (11, NAN, BAD_COMMS), (12, NAN, BAD_COMMS), (13, NAN, BAD_SENSOR), (14, 7.0)]
    expected = [0, 11, 13, 14] if policy is not DOOR else [0, 10, 11, 13, 14]
    assert at_seconds(policy, *spell) == expected
    assert at_seconds(policy, (0, 7.0), (1, 7.0, UNCERTAIN_OUT_OF_RANGE), (2, 7.0)) == [0, 1, 2]


@pytest.mark.parametrize("policy", [BAND, PERCENT, DOOR])
def test_a_bad_spell_is_reported_once_a_heartbeat_too(policy: Policy) -> None:
    assert at_seconds(policy, *((i * 10, NAN, BAD_COMMS) for i in range(13))) == [0, 60, 120]


@pytest.mark.parametrize("policy", [BAND, PERCENT, DOOR])
def test_a_value_that_comes_or_goes_without_a_change_of_quality_is_reported(policy: Policy) -> None:
    assert at_seconds(policy, (0, 7.0), (1, NAN), (2, NAN), (3, 7.0)) == [0, 1, 3]
    held = [(0, 7.0), (1, 7.0), (2, 7.0), (3, NAN), (4, NAN), (5, 7.0)]
    assert at_seconds(policy, *held) == ([0, 2, 3, 5] if policy is DOOR else [0, 3, 5])


@pytest.mark.parametrize("policy", [BAND, PERCENT, DOOR])
def test_infinite_values_are_all_reported(policy: Policy) -> None:
    up = [(0, 1.0), (1, math.inf), (2, -math.inf), (3, math.inf), (4, math.inf), (5, 1.0)]
    assert at_seconds(policy, *up) == [0, 1, 2, 3, 4, 5]


def test_the_first_reading_after_a_gap_is_reported_and_with_a_swinging_door_the_last_before_it() -> None:
    gap = [(0, 7.0), (10, 7.0), (20, 7.0), (80, 7.0), (81, 7.0)]
    assert at_seconds(BAND, *gap) == [0, 80]
    assert at_seconds(DOOR, *gap) == [0, 20, 80, 81]


@pytest.mark.parametrize("policy", [BAND, DOOR])
def test_a_late_reading_and_the_next_that_is_not_are_reported(policy: Policy) -> None:
    late = [(0, 7.0), (5, 7.0), (3, 7.0), (4, 7.0), (5, 7.0), (6, 7.0), (7, 7.0), (8, 7.0), (9, NAN, BAD_COMMS)]
    expected = [0, 3, 4, 5, 6, 9] if policy is BAND else [0, 5, 3, 4, 5, 6, 8, 9]
    assert at_seconds(policy, *late) == expected


@pytest.mark.parametrize("policy", [BAND, DOOR])
def test_a_second_reading_of_one_time_is_late(policy: Policy) -> None:
    twice = [(0, 7.0), (1, 7.0), (2, 7.0), (2, 7.0), (3, 7.0), (4, 7.0), (5, 7.0)]
    assert at_seconds(policy, *twice) == ([0, 2, 3] if policy is BAND else [0, 2, 2, 3, 5])


@pytest.mark.parametrize("policy", [BAND, DOOR])
def test_a_clock_set_back_by_a_heartbeat_or_more_is_followed(policy: Policy) -> None:
    back = [(100, 7.0), (101, 7.0), (41, 7.0), (42, 7.0), (43, 7.0), (44, NAN, BAD_COMMS)]
    assert at_seconds(policy, *back) == ([100, 41, 44] if policy is BAND else [100, 101, 41, 43, 44])


def test_a_ramp_is_reported_by_its_ends_and_its_corner() -> None:
    ramp = [(i, 3.0 * i) for i in range(20)] + [(20 + i, 60.0 - 5.0 * i) for i in range(20)]
    assert at_seconds(DOOR, *ramp) == [0, 20, 39]


@pytest.mark.parametrize("sign", [1, -1])
def test_each_reading_between_narrows_the_door_on_either_side(sign: int) -> None:
    """The one at 1 s bears slopes up to 0.3 only, whatever the one at 2 s would bear: 0.4 at 3 s is beyond it."""
    steps = [(0.0, 0.0), (1.0, -0.7), (2.0, 0.0), (3.0, 1.2), (4.0, 1.2)]
    assert at_seconds(DOOR, *((at, sign * value) for at, value in steps))[:2] == [0.0, 2.0]


def test_a_line_may_miss_a_reading_by_all_but_a_billionth_of_the_deviation() -> None:
    assert at_seconds(DOOR, (0, 0.0), (1, 0.0), (2, 2.0 - 1e-9)) == [0, 2]
    assert at_seconds(DOOR, (0, 0.0), (1, 0.0), (2, 2.0 + 1e-9)) == [0, 1, 2]


def test_a_line_that_misses_by_less_than_a_rounding_more_than_the_deviation_is_too_long() -> None:
    tenth = Policy(swinging_door=0.1)
    assert Fraction(0.30000000000000004) / 3 > Fraction(0.1)
    assert 0.30000000000000004 / 3e6 <= 0.1 / 1e6
    assert at_seconds(tenth, (0, 0.0), (1, 0.0), (3, 0.30000000000000004)) == [0, 1, 3]


def test_a_held_reading_goes_out_with_its_own_time_and_quality_right_before_the_row_that_lets_it_go() -> None:
    stage = reporter()
    door, narrow = (LIFT, 0), (LIFT, 1)
    stage.thin(columns_of([(*door, T0, 0.0, GOOD), (*narrow, T0, 0.0, GOOD)]))
    assert len(stage.thin(columns_of([(*door, T0 + S, 0.5, GOOD), (*narrow, T0 + S, 0.1, GOOD)]))) == 0
    out = stage.thin(
        columns_of(
            [
                (PLAIN, 0, T0 + 2 * S, 1.0, GOOD),
                (*narrow, T0 + 2 * S, 0.2, GOOD),
                (*door, T0 + 2 * S, NAN, BAD_COMMS),
                (PLAIN, 1, T0 + 2 * S, 1.0, GOOD),
            ]
        )
    )
    assert [(signal, (r[0] - T0) // S, repr(r[1]), r[2]) for signal, r in rows_of(out)] == [
        ("plain/a", 2, "1.0", GOOD),
        ("lift/door", 1, "0.5", GOOD),
        ("lift/door", 2, "nan", BAD_COMMS),
        ("plain/b", 2, "1.0", GOOD),
    ]
    assert out.equipment == ["plain", "lift", "plain"]


def test_a_point_without_a_door_holds_nothing_however_many_others_do() -> None:
    """The place of a point that has none is −1, which is also that of the last of all."""
    for others in (1, 63, 64, 65, 128):
        block, stage = block_of("e", *(f"p{n}" for n in range(others)), "free"), Reporter()
        stage.add(block, [DOOR] * others + [None])
        for second in (0, 1):
            stage.thin(columns_of([(block, n, T0 + second * S, 0.0, GOOD) for n in range(others + 1)]))
        assert stage.holds(block).at.tolist() == [*range(others)]


def test_a_held_reading_may_take_the_place_of_the_one_that_is_held_from_now_on() -> None:
    block, stage = block_of("e", "p"), Reporter()
    stage.add(block, [DOOR])
    stage.thin(columns_of([(block, 0, T0, 0.0, GOOD), (block, 0, T0 + S, 0.0, GOOD)]))
    assert rows_of(stage.thin(columns_of([(block, 0, T0 + 2 * S, 50.0, GOOD)]))) == [("e/p", (T0 + S, 0.0, GOOD))]
    assert stage.counts == Thinned(read=3, reported=2, held=1)


# ---- blocks, and what costs nothing


def test_readings_without_a_policy_are_not_even_copied() -> None:
    commit = columns_of([(PLAIN, 0, T0, 1.0, GOOD), (BOILER, 1, T0, 1.0, GOOD)])
    assert reporter().thin(commit) is commit
    assert Reporter().thin(commit) is commit


def test_a_commit_of_which_all_is_reported_is_not_copied() -> None:
    commit = columns_of([(BOILER, 0, T0, 1.0, GOOD), (LIFT, 0, T0, 1.0, GOOD)])
    assert reporter().thin(commit) is commit


def test_what_went_in_is_not_changed() -> None:
    stage = reporter()
    rows: list[Row] = [(block, place, T0 + i * S, 7.0, GOOD) for i in range(3) for block, place in PLACES]
    commit = columns_of(rows)
    for column in (commit.place, commit.time_us, commit.value, commit.quality, commit.counts):
        column.flags.writeable = False
    assert 0 < len(stage.thin(commit)) < len(rows)


def test_flush_reports_what_is_held_up_to_a_time_and_the_line_goes_on_from_there() -> None:
    stage = reporter()
    stage.thin(columns_of([(LIFT, place, T0, 0.0, GOOD) for place in (0, 1)]))
    stage.thin(columns_of([(LIFT, place, T0 + (place + 1) * S, 0.0, GOOD) for place in (0, 1)]))
    assert len(stage.flush(until_us=T0 + S - 1)) == 0
    assert rows_of(stage.flush(until_us=T0 + S)) == [("lift/door", (T0 + S, 0.0, GOOD))]
    assert rows_of(stage.flush()) == [("lift/narrow", (T0 + 2 * S, 0.0, GOOD))]
    assert len(stage.flush()) == 0
    assert len(stage.thin(columns_of([(LIFT, 0, T0 + 3 * S, 40.0, GOOD)]))) == 0  # A new line: any slope will do.
    assert stage.counts.held == 1


def test_a_signal_goes_on_in_a_block_made_anew_and_begins_anew_under_another_policy() -> None:
    old, new, other = block_of("e", "p"), block_of("e", "q", "p"), block_of("e", "p")
    stage = Reporter()
    stage.add(old, [DOOR])
    stage.thin(columns_of([(old, 0, T0, 0.0, GOOD), (old, 0, T0 + S, 0.0, GOOD)]))
    stage.add(new, [BAND, DOOR])
    assert rows_of(stage.forget(old)) == [("e/p", (T0 + S, 0.0, GOOD))]
    assert len(stage.thin(columns_of([(new, 1, T0 + 2 * S, 0.0, GOOD)]))) == 0
    stage.add(other, [BAND])
    assert rows_of(stage.forget(new)) == [("e/p", (T0 + 2 * S, 0.0, GOOD))]
    assert len(stage.thin(columns_of([(other, 0, T0 + 3 * S, 0.0, GOOD)]))) == 1


@pytest.mark.parametrize("policy", [BAND, DOOR])
def test_a_policy_that_changes_begins_anew_while_the_old_one_still_holds(policy: Policy) -> None:
    old, new, stage = block_of("e", "p"), block_of("e", "p"), Reporter()
    stage.add(old, [policy])
    stage.thin(columns_of([(old, 0, T0, 0.0, GOOD), (old, 0, T0 + S, 0.0, GOOD)]))
    stage.add(new, [replace(policy, heartbeat_s=30.0)])
    assert rows_of(stage.forget(old)) == ([("e/p", (T0 + S, 0.0, GOOD))] if policy is DOOR else [])
    assert len(stage.thin(columns_of([(new, 0, T0 + 2 * S, 0.0, GOOD)]))) == 1


def test_what_no_block_has_any_more_is_forgotten_and_its_place_taken_by_others() -> None:
    stage = Reporter()
    for i in range(50):
        block = block_of(f"e{i}", "p", "free", "q")
        stage.add(block, [BAND, None, DOOR])
        assert len(stage.thin(columns_of([(block, place, T0, 7.0, GOOD) for place in (0, 2)]))) == 2
        held = [(block, place, T0 + S, 7.0, GOOD) for place in (0, 2)]
        assert len(stage.thin(columns_of(held))) == 0
        assert rows_of(stage.forget(block)) == [(f"e{i}/q", (T0 + S, 7.0, GOOD))]
        assert len(stage.thin(columns_of(held))) == 2
        assert len(stage.forget(block)) == 0
    assert stage.counts.held == 0
    assert (stage._band_slots.capacity, stage._door_slots.capacity) == (1, 1)


def test_many_blocks_added_one_by_one_keep_what_their_signals_said() -> None:
    stage = Reporter()
    blocks = [block_of(f"e{i}", "p", "q") for i in range(200)]
    for i, block in enumerate(blocks):
        stage.add(block, [BAND, DOOR])
        stage.thin(columns_of([(block, place, T0, float(i), GOOD) for place in (0, 1)]))
    near = columns_of([(block, place, T0 + S, i + 0.5, GOOD) for i, block in enumerate(blocks) for place in (0, 1)])
    far = columns_of([(block, 0, T0 + 2 * S, i + 1.5, GOOD) for i, block in enumerate(blocks)])
    assert len(stage.thin(near)) == 0
    assert len(stage.thin(far)) == 200


def test_a_block_is_registered_once_with_a_policy_for_each_name() -> None:
    stage, block = Reporter(), block_of("e", "p", "q")
    with pytest.raises(ValueError, match="shorter"):
        stage.add(block, [BAND])
    stage.add(block, [BAND, DOOR])
    with pytest.raises(ValueError, match="expected it once"):
        stage.add(block, [BAND, DOOR])


@pytest.mark.parametrize(
    "wrong",
    [{}, {"deadband": 1.0, "swinging_door": 1.0}, {"deadband": 0.0}, {"swinging_door": math.inf},
     {"deadband_percent": NAN}, {"deadband": 1.0, "heartbeat_s": 0.0}, {"deadband": 1.0, "heartbeat_s": NAN}],
)  # fmt: skip
def test_a_policy_is_of_exactly_one_way_and_of_numbers_above_zero(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected one way"):
        Policy(**wrong)
