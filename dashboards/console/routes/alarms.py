"""Alarms, newest first, and their acknowledgement.

The console never changes an alarm. It writes a command row under the client's Idempotency-Key and waits a little for
alerting to handle it; the row's outcome is the answer, so the same key gets the same answer however often it is sent.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Header, Query, Response

from dashboards.console import cursor as cursors
from dashboards.console import models, reads
from dashboards.console.context import AlarmId, Console, Cursor, Here
from dashboards.console.metrics import ACKNOWLEDGES
from dashboards.console.problems import Problem
from telemetry.store import COMMAND_CHANNEL

router = APIRouter(prefix="/api/v1", tags=["alarms"])

WAIT_S: Final = 3.0
LOOK_EVERY_S: Final = 0.15
"""An outcome that no notification announces is found so soon."""

IdempotencyKey = Annotated[
    str,
    Header(
        pattern=r"^[A-Za-z0-9_.:-]{8,128}$",
        description="Chosen by the client, new for every intention: the same key gets the same answer.",
    ),
]


@router.get("/alarms", response_model=models.AlarmPage)
async def list_alarms(
    console: Here,
    state: Annotated[Literal["active", "all"], Query()] = "active",
    area: Annotated[str | None, Query(max_length=64, description="This area and all below it.")] = None,
    equipment: Annotated[str | None, Query(pattern=r"^[a-z0-9_.-]{1,64}$")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Cursor = None,
) -> models.AlarmPage:
    """Alarms, newest first. Active: not back to normal, or not acknowledged."""
    before = None
    if cursor:
        at, alarm_id = cursors.decode(cursor, str, str)
        before = (_moment(at), alarm_id)
    found = await reads.alarm_page(
        console.store,
        active=state == "active",
        equipments=[equipment] if equipment else None,
        area=area,
        before=before,
        limit=limit + 1,
    )
    last = found[limit - 1] if len(found) > limit else None
    following = cursors.encode(last.raised_at, last.id) if last else None
    return models.AlarmPage(items=found[:limit], next=following)


@router.get("/alarms/{id}", response_model=models.AlarmDetail)
async def read_alarm(console: Here, id: AlarmId) -> models.AlarmDetail:
    """One alarm with every transition."""
    alarm = await _known(console, id)
    history = await reads.alarm_history(console.store, id)
    return models.AlarmDetail(**alarm.model_dump(), history=history)


@router.post(
    "/alarms/{id}/acknowledge",
    response_model=models.Acknowledged,
    responses={
        202: {"model": models.Acknowledged, "description": "Written down; alerting has not handled it yet."},
        404: {"description": "No such alarm."},
        409: {"description": "Somebody acknowledged it before."},
        422: {"description": "Bad body or key, or the key was used for something else."},
    },
)
async def acknowledge(
    console: Here, id: AlarmId, body: models.Acknowledge, idempotency_key: IdempotencyKey, response: Response
) -> models.Acknowledged:
    """Says who has seen the alarm. 200 done · 202 written down but not handled yet · 409 already acknowledged."""
    await _known(console, id)
    await _command(console, id, body, idempotency_key)
    outcome = await _outcome(console, idempotency_key)
    alarm = await _known(console, id)
    ACKNOWLEDGES.labels(outcome or "accepted").inc()
    match outcome:
        case "done":
            return models.Acknowledged(outcome="done", alarm=alarm)
        case "already_acknowledged":
            raise Problem(
                409,
                "already-acknowledged",
                f"acknowledged before, by {alarm.acknowledged_by or 'somebody'}",
                alarm=alarm.model_dump(mode="json", by_alias=True),
            )
        case "unknown_alarm":
            raise Problem(404, "unknown-alarm", f"alerting knows no alarm {id!r}")
    response.status_code = 202
    return models.Acknowledged(outcome="accepted", alarm=alarm)


async def _command(console: Console, alarm_id: str, body: models.Acknowledge, key: str) -> None:
    """Writes the command row, once. Raises Problem 422 when the key stands for something else."""
    async with console.store.connection() as connection, connection.transaction():
        written = await connection.execute(
            """INSERT INTO alarm.command (command_id, alarm_id, command, by, note)
               VALUES (%(key)s, %(alarm)s, 'acknowledge', %(by)s, %(note)s) ON CONFLICT (command_id) DO NOTHING""",
            {"key": key, "alarm": alarm_id, "by": body.by, "note": body.note},
        )
        if written.rowcount:
            await connection.execute("SELECT pg_notify(%(channel)s, %(key)s)", {"channel": COMMAND_CHANNEL, "key": key})
            return
        found = await connection.execute(
            "SELECT alarm_id, by, note FROM alarm.command WHERE command_id = %(key)s", {"key": key}
        )
        row = await found.fetchone()
    if row and (row["alarm_id"], row["by"], row["note"]) != (alarm_id, body.by, body.note):
        raise Problem(422, "key-reused", "Idempotency-Key: expected a new key, this one was used for something else")


async def _outcome(console: Console, key: str) -> str | None:
    """What alerting made of the command; None if it has not handled it in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_S
    while True:
        row = await console.store.row("SELECT outcome FROM alarm.command WHERE command_id = %(key)s", {"key": key})
        if row and row["outcome"]:
            outcome: str = row["outcome"]
            return outcome
        if loop.time() >= deadline:
            return None
        await console.hub.alarm_woken(LOOK_EVERY_S)


async def _known(console: Console, alarm_id: str) -> models.Alarm:
    alarm = await reads.alarm(console.store, alarm_id)
    if alarm is None:
        raise Problem(404, "unknown-alarm", f"no alarm {alarm_id!r}")
    return alarm


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise Problem(422, "invalid-request", "cursor: expected the `next` of an earlier answer") from None
