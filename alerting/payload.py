"""What a notice says: the transition, the alarm, where it is, and whom to call, in both languages.

Pure: from the notice's row (fixed when the transition was written) and the alarm's row of the view `alarms` as it is now.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import orjson

from alerting.notices import Notice
from alerting.store import micros
from telemetry.clock import iso

VERSION: Final = 1
ROLES: Final = ("owner", "user", "maintainer")
HEADLINES: Final[Mapping[str, tuple[str, str]]] = {
    "raise": ("报警", "Alarm"),
    "repeat": ("报警（仍未确认）", "Alarm, still not acknowledged"),
    "clear": ("恢复正常", "Back to normal"),
    "acknowledge": ("已确认", "Acknowledged"),
}


def compose(notice: Notice, alarm: Mapping[str, Any]) -> bytes:
    """The JSON body of a notice. `alarm` is a row of the view `alarms`."""
    return orjson.dumps(content(notice, alarm))


def content(notice: Notice, alarm: Mapping[str, Any]) -> dict[str, Any]:
    """The body as plain data; times in ISO 8601, UTC. What nobody knows is null."""
    name = {
        "zh": alarm["equipment_zh"] or alarm["equipment"],
        "en": alarm["equipment_en"] or alarm["equipment"],
    }
    return {
        "version": VERSION,
        "notice": str(notice.notice_id),
        "transition": notice.transition,
        **{key: notice.body[key] for key in ("at", "by", "note", "reason")},
        "summary": _summary(notice.transition, name, alarm),
        "alarm": _alarm(alarm),
        "equipment": {
            "id": alarm["equipment"],
            "name": name,
            "class": alarm["class"],
            "address": alarm["address"],
            "area": _named(alarm, "area"),
        },
        "parties": {role: _party(alarm, role) for role in ROLES},
    }


def _summary(transition: str, name: Mapping[str, str], alarm: Mapping[str, Any]) -> dict[str, str]:
    zh, en = HEADLINES[transition]
    return {"zh": f"{zh}：{name['zh']}：{alarm['text_zh']}", "en": f"{en}: {name['en']}: {alarm['text_en']}"}


def _alarm(alarm: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": alarm["id"],
        "state": alarm["state"],
        "priority": alarm["priority"],
        "point": alarm["point"],
        "detector": alarm["detector"],
        **{
            field: {"zh": alarm[f"{field}_zh"], "en": alarm[f"{field}_en"]}
            for field in ("text", "consequence", "action")
        },
        **{field: _time(alarm[field]) for field in ("onset", "raised_at", "acknowledged_at", "cleared_at")},
        "acknowledged_by": alarm["acknowledged_by"],
        "acknowledge_note": alarm["acknowledge_note"],
        "late": alarm["late"],
        "evidence": alarm["evidence"],
    }


def _party(alarm: Mapping[str, Any], role: str) -> dict[str, Any] | None:
    named = _named(alarm, role)
    return None if named is None else {**named, "phone": alarm[f"{role}_phone"]}


def _named(alarm: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    if alarm[key] is None:
        return None
    return {"id": alarm[key], "name": {"zh": alarm[f"{key}_zh"], "en": alarm[f"{key}_en"]}}


def _time(time: datetime | None) -> str | None:
    return None if time is None else iso(micros(time))
