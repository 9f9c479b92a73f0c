"""The registry's points → store.signal. Set-based: an edge may have hundreds of thousands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, LiteralString

import psycopg
from psycopg.types.json import Jsonb

from ingest.signals import signed
from telemetry.ledger import name_hash
from telemetry.names import signal_name, split_signal

Connection = psycopg.AsyncConnection[Any]


async def upsert_signals(connection: Connection, equipment: Sequence[Mapping[str, Any]]) -> None:
    """Registers the points of equipment; what was retired returns. Raises ValueError for a name that is none."""
    rows = [_row(e["id"], point, about) for e in equipment for point, about in e["points"].items()]
    if rows:
        await connection.execute(_UPSERT, (Jsonb(rows),))


async def retire_signals(connection: Connection, equipment: Sequence[Mapping[str, Any]], at: datetime) -> None:
    """Marks registered signals of the equipment retired whose points are not in the registry any more."""
    names = [signal_name(e["id"], point) for e in equipment for point in e["points"]]
    await connection.execute(
        "UPDATE store.signal SET retired_at = %s WHERE equipment = ANY(%s) AND registered AND retired_at IS NULL"
        " AND NOT EXISTS (SELECT FROM unnest(%s::text[]) AS kept(name) WHERE kept.name = signal.name)",
        (at, [e["id"] for e in equipment], names),
    )


def _row(equipment: str, point: str, about: Mapping[str, Any]) -> dict[str, Any]:
    name = signal_name(equipment, point)
    split_signal(name)
    return {
        "name": name,
        "equipment": equipment,
        "point": point,
        "name_hash": signed(name_hash(name)),
        "kind": about["kind"],
        "unit": about["unit"],
        "group": about["group"],
        "name_zh": about["name"]["zh"],
        "name_en": about["name"]["en"],
        "enum": about["enum"],
        "low": about["low"],
        "high": about["high"],
        "limits": about["limits"],
    }


_UPSERT: Final[LiteralString] = """
INSERT INTO store.signal AS s (name, equipment, point, name_hash, registered, kind, unit, "group", name_zh, name_en, enum,
                               low, high, limits)
SELECT r.name, r.equipment, r.point, r.name_hash, true, r.kind, r.unit, r."group", r.name_zh, r.name_en, r.enum, r.low,
       r.high, r.limits
FROM jsonb_to_recordset(%s) AS r(name text, equipment text, point text, name_hash bigint, kind text, unit text,
    "group" text, name_zh text, name_en text, enum jsonb, low float8, high float8, limits jsonb)
WHERE NOT EXISTS (
    SELECT FROM store.signal s WHERE s.name = r.name
    AND (s.registered, s.kind, s.unit, s."group", s.name_zh, s.name_en, s.enum, s.low, s.high, s.limits, s.retired_at)
        IS NOT DISTINCT FROM (true, r.kind, r.unit, r."group", r.name_zh, r.name_en, r.enum, r.low, r.high, r.limits, NULL))
ORDER BY r.name
ON CONFLICT (name) DO UPDATE SET registered = true, kind = excluded.kind, unit = excluded.unit,
    "group" = excluded."group", name_zh = excluded.name_zh, name_en = excluded.name_en, enum = excluded.enum,
    low = excluded.low, high = excluded.high, limits = excluded.limits, retired_at = NULL
"""
"""Only what is new or has changed is tried: each row that is takes a number for good, and the numbers are of 31 bits."""
