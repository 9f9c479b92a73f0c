"""Notices in the database: which are due, and how each ended. What is told outside follows these rows, never leads them.

Invariants: a notice is open until it was taken, refused for good or withdrawn; of one alarm only the oldest open notice
is due, so its notices arrive in order, and no alarm waits for another's; a notice being sent is leased, so that one
whose sender dies is sent again under the same id; every unacknowledged active alarm has an open notice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, LiteralString

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from alerting.store import moment
from telemetry.clock import US_PER_S, iso

Connection = psycopg.AsyncConnection[Any]

RAISE: Final = "raise"
REPEAT: Final = "repeat"
"""Tells again of an alarm that nobody has acknowledged; not a transition of the alarm."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice that is to be sent now."""

    notice_id: int
    alarm_id: str
    transition: str
    attempts: int
    """With the one that begins now."""
    body: Mapping[str, Any]
    last_error: str | None


async def claim(connection: Connection, channel: str, *, now_us: int, lease_until_us: int, limit: int) -> list[Notice]:
    """Leases up to `limit` due notices, the longest due first. Raises psycopg.Error."""
    values = {
        "channel": channel,
        "now": moment(now_us),
        "lease": moment(lease_until_us),
        "limit": limit,
    }
    cursor = await connection.execute(_CLAIM, values)
    return [Notice(*row) for row in await cursor.fetchall()]


async def alarms(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rows of the view `alarms`, by id."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute("SELECT * FROM public.alarms WHERE id = ANY(%s)", (list(ids),))
        return {row["id"]: row for row in await cursor.fetchall()}


async def close(connection: Connection, notice: Notice, outcome: str, *, now_us: int, error: str | None) -> None:
    """Ends a notice as sent, withdrawn or refused."""
    await connection.execute(
        "UPDATE alarm.notice SET outcome = %(outcome)s, last_error = %(error)s,"
        " sent_at = CASE WHEN %(outcome)s = 'sent' THEN %(now)s::timestamptz END"
        " WHERE notice_id = %(id)s AND outcome IS NULL",
        {"outcome": outcome, "error": error, "now": moment(now_us), "id": notice.notice_id},
    )


async def put_off(connection: Connection, notice: Notice, error: str, *, due_us: int) -> None:
    """The notice is tried again at `due_us`."""
    await connection.execute(
        "UPDATE alarm.notice SET due_at = %s, last_error = %s WHERE notice_id = %s AND outcome IS NULL",
        (moment(due_us), error, notice.notice_id),
    )


async def repeat(connection: Connection, alarm_id: str, channel: str, *, now_us: int, repeat_s: float) -> None:
    """The alarm is told again in `repeat_s`, if it is active and nobody has acknowledged it. Locks its row."""
    due_us = now_us + int(repeat_s * US_PER_S)
    await connection.execute(
        _REPEAT, {"alarm_id": alarm_id, "channel": channel, "due": moment(due_us), "body": _repeat_body(due_us)}
    )


async def hurry(connection: Connection, channel: str, error_prefix: str, *, now_us: int) -> None:
    """The receiver is back: what waits only because it was away is due now."""
    await connection.execute(
        "UPDATE alarm.notice SET due_at = %s WHERE channel = %s AND outcome IS NULL AND due_at > %s"
        " AND starts_with(last_error, %s)",
        (moment(now_us), channel, moment(now_us), error_prefix),
    )


async def adopt_untold(connection: Connection, channel: str, *, now_us: int) -> int:
    """Unacknowledged active alarms without an open notice (the channel is new, say) get one. Returns how many."""
    cursor = await connection.execute(
        _UNTOLD, {"channel": channel, "due": moment(now_us), "body": _repeat_body(now_us)}
    )
    return cursor.rowcount


async def next_due_s(connection: Connection, channel: str, *, now_us: int) -> float | None:
    """Seconds until the oldest open notice of some alarm is due, of the service's clock; None where none is open."""
    cursor = await connection.execute(_NEXT_DUE, {"channel": channel, "now": moment(now_us)})
    row = await cursor.fetchone()
    wait: timedelta | None = row[0] if row else None
    return None if wait is None else wait.total_seconds()


async def open_count(connection: Connection, channel: str, *, now_us: int) -> int:
    """How many notices are due and not told."""
    cursor = await connection.execute(
        "SELECT count(*) FROM alarm.notice WHERE channel = %s AND outcome IS NULL AND (due_at <= %s OR attempts > 0)",
        (channel, moment(now_us)),
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


def _repeat_body(at_us: int) -> Jsonb:
    return Jsonb(
        {
            "at": iso(at_us),
            "by": "alerting",
            "note": "",
            "reason": "not_acknowledged",
            "state": "unacknowledged",
        }
    )


_CLAIM: Final[LiteralString] = """
WITH due AS (
    SELECT n.notice_id FROM alarm.notice n
    WHERE n.channel = %(channel)s AND n.outcome IS NULL AND n.due_at <= %(now)s AND NOT EXISTS (
        SELECT FROM alarm.notice b WHERE b.alarm_id = n.alarm_id AND b.channel = n.channel AND b.outcome IS NULL
        AND b.notice_id < n.notice_id)
    ORDER BY n.due_at, n.notice_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE alarm.notice n SET due_at = %(lease)s, attempts = n.attempts + 1
FROM due WHERE n.notice_id = due.notice_id
RETURNING n.notice_id, n.alarm_id, n.transition, n.attempts, n.body, n.last_error
"""
_NEXT_DUE: Final[LiteralString] = """
SELECT min(first.due_at) - %(now)s FROM (
    SELECT DISTINCT ON (n.alarm_id) n.due_at FROM alarm.notice n WHERE n.channel = %(channel)s AND n.outcome IS NULL
    ORDER BY n.alarm_id, n.notice_id
) first
"""
_REPEAT: Final[LiteralString] = """
WITH active AS (
    SELECT a.alarm_id FROM alarm.alarm a WHERE a.alarm_id = %(alarm_id)s AND a.state = 'unacknowledged' FOR UPDATE
)
INSERT INTO alarm.notice (alarm_id, channel, transition, body, due_at)
SELECT active.alarm_id, %(channel)s, 'repeat', %(body)s, %(due)s FROM active WHERE NOT EXISTS (
    SELECT FROM alarm.notice n WHERE n.alarm_id = active.alarm_id AND n.channel = %(channel)s AND n.outcome IS NULL)
"""
_UNTOLD: Final[LiteralString] = """
WITH active AS (
    SELECT a.alarm_id FROM alarm.alarm a WHERE a.state = 'unacknowledged' AND NOT EXISTS (
        SELECT FROM alarm.notice n WHERE n.alarm_id = a.alarm_id AND n.channel = %(channel)s AND n.outcome IS NULL)
    ORDER BY a.raised_at LIMIT 1000 FOR UPDATE SKIP LOCKED
)
INSERT INTO alarm.notice (alarm_id, channel, transition, body, due_at)
SELECT active.alarm_id, %(channel)s, CASE WHEN EXISTS (SELECT FROM alarm.notice n WHERE n.alarm_id = active.alarm_id
    AND n.channel = %(channel)s) THEN 'repeat' ELSE 'raise' END, %(body)s, %(due)s
FROM active WHERE NOT EXISTS (
    SELECT FROM alarm.notice n WHERE n.alarm_id = active.alarm_id AND n.channel = %(channel)s AND n.outcome IS NULL)
"""
