"""The life of an alarm as a pure state machine: (alarm, trigger) → (alarm, history, notices, reason).

States are those of ISA-18.2 and IEC 62682. Every decision is one row of TABLE, found by (state, trigger), and every row
names its reason: the same word is the log line, the metric's label and the history row.

Invariants: an alarm that was raised is never lost and never reopened (only the same condition's next onset is another
alarm); the history, read in order, ends in the present state; time comes from outside.

To come: shelved, suppressed, out_of_service and latched are further states and triggers, that is, further rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

LATE_GRACE_S: Final = 30.0
"""A late finding is told only if it is still active after this: its clear is likely in the same back-fill."""


class State(StrEnum):
    """Where an alarm is. ABSENT and CLEARED_EARLY are of alarms that have no row yet."""

    ABSENT = "absent"
    CLEARED_EARLY = "cleared_early"
    UNACKNOWLEDGED = "unacknowledged"
    ACKNOWLEDGED = "acknowledged"
    RETURNED_UNACKNOWLEDGED = "returned_unacknowledged"
    NORMAL = "normal"


class Trigger(StrEnum):
    """What can happen to an alarm; also the `transition` of its history."""

    RAISE = "raise"
    CLEAR = "clear"
    ACKNOWLEDGE = "acknowledge"


class Reason(StrEnum):
    """Why the machine did what it did."""

    RAISED = "raised"
    RAISED_LATE = "raised_late"
    RAISED_AFTER_CLEAR = "raised_after_clear"
    REPEATED_RAISE = "repeated_raise"
    NOT_REOPENED = "not_reopened"
    CLEARED_BEFORE_RAISE = "cleared_before_raise"
    RETURNED = "returned"
    RETURNED_AND_CLOSED = "returned_and_closed"
    REPEATED_CLEAR = "repeated_clear"
    ACKNOWLEDGED = "acknowledged"
    ACKNOWLEDGED_AND_CLOSED = "acknowledged_and_closed"
    ALREADY_ACKNOWLEDGED = "already_acknowledged"
    UNKNOWN_ALARM = "unknown_alarm"


class Tell(StrEnum):
    """Whether people are told of a transition."""

    NO = "no"
    YES = "yes"
    IF_TOLD = "if_told"
    """Only if they were told that it was raised (a late alarm may have come and gone in silence)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One rule of the lifecycle."""

    to: State
    reason: Reason
    tell: Tell = Tell.NO


TABLE: Final[Mapping[tuple[State, Trigger], Row]] = {
    (State.ABSENT, Trigger.RAISE): Row(State.UNACKNOWLEDGED, Reason.RAISED, Tell.YES),
    (State.ABSENT, Trigger.CLEAR): Row(State.CLEARED_EARLY, Reason.CLEARED_BEFORE_RAISE),
    (State.ABSENT, Trigger.ACKNOWLEDGE): Row(State.ABSENT, Reason.UNKNOWN_ALARM),
    (State.CLEARED_EARLY, Trigger.RAISE): Row(State.RETURNED_UNACKNOWLEDGED, Reason.RAISED_AFTER_CLEAR),
    (State.CLEARED_EARLY, Trigger.CLEAR): Row(State.CLEARED_EARLY, Reason.REPEATED_CLEAR),
    (State.CLEARED_EARLY, Trigger.ACKNOWLEDGE): Row(State.CLEARED_EARLY, Reason.UNKNOWN_ALARM),
    (State.UNACKNOWLEDGED, Trigger.RAISE): Row(State.UNACKNOWLEDGED, Reason.REPEATED_RAISE),
    (State.UNACKNOWLEDGED, Trigger.CLEAR): Row(State.RETURNED_UNACKNOWLEDGED, Reason.RETURNED, Tell.IF_TOLD),
    (State.UNACKNOWLEDGED, Trigger.ACKNOWLEDGE): Row(State.ACKNOWLEDGED, Reason.ACKNOWLEDGED, Tell.IF_TOLD),
    (State.ACKNOWLEDGED, Trigger.RAISE): Row(State.ACKNOWLEDGED, Reason.REPEATED_RAISE),
    (State.ACKNOWLEDGED, Trigger.CLEAR): Row(State.NORMAL, Reason.RETURNED_AND_CLOSED, Tell.IF_TOLD),
    (State.ACKNOWLEDGED, Trigger.ACKNOWLEDGE): Row(State.ACKNOWLEDGED, Reason.ALREADY_ACKNOWLEDGED),
    (State.RETURNED_UNACKNOWLEDGED, Trigger.RAISE): Row(State.RETURNED_UNACKNOWLEDGED, Reason.NOT_REOPENED),
    (State.RETURNED_UNACKNOWLEDGED, Trigger.CLEAR): Row(State.RETURNED_UNACKNOWLEDGED, Reason.REPEATED_CLEAR),
    (State.RETURNED_UNACKNOWLEDGED, Trigger.ACKNOWLEDGE): Row(
        State.NORMAL, Reason.ACKNOWLEDGED_AND_CLOSED, Tell.IF_TOLD
    ),
    (State.NORMAL, Trigger.RAISE): Row(State.NORMAL, Reason.NOT_REOPENED),
    (State.NORMAL, Trigger.CLEAR): Row(State.NORMAL, Reason.REPEATED_CLEAR),
    (State.NORMAL, Trigger.ACKNOWLEDGE): Row(State.NORMAL, Reason.ALREADY_ACKNOWLEDGED),
}


@dataclass(frozen=True, slots=True)
class Alarm:
    """What the machine knows of one alarm. Times are µs since 1970-01-01 UTC."""

    state: State = State.ABSENT
    late: bool = False
    raised_us: int | None = None
    cleared_us: int | None = None
    acknowledged_us: int | None = None
    acknowledged_by: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Input:
    """Something that happened to an alarm."""

    trigger: Trigger
    at_us: int
    actor: str
    """A person's name, or the service that found it."""
    note: str = ""
    late: bool = False
    """Of a raise: from a back-fill pass."""


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """A transition that took place."""

    transition: Trigger
    at_us: int
    from_state: State
    to_state: State
    actor: str
    reason: Reason
    note: str


@dataclass(frozen=True, slots=True)
class NoticeDue:
    """People are to be told of a transition, `delay_s` from now, if it is still so."""

    transition: Trigger
    delay_s: float = 0.0
    if_told: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the machine decided. No history: nothing changed for people."""

    alarm: Alarm
    reason: Reason
    history: tuple[HistoryRow, ...] = ()
    notice: NoticeDue | None = None


def step(alarm: Alarm, happened: Input) -> Outcome:
    """The alarm after `happened`, and what is to be written and told because of it."""
    row = TABLE[alarm.state, happened.trigger]
    if row.to is alarm.state:
        return Outcome(alarm, row.reason)
    after = replace(_noted(alarm, happened), state=row.to)
    reason = Reason.RAISED_LATE if row.reason is Reason.RAISED and happened.late else row.reason
    return Outcome(after, reason, _history(alarm, after, happened, reason), _notice(after, happened, row.tell))


def _noted(alarm: Alarm, happened: Input) -> Alarm:
    match happened.trigger:
        case Trigger.RAISE:
            return replace(alarm, raised_us=happened.at_us, late=happened.late)
        case Trigger.CLEAR:
            return replace(alarm, cleared_us=happened.at_us)
        case Trigger.ACKNOWLEDGE:
            return replace(alarm, acknowledged_us=happened.at_us, acknowledged_by=happened.actor, note=happened.note)


def _history(before: Alarm, after: Alarm, happened: Input, reason: Reason) -> tuple[HistoryRow, ...]:
    def row(trigger: Trigger, at_us: int, came: State, went: State) -> HistoryRow:
        return HistoryRow(trigger, at_us, came, went, happened.actor, reason, happened.note)

    if after.state is State.CLEARED_EARLY:
        return ()  # of an alarm that nobody can see yet
    if before.state is State.CLEARED_EARLY:
        return (
            row(Trigger.RAISE, happened.at_us, State.NORMAL, State.UNACKNOWLEDGED),
            row(Trigger.CLEAR, _known(before.cleared_us), State.UNACKNOWLEDGED, after.state),
        )
    came = State.NORMAL if before.state is State.ABSENT else before.state
    return (row(happened.trigger, happened.at_us, came, after.state),)


def _notice(alarm: Alarm, happened: Input, tell: Tell) -> NoticeDue | None:
    if tell is Tell.NO:
        return None
    delay_s = LATE_GRACE_S if happened.trigger is Trigger.RAISE and happened.late else 0.0
    return NoticeDue(happened.trigger, delay_s, if_told=tell is Tell.IF_TOLD and alarm.late)


def _known(at_us: int | None) -> int:
    if at_us is None:
        raise ValueError("an alarm cleared early has the time of its clear")
    return at_us
