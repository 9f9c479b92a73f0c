"""An edge's registry → the register: areas, organisations, equipment, their dated links, and the signals.

Invariants: every link is dated, and a change closes the old one at the registry's time and opens the new one there;
nothing is deleted (what is gone is marked retired, what returns is un-retired); equipment belongs to one edge, and a second
edge that claims it is refused with an event; every change leaves an audit row with before and after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from ingest.accounts import time_of
from ingest.events import FromEdge, own_event
from ingest.register_signals import retire_signals, upsert_signals
from telemetry.messages import Registry

Connection = psycopg.AsyncConnection[Any]
Row = dict[str, Any]

LOCK: Final = 0x5669_6769_6C01
"""Advisory lock of the register: two edges' registries are applied one after the other."""
ROLES: Final = ("owner", "user", "maintainer")


@dataclass(frozen=True, slots=True)
class Change:
    """One row of register.audit."""

    action: str
    subject: str
    before: Any
    after: Any


async def apply_registry(connection: Connection, registry: Registry) -> list[FromEdge]:
    """Brings the register to what an edge says of its part. Returns events (refused claims).

    Raises psycopg.Error; KeyError, TypeError or ValueError when the registry is not of the documented shape.
    """
    at = time_of(registry.time_us)
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
    if not await _newer(connection, registry.edge, at):
        return []
    plant = registry.plant
    changes: list[Change] = []
    changes += await _areas(connection, [{**plant["site"], "parent": None}, *plant["areas"]])
    changes += await _organisations(connection, plant["organisations"])
    claimed = await _claimed(connection, registry.edge, [e["id"] for e in plant["equipment"]])
    mine = [e for e in plant["equipment"] if e["id"] not in claimed]
    changes += await _equipment(connection, registry.edge, mine)
    changes += await _links(connection, mine, at)
    await upsert_signals(connection, mine)
    changes += await _retire(connection, registry.edge, [e["id"] for e in mine], at)
    await retire_signals(connection, mine, at)
    await _audit(connection, f"edge:{registry.edge}", changes)
    return [
        own_event("equipment-claimed", equipment, registry.time_us, owner=owner, claimant=registry.edge)
        for equipment, owner in sorted(claimed.items())
    ]


async def _newer(connection: Connection, edge: str, at: datetime) -> bool:
    """Notes the registry's time; false when a later one was applied already."""
    cursor = await connection.execute(
        "INSERT INTO store.edge AS e (edge, heartbeat, epoch, registry_at) VALUES (%(edge)s, '-infinity', 0, %(at)s)"
        " ON CONFLICT (edge) DO UPDATE SET registry_at = excluded.registry_at"
        " WHERE e.registry_at IS NULL OR e.registry_at <= excluded.registry_at RETURNING true",
        {"edge": edge, "at": at},
    )
    return await cursor.fetchone() is not None


async def _areas(connection: Connection, areas: Sequence[Row]) -> list[Change]:
    rows = [
        {
            "id": area["id"],
            "level": area["level"],
            "name_zh": area["name"]["zh"],
            "name_en": area["name"]["en"],
            "parent": area["parent"],
        }
        for area in areas
    ]
    before = await _existing(
        connection,
        "SELECT a.id, a.level, a.name_zh, a.name_en, p.id AS parent FROM register.area a"
        " LEFT JOIN register.area p ON p.area_id = a.parent_id WHERE a.id = ANY(%s)",
        rows,
    )
    changed = [row for row in rows if before.get(row["id"]) != row]
    async with connection.cursor() as cursor:
        for statement in (
            "INSERT INTO register.area (id, level, name_zh, name_en) VALUES (%(id)s, %(level)s, %(name_zh)s, %(name_en)s)"
            " ON CONFLICT (id) DO NOTHING",
            "UPDATE register.area SET level = %(level)s, name_zh = %(name_zh)s, name_en = %(name_en)s,"
            " parent_id = (SELECT p.area_id FROM register.area p WHERE p.id = %(parent)s) WHERE id = %(id)s",
        ):
            if changed:
                await cursor.executemany(statement, changed)
    return _upserts("area", before, changed)


async def _organisations(connection: Connection, organisations: Sequence[Row]) -> list[Change]:
    rows = [
        {
            "id": organisation["id"],
            "name_zh": organisation["name"]["zh"],
            "name_en": organisation["name"]["en"],
            "phone": organisation["phone"],
            "credit_code": organisation["credit_code"] or None,
            "address": organisation["address"],
            "kinds": sorted(organisation["kinds"]),
        }
        for organisation in organisations
    ]
    before = await _existing(
        connection,
        "SELECT o.id, o.name_zh, o.name_en, o.phone, o.credit_code, o.address, ARRAY(SELECT k.kind FROM"
        " register.organisation_kind k WHERE k.organisation_id = o.organisation_id ORDER BY 1) AS kinds"
        " FROM register.organisation o WHERE o.id = ANY(%s)",
        rows,
    )
    changed = [row for row in rows if before.get(row["id"]) != row]
    async with connection.cursor() as cursor:
        for statement in _ORGANISATION:
            if changed:
                await cursor.executemany(statement, changed)
    return _upserts("organisation", before, changed)


async def _claimed(connection: Connection, edge: str, ids: Sequence[str]) -> dict[str, str]:
    """Equipment of these that belongs to another edge and is not retired there."""
    cursor = await connection.execute(
        "SELECT id, edge FROM register.equipment WHERE id = ANY(%s) AND edge <> %s AND retired_at IS NULL", (ids, edge)
    )
    return dict(await cursor.fetchall())


async def _equipment(connection: Connection, edge: str, equipment: Sequence[Row]) -> list[Change]:
    rows = [_equipment_row(edge, e) for e in equipment]
    before = await _existing(connection, _EQUIPMENT_BEFORE, rows)
    changed = [row for row in rows if before.get(row["id"]) != row]
    if changed:
        async with connection.cursor() as cursor:
            await cursor.executemany(_EQUIPMENT, changed)
    return _upserts("equipment", before, changed)


def _equipment_row(edge: str, equipment: Mapping[str, Any]) -> Row:
    latitude, longitude = equipment["position"] or (None, None)
    return {
        "id": equipment["id"],
        "class": equipment["class"],
        "class_name_zh": equipment["class_name"]["zh"],
        "class_name_en": equipment["class_name"]["en"],
        "profile": equipment["profile"],
        "profile_version": equipment["profile_version"],
        "edge": edge,
        "name_zh": equipment["name"]["zh"],
        "name_en": equipment["name"]["en"],
        "registration_code": equipment["registration"],
        "model": equipment["model"],
        "address": equipment["location"],
        "latitude": latitude,
        "longitude": longitude,
        "retired": False,
    }


async def _links(connection: Connection, equipment: Sequence[Row], at: datetime) -> list[Change]:
    """Closes and opens dated links where what holds today differs from the registry."""
    wanted: dict[tuple[str, str], str | None] = {}
    for e in equipment:
        wanted.update({(e["id"], role): e["parties"][role] for role in ROLES})
        wanted[e["id"], "area"] = e["area"]
        wanted[e["id"], "status"] = e["status"]
    cursor = await connection.execute(_LINKS_BEFORE, {"ids": [e["id"] for e in equipment]})
    before = {(equipment_id, link): target for equipment_id, link, target in await cursor.fetchall()}
    changed = [(key, target) for key, target in sorted(wanted.items()) if before.get(key) != target]
    for link in (*ROLES, "area", "status"):
        rows = [{"id": key[0], "role": link, "target": t, "at": at} for key, t in changed if key[1] == link]
        close, open_ = _LINK.get(link, _PARTY)
        async with connection.cursor() as cursor:
            if rows:
                await cursor.executemany(close, rows)
            if opened := [row for row in rows if row["target"] is not None]:
                await cursor.executemany(open_, opened)
    return [Change("link", f"equipment/{key[0]}/{key[1]}", before.get(key), target) for key, target in changed]


async def _retire(connection: Connection, edge: str, ids: Sequence[str], at: datetime) -> list[Change]:
    cursor = await connection.execute(
        "UPDATE register.equipment SET retired_at = %s WHERE edge = %s AND retired_at IS NULL AND id <> ALL(%s)"
        " RETURNING id",
        (at, edge, ids),
    )
    gone = sorted(row[0] for row in await cursor.fetchall())
    if gone:
        await connection.execute(
            "UPDATE store.signal SET retired_at = %s WHERE equipment = ANY(%s) AND retired_at IS NULL", (at, gone)
        )
    return [Change("retire", f"equipment/{name}", None, {"retired_at": at.isoformat()}) for name in gone]


async def _existing(connection: Connection, query: LiteralString, rows: Sequence[Row]) -> dict[str, Row]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query, ([row["id"] for row in rows],))
        return {row["id"]: row for row in await cursor.fetchall()}


def _upserts(kind: str, before: Mapping[str, Row], changed: Sequence[Row]) -> list[Change]:
    return [
        Change("update" if row["id"] in before else "insert", f"{kind}/{row['id']}", before.get(row["id"]), row)
        for row in changed
    ]


async def _audit(connection: Connection, actor: str, changes: Sequence[Change]) -> None:
    if changes:
        async with connection.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO register.audit (actor, action, subject, before, after) VALUES (%s, %s, %s, %s, %s)",
                [(actor, c.action, c.subject, _json(c.before), _json(c.after)) for c in changes],
            )


def _json(value: Any) -> Jsonb | None:
    return None if value is None else Jsonb(value)


_ORGANISATION: Final[tuple[LiteralString, ...]] = (
    "INSERT INTO register.organisation (id, name_zh, name_en, phone, credit_code, address)"
    " VALUES (%(id)s, %(name_zh)s, %(name_en)s, %(phone)s, %(credit_code)s, %(address)s)"
    " ON CONFLICT (id) DO UPDATE SET name_zh = excluded.name_zh, name_en = excluded.name_en, phone = excluded.phone,"
    " credit_code = excluded.credit_code, address = excluded.address",
    "DELETE FROM register.organisation_kind k USING register.organisation o"
    " WHERE k.organisation_id = o.organisation_id AND o.id = %(id)s AND k.kind <> ALL(%(kinds)s)",
    "INSERT INTO register.organisation_kind (organisation_id, kind)"
    " SELECT o.organisation_id, unnest(%(kinds)s::text[]) FROM register.organisation o WHERE o.id = %(id)s"
    " ON CONFLICT DO NOTHING",
)
_EQUIPMENT_BEFORE: Final[LiteralString] = """
SELECT id, class, class_name_zh, class_name_en, profile, profile_version, edge, name_zh, name_en, registration_code, model,
       address, latitude, longitude, retired_at IS NOT NULL AS retired
FROM register.equipment WHERE id = ANY(%s)
"""
_EQUIPMENT: Final[LiteralString] = """
INSERT INTO register.equipment (id, class, class_name_zh, class_name_en, profile, profile_version, edge, name_zh, name_en,
                                registration_code, model, address, latitude, longitude)
VALUES (%(id)s, %(class)s, %(class_name_zh)s, %(class_name_en)s, %(profile)s, %(profile_version)s, %(edge)s, %(name_zh)s,
        %(name_en)s, %(registration_code)s, %(model)s, %(address)s, %(latitude)s, %(longitude)s)
ON CONFLICT (id) DO UPDATE SET class = excluded.class, class_name_zh = excluded.class_name_zh,
    class_name_en = excluded.class_name_en, profile = excluded.profile, profile_version = excluded.profile_version,
    edge = excluded.edge, name_zh = excluded.name_zh, name_en = excluded.name_en,
    registration_code = excluded.registration_code, model = excluded.model, address = excluded.address,
    latitude = excluded.latitude, longitude = excluded.longitude, retired_at = NULL
"""
_LINKS_BEFORE: Final[LiteralString] = """
SELECT e.id, p.role, o.id FROM register.equipment_party p
JOIN register.equipment e USING (equipment_id) JOIN register.organisation o USING (organisation_id)
WHERE p.valid_to IS NULL AND e.id = ANY(%(ids)s)
UNION ALL
SELECT e.id, 'area', a.id FROM register.equipment_area l
JOIN register.equipment e USING (equipment_id) JOIN register.area a USING (area_id)
WHERE l.valid_to IS NULL AND e.id = ANY(%(ids)s)
UNION ALL
SELECT e.id, 'status', s.status FROM register.equipment_status s
JOIN register.equipment e USING (equipment_id)
WHERE s.valid_to IS NULL AND e.id = ANY(%(ids)s)
"""
_PARTY: Final[tuple[LiteralString, LiteralString]] = (
    "UPDATE register.equipment_party SET valid_to = greatest(valid_from, %(at)s) WHERE valid_to IS NULL"
    " AND role = %(role)s AND equipment_id = (SELECT equipment_id FROM register.equipment WHERE id = %(id)s)",
    "INSERT INTO register.equipment_party (equipment_id, organisation_id, role, valid_from) VALUES"
    " ((SELECT equipment_id FROM register.equipment WHERE id = %(id)s),"
    " (SELECT organisation_id FROM register.organisation WHERE id = %(target)s), %(role)s, %(at)s)",
)
_LINK: Final[dict[str, tuple[LiteralString, LiteralString]]] = {
    "area": (
        "UPDATE register.equipment_area SET valid_to = greatest(valid_from, %(at)s) WHERE valid_to IS NULL"
        " AND equipment_id = (SELECT equipment_id FROM register.equipment WHERE id = %(id)s)",
        "INSERT INTO register.equipment_area (equipment_id, area_id, valid_from) VALUES"
        " ((SELECT equipment_id FROM register.equipment WHERE id = %(id)s),"
        " (SELECT area_id FROM register.area WHERE id = %(target)s), %(at)s)",
    ),
    "status": (
        "UPDATE register.equipment_status SET valid_to = greatest(valid_from, %(at)s) WHERE valid_to IS NULL"
        " AND equipment_id = (SELECT equipment_id FROM register.equipment WHERE id = %(id)s)",
        "INSERT INTO register.equipment_status (equipment_id, status, valid_from) VALUES"
        " ((SELECT equipment_id FROM register.equipment WHERE id = %(id)s), %(target)s, %(at)s)",
    ),
}
