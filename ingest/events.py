"""Events and findings into the store, in the transaction of their records; and Vigil's own events about the line itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import psycopg
from psycopg.types.json import Jsonb

from ingest.accounts import time_of
from telemetry.messages import VIGIL_SCHEME, Event, Finding
from telemetry.store import EVENT_CHANNEL

Connection = psycopg.AsyncConnection[Any]

INGEST_EQUIPMENT: Final = "ingest"
"""What stands for equipment in events about ingest itself."""
TOLD_MAX: Final = 100
"""Events named one by one in a notification; of more, listeners are told to look."""


@dataclass(frozen=True, slots=True)
class FromEdge:
    """An event and who sent it."""

    event: Event
    edge: str


def own_event(code: str, equipment: str, time_us: int, *, on: bool = True, **attributes: Any) -> FromEdge:
    """One of Vigil's own events (scheme vigil): see docs/ingest.md for the codes."""
    return FromEdge(Event(equipment, time_us, VIGIL_SCHEME, code, on, attributes), "ingest")


async def insert_events(connection: Connection, events: Sequence[FromEdge]) -> None:
    """Stores events and notifies of them at the commit. Raises psycopg.Error."""
    if not events:
        return
    rows = [
        (
            e.event.equipment,
            time_of(e.event.time_us),
            e.event.scheme,
            e.event.code,
            "on" if e.event.on else "off",
            Jsonb(clean(e.event.attributes)),
            e.edge,
        )
        for e in events
    ]
    async with connection.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO store.event (equipment, time, scheme, code, state, attributes, edge)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            rows,
        )
        await cursor.execute("SELECT pg_notify(%s, %s)", (EVENT_CHANNEL, _told(events)))


async def upsert_findings(connection: Connection, findings: Sequence[Finding]) -> None:
    """Stores findings: raised and cleared meet in one row by id; a repeated *raised* never reopens a cleared one."""
    if not findings:
        return
    rows = [
        {
            "id": f.id,
            "equipment": f.equipment,
            "point": f.point,
            "detector": f.detector,
            "onset": time_of(f.onset_us),
            "raised": time_of(f.time_us) if f.raised else None,
            "cleared": None if f.raised else time_of(f.time_us),
            "score": f.score,
            "evidence": Jsonb(clean(f.evidence)),
            "late": f.late,
        }
        for f in sorted(findings, key=lambda f: f.id)
    ]
    async with connection.cursor() as cursor:
        await cursor.executemany(_FINDING, rows)


def clean(value: Any) -> Any:
    """The same content without what jsonb cannot hold: NUL in texts, and numbers that are not finite (made null)."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def _told(events: Sequence[FromEdge]) -> str:
    equipments = sorted({e.event.equipment for e in events})
    return orjson.dumps({"equipment": equipments if len(equipments) <= TOLD_MAX else None}).decode()


_FINDING: Final = """
INSERT INTO store.finding AS f (finding_id, equipment, point, detector, onset, raised, cleared, score, evidence, late)
VALUES (%(id)s, %(equipment)s, %(point)s, %(detector)s, %(onset)s, %(raised)s, %(cleared)s, %(score)s, %(evidence)s,
        %(late)s)
ON CONFLICT (finding_id) DO UPDATE SET
    raised = coalesce(f.raised, excluded.raised), cleared = coalesce(f.cleared, excluded.cleared),
    score = greatest(f.score, excluded.score),
    evidence = CASE WHEN excluded.raised IS NULL THEN f.evidence || excluded.evidence ELSE excluded.evidence || f.evidence END
"""
