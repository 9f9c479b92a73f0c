"""From which tables a chart's buckets are made: readings, minutes or hours. Pure.

Invariant: the pieces of a plan cover the period once, without overlap; a bucket is made of whole minutes or hours where
it has any, and what is left at the ends comes from the next finer level while that is kept. So a long period reads as many
rows as it has minutes or hours, never its readings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

PER_BUCKET: Final = 3
"""Least, greatest, and a null for bad readings or for none."""
RAW_UP_TO: Final = timedelta(hours=4)
"""Periods so short are made of readings in any case: extremes have their own times, and there are not many to read."""
Name = Literal["samples", "samples_1m", "samples_1h"]
LEVELS: Final[tuple[Name, ...]] = ("samples", "samples_1m", "samples_1h")
BINS: Final = (timedelta(0), timedelta(minutes=1), timedelta(hours=1))
ORIGIN: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Minutes and hours of the store begin at whole multiples from here."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the period, first ≤ time < end, read from one level."""

    level: int
    first: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """Buckets of `width` from `origin` on, and what they are made of, by time."""

    level: int
    origin: datetime
    width: timedelta
    pieces: tuple[Piece, ...]


def plan(first: datetime, end: datetime, *, max_points: int, oldest: Sequence[datetime]) -> Plan:
    """At most max_points // PER_BUCKET buckets of first ≤ time < end.

    `oldest[level]`: since when the readings and the minutes are kept in full; before, the next coarser level is used.
    """
    buckets = max(max_points // PER_BUCKET, 1)
    width = (end - first) / buckets
    level = max(number for number, size in enumerate(BINS) if size <= width) if end - first > RAW_UP_TO else 0
    while level < len(oldest) and first < oldest[level]:
        level += 1
    if level == 0:
        return Plan(0, first, width + timedelta(microseconds=1), (Piece(0, first, end),))
    size = BINS[level]
    bins = -(-(end - first) // (size * max(buckets - 1, 1)))  # of whole bins one bucket more may be touched
    return Plan(level, _floor(first, size), size * bins, tuple(_pieces(level, first, end, oldest)))


def _pieces(level: int, first: datetime, end: datetime, oldest: Sequence[datetime]) -> list[Piece]:
    if first >= end:
        return []
    if level == 0:
        return [Piece(0, first, end)]
    size = BINS[level]
    low = _floor(first, size) if first < oldest[level - 1] else _ceil(first, size)
    high = _ceil(end, size) if end <= oldest[level - 1] else _floor(end, size)
    if low >= high:
        return _pieces(level - 1, first, end, oldest) if first >= oldest[level - 1] else [Piece(level, low, low + size)]
    head, tail = _pieces(level - 1, first, low, oldest), _pieces(level - 1, high, end, oldest)
    return [*head, Piece(level, low, high), *tail]


def _floor(moment: datetime, size: timedelta) -> datetime:
    return moment - (moment - ORIGIN) % size


def _ceil(moment: datetime, size: timedelta) -> datetime:
    return moment + (ORIGIN - moment) % size
