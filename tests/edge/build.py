"""Layouts, readings and plants for the edge's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from edge.columns import Columns
from edge.decode import Frame, RegisterLayout, make_layout
from edge.plan import Limits, plan
from telemetry.batch import SampleBatch, from_rows
from telemetry.name_block import name_block
from telemetry.names import signal_name, split_signal
from telemetry.profile import ModbusPoint, Profile
from tests.edge.profiles import NOW_US, TEXT, make_equipment, make_profile
from tests.edge.readings import rows_of

__all__ = [
    "NOW_US", "TEXT", "batch_of", "columns_of_points", "frame_of", "layout_of", "make_equipment", "make_profile", "points_of",
    "read", "values", "write_plant",
]  # fmt: skip


def points_of(profile: Profile) -> dict[str, ModbusPoint]:
    """The points of a profile that lie in registers."""
    return {name: p.modbus for name, p in profile.points.items() if p.modbus is not None}


def layout_of(profile: Profile, *, limits: Limits | None = None) -> RegisterLayout:
    """The layout of all Modbus points of a profile."""
    points = points_of(profile)
    return make_layout(profile, points, plan(points, limits or Limits()))


def frame_of(layout: RegisterLayout, payloads: list[bytes | None], qualities: list[int] | None = None) -> Frame:
    """The answers of a cycle of equipment `e`, the first request's at NOW_US, each 1 µs after the last."""
    block = name_block([signal_name("e", point) for point in layout.points])
    return Frame("e", block, payloads, [NOW_US + n for n in range(len(payloads))], qualities)


def read(profile: Profile, *payloads: bytes, limits: Limits | None = None) -> dict[str, tuple[float, int]]:
    """Point → (value, quality) of these payloads."""
    layout = layout_of(profile, limits=limits)
    return values(layout.decode([frame_of(layout, list(payloads))]).columns)


def values(columns: Columns) -> dict[str, tuple[float, int]]:
    """Point → (value, quality) of its last row."""
    return {split_signal(signal)[1]: (value, quality) for signal, (_, value, quality) in rows_of(columns)}


def columns_of_points(equipment: str, n: int, *, time_us: int = NOW_US, value: float = 1.0) -> Columns:
    """`n` good samples of n points of an equipment."""
    place = np.arange(n, dtype=np.int32)
    return Columns(
        [equipment],
        [name_block([f"{equipment}/p{i}" for i in range(n)])],
        np.array([n], np.int64),
        place,
        time_us + place.astype(np.int64),
        np.arange(n, dtype=np.float64) + value,
        np.full(n, 192, np.uint8),
    )


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
