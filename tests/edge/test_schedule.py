"""Schedule and breaker, with the time handed in."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.breaker import Breaker, State
from edge.schedule import LONE_GRID_S, SLOTS_MIN, Schedule, phase_of, slots_for


def test_a_day_of_polls_that_each_take_a_while_ends_where_it_should() -> None:
    schedule = Schedule(0.7, origin_s=1000.0)
    begun: list[float] = []
    now = 1000.0
    while now < 1000.0 + 86_400:
        now = schedule.due_s + 0.003 * (len(begun) % 7)
        schedule.begin(now)
        begun.append(now)
    expected = 1000.0 + 0.7 * np.arange(len(begun))
    assert np.abs(np.array(begun) - expected).max() < 0.02, "no drift over 24 h"
    assert schedule.missed == 0


def test_after_a_stall_the_missed_cycles_are_counted_and_skipped_not_caught_up() -> None:
    schedule = Schedule(1.0, origin_s=0.0)
    assert schedule.begin(0.001) == 0
    assert schedule.begin(7.25) == 6, "those of 1 to 6; the one of 7 is the one that begins"
    assert schedule.due_s == 8.0
    assert schedule.begin(8.0) == 0
    assert schedule.missed == 6


@given(st.lists(st.floats(0, 30), min_size=1, max_size=30))
def test_every_due_cycle_is_begun_or_counted_as_missed_and_never_both(stalls: list[float]) -> None:
    schedule = Schedule(1.0, origin_s=0.0)
    now = 0.0
    for begun, stall in enumerate(stalls, start=1):
        now = max(schedule.due_s, now) + stall
        schedule.begin(now)
        assert begun + schedule.missed == schedule.cycle
        assert schedule.due_s > now
        assert schedule.due_s - now <= 1.0


def test_phases_are_the_same_for_ever_and_spread_over_the_interval() -> None:
    slots = slots_for(2000, 10.0)
    phases = np.array([phase_of(f"boiler-{n}", 10.0, slots) for n in range(2000)])
    assert phase_of("boiler-7", 10.0, slots) == phases[7]
    assert phases.min() >= 0
    assert phases.max() < 10
    counts = np.histogram(phases, bins=10, range=(0, 10))[0]
    assert counts.min() > 140, "about 200 in each tenth"


def test_the_breaker_opens_after_a_row_of_failures_and_a_success_ends_the_row() -> None:
    breaker = Breaker(threshold=3)
    assert [breaker.failed(0.0, 100), breaker.failed(1.0, 101)] == [False, False]
    assert breaker.succeeded() is False
    assert [breaker.failed(t, 100 + int(t)) for t in (2.0, 3.0, 4.0)] == [False, False, True]
    assert breaker.state is State.OPEN
    assert breaker.failing_since_us == 102, "the first of the row"


def test_an_open_breaker_lets_one_probe_through_when_its_wait_is_over() -> None:
    breaker = Breaker(threshold=1, back_off_s=1.0)
    breaker.failed(10.0, 0)
    assert not breaker.permits(10.9)
    assert breaker.permits(11.0)
    assert breaker.state is State.HALF_OPEN
    assert not breaker.permits(11.0), "one probe"
    assert breaker.succeeded() is True
    assert breaker.permits(11.1)


def test_the_back_off_doubles_up_to_its_most_and_starts_anew_after_a_success() -> None:
    breaker = Breaker(threshold=1, back_off_s=1.0, back_off_max_s=5.0)
    now = 0.0
    waits: list[float] = []
    for _ in range(5):
        if breaker.state is State.OPEN:
            assert breaker.permits(breaker.retry_s)
        opened = breaker.failed(now, 0)
        assert opened is (not waits), "only a closed breaker opens"
        waits.append(breaker.retry_s - now)
        now = breaker.retry_s
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]
    breaker.permits(now)
    breaker.succeeded()
    breaker.failed(now, 0)
    assert breaker.retry_s - now == 1.0


def test_devices_that_wait_for_no_neighbour_share_wider_slots() -> None:
    assert slots_for(2000, 1.0) == 10
    assert slots_for(2000, 1.0, grid_s=LONE_GRID_S) == 4
    assert slots_for(2000, 0.2, grid_s=LONE_GRID_S) == SLOTS_MIN, "a fast fleet is spread all the same"
    assert slots_for(16, 1.0) == 2, "a small one is gathered"
