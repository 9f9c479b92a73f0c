"""Columns from readings one by one, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

from edge.columns import Columns
from telemetry.name_block import NameBlock, name_block

Reading = tuple[int, float, int]
"""(time_us, value, quality)"""
Row = tuple[NameBlock, int, int, float, int]
"""(block, place, time_us, value, quality)"""


def block_of(equipment: str, *points: str) -> NameBlock:
    """The block of an equipment's points."""
    return name_block([f"{equipment}/{point}" for point in points])


def columns_of(rows: Iterable[Row]) -> Columns:
    """Columns with these rows; neighbours of one block make a part."""
    parts = [(list(part)) for _, part in groupby(rows, key=lambda row: id(row[0]))]
    flat = [row for part in parts for row in part]
    return Columns(
        [part[0][0].names[0].partition("/")[0] for part in parts],
        [part[0][0] for part in parts],
        np.array([len(part) for part in parts], np.int64),
        np.array([row[1] for row in flat], np.int32),
        np.array([row[2] for row in flat], np.int64),
        np.array([row[3] for row in flat], np.float64),
        np.array([row[4] for row in flat], np.uint8),
    )


def rows_of(columns: Columns) -> list[tuple[str, Reading]]:
    """(signal, reading) of each row, in order."""
    assert (
        int(columns.counts.sum()) == len(columns) == len(columns.value) == len(columns.time_us) == len(columns.quality)
    )
    assert (columns.counts > 0).all()
    blocks = [b for b, n in zip(columns.blocks, columns.counts.tolist(), strict=True) for _ in range(n)]
    owners = [e for e, n in zip(columns.equipment, columns.counts.tolist(), strict=True) for _ in range(n)]
    readings = zip(columns.time_us.tolist(), columns.value.tolist(), columns.quality.tolist(), strict=True)
    named = [block.names[place] for block, place in zip(blocks, columns.place.tolist(), strict=True)]
    assert all(name.startswith(f"{owner}/") for name, owner in zip(named, owners, strict=True))
    return list(zip(named, readings, strict=True))


def by_signal(several: Sequence[Columns]) -> dict[str, list[Reading]]:
    """Signal → its readings, in the order in which they come."""
    found: dict[str, list[Reading]] = {}
    for columns in several:
        for signal, reading in rows_of(columns):
            found.setdefault(signal, []).append(reading)
    return found
