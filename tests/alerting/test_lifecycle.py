from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerting.lifecycle import (
    LATE_GRACE_S,
    TABLE,
    Alarm,
    HistoryRow,
    Input,
    NoticeDue,
    Outcome,
    Reason,
    State,
    Tell,
    Trigger,
    step,
)

RAISE, CLEAR, ACKNOWLEDGE = Trigger.RAISE, Trigger.CLEAR, Trigger.ACKNOWLEDGE
S = 1_000_000


def after(*triggers: Trigger, late: bool = False) -> tuple[Alarm, list[Outcome]]:
    """An alarm to which these happened, one second apart."""
    alarm, outcomes = Alarm(), []
    for n, trigger in enumerate(triggers):
        outcomes.append(step(alarm, Input(trigger, n * S, "Li", "note", late=late)))
        alarm = outcomes[-1].alarm
    return alarm, outcomes


RULES = [
    ("a condition that begins raises an alarm", [RAISE], State.UNACKNOWLEDGED, Reason.RAISED, 1, True),
    ("a clear before its raise is remembered", [CLEAR], State.CLEARED_EARLY, Reason.CLEARED_BEFORE_RAISE, 0, False),
    ("nobody can acknowledge what was never raised", [ACKNOWLEDGE], State.ABSENT, Reason.UNKNOWN_ALARM, 0, False),
    (
        "a raise that its clear overtook is over, and needs acknowledging",
        [CLEAR, RAISE],
        State.RETURNED_UNACKNOWLEDGED,
        Reason.RAISED_AFTER_CLEAR,
        2,
        False,
    ),
    ("an early clear may be repeated", [CLEAR, CLEAR], State.CLEARED_EARLY, Reason.REPEATED_CLEAR, 0, False),
    (
        "an alarm that was only cleared is unknown to people",
        [CLEAR, ACKNOWLEDGE],
        State.CLEARED_EARLY,
        Reason.UNKNOWN_ALARM,
        0,
        False,
    ),
    ("a repeated raise changes nothing", [RAISE, RAISE], State.UNACKNOWLEDGED, Reason.REPEATED_RAISE, 0, False),
    (
        "an alarm that returns to normal by itself still needs acknowledging",
        [RAISE, CLEAR],
        State.RETURNED_UNACKNOWLEDGED,
        Reason.RETURNED,
        1,
        True,
    ),
    (
        "an alarm that somebody acknowledges stays until it returns to normal",
        [RAISE, ACKNOWLEDGE],
        State.ACKNOWLEDGED,
        Reason.ACKNOWLEDGED,
        1,
        True,
    ),
    (
        "a raise repeated after the acknowledgement asks nobody again",
        [RAISE, ACKNOWLEDGE, RAISE],
        State.ACKNOWLEDGED,
        Reason.REPEATED_RAISE,
        0,
        False,
    ),
    (
        "an acknowledged alarm that returns to normal is closed",
        [RAISE, ACKNOWLEDGE, CLEAR],
        State.NORMAL,
        Reason.RETURNED_AND_CLOSED,
        1,
        True,
    ),
    (
        "an alarm is acknowledged once",
        [RAISE, ACKNOWLEDGE, ACKNOWLEDGE],
        State.ACKNOWLEDGED,
        Reason.ALREADY_ACKNOWLEDGED,
        0,
        False,
    ),
    (
        "a repeated raise never reopens a cleared alarm",
        [RAISE, CLEAR, RAISE],
        State.RETURNED_UNACKNOWLEDGED,
        Reason.NOT_REOPENED,
        0,
        False,
    ),
    (
        "an alarm is cleared once",
        [RAISE, CLEAR, CLEAR],
        State.RETURNED_UNACKNOWLEDGED,
        Reason.REPEATED_CLEAR,
        0,
        False,
    ),
    (
        "acknowledging an alarm that has returned to normal closes it",
        [RAISE, CLEAR, ACKNOWLEDGE],
        State.NORMAL,
        Reason.ACKNOWLEDGED_AND_CLOSED,
        1,
        True,
    ),
    (
        "a repeated raise never reopens a closed alarm",
        [RAISE, CLEAR, ACKNOWLEDGE, RAISE],
        State.NORMAL,
        Reason.NOT_REOPENED,
        0,
        False,
    ),
    (
        "a repeated clear of a closed alarm changes nothing",
        [RAISE, ACKNOWLEDGE, CLEAR, CLEAR],
        State.NORMAL,
        Reason.REPEATED_CLEAR,
        0,
        False,
    ),
    (
        "a closed alarm was acknowledged already",
        [RAISE, ACKNOWLEDGE, CLEAR, ACKNOWLEDGE],
        State.NORMAL,
        Reason.ALREADY_ACKNOWLEDGED,
        0,
        False,
    ),
]


@pytest.mark.parametrize(("rule", "triggers", "state", "reason", "rows", "told"), RULES, ids=[r[0] for r in RULES])
def test_the_last_of_these_is_decided_so(
    rule: str, triggers: list[Trigger], state: State, reason: Reason, rows: int, told: bool
) -> None:
    alarm, outcomes = after(*triggers)
    last = outcomes[-1]
    assert (alarm.state, last.reason, len(last.history), last.notice is not None) == (state, reason, rows, told), rule


def test_every_state_knows_every_trigger_and_every_rule_is_tried() -> None:
    assert set(TABLE) == set(product(State, Trigger))
    tried = {(after(*triggers[:-1])[0].state, triggers[-1]) for _, triggers, *_ in RULES}
    assert tried == set(TABLE)


def test_every_reason_is_given_by_some_rule() -> None:
    assert {row.reason for row in TABLE.values()} | {Reason.RAISED_LATE} == set(Reason)


def test_only_changes_are_told() -> None:
    assert not [key for key, row in TABLE.items() if row.tell is not Tell.NO and row.to is key[0]]


def test_who_when_and_why_are_kept() -> None:
    alarm, outcomes = after(RAISE, ACKNOWLEDGE, CLEAR)
    assert alarm == Alarm(State.NORMAL, False, 0, 2 * S, 1 * S, "Li", "note")
    row = outcomes[1].history[0]
    assert (row.at_us, row.actor, row.note, row.reason) == (S, "Li", "note", Reason.ACKNOWLEDGED)


def test_an_early_clear_keeps_its_own_time() -> None:
    _, outcomes = after(CLEAR, RAISE)
    raised, cleared = outcomes[1].history
    assert (raised.transition, raised.at_us, cleared.transition, cleared.at_us) == (RAISE, S, CLEAR, 0)


def test_a_late_alarm_is_told_after_a_while_and_its_end_only_if_its_beginning_was() -> None:
    _, outcomes = after(RAISE, CLEAR, late=True)
    assert outcomes[0].reason is Reason.RAISED_LATE
    assert outcomes[0].notice == NoticeDue(RAISE, LATE_GRACE_S)
    assert outcomes[1].notice == NoticeDue(CLEAR, if_told=True)


def test_an_alarm_in_time_is_told_at_once() -> None:
    _, outcomes = after(RAISE, CLEAR)
    assert [o.notice for o in outcomes] == [NoticeDue(RAISE), NoticeDue(CLEAR)]


HAPPENINGS = st.lists(st.tuples(st.sampled_from(Trigger), st.integers(0, 10**6), st.booleans()), max_size=12)


@given(HAPPENINGS)
def test_whatever_happens_no_alarm_is_lost_or_reopened_and_history_replays_to_the_state(
    happenings: list[tuple[Trigger, int, bool]],
) -> None:
    history: list[HistoryRow] = []
    alarm, was_raised, was_cleared = Alarm(), False, False
    for trigger, at_us, late in happenings:
        before = alarm
        outcome = step(alarm, Input(trigger, at_us, "x", late=late))
        alarm = outcome.alarm
        history += outcome.history
        was_raised |= trigger is RAISE
        was_cleared |= trigger is CLEAR
        # never lost: once raised, it is there, with its time
        assert was_raised == (alarm.state not in (State.ABSENT, State.CLEARED_EARLY))
        assert was_raised == (alarm.raised_us is not None)
        # never reopened: active means raised and never cleared
        active = alarm.state in (State.UNACKNOWLEDGED, State.ACKNOWLEDGED)
        assert active == (was_raised and not was_cleared)
        # what happened first stays
        for column in ("raised_us", "cleared_us", "acknowledged_us", "acknowledged_by"):
            assert getattr(before, column) in (None, getattr(alarm, column))
        # a change has a history, and only a change is told
        assert bool(outcome.history) == (before.state is not alarm.state and alarm.state is not State.CLEARED_EARLY)
        assert outcome.notice is None or outcome.history
    replayed = State.NORMAL
    for row in history:
        assert row.from_state is replayed
        replayed = row.to_state
    assert replayed is (alarm.state if was_raised else State.NORMAL)


@given(st.permutations([RAISE, RAISE, CLEAR, CLEAR, ACKNOWLEDGE]))
def test_in_whatever_order_they_come_the_alarm_ends_closed_or_waiting_for_a_person(order: list[Trigger]) -> None:
    alarm, outcomes = after(*order)
    heard = order.index(ACKNOWLEDGE) > order.index(RAISE)
    assert alarm.state is (State.NORMAL if heard else State.RETURNED_UNACKNOWLEDGED)
    assert sum(r.transition is RAISE for o in outcomes for r in o.history) == 1
