"""What was journaled, counted: samples and checksum per (equipment, hour), for the audit to hold against the store's rows.

Vectorised over all parts of a commit: signals' names are hashed once in the life of the agent, rows are hashed in one
pass and summed by part. Invariant: the increments of a commit are those of exactly its samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from edge.columns import Columns
from telemetry.ledger import HOUR_US, hash_rows

Increment = tuple[int, int]
"""(samples, checksum modulo 2^64)."""
Increments = Mapping[tuple[str, int], Increment]
"""(equipment, hour_us) → increment."""

_WRAP: Final = 1 << 64


def count(columns: Columns) -> dict[tuple[str, int], Increment]:
    """The increments of some readings."""
    found: dict[tuple[str, int], Increment] = {}
    if not len(columns):
        return found
    rows = hash_rows(columns.hashes(), columns.time_us, columns.value, columns.quality)
    starts = columns.starts
    hour = int(columns.time_us.min()) // HOUR_US * HOUR_US
    if int(columns.time_us.max()) < hour + HOUR_US:  # as nearly always
        sums = np.add.reduceat(rows, starts)
        for equipment, samples, checksum in zip(columns.equipment, columns.counts.tolist(), sums.tolist(), strict=True):
            add(found, (equipment, hour), (samples, checksum))
        return found
    # One piece of rows of one part and one hour after the other, as they lie.
    hours = columns.time_us - columns.time_us % HOUR_US
    turns = np.concatenate([starts, np.flatnonzero(np.diff(hours)) + 1])
    begins = np.unique(turns)
    parts = np.searchsorted(starts, begins, "right") - 1
    sums = np.add.reduceat(rows, begins)
    samples = np.diff(begins, append=len(columns))
    pieces = zip(parts.tolist(), hours[begins].tolist(), samples.tolist(), sums.tolist(), strict=True)
    for part, hour, n, checksum in pieces:
        add(found, (columns.equipment[part], hour), (n, checksum))
    return found


def add(into: dict[tuple[str, int], Increment], key: tuple[str, int], more: Increment) -> None:
    """Adds an increment in place."""
    samples, checksum = into.get(key, (0, 0))
    into[key] = (samples + more[0], (checksum + more[1]) % _WRAP)
