"""From rows of the views to what the API answers: texts in both languages, parties, readings with quality words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from dashboards.console import models
from dashboards.console.store import Row
from telemetry import quality

PRIORITIES: Final = ("critical", "high", "medium", "low")


def since_of(row: Row) -> datetime | None:
    """Since when the unit's connection state holds; of a silent one, when it was last heard."""
    since: datetime | None = row["heard"] if row["connection"] == "silent" else row["online_since"]
    return since


def text_of(row: Row, stem: str) -> models.Text | None:
    """The text of columns STEM_zh and STEM_en; one language stands in for the other."""
    zh, en = row[f"{stem}_zh"], row[f"{stem}_en"]
    return models.Text(zh=zh or en, en=en or zh) if zh or en else None


def _party(row: Row, role: str) -> models.Party | None:
    name = text_of(row, role)
    return models.Party(id=row[role], name=name, phone=row[f"{role}_phone"] or "") if row[role] and name else None


def _parties(row: Row) -> dict[str, models.Party | None]:
    return {role: _party(row, role) for role in ("owner", "user", "maintainer")}


def equipment_of(row: Row, alarms: list[models.Alarm], key_points: list[models.Point]) -> models.Equipment:
    """A unit with its active alarms and key points."""
    worst = min(alarms, key=lambda a: (PRIORITIES.index(a.priority), -a.raised_at.timestamp()), default=None)
    place = row["latitude"], row["longitude"]
    return models.Equipment.model_validate(
        row
        | _parties(row)
        | {
            "equipment_class": row["class"],
            "class_name": text_of(row, "class_name"),
            "name": text_of(row, "name"),
            "area_name": text_of(row, "area"),
            "since": since_of(row),
            "position": None if None in place else place,
            "alarms": models.AlarmSummary(
                active=len(alarms), unacknowledged=sum(a.state.endswith("unacknowledged") for a in alarms), worst=worst
            ),
            "key_points": key_points,
        }
    )


def alarm_of(row: Row) -> models.Alarm:
    """The alarm of a row of _ALARM."""
    return models.Alarm.model_validate(
        row
        | _parties(row)
        | {
            "equipment_class": row["class"],
            "equipment_name": text_of(row, "equipment"),
            "area_name": text_of(row, "area"),
            "point_name": text_of(row, "point"),
            "text": text_of(row, "text") or models.Text(zh=row["detector"], en=row["detector"]),
            "consequence": text_of(row, "consequence"),
            "action": text_of(row, "action"),
            "address": row["address"] or "",
            "active": row["state"] != "normal",
            "revision": row["revision"] or 0,
        }
    )


def point_of(row: Row, texts: Mapping[str, str]) -> models.Point:
    """A point with its latest reading; `texts` are the present texts of text points."""
    name = text_of(row, "name") or models.Text(zh=row["point"], en=row["point"])
    return models.Point.model_validate(row | reading_of(row, texts) | {"name": name})


def reading_of(row: Row, texts: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a Reading; a bad one has no value."""
    code, value = row["quality"], row["value"]
    if value is not None and (code & quality.MAJOR_MASK == 0 or not math.isfinite(value)):
        value = None
    text = row["enum"].get(str(int(value))) if value is not None and value.is_integer() else None
    if row["point"] in texts:
        text = {"zh": texts[row["point"]], "en": texts[row["point"]]}
    return {
        "equipment": row["equipment"],
        "point": row["point"],
        "time": row["time"],
        "value": value,
        "quality": None if code is None else quality.name(code),
        "text": text,
    }
