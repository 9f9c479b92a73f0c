"""The table against what the devices said, read by read: no count of the edge's or of ingest's is believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import psycopg

from tests.chaos.layout import POINTS, Fleet, edge_name, sums
from tests.soak.traced import Given, Stored, Traced
from tests.soak.world import Excuse

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Reads:
    """What the table holds of a device: one place a time, ascending; a read stamps all its points with one time."""

    time_s: Floats
    rows: Ints
    points: Ints
    """Different ones among `rows`."""
    values: Ints
    """Rows with a value."""
    number: Ints
    """0: the read brought none."""
    total: Ints
    """Of the values of all other points."""


@dataclass(slots=True)
class Found:
    """What the judge found, over all devices."""

    reads: Traced = field(default_factory=Traced)
    rows: int = 0
    twice: int = 0
    """Rows of a signal and time that has one already."""
    torn: list[str] = field(default_factory=list)
    """Reads with a number, of which points lack or are too many."""

    def add(self, name: str, said: Given, held: Reads, checks: Ints, why: Sequence[Excuse]) -> None:
        """One device. `checks` are the sums of its answers (layout.sums)."""
        good = held.number > 0
        self.rows += int(held.rows.sum())
        self.twice += int((held.rows - held.points).sum())
        whole = (held.rows == POINTS) & (held.values == POINTS)
        self.torn += [f"{name} {held.number[at]} ({held.rows[at]} rows)" for at in np.flatnonzero(good & ~whole)]
        stored = Stored(held.number[good], held.total[good], held.time_s[good], held.time_s[~good])
        self.reads.add(name, said, stored, checks, why)


def trace(url: str, fleet: Fleet, file: Path, excuses: Sequence[Excuse]) -> Found:
    """Compares the table of a store with what the source reported into `file`."""
    found = Found()
    with np.load(file) as given, psycopg.connect(url) as connection:
        for place in fleet.places:
            status = given[f"{place.name}/status"]
            said = Given(given[f"{place.name}/at_s"], status, np.zeros(len(status), np.bool_))
            why = [Excuse(e.begin_s, e.end_s, "", e.why) for e in excuses if e.name == edge_name(place.edge)]
            held = read(connection, place.name)
            found.add(place.name, said, held, sums(len(said.status), place.index), why)
    return found


def read(connection: psycopg.Connection, equipment: str) -> Reads:
    """A device's rows, summed by time in the database."""
    rows: list[tuple[Any, ...]] = connection.execute(_READS, (equipment,)).fetchall()
    columns: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * 6
    return Reads(
        np.array(columns[0], np.float64), *(np.array(column, np.float64).astype(np.int64) for column in columns[1:])
    )


_READS: Final = """
SELECT extract(epoch FROM time)::float8, count(*), count(DISTINCT point), count(value),
       coalesce(max(value) FILTER (WHERE point = 'number'), 0), coalesce(sum(value) FILTER (WHERE point <> 'number'), 0)
FROM samples WHERE equipment = %s GROUP BY time ORDER BY 1
"""
