"""Which rows of a batch may be stored, and why others may not. Pure, vectorised.

A time more than five minutes ahead of the clock, or older than the bound on late data, or a name that is no signal's,
sends the row (not the batch) to the dead letters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.decode import Refused
from telemetry.batch import Int32, SampleBatch
from telemetry.clock import iso

AHEAD_US: Final = 300_000_000
"""How far ahead of our clock a sample's time may be."""
DAY_US: Final = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """Times that may be stored: oldest_us ≤ time ≤ newest_us."""

    oldest_us: int
    newest_us: int


def bounds_at(now_us: int, *, late_bound_days: float) -> Bounds:
    """The bounds at a moment."""
    return Bounds(now_us - int(late_bound_days * DAY_US), now_us + AHEAD_US)


def failing(batch: SampleBatch, signal_id: Int32, bounds: Bounds) -> list[tuple[npt.NDArray[np.bool_], Refused]]:
    """Rows that may not be stored, by reason; a row stands under one reason only. Empty for a good batch.

    `signal_id` (n,) int32 of each row, negative where its name is no signal's. Masks are (n,) bool.
    """
    if not len(batch):
        return []
    oldest, newest = int(batch.time_us.min()), int(batch.time_us.max())
    if oldest >= bounds.oldest_us and newest <= bounds.newest_us and signal_id.min() >= 0:
        return []
    nameless = signal_id < 0
    future = (batch.time_us > bounds.newest_us) & ~nameless
    old = (batch.time_us < bounds.oldest_us) & ~nameless
    found = []
    if nameless.any():
        first = batch.names[batch.signal[np.argmax(nameless)]]
        found.append((nameless, Refused("name", f"expected equipment/point of [a-z0-9_.-]+, found {first[:200]!r}")))
    if future.any():
        found.append((future, Refused("future", f"expected at most {_iso(bounds.newest_us)}, found {_iso(newest)}")))
    if old.any():
        found.append((old, Refused("too-old", f"expected at least {_iso(bounds.oldest_us)}, found {_iso(oldest)}")))
    return found


def _iso(time_us: int) -> str:
    try:
        return iso(time_us)
    except (ValueError, OverflowError, OSError):
        return f"{time_us} µs since 1970"
