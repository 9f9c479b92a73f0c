"""The breaker against its timeline, written out: when a device is asked, and what is said of it."""

from __future__ import annotations

from edge.breaker import BACK_OFF_MAX_S, BACK_OFF_S, THRESHOLD, Breaker, State


def opened(at_s: float = 0.0) -> Breaker:
    """A breaker that opens at this time."""
    breaker = Breaker()
    assert [breaker.failed(at_s, 7_000_000 + n) for n in range(THRESHOLD)] == [False] * (THRESHOLD - 1) + [True]
    return breaker


def test_it_opens_at_the_third_failure_in_a_row_and_no_answer_between_counts() -> None:
    breaker = Breaker()
    for _ in range(5):  # two failures and an answer, again and again
        assert [breaker.failed(0.0, 1) for _ in range(THRESHOLD - 1)] == [False] * (THRESHOLD - 1)
        assert breaker.permits(0.0)
        assert not breaker.succeeded(), "it was not open"
    assert [breaker.failed(0.0, 1) for _ in range(THRESHOLD)][-1]
    assert not breaker.permits(0.0)


def test_it_says_since_when_the_device_fails_until_it_answers() -> None:
    breaker = opened()
    assert breaker.failing_since_us == 7_000_000, "the first failure of the row"
    breaker.permits(BACK_OFF_S)
    breaker.failed(BACK_OFF_S, 9_000_000)
    assert breaker.failing_since_us == 7_000_000
    assert breaker.succeeded()
    assert breaker.failing_since_us is None


def test_it_lets_one_probe_through_after_1_2_4_up_to_30_seconds() -> None:
    breaker, now_s, waits = opened(), 0.0, []
    for _ in range(8):
        wait_s = breaker.retry_s - now_s
        waits.append(wait_s)
        assert not breaker.permits(breaker.retry_s - 0.001)
        now_s = breaker.retry_s
        assert breaker.permits(now_s), "as soon as the wait is over"
        assert breaker.state is State.HALF_OPEN
        assert not breaker.permits(now_s), "one probe at a time"
        assert not breaker.failed(now_s, 8_000_000), "it was open already"
    assert waits == [BACK_OFF_S, 2.0, 4.0, 8.0, 16.0, *[BACK_OFF_MAX_S] * 3]


def test_an_answer_closes_it_and_the_next_time_it_begins_anew() -> None:
    breaker = opened()
    for _ in range(3):
        breaker.permits(breaker.retry_s)
        breaker.failed(breaker.retry_s, 1)
    breaker.permits(breaker.retry_s)
    assert breaker.succeeded()
    assert breaker.permits(0.0)
    assert [breaker.failed(50.0, 1) for _ in range(THRESHOLD)] == [False] * (THRESHOLD - 1) + [True]
    assert breaker.retry_s == 50.0 + BACK_OFF_S


def test_a_probe_that_could_not_be_made_is_made_by_the_next_cycle() -> None:
    breaker = opened()
    assert breaker.permits(BACK_OFF_S)
    breaker.put_off()
    assert breaker.permits(BACK_OFF_S), "it need not wait again"


def test_one_that_takes_over_a_silent_device_probes_at_once_and_knows_since_when() -> None:
    breaker = Breaker()
    breaker.reopen(5.0, 3_000_000)
    assert (breaker.state, breaker.failing_since_us) == (State.OPEN, 3_000_000)
    assert breaker.permits(5.0)
    assert breaker.state is State.HALF_OPEN
    assert not breaker.failed(5.0, 4_000_000), "it is not told once more"
    assert (breaker.retry_s, breaker.failing_since_us) == (5.0 + BACK_OFF_S, 3_000_000)
