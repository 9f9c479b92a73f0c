"""Alarms in the database: rows, history, notices, and what is told to others, all inside the caller's transaction.

Invariant: alarm row, history row and notice row of a transition are written together or not at all, and NOTIFY goes out
with their commit: people are told of nothing that is not durable. An alarm's row is locked while it is decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString

import orjson
import psycopg
from psycopg.types.json import Jsonb

from alerting.catalogue import Entry
from alerting.lifecycle import Alarm, Outcome, State
from telemetry.clock import US_PER_S, iso
from telemetry.errors import OffsetMoved
from telemetry.messages import VIGIL_SCHEME, Event, Finding
from telemetry.store import ALARM_CHANNEL, EVENT_CHANNEL

Connection = psycopg.AsyncConnection[Any]

SERVICE: Final = "alert"
"""The name of alerting in store.log_position, store.progress and store.dead_letter."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)


def moment(time_us: int) -> datetime:
    """A time for the database. Exact."""
    return _EPOCH + timedelta(microseconds=time_us)


def micros(time: datetime) -> int:
    """A time from the database, in µs since 1970. Exact."""
    return (time - _EPOCH) // _US


@dataclass(frozen=True, slots=True)
class Subject:
    """An alarm as it is when it is raised: the finding, and what the catalogue says of it."""

    finding: Finding
    entry: Entry


async def lock_alarms(connection: Connection, ids: Sequence[str]) -> dict[str, Alarm]:
    """The alarms of these ids, locked until the transaction ends; ABSENT where there is none. Raises psycopg.Error."""
    wanted = sorted(set(ids))
    alarms = {alarm_id: Alarm() for alarm_id in wanted}
    cursor = await connection.execute(
        "SELECT alarm_id, cleared_at FROM alarm.early_clear WHERE alarm_id = ANY(%s)", (wanted,)
    )
    for alarm_id, cleared_at in await cursor.fetchall():
        alarms[alarm_id] = Alarm(State.CLEARED_EARLY, cleared_us=micros(cleared_at))
    cursor = await connection.execute(
        "SELECT alarm_id, state, late, raised_at, cleared_at, acknowledged_at, acknowledged_by, acknowledge_note"
        " FROM alarm.alarm WHERE alarm_id = ANY(%s) ORDER BY alarm_id FOR UPDATE",
        (wanted,),
    )
    for alarm_id, state, late, raised, cleared, acknowledged, by, note in await cursor.fetchall():
        alarms[alarm_id] = Alarm(State(state), late, micros(raised), _micros(cleared), _micros(acknowledged), by, note)
    return alarms


async def write(
    connection: Connection,
    alarm_id: str,
    outcome: Outcome,
    *,
    subject: Subject | None,
    channels: Sequence[str],
    now_us: int,
) -> None:
    """Writes what the machine decided of one alarm. `subject` is needed where it is raised.

    Raises OffsetMoved where another worker wrote the alarm at the same time; psycopg.Error.
    """
    if outcome.alarm.state is State.CLEARED_EARLY:
        await connection.execute(
            "INSERT INTO alarm.early_clear (alarm_id, cleared_at) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            (alarm_id, _moment(outcome.alarm.cleared_us)),
        )
    if not outcome.history:
        return
    if outcome.history[0].from_state is State.NORMAL:
        await _insert(connection, alarm_id, outcome.alarm, subject)
    else:
        await _update(connection, alarm_id, outcome.alarm)
    await _history(connection, alarm_id, outcome)
    await _notices(connection, alarm_id, outcome, channels, now_us)
    for row in outcome.history:
        await notify_alarm(connection, {"alarm_id": alarm_id, "transition": row.transition.value})


async def notify_alarm(connection: Connection, content: Mapping[str, Any]) -> None:
    """Tells listeners of vigil_alarm, when the transaction commits."""
    await connection.execute("SELECT pg_notify(%s, %s)", (ALARM_CHANNEL, orjson.dumps(content).decode()))


async def report(connection: Connection, event: Event) -> None:
    """Keeps one of alerting's own events, and tells listeners of vigil_event. Raises psycopg.Error."""
    await connection.execute(
        "INSERT INTO store.event (equipment, time, scheme, code, state, attributes, edge)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (
            event.equipment,
            moment(event.time_us),
            VIGIL_SCHEME,
            event.code,
            "on" if event.on else "off",
            Jsonb(dict(event.attributes), dumps=orjson.dumps),
            SERVICE,
        ),
    )
    told = {"equipment": event.equipment, "scheme": VIGIL_SCHEME, "code": event.code}
    await connection.execute("SELECT pg_notify(%s, %s)", (EVENT_CHANNEL, orjson.dumps(told).decode()))


async def _insert(connection: Connection, alarm_id: str, alarm: Alarm, subject: Subject | None) -> None:
    if subject is None:
        raise ValueError(f"alarm {alarm_id}: expected what it is of, to raise it")
    finding, entry = subject.finding, subject.entry
    cursor = await connection.execute(
        _INSERT_ALARM,
        {
            "alarm_id": alarm_id,
            "equipment": finding.equipment,
            "point": finding.point,
            "detector": finding.detector,
            "priority": entry.priority.value,
            "text_zh": entry.text.zh,
            "text_en": entry.text.en,
            "consequence_zh": entry.consequence.zh,
            "consequence_en": entry.consequence.en,
            "action_zh": entry.action.zh,
            "action_en": entry.action.en,
            "onset": moment(finding.onset_us),
            "evidence": Jsonb({**finding.evidence, "score": finding.score}, dumps=orjson.dumps),
            "class": entry.equipment_class,
            **_columns(alarm),
        },
    )
    if cursor.rowcount != 1:
        raise OffsetMoved(f"alarm {alarm_id} of {finding.equipment} was raised by another worker at the same time")


async def _update(connection: Connection, alarm_id: str, alarm: Alarm) -> None:
    await connection.execute(
        "UPDATE alarm.alarm SET state = %(state)s, cleared_at = %(cleared_at)s, acknowledged_at = %(acknowledged_at)s,"
        " acknowledged_by = %(acknowledged_by)s, acknowledge_note = %(acknowledge_note)s WHERE alarm_id = %(alarm_id)s",
        {"alarm_id": alarm_id, **_columns(alarm)},
    )


def _columns(alarm: Alarm) -> dict[str, Any]:
    return {
        "state": alarm.state.value,
        "late": alarm.late,
        "raised_at": _moment(alarm.raised_us),
        "cleared_at": _moment(alarm.cleared_us),
        "acknowledged_at": _moment(alarm.acknowledged_us),
        "acknowledged_by": alarm.acknowledged_by,
        "acknowledge_note": alarm.note,
    }


async def _history(connection: Connection, alarm_id: str, outcome: Outcome) -> None:
    for row in outcome.history:
        await connection.execute(
            "INSERT INTO alarm.history (alarm_id, at, transition, from_state, to_state, actor, reason, note)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            (
                alarm_id,
                moment(row.at_us),
                row.transition.value,
                row.from_state.value,
                row.to_state.value,
                row.actor,
                row.reason.value,
                row.note,
            ),
        )


async def _notices(
    connection: Connection, alarm_id: str, outcome: Outcome, channels: Sequence[str], now_us: int
) -> None:
    if outcome.alarm.state is not State.UNACKNOWLEDGED:
        await connection.execute(_WITHDRAW, (alarm_id,))
    notice = outcome.notice
    if notice is None:
        return
    row = outcome.history[-1]
    body = {
        "at": iso(row.at_us),
        "by": row.actor,
        "note": row.note,
        "reason": row.reason.value,
        "state": row.to_state.value,
    }
    for channel in channels:
        await connection.execute(
            _INSERT_NOTICE,
            {
                "alarm_id": alarm_id,
                "channel": channel,
                "transition": notice.transition.value,
                "body": Jsonb(body, dumps=orjson.dumps),
                "due_at": moment(now_us + int(notice.delay_s * US_PER_S)),
                "if_told": notice.if_told,
            },
        )


def _moment(time_us: int | None) -> datetime | None:
    return None if time_us is None else moment(time_us)


def _micros(time: datetime | None) -> int | None:
    return None if time is None else micros(time)


_INSERT_ALARM: Final[LiteralString] = """
INSERT INTO alarm.alarm (alarm_id, equipment, point, detector, state, priority, text_zh, text_en, consequence_zh,
    consequence_en, action_zh, action_en, onset, raised_at, acknowledged_at, acknowledged_by, acknowledge_note, cleared_at,
    late, evidence, class)
VALUES (%(alarm_id)s, %(equipment)s, %(point)s, %(detector)s, %(state)s, %(priority)s, %(text_zh)s, %(text_en)s,
    %(consequence_zh)s, %(consequence_en)s, %(action_zh)s, %(action_en)s, %(onset)s, %(raised_at)s, %(acknowledged_at)s,
    %(acknowledged_by)s, %(acknowledge_note)s, %(cleared_at)s, %(late)s, %(evidence)s, %(class)s)
ON CONFLICT (alarm_id) DO NOTHING
"""
# Of a late alarm that nobody tried to tell yet, the raise, too: it came and went before anyone could act.
_WITHDRAW: Final[LiteralString] = """
UPDATE alarm.notice n SET outcome = 'withdrawn'
WHERE n.alarm_id = %s AND n.outcome IS NULL AND (n.transition = 'repeat' OR n.transition = 'raise' AND n.attempts = 0
    AND (SELECT m.late FROM alarm.alarm m WHERE m.alarm_id = n.alarm_id))
"""
_INSERT_NOTICE: Final[LiteralString] = """
INSERT INTO alarm.notice (alarm_id, channel, transition, body, due_at)
SELECT %(alarm_id)s, %(channel)s, %(transition)s, %(body)s, %(due_at)s
WHERE NOT %(if_told)s OR EXISTS (SELECT FROM alarm.notice n WHERE n.alarm_id = %(alarm_id)s AND n.channel = %(channel)s
    AND n.transition IN ('raise', 'repeat') AND n.attempts > 0)
"""
