"""Small profiles and equipment for the edge's tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from telemetry.plant import Equipment, PlantEquipment, parse_address
from telemetry.profile import Profile

TEXT = {"zh": "点", "en": "point"}
NOW_US = 1_795_000_000_000_000


def make_profile(points: Mapping[str, Mapping[str, Any]], **more: Any) -> Profile:
    """A profile with these points, each given as its further keys."""
    return Profile.model_validate(
        {
            "profile": "test",
            "version": 1,
            "class": "boiler",
            "class_name": TEXT,
            "name": TEXT,
            "points": {name: {"name": TEXT, **keys} for name, keys in points.items()},
            **more,
        }
    )


def make_equipment(name: str, profile: Profile, address: str, **more: Any) -> Equipment:
    """One equipment at an address."""
    entry = PlantEquipment(id=name, profile=profile.profile, address=address, **more)
    return Equipment(name, profile, parse_address(address), entry)
