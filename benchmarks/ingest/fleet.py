"""The fleet that all rows of the benchmark are made of: which signals, when they are read, what they say.

An equipment has 20 points, read together; the polls of an edge are spread over the interval, each late by up to the jitter.
A value is a random walk with noise in the second decimal (σ 0.05), as a sensor says it: two decimals. Invariant: the same
fleet and seed give the same rows, whoever asks (the log's records, the raw limit, Telegraf's lines).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from telemetry.batch import Float64, Int32, Int64, UInt8
from telemetry.name_block import NameBlock, name_block
from telemetry.quality import GOOD

SECOND_US: Final = 1_000_000
NOISE: Final = 0.05
STEP: Final = 0.02
"""σ of the walk's step in a second."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Signals over edges, and how an edge's second is cut into records.

    An edge with fewer signals than `record_samples` reads them so often in a second that a record is full; one with more
    reads them once a second (or as `rate_hz` says) and makes several records of it, each of other equipment.
    """

    signals: int
    edges: int
    record_samples: int
    points: int = 20
    jitter_us: int = 2_000
    rate_hz: int = 0
    """Readings of a signal in a second; 0: as above."""
    seed: int = 1

    def __post_init__(self) -> None:
        if self.signals % (self.edges * self.points) or self.record_samples % self.points:
            raise ValueError("signals: expected whole equipment on every edge and in every record")

    @property
    def signals_per_edge(self) -> int:
        """Of each edge."""
        return self.signals // self.edges

    @property
    def equipment_per_edge(self) -> int:
        """Of each edge."""
        return self.signals_per_edge // self.points

    @property
    def steps(self) -> int:
        """Readings of a signal in a second."""
        return self.rate_hz or max(1, self.record_samples // self.signals_per_edge)

    @property
    def samples_per_s(self) -> int:
        """Of the whole fleet, in its own time."""
        return self.signals * self.steps

    def equipment(self, edge: int) -> list[str]:
        """Ids of an edge's equipment."""
        first = edge * self.equipment_per_edge
        return [f"unit-{first + i:05}" for i in range(self.equipment_per_edge)]

    def seconds_for(self, samples: int) -> int:
        """Seconds of the fleet's time that make at least so many samples."""
        return -(-samples // self.samples_per_s)


def edge_name(edge: int) -> str:
    """Of an edge."""
    return f"bench-{edge}"


def point_name(point: int) -> str:
    """Of a point, the same on all equipment."""
    return f"temperature_{point:02}"


def blocks_of(fleet: Fleet, edge: int) -> list[NameBlock]:
    """One block of names for each equipment of an edge."""
    points = [point_name(point) for point in range(fleet.points)]
    return [name_block([f"{equipment}/{point}" for point in points]) for equipment in fleet.equipment(edge)]


@dataclass(frozen=True, slots=True, eq=False)
class Slab:
    """What an edge read in one second, poll by poll; all columns (n,), `signal` counts from 0 on this edge."""

    signal: Int32
    time_us: Int64
    value: Float64
    quality: UInt8


class Readings:
    """An edge's readings, second by second."""

    def __init__(self, fleet: Fleet, edge: int, start_us: int) -> None:
        self._fleet = fleet
        self._random = np.random.default_rng((fleet.seed, edge))
        self._next_us = start_us
        polls = fleet.equipment_per_edge * fleet.steps
        self._walk = self._random.uniform(15, 85, fleet.signals_per_edge)
        self._offset_us = np.arange(polls, dtype=np.int64) * SECOND_US // polls
        self._signal = np.tile(np.arange(fleet.signals_per_edge, dtype=np.int32), fleet.steps)
        self._quality = np.full(len(self._signal), GOOD, np.uint8)

    def second(self) -> Slab:
        """The next second."""
        fleet, random = self._fleet, self._random
        self._walk += random.standard_normal(fleet.signals_per_edge, np.float32) * STEP
        value = random.standard_normal(len(self._signal), np.float32).astype(np.float64)
        value *= NOISE
        value.reshape(fleet.steps, -1)[:] += self._walk
        value *= 100.0
        np.rint(value, out=value)
        value /= 100.0
        polls = self._offset_us + self._next_us
        if fleet.jitter_us:
            polls += random.integers(0, fleet.jitter_us, len(polls))
        self._next_us += SECOND_US
        return Slab(self._signal, np.repeat(polls, fleet.points), value, self._quality)
