"""Small profiles, plants and records for the edge's tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from edge.decode import Decoder, make_decoder
from edge.plan import Limits, plan
from telemetry.batch import SampleBatch, from_rows
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


def one_decoder(profile: Profile, *, limits: Limits | None = None) -> Decoder:
    """The decoder of all Modbus points of a profile, as equipment `e`."""
    points = {name: p.modbus for name, p in profile.points.items() if p.modbus is not None}
    return make_decoder("e", profile, plan(points, limits or Limits()))


def read(profile: Profile, *payloads: bytes) -> dict[str, tuple[float, int]]:
    """Point → (value, quality) of these payloads."""
    batch = one_decoder(profile).batch(list(payloads), [NOW_US] * len(payloads), [0] * len(payloads))
    return values(batch)


def values(batch: SampleBatch) -> dict[str, tuple[float, int]]:
    """Point → (value, quality) of a batch's rows."""
    return {
        batch.names[place].partition("/")[2]: (float(value), int(quality))
        for place, value, quality in zip(batch.signal, batch.value, batch.quality, strict=True)
    }


def batch_of(equipment: str, n: int, *, time_us: int = NOW_US, value: float = 1.0) -> SampleBatch:
    """`n` good samples of n points of an equipment."""
    return from_rows([(f"{equipment}/p{i}", time_us + i, value + i, 192) for i in range(n)])


def write_plant(folder: Path, profile: Profile, equipment: list[dict[str, Any]], **more: Any) -> Path:
    """A plant file and its profile in `folder`; returns the plant file."""
    text = yaml.safe_dump(profile.model_dump(mode="json", by_alias=True, exclude_unset=True), allow_unicode=True)
    (folder / f"{profile.profile}.yaml").write_text(text, encoding="utf-8")
    plant = {"site": {"id": "site", "name": TEXT}, "equipment": equipment, **more}
    file = folder / "plant.yaml"
    file.write_text(yaml.safe_dump(plant, allow_unicode=True), encoding="utf-8")
    return file
