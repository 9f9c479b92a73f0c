"""Counters that wrap: against their oracle, over restarts, and each rule."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.columns import Columns
from edge.counters import Counted, Counters, Wrapping
from edge.decode import make_layout
from edge.plan import Limits, plan
from telemetry.messages import Event
from telemetry.name_block import NameBlock
from telemetry.quality import BAD_COMMS, GOOD, UNCERTAIN_OUT_OF_RANGE, UNCERTAIN_STALE
from tests.edge.naive_counters import NaiveCounter
from tests.edge.profiles import make_profile
from tests.edge.readings import Row, block_of, by_signal, columns_of, rows_of

NAN = math.nan
S = 1_000_000
T0 = 1_795_000_000 * S

RULES = {
    "lift/runs": Wrapping(100, 25),
    "lift/energy": Wrapping(65536, 16384, scale=0.1, offset=2.5),
    "boiler/water": Wrapping(1000, 999, scale=0.001, low=0.0, high=2.0),
}
LIFT = block_of("lift", "runs", "door", "energy")
BOILER = block_of("boiler", "water")
PLAIN = block_of("plain", "a")
PLACES = [(block, place) for block in (LIFT, BOILER, PLAIN) for place in range(len(block.names))]
COUNTS = st.one_of(st.integers(0, 110), st.integers(900, 1010), st.integers(0, 70_000), st.integers(-5, 5))
READINGS = st.tuples(
    st.sampled_from(PLACES),
    st.one_of(COUNTS.map(float), st.just(NAN)),
    st.sampled_from([GOOD, GOOD, GOOD, GOOD, UNCERTAIN_STALE, BAD_COMMS]),
)


def counters(state: dict[str, str] | None = None) -> Counters:
    made = Counters(state or {})
    for block in (LIFT, BOILER):
        made.add(block, [RULES.get(name) for name in block.names])
    return made


def forgotten(block: NameBlock, count: float) -> Counters:
    """A stage that counted so far by a rule of its own, and whose block was taken away since."""
    stage = Counters({})
    stage.add(block, [Wrapping(65536, 16384)])
    stage.count(columns_of([(block, 0, T0, count, GOOD)]))
    stage.forget(block)
    return stage


def rows_from(readings: Sequence[tuple[tuple[object, int], float, int]]) -> list[Row]:
    rows: list[Row] = []
    for n, ((block, place), value, quality) in enumerate(readings):
        assert block is LIFT or block is BOILER or block is PLAIN
        rows.append((block, place, T0 + n * S, value, quality))
    return rows


def run(rows: list[Row], cuts: Sequence[int], *, restart: bool) -> tuple[list[Counted], dict[str, str]]:
    """Each commit's outcome, and the state as the spool has it; with a restart between any two commits if so."""
    ends = sorted({0, len(rows), *(c % (len(rows) + 1) for c in cuts)})
    stage, state, found = counters(), dict[str, str](), []
    for a, b in pairwise(ends):
        found.append(stage.count(columns_of(rows[a:b])))
        state.update(found[-1].state)
        stage = counters(state) if restart else stage
    return found, state


@settings(max_examples=300)
@given(st.lists(READINGS, max_size=60), st.lists(st.integers(0, 10**6), max_size=15), st.booleans())
def test_however_readings_are_cut_and_restarts_fall_totals_and_events_are_the_oracles(
    readings: list[tuple[tuple[object, int], float, int]], cuts: list[int], restart: bool
) -> None:
    rows = rows_from(readings)
    found, _ = run(rows, cuts, restart=restart)
    oracles = {signal: NaiveCounter(rule) for signal, rule in RULES.items()}
    expected, resets = [], []
    for signal, (time_us, value, quality) in rows_of(columns_of(rows)):
        reset = None
        if signal in oracles:
            value, quality, reset = oracles[signal].read(value, quality)
        expected.append((signal, time_us, repr(value), quality))
        if reset is not None:
            equipment, point = signal.split("/")
            attributes = {"point": point, "before": reset[0], "after": reset[1]}
            resets.append(Event(equipment, time_us, "vigil", "counter-reset", True, attributes))
    got = [(s, t, repr(v), q) for counted in found for s, (t, v, q) in rows_of(counted.columns)]
    assert got == expected
    events = [event for counted in found for event in counted.events]
    assert sorted(events, key=lambda e: e.time_us) == resets


@settings(max_examples=200)
@given(st.lists(st.one_of(st.integers(0, 99), st.just(99), st.just(0)), max_size=60))
def test_whatever_is_counted_a_total_never_goes_back(counts: list[int]) -> None:
    rows: list[Row] = [(LIFT, 0, T0 + n * S, float(count), GOOD) for n, count in enumerate(counts)]
    found, _ = run(rows, range(len(rows)), restart=True)
    values = [value for counted in found for _, (_, value, _) in rows_of(counted.columns)]
    assert len(values) == len(counts)
    assert values == sorted(values)


@settings(max_examples=200)
@given(st.integers(0, 99), st.lists(st.integers(0, 25), max_size=60), st.integers(1, 5))
def test_while_steps_are_plausible_the_total_is_what_the_device_would_show_if_it_did_not_wrap(
    first: int, steps: list[int], each: int
) -> None:
    truth = list(accumulate(steps, initial=first))
    rows: list[Row] = [(LIFT, 0, T0 + n * S, float(count % 100), GOOD) for n, count in enumerate(truth)]
    found, _ = run(rows, range(0, len(rows), each), restart=True)
    assert [value for counted in found for _, (_, value, _) in rows_of(counted.columns)] == truth
    assert not any(counted.events for counted in found)


def totals(rule: Wrapping, *counts: float) -> list[float]:
    return [value for value, _ in judged(rule, *((count, GOOD) for count in counts))]


def judged(rule: Wrapping, *readings: tuple[float, int]) -> list[tuple[float, int]]:
    block, stage = block_of("e", "p"), Counters({})
    stage.add(block, [rule])
    commits = [stage.count(columns_of([(block, 0, T0, *reading)])).columns for reading in readings]
    return [(value, quality) for _, value, quality in by_signal(commits)["e/p"]]


def test_the_first_count_is_the_total_and_a_wrap_goes_on_counting() -> None:
    assert totals(Wrapping(65536, 16384), 65000, 65535, 0, 1, 70, 70) == [65000, 65535, 65536, 65537, 65606, 65606]


def test_a_step_of_max_step_past_the_end_is_a_wrap_and_one_more_is_a_reset() -> None:
    assert totals(Wrapping(100, 25), 90, 15) == [90, 115]
    assert totals(Wrapping(100, 25), 90, 16) == [90, 106]


def test_after_a_reset_the_total_goes_on_from_where_it_was_and_an_event_says_so() -> None:
    stage = counters()
    stage.count(columns_of([(LIFT, 0, T0, 60.0, GOOD)]))
    counted = stage.count(columns_of([(PLAIN, 0, T0 + S, 5.0, GOOD), (LIFT, 0, T0 + S, 3.0, GOOD)]))
    assert rows_of(counted.columns) == [("plain/a", (T0 + S, 5.0, GOOD)), ("lift/runs", (T0 + S, 63.0, GOOD))]
    assert counted.events == [
        Event("lift", T0 + S, "vigil", "counter-reset", True, {"point": "runs", "before": 60, "after": 3})
    ]


def test_a_large_increase_is_what_was_counted() -> None:
    assert totals(Wrapping(100, 25), 1, 99) == [1, 99]


def test_bad_readings_and_such_without_a_value_change_nothing() -> None:
    rule = Wrapping(100, 25)
    got = judged(rule, (90, GOOD), (3, BAD_COMMS), (NAN, BAD_COMMS), (NAN, GOOD), (95, GOOD))
    assert [repr(value) for value, _ in got] == ["90.0", "3.0", "nan", "nan", "95.0"]
    assert [quality for _, quality in got] == [GOOD, BAD_COMMS, BAD_COMMS, GOOD, GOOD]


def test_a_count_that_the_profile_says_cannot_be_is_uncertain_and_changes_nothing() -> None:
    got = judged(Wrapping(100, 25), (90, GOOD), (100, GOOD), (-1, GOOD), (91, GOOD))
    assert got == [(90, GOOD), (100, UNCERTAIN_OUT_OF_RANGE), (-1, UNCERTAIN_OUT_OF_RANGE), (91, GOOD)]


def test_a_total_beyond_the_range_of_the_point_is_uncertain_and_counts() -> None:
    rule = Wrapping(100, 25, scale=0.1, high=10.0)
    assert judged(rule, (99, GOOD), (0, GOOD), (1, GOOD)) == [
        (9.9, GOOD),
        (10.0, GOOD),
        (10.1, UNCERTAIN_OUT_OF_RANGE),
    ]


def test_scale_and_offset_apply_to_the_total_and_round_once() -> None:
    assert totals(Wrapping(10, 9, scale=0.1, offset=0.2), 1, 9, 1) == [0.3, 1.1, 1.3]


def test_totals_are_exact_up_to_2_to_the_53() -> None:
    base = 2**53 - 70_000
    state = {"counter/e": json.dumps({"p": [65535, base]})}
    block, stage = block_of("e", "p"), Counters(state)
    stage.add(block, [Wrapping(65536, 16384)])
    columns = stage.count(columns_of([(block, 0, T0, 4463.0, GOOD)])).columns
    assert int(columns.value[0]) == base + 65536 + 4463 == 2**53 - 1


def test_registers_of_a_counter_come_raw_also_bits_of_one_so_that_the_total_is_scaled_and_judged_once() -> None:
    place = {"address": 0, "scale": 0.5, "wrap": 16}
    profile = make_profile(
        {
            "whole": {"kind": "counter", "range": {"high": 10.0}, "modbus": place},
            "bits": {"kind": "counter", "modbus": {**place, "bit": 4, "bits": 4}},
        }
    )
    registers = {name: point.modbus for name, point in profile.points.items() if point.modbus is not None}
    layout = make_layout(profile, registers, plan(registers, Limits()))
    rows = np.array([[0x00, 0x0F], [0x00, 0xF1]], np.uint8)
    values, quality = layout.values(rows)
    assert [dict(zip(layout.points, row, strict=True)) for row in values.tolist()] == [
        {"whole": 15.0, "bits": 0.0},
        {"whole": 241.0, "bits": 15.0},
    ]
    assert (quality == GOOD).all()


# ---- state


def test_state_is_given_out_for_the_equipments_of_which_a_counter_moved_with_all_of_their_counters() -> None:
    stage = counters()
    first = stage.count(columns_of([(LIFT, 0, T0, 99.0, GOOD), (LIFT, 2, T0, 5.0, GOOD), (BOILER, 0, T0, 7.0, GOOD)]))
    assert {key: json.loads(text) for key, text in first.state.items()} == {
        "counter/lift": {"runs": [99, 0], "energy": [5, 0]},
        "counter/boiler": {"water": [7, 0]},
    }
    second = stage.count(columns_of([(LIFT, 0, T0 + S, 1.0, GOOD), (BOILER, 0, T0 + S, 7.0, GOOD)]))
    assert {key: json.loads(text) for key, text in second.state.items()} == {
        "counter/lift": {"runs": [1, 100], "energy": [5, 0]}
    }
    assert stage.count(columns_of([(LIFT, 0, T0 + 2 * S, 1.0, GOOD)])).state == {}


def test_state_of_points_that_are_not_read_any_more_is_kept() -> None:
    state = {"counter/lift": json.dumps({"gone": [5, 300], "runs": [90, 200]}), "code/lift/x/y": "no JSON"}
    found = counters(state).count(columns_of([(LIFT, 0, T0, 3.0, GOOD)]))
    assert rows_of(found.columns) == [("lift/runs", (T0, 303.0, GOOD))]
    assert json.loads(found.state["counter/lift"]) == {"gone": [5, 300], "runs": [3, 300]}


def test_a_counter_goes_on_in_a_block_made_anew_and_by_a_changed_rule() -> None:
    old, new = block_of("e", "p"), block_of("e", "q", "p")
    stage = forgotten(old, 60_000.0)
    before = columns_of([(old, 0, T0, 5.0, GOOD)])
    assert stage.count(before).columns is before
    stage.add(new, [None, Wrapping(10_000, 5_000, scale=2.0)])
    found = stage.count(columns_of([(new, 1, T0, 50.0, GOOD)]))
    assert rows_of(found.columns) == [("e/p", (T0, 120_100.0, GOOD))]  # 60,000 is no count of the new rule: a reset.
    assert len(found.events) == 1


def test_a_last_count_that_a_changed_rule_does_not_know_is_no_wrap() -> None:
    """10,000 is no count of 0 … 9,999, however near its end: nobody knows what was counted since."""
    block = block_of("e", "q", "p")
    stage = forgotten(block_of("e", "p"), 10_000.0)
    stage.add(block, [None, Wrapping(10_000, 5_000)])
    found = stage.count(columns_of([(block, 1, T0, 5.0, GOOD)]))
    assert [event.code for event in found.events] == ["counter-reset"]


# ---- what it leaves alone


def test_readings_of_no_counter_are_not_even_copied() -> None:
    commit = columns_of([(PLAIN, 0, T0, 1.0, GOOD), (LIFT, 1, T0, 1.0, GOOD)])
    found = counters().count(commit)
    assert (found.columns is commit, found.events, found.state) == (True, (), {})


def test_what_went_in_is_not_changed() -> None:
    stage, commit = counters(), columns_of([(LIFT, place, T0, 50.0, GOOD) for place in range(3)])
    for column in (commit.place, commit.time_us, commit.value, commit.quality, commit.counts):
        column.flags.writeable = False
    stage.count(commit)
    assert rows_of(stage.count(columns_of([(LIFT, 0, T0, 49.0, GOOD)])).columns)[0][1][1] == 99.0
    assert commit.value.tolist() == [50.0, 50.0, 50.0]


def test_many_counters_keep_their_counts_while_blocks_are_added() -> None:
    stage, blocks = Counters({}), [block_of(f"e{i}", "p") for i in range(200)]
    for i, block in enumerate(blocks):
        stage.add(block, [Wrapping(1000, 250)])
        stage.count(columns_of([(block, 0, T0, 999.0 - i, GOOD)]))
    found: Columns = stage.count(
        columns_of([(block, 0, T0, float(i % 50), GOOD) for i, block in enumerate(blocks)])
    ).columns
    assert found.value.tolist() == [1000 + i % 50 if i % 50 + i < 250 else 999 - i + i % 50 for i in range(200)]


def test_state_that_is_no_json_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="unexpected end of data"):
        Counters({"counter/e": "{"})
