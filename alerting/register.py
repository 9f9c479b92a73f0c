"""What the register says of an alarm's equipment: who owned it and where it stood when the alarm was raised.

Every link of the register is dated. An alarm keeps the links in force when it was raised. The register knows nothing of
the time before its first entry, so the first link of a kind counts for what came before it, too; a gap between two links
stays a gap. Where an edge's registry arrives after its first alarm (both are on their way at once when a line starts),
the alarm's empty columns are filled by the same rule within a day; what was filled once never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, LiteralString

import psycopg

from alerting.catalogue import Known
from alerting.phrases import Words
from telemetry.errors import ConfigError
from telemetry.files import load_profile
from telemetry.settings import Settings

Connection = psycopg.AsyncConnection[Any]


async def adopt(connection: Connection, ids: Sequence[str]) -> list[str]:
    """Fills in whose these alarms are, where that is still empty. Returns the ids of those that changed."""
    cursor = await connection.execute(_ADOPT, {"ids": list(ids)})
    return [alarm_id for (alarm_id,) in await cursor.fetchall()]


async def orphans(connection: Connection, *, after: str, limit: int) -> list[str]:
    """Alarms of the last day that are nobody's and nowhere: raised before the register knew their equipment.

    Up to `limit`, in the order of their ids, from the first behind `after` on. Raises psycopg.Error.
    """
    cursor = await connection.execute(
        "SELECT m.alarm_id FROM alarm.alarm m JOIN register.equipment e ON e.id = m.equipment"
        " WHERE m.alarm_id > %s AND m.stored_at > clock_timestamp() - interval '1 day' AND m.area_id IS NULL"
        " AND m.owner_id IS NULL AND m.user_id IS NULL AND m.maintainer_id IS NULL ORDER BY m.alarm_id LIMIT %s",
        (after, limit),
    )
    return [alarm_id for (alarm_id,) in await cursor.fetchall()]


async def look_up(connection: Connection, settings: Settings, equipment: str) -> Known | None:
    """An equipment of another plant file, by its profile's name in the register; None where that is not to be had."""
    cursor = await connection.execute(
        "SELECT profile, name_zh, name_en FROM register.equipment WHERE id = %s", (equipment,)
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    try:
        return Known(load_profile(row[0], profiles_dir=settings.profiles_dir), Words(row[1], row[2]))
    except ConfigError:
        return None


_ADOPT: Final[LiteralString] = """
UPDATE alarm.alarm a SET area_id = x.area_id, owner_id = x.owner_id, user_id = x.user_id, maintainer_id = x.maintainer_id,
    class = coalesce(nullif(a.class, ''), x.class)
FROM (
    SELECT m.alarm_id, e.class, area.area_id, party.owner_id, party.user_id, party.maintainer_id
    FROM alarm.alarm m
    JOIN register.equipment e ON e.id = m.equipment
    LEFT JOIN LATERAL (
        SELECT l.area_id FROM register.equipment_area l
        WHERE l.equipment_id = e.equipment_id AND coalesce(l.valid_to, 'infinity') > m.raised_at
        AND (l.valid_from <= m.raised_at OR l.valid_from =
            (SELECT min(f.valid_from) FROM register.equipment_area f WHERE f.equipment_id = l.equipment_id))
        ORDER BY l.valid_from LIMIT 1
    ) area ON true
    LEFT JOIN LATERAL (
        SELECT (array_agg(l.organisation_id ORDER BY l.valid_from) FILTER (WHERE l.role = 'owner'))[1] AS owner_id,
            (array_agg(l.organisation_id ORDER BY l.valid_from) FILTER (WHERE l.role = 'user'))[1] AS user_id,
            (array_agg(l.organisation_id ORDER BY l.valid_from) FILTER (WHERE l.role = 'maintainer'))[1] AS maintainer_id
        FROM register.equipment_party l
        WHERE l.equipment_id = e.equipment_id AND coalesce(l.valid_to, 'infinity') > m.raised_at
        AND (l.valid_from <= m.raised_at OR l.valid_from = (SELECT min(f.valid_from) FROM register.equipment_party f
            WHERE f.equipment_id = l.equipment_id AND f.role = l.role))
    ) party ON true
    WHERE m.alarm_id = ANY(%(ids)s) AND m.area_id IS NULL AND m.owner_id IS NULL AND m.user_id IS NULL
    AND m.maintainer_id IS NULL
) x
WHERE a.alarm_id = x.alarm_id AND coalesce(x.area_id, x.owner_id, x.user_id, x.maintainer_id) IS NOT NULL
RETURNING a.alarm_id
"""
