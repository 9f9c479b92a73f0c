"""The registry that an edge publishes: its part of the plant as plain data, from which ingest fills the register.

Shape (texts are {"zh", "en"}; numbers that do not exist are null):

    {"site": {id, name, level, timezone}, "areas": [{id, level, name, parent}],
     "organisations": [{id, kinds, name, phone, credit_code, address}],
     "equipment": [{id, class, class_name, profile, profile_version, name, area, parties: {owner, user, maintainer},
                    registration, location, position, model, status,
                    points: {POINT: {kind, unit, group, name, enum, low, high,
                                     limits: [{name, condition, limit, priority}]}}}]}
"""

from __future__ import annotations

import math
from typing import Any

from telemetry.plant import Equipment, Plant
from telemetry.profile import Point, alarm_condition


def describe(plant: Plant, edge: str) -> dict[str, Any]:
    """The registry of what `edge` reads of `plant`. Equipment of one profile shares one object of points."""
    file = plant.file
    points: dict[int, dict[str, Any]] = {}
    return {
        "site": file.site.model_dump(mode="json"),
        "areas": [{**area.model_dump(mode="json"), "parent": area.parent or file.site.id} for area in file.areas],
        "organisations": [organisation.model_dump(mode="json") for organisation in file.organisations],
        "equipment": [_equipment(equipment, points) for equipment in plant.of_edge(edge)],
    }


def _equipment(equipment: Equipment, points: dict[int, dict[str, Any]]) -> dict[str, Any]:
    entry, profile = equipment.entry, equipment.profile
    if id(profile) not in points:
        points[id(profile)] = {name: describe_point(point) for name, point in profile.points.items()}
    name = entry.name.model_dump() if entry.name else {"zh": equipment.id, "en": equipment.id}
    return {
        "id": equipment.id,
        "class": profile.equipment_class,
        "class_name": profile.class_name.model_dump(),
        "profile": profile.profile,
        "profile_version": profile.version,
        "name": name,
        "area": entry.area,
        "parties": entry.parties.model_dump(),
        "registration": entry.registration,
        "location": entry.location,
        "position": list(entry.position) if entry.position else None,
        "model": entry.model,
        "status": entry.status,
        "points": points[id(profile)],
    }


def describe_point(point: Point) -> dict[str, Any]:
    """What the registry says of a point: POINT of the shape above."""
    return {
        "kind": point.kind.value,
        "unit": point.unit,
        "group": point.group,
        "name": point.name.model_dump(),
        "enum": {str(number): text.model_dump() for number, text in point.enum.items()},
        "low": _finite(point.range.low),
        "high": _finite(point.range.high),
        "limits": [
            {
                "name": name,
                "condition": alarm_condition(name, alarm).value,
                "limit": alarm.limit,
                "priority": alarm.priority.value,
            }
            for name, alarm in point.alarms.items()
        ],
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
