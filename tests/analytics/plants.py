"""A plant for the tests of analytics, made of a profile written here: limits, conditions, codes and levels."""

from __future__ import annotations

from typing import Any

from analytics.rules import Catalogue, compile_plant
from telemetry.plant import Equipment, Plant, PlantEquipment, PlantFile, Site, parse_address
from telemetry.profile import Profile, Text

T0 = 1_700_000_000_000_000
S = 1_000_000


def text(word: str) -> dict[str, str]:
    return {"zh": word, "en": word}


def alarm(**keys: Any) -> dict[str, Any]:
    return {"priority": "high", "text": text("x"), **keys}


def point(**keys: Any) -> dict[str, Any]:
    return {"name": text("p"), "mqtt": {}, **keys}


POINTS: dict[str, Any] = {
    "plain": point(alarms={"high": alarm(limit=90.0)}),
    "delayed": point(
        alarms={
            "high": alarm(limit=90.0, hysteresis=5.0, on_delay_s=4.0, off_delay_s=6.0),
            "low": alarm(limit=10.0, hysteresis=2.0, on_delay_s=2.0),
        }
    ),
    "mode": point(
        alarms={"odd": alarm(limit=3.0, condition="equals"), "other": alarm(limit=1.0, condition="not_equals")}
    ),
    "guarded": point(
        alarms={
            "high": alarm(limit=50.0, hysteresis=5.0, unless=[{"point": "mode", "condition": "equals", "limit": 2.0}])
        }
    ),
    "left": point(),
    "right": point(),
    "wander": point(
        detectors=[
            {"time_constant_s": 5.0, "baseline_s": 120.0, "threshold": 6.0, "warmup_s": 60.0, "off_delay_s": 5.0}
        ]
    ),
    "note": point(kind="text"),
}

CONDITIONS: dict[str, Any] = {
    "both": alarm(
        all=[
            {"point": "left", "condition": "above", "limit": 0.5},
            {"point": "right", "condition": "above", "limit": 0.5},
        ],
        unless=[{"point": "mode", "condition": "equals", "limit": 2.0}],
        on_delay_s=3.0,
    ),
    "at_once": alarm(
        all=[
            {"point": "left", "condition": "equals", "limit": 1.0},
            {"point": "right", "condition": "equals", "limit": 0.0},
        ],
        off_delay_s=2.0,
    ),
}

CODES: dict[str, Any] = {
    "fault": {"name": text("fault"), "priority": "high"},
    "bump": {"name": text("bump"), "priority": "low", "momentary": True, "hold_s": 10.0},
    "seen": {"name": text("seen")},
}


def profile(**changes: Any) -> Profile:
    """The profile; `changes` replace its keys."""
    return Profile.model_validate(
        {
            "profile": "test-rig",
            "version": 1,
            "class": "rig",
            "class_name": text("rig"),
            "name": text("rig"),
            "points": POINTS,
            "conditions": CONDITIONS,
            "schemes": {"rig": {"name": text("rig"), "codes": CODES}},
            **changes,
        }
    )


def plant(*names: str, of: Profile | None = None) -> Plant:
    """A plant of equipments of one profile."""
    used = of or profile()
    entries = tuple(
        PlantEquipment(id=n, profile=used.profile, address=f"mqtt://127.0.0.1/{n}") for n in names or ("a", "b")
    )
    file = PlantFile(site=Site(id="s", name=Text(zh="s", en="s")), equipment=entries)
    return Plant(file, tuple(Equipment(e.id, used, parse_address(e.address), e) for e in entries))


def catalogue(*names: str, of: Profile | None = None) -> Catalogue:
    return compile_plant(plant(*names, of=of))
