"""The console's queries: only views of `public`, always with parameters, always bounded.

Each function returns models ready to be answered. `now` is the clock's time, by which a unit counts as silent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, LiteralString

from dashboards.console import models, shapes
from dashboards.console.store import Row, Store
from telemetry.messages import TEXT_SCHEME

SILENT_AFTER_S: Final = 30
"""Nothing of the unit's edge reached the store for so long (ingest itself may be down): what was said no longer counts."""
KEY_POINTS: Final = 4
CANDIDATES: Final = 24
"""Points of a unit of which its key points are chosen."""
MAX_ACTIVE: Final = 2000

Order = Callable[[str, str], int]
"""(profile, point) → the point's place in the profile."""

_EQUIPMENT: Final[LiteralString] = """
SELECT e.*, CASE WHEN e.online IS NULL THEN 'unknown' WHEN NOT e.online THEN 'offline'
                 WHEN e.heard < %(now)s - make_interval(secs => %(silent_s)s) THEN 'silent'
                 ELSE 'online' END AS connection
FROM public.equipment e WHERE e.retired_at IS NULL
"""

_SUBAREAS: Final[LiteralString] = """(
WITH RECURSIVE below AS (
    SELECT id FROM public.areas WHERE id = %(area)s
    UNION SELECT a.id FROM public.areas a JOIN below b ON a.parent = b.id)
SELECT id FROM below)"""

_ALARM: Final[LiteralString] = """
SELECT m.*, s.name_zh AS point_zh, s.name_en AS point_en,
       (SELECT max(h.history_id) FROM public.alarm_history h WHERE h.alarm_id = m.id) AS revision
FROM public.alarms m LEFT JOIN public.signals s ON s.equipment = m.equipment AND s.point = m.point
"""

_READING: Final[LiteralString] = """
SELECT s.*, l.time, l.value, l.quality
FROM public.signals s LEFT JOIN public.latest l ON l.equipment = s.equipment AND l.point = s.point
"""

LATEST_PAGE: Final[LiteralString] = """
SELECT l.equipment, l.point, l.time, l.value, l.quality, s.enum
FROM public.latest l JOIN public.signals s ON s.equipment = l.equipment AND s.point = l.point WHERE s.retired_at IS NULL
"""

_TRANSITIONS: Final[LiteralString] = "\n".join(
    [
        "SELECT h.history_id, h.transition, a.* FROM public.alarm_history h JOIN (",
        _ALARM,
        ") a ON a.id = h.alarm_id WHERE h.history_id > %(after)s ORDER BY h.history_id LIMIT %(limit)s",
    ]
)

_CONNECTION_COUNTS: Final[LiteralString] = "\n".join(
    ["SELECT connection, count(*)::int AS n FROM (", _EQUIPMENT, ") e GROUP BY connection"]
)

# Of a unit: points with an active alarm, then those with limits, then others.
_KEY_POINTS: Final[LiteralString] = "\n".join(
    [
        "SELECT * FROM (",
        """SELECT r.*, a.point IS NOT NULL AS alarmed, row_number() OVER (PARTITION BY r.equipment
                                          ORDER BY a.point IS NULL, r.limits = '[]', r.ordinal) AS rank FROM (""",
        _READING,
        """WHERE s.equipment = ANY(%(ids)s) AND s.kind IN ('measurement', 'state') AND s.retired_at IS NULL) r
           LEFT JOIN (SELECT DISTINCT equipment, point FROM public.alarms WHERE state <> 'normal') a
                ON a.equipment = r.equipment AND a.point = r.point) ranked
           WHERE rank <= %(most)s """,
    ]
)


def _connection_parameters(now: datetime) -> dict[str, Any]:
    return {"now": now, "silent_s": SILENT_AFTER_S}


async def equipment_page(
    store: Store,
    now: datetime,
    order: Order,
    *,
    area: str | None,
    equipment_class: str | None,
    search: str | None,
    after: str | None,
    limit: int,
) -> list[models.Equipment]:
    """Up to `limit` units by id, after one; `area` counts with all below it."""
    where: list[LiteralString] = [_EQUIPMENT]
    if area is not None:
        where.append("AND e.area IN " + _SUBAREAS)
    if equipment_class is not None:
        where.append("AND e.class = %(class)s")
    if search:
        where.append("AND concat_ws(' ', e.id, e.name_zh, e.name_en, e.address, e.registration_code) ILIKE %(like)s")
    if after is not None:
        where.append("AND e.id > %(after)s")
    where.append("ORDER BY e.id LIMIT %(limit)s")
    found = await store.rows(
        "\n".join(where),
        _connection_parameters(now)
        | {"area": area, "class": equipment_class, "after": after, "limit": limit, "like": _contains(search or "")},
    )
    return await _with_state(store, order, found)


async def equipment(store: Store, now: datetime, order: Order, equipment_id: str) -> models.Equipment | None:
    """One unit, if the register has it."""
    found = await store.rows(_EQUIPMENT + "AND e.id = %(id)s", _connection_parameters(now) | {"id": equipment_id})
    units = await _with_state(store, order, found)
    return units[0] if units else None


async def connections(store: Store, now: datetime) -> dict[str, tuple[models.Connection, datetime | None]]:
    """Every unit's connection state and since when: id → (word, time)."""
    found = await store.rows(_EQUIPMENT, _connection_parameters(now))
    return {row["id"]: (row["connection"], shapes.since_of(row)) for row in found}


async def points(store: Store, order: Order, profile: str, equipment_id: str) -> list[models.Point]:
    """A unit's points with their latest values, in its profile's order."""
    found = await store.rows(
        _READING + "WHERE s.equipment = %(id)s AND s.retired_at IS NULL ORDER BY s.ordinal", {"id": equipment_id}
    )
    texts = await _texts(store, equipment_id) if any(row["kind"] == "text" for row in found) else {}
    found.sort(key=lambda row: order(profile, row["point"]))
    return [shapes.point_of(row, texts) for row in found]


async def latest_page(
    store: Store,
    *,
    equipments: Sequence[str] | None,
    area: str | None,
    equipment_class: str | None,
    after: tuple[str, str] | None,
    limit: int,
) -> list[models.Reading]:
    """Up to `limit` latest readings by equipment and point, after one; of all equipment that is not retired."""
    where: list[LiteralString] = [LATEST_PAGE]
    if equipments is not None:
        where.append("AND l.equipment = ANY(%(ids)s)")
    if area is not None:
        where += ["AND l.equipment IN (SELECT id FROM public.equipment WHERE area IN", _SUBAREAS, ")"]
    if equipment_class is not None:
        where.append("AND l.equipment IN (SELECT id FROM public.equipment WHERE class = %(class)s)")
    if after is not None:
        where.append("AND (l.equipment, l.point) > (%(equipment)s, %(point)s)")
    where.append("ORDER BY l.equipment, l.point LIMIT %(limit)s")
    equipment_id, point = after or (None, None)
    found = await store.rows(
        "\n".join(where),
        {
            "ids": list(equipments or ()),
            "area": area,
            "class": equipment_class,
            "equipment": equipment_id,
            "point": point,
            "limit": limit,
        },
    )
    return [models.Reading(**shapes.reading_of(row, {})) for row in found]


async def latest_since(
    store: Store, since: datetime, *, equipments: Sequence[str] | None, limit: int
) -> list[tuple[datetime, models.Reading]]:
    """(changed_at, reading) of what changed after `since`, oldest first; of some equipments or all."""
    found = await store.rows(
        """SELECT l.equipment, l.point, l.time, l.value, l.quality, l.changed_at, s.enum
           FROM public.latest l JOIN public.signals s ON s.equipment = l.equipment AND s.point = l.point
           WHERE l.changed_at > %(since)s AND (%(all)s OR l.equipment = ANY(%(ids)s))
           ORDER BY l.changed_at LIMIT %(limit)s""",
        {"since": since, "all": equipments is None, "ids": list(equipments or ()), "limit": limit},
    )
    return [(row["changed_at"], models.Reading(**shapes.reading_of(row, {}))) for row in found]


async def alarm_page(
    store: Store,
    *,
    active: bool,
    equipments: Sequence[str] | None = None,
    area: str | None = None,
    before: tuple[datetime, str] | None = None,
    limit: int,
) -> list[models.Alarm]:
    """Up to `limit` alarms, newest first, before one."""
    where: list[LiteralString] = [_ALARM, "WHERE true"]
    if active:
        where.append("AND m.state <> 'normal'")
    if equipments is not None:
        where.append("AND m.equipment = ANY(%(ids)s)")
    if area is not None:
        where.append("AND m.area IN " + _SUBAREAS)
    if before is not None:
        where.append("AND (m.raised_at, m.id) < (%(at)s, %(id)s)")
    where.append("ORDER BY m.raised_at DESC, m.id DESC LIMIT %(limit)s")
    at, alarm_id = before or (None, None)
    found = await store.rows(
        "\n".join(where), {"ids": list(equipments or ()), "area": area, "at": at, "id": alarm_id, "limit": limit}
    )
    return [shapes.alarm_of(row) for row in found]


async def alarm(store: Store, alarm_id: str) -> models.Alarm | None:
    """One alarm, if there is one."""
    row = await store.row(_ALARM + "WHERE m.id = %(id)s", {"id": alarm_id})
    return shapes.alarm_of(row) if row else None


async def alarm_history(store: Store, alarm_id: str) -> list[models.Transition]:
    """Every transition of an alarm, oldest first."""
    found = await store.rows(
        "SELECT * FROM public.alarm_history WHERE alarm_id = %(id)s ORDER BY history_id LIMIT 1000", {"id": alarm_id}
    )
    return [models.Transition.model_validate(row) for row in found]


async def transitions_since(store: Store, history_id: int, *, limit: int) -> list[tuple[int, str, models.Alarm]]:
    """(history id, transition, the alarm as it is now) after an id, oldest first."""
    found = await store.rows(_TRANSITIONS, {"after": history_id, "limit": limit})
    return [(row["history_id"], row["transition"], shapes.alarm_of(row)) for row in found]


async def events(
    store: Store, *, equipment_id: str | None, before: tuple[datetime, int] | None, limit: int
) -> list[Row]:
    """Up to `limit` events as rows, newest first, before one; text points' changes are not among them."""
    where: list[LiteralString] = ["SELECT * FROM public.events WHERE scheme <> %(text)s"]
    if equipment_id is not None:
        where.append("AND equipment = %(equipment)s")
    if before is not None:
        where.append("AND (time, event_id) < (%(at)s, %(id)s)")
    where.append("ORDER BY time DESC, event_id DESC LIMIT %(limit)s")
    at, event_id = before or (None, None)
    return await store.rows(
        " ".join(where),
        {"text": TEXT_SCHEME, "equipment": equipment_id, "at": at, "id": event_id, "limit": limit},
    )


async def events_since(store: Store, event_id: int, *, limit: int) -> list[Row]:
    """Events as rows after an id, in the order in which they were stored; text points' changes too."""
    return await store.rows(
        "SELECT * FROM public.events WHERE event_id > %(after)s ORDER BY event_id LIMIT %(limit)s",
        {"after": event_id, "limit": limit},
    )


async def profile_of(store: Store, equipment_id: str) -> str | None:
    """The profile's name of a unit."""
    row = await store.row("SELECT profile FROM public.equipment WHERE id = %(id)s", {"id": equipment_id})
    return row["profile"] if row else None


async def areas(store: Store) -> list[models.Area]:
    """All areas with the number of units in each and below."""
    found = await store.rows(
        """WITH RECURSIVE up AS (
               SELECT id AS area, id, parent FROM public.areas
               UNION ALL SELECT up.area, p.id, p.parent FROM up JOIN public.areas p ON p.id = up.parent),
           counted AS (SELECT area, count(*) AS n FROM public.equipment
                       WHERE retired_at IS NULL AND area IS NOT NULL GROUP BY area)
           SELECT a.id, a.parent, a.level, a.name_zh, a.name_en, coalesce(sum(c.n), 0)::int AS equipment
           FROM public.areas a LEFT JOIN up ON up.id = a.id LEFT JOIN counted c ON c.area = up.area
           GROUP BY a.id, a.parent, a.level, a.name_zh, a.name_en ORDER BY a.id"""
    )
    return [models.Area(**row, name=shapes.text_of(row, "name")) for row in found]


async def classes(store: Store) -> list[models.EquipmentClass]:
    """All classes in the register with the number of units."""
    found = await store.rows(
        """SELECT class AS id, min(class_name_zh) AS name_zh, min(class_name_en) AS name_en, count(*)::int AS equipment
           FROM public.equipment WHERE retired_at IS NULL GROUP BY class ORDER BY class"""
    )
    return [models.EquipmentClass(**row, name=shapes.text_of(row, "name")) for row in found]


async def summary(store: Store, now: datetime) -> models.Summary:
    """The fleet in numbers."""
    found = await store.rows(_CONNECTION_COUNTS, _connection_parameters(now))
    alarms = await store.rows(
        """SELECT priority, count(*)::int AS n, count(*) FILTER (WHERE state LIKE '%%unacknowledged')::int AS fresh
           FROM public.alarms WHERE state <> 'normal' GROUP BY priority""",
        {},
    )
    counts = {row["connection"]: row["n"] for row in found}
    words: tuple[models.Connection, ...] = ("online", "offline", "silent", "unknown")
    by_priority = {row["priority"]: row["n"] for row in alarms}
    return models.Summary(
        equipment=sum(counts.values()),
        connections={word: counts.get(word, 0) for word in words},
        alarms={priority: by_priority.get(priority, 0) for priority in shapes.PRIORITIES},
        unacknowledged=sum(row["fresh"] for row in alarms),
        at=now,
    )


async def _with_state(store: Store, order: Order, found: Sequence[Row]) -> list[models.Equipment]:
    """Units with their active alarms and key points: two more queries for a whole page."""
    if not found:
        return []
    ids = [row["id"] for row in found]
    alarms: dict[str, list[models.Alarm]] = defaultdict(list)
    for item in await alarm_page(store, active=True, equipments=ids, limit=MAX_ACTIVE):
        alarms[item.equipment].append(item)
    candidates: dict[str, list[Row]] = defaultdict(list)
    for row in await store.rows(_KEY_POINTS, {"ids": ids, "most": CANDIDATES}):
        candidates[row["equipment"]].append(row)
    return [_unit(row, alarms[row["id"]], candidates[row["id"]], order) for row in found]


def _unit(row: Row, alarms: list[models.Alarm], candidates: list[Row], order: Order) -> models.Equipment:
    """A unit with its first candidates: points in alarm, then those with limits, then as its profile has them."""
    in_order = sorted(candidates, key=lambda c: (not c["alarmed"], not c["limits"], order(row["profile"], c["point"])))
    shown = sorted(in_order[:KEY_POINTS], key=lambda c: order(row["profile"], c["point"]))
    return shapes.equipment_of(row, alarms, [shapes.point_of(c, {}) for c in shown])


async def _texts(store: Store, equipment_id: str) -> dict[str, str]:
    """The present text of each text point: point → text."""
    found = await store.rows(
        """SELECT DISTINCT ON (code) code, attributes->>'value' AS value FROM public.events
           WHERE equipment = %(id)s AND scheme = %(scheme)s ORDER BY code, time DESC, event_id DESC""",
        {"id": equipment_id, "scheme": TEXT_SCHEME},
    )
    return {row["code"]: row["value"] for row in found if row["value"] is not None}


def _contains(search: str) -> str:
    escaped = search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
