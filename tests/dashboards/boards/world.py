"""A small world with a known truth, for the queries of the boards: two streets, three units, three alarms, six hours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
from psycopg.types.json import Jsonb

NOW = datetime.now(UTC).replace(microsecond=0)
FROM, TO = NOW - timedelta(hours=6), NOW + timedelta(seconds=1)


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def fill(connection: psycopg.Connection) -> None:
    """As the owner of the schema."""
    _register(connection)
    _alarms(connection)
    _samples(connection)


def _register(c: psycopg.Connection) -> None:
    for area in ("a", "b"):
        c.execute(
            "INSERT INTO register.area (id, level, name_zh, name_en) VALUES (%s, 'street', %s, %s)",
            (area, f"街道{area}", f"Street {area}"),
        )
    for company in ("fast", "slow", "owner"):
        c.execute(
            "INSERT INTO register.organisation (id, name_zh, name_en, phone) VALUES (%s, %s, %s, '110')",
            (company, f"公司{company}", f"Company {company}"),
        )
    for unit, kind, area, maintainer, online in UNITS:
        c.execute(
            "INSERT INTO register.equipment (id, class, class_name_zh, class_name_en, profile, profile_version, edge,"
            " name_zh, name_en, address)"
            " VALUES (%(id)s, %(class)s, %(zh)s, %(class)s, 'p', 1, 'edge-1', %(zh)s, %(id)s, '1 Road')",
            {"id": unit, "class": kind, "zh": f"设备{unit}"},
        )
        c.execute(
            "INSERT INTO register.equipment_area SELECT e.equipment_id, a.area_id, now() - interval '1 year'"
            " FROM register.equipment e, register.area a WHERE e.id = %s AND a.id = %s",
            (unit, area),
        )
        for role, company in (("maintainer", maintainer), ("owner", "owner"), ("user", "owner")):
            c.execute(
                "INSERT INTO register.equipment_party SELECT e.equipment_id, o.organisation_id, %s,"
                " now() - interval '1 year' FROM register.equipment e, register.organisation o WHERE e.id = %s AND o.id = %s",
                (role, unit, company),
            )
        c.execute(
            "INSERT INTO store.equipment_online VALUES (%s, 'edge-1', %s, %s, now())", (unit, online, ago(hours=2))
        )
        c.execute("INSERT INTO store.equipment_online_history VALUES (%s, %s, true)", (unit, ago(hours=4)))
        if not online:
            c.execute("INSERT INTO store.equipment_online_history VALUES (%s, %s, false)", (unit, ago(hours=2)))


UNITS = (
    ("lift-1", "elevator", "a", "slow", True),
    ("lift-2", "elevator", "a", "slow", False),
    ("boiler-1", "boiler", "b", "fast", True),
)

ALARMS = (
    # id, unit, priority, state, raised, acknowledged after, cleared after
    ("nobody-came", "lift-1", "critical", "unacknowledged", ago(hours=2), None, None),
    ("well-done", "lift-1", "high", "normal", ago(hours=5), timedelta(minutes=10), timedelta(minutes=60)),
    ("too-slow", "boiler-1", "medium", "acknowledged", ago(hours=3), timedelta(minutes=40), None),
)


def _alarms(c: psycopg.Connection) -> None:
    for alarm, unit, priority, state, raised, acknowledged, cleared in ALARMS:
        c.execute(
            "INSERT INTO alarm.alarm (alarm_id, equipment, point, detector, state, priority, text_zh, text_en, onset,"
            " raised_at, acknowledged_at, acknowledged_by, cleared_at, class, area_id, owner_id, user_id, maintainer_id)"
            " SELECT %(id)s, e.id, 'p', 'limit:high', %(state)s, %(priority)s, '报警', %(id)s, %(raised)s, %(raised)s,"
            " %(acknowledged)s, 'Li', %(cleared)s, e.class, ea.area_id, po.organisation_id, po.organisation_id,"
            " pm.organisation_id FROM register.equipment e JOIN register.equipment_area ea USING (equipment_id)"
            " JOIN register.equipment_party pm ON pm.equipment_id = e.equipment_id AND pm.role = 'maintainer'"
            " JOIN register.equipment_party po ON po.equipment_id = e.equipment_id AND po.role = 'owner'"
            " WHERE e.id = %(unit)s",
            {
                "id": alarm,
                "unit": unit,
                "priority": priority,
                "state": state,
                "raised": raised,
                "acknowledged": raised + acknowledged if acknowledged else None,
                "cleared": raised + cleared if cleared else None,
            },
        )


def _samples(c: psycopg.Connection) -> None:
    limits = Jsonb([{"name": "high", "condition": "above", "limit": 90.0, "priority": "high"}])
    enum = Jsonb({"0": {"zh": "停", "en": "stopped"}, "1": {"zh": "行", "en": "running"}})
    c.execute("SELECT store.ensure_sample_partitions(%s, %s)", (FROM, TO))
    readings: dict[str, tuple[str, str, Jsonb, Jsonb, list[tuple[float | None, int]]]] = {
        "temperature": ("measurement", "°C", limits, Jsonb({}), [(70.0, 192), (91.5, 192), (None, 24), (80.0, 84)]),
        "running": ("state", "", Jsonb([]), enum, [(0.0, 192), (0.0, 192), (1.0, 192), (1.0, 192)]),
        "starts": ("counter", "", Jsonb([]), Jsonb({}), [(100.0, 192), (101.0, 192), (101.0, 192), (104.0, 192)]),
    }
    for number, (point, (kind, unit, limit, names, values)) in enumerate(readings.items()):
        row = c.execute(
            'INSERT INTO store.signal (name, equipment, point, name_hash, registered, kind, unit, "group", name_zh, name_en,'
            " enum, limits) VALUES (%s, 'boiler-1', %s, %s, true, %s, %s, 'heat', %s, %s, %s, %s) RETURNING signal_id",
            (f"boiler-1/{point}", point, number, kind, unit, f"测点{point}", point, names, limit),
        ).fetchone()
        assert row is not None
        for i, (value, quality) in enumerate(values):
            c.execute(
                "INSERT INTO store.sample VALUES (%s, %s, %s, %s)", (row[0], ago(minutes=40 - 10 * i), value, quality)
            )
        c.execute(
            "INSERT INTO store.latest (signal_id, time, value, quality) VALUES (%s, %s, %s, %s)",
            (row[0], ago(minutes=10), *values[-1]),
        )
    c.execute(
        "INSERT INTO store.event (equipment, time, scheme, code, state, edge)"
        " VALUES ('boiler-1', %s, 'sola-lockout', '109', 'on', 'edge-1')",
        (ago(minutes=30),),
    )
