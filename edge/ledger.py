"""What was journaled, counted: samples and checksum per (equipment, hour), for the audit to hold against the store's rows.

Vectorised over all batches of a commit: signals' names are hashed once in the life of the agent, rows are hashed in one
pass, and sums are taken per batch. Invariant: the increments of a commit are those of exactly its samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from telemetry.batch import SampleBatch
from telemetry.ledger import HOUR_US, hash_rows, name_hash

Increment = tuple[int, int]
"""(samples, checksum modulo 2^64)."""
Increments = Mapping[tuple[str, int], Increment]
"""(equipment, hour_us) → increment."""

_CACHED: Final = 20_000
_WRAP: Final = 1 << 64


@dataclass(slots=True)
class Tally:
    """Counts batches; remembers the hashes of names by the identity of the names tuple, which plans reuse."""

    _hashes: dict[int, tuple[tuple[str, ...], npt.NDArray[np.uint64]]] = field(default_factory=dict)

    def count(self, batches: Sequence[tuple[str, SampleBatch]]) -> dict[tuple[str, int], Increment]:
        """Increments of (equipment, its batch) pairs; empty batches count nothing."""
        full = [(equipment, batch) for equipment, batch in batches if len(batch)]
        if not full:
            return {}
        times = np.concatenate([b.time_us for _, b in full])
        rows = hash_rows(
            np.concatenate([self._of(b.names)[b.signal] for _, b in full]),
            times,
            np.concatenate([b.value for _, b in full]),
            np.concatenate([b.quality for _, b in full]),
        )
        hours = times - times % HOUR_US
        starts = np.concatenate([[0], np.cumsum([len(b) for _, b in full])])
        found: dict[tuple[str, int], Increment] = {}
        for number, (equipment, _) in enumerate(full):
            part = slice(int(starts[number]), int(starts[number + 1]))
            for hour, samples, checksum in _by_hour(hours[part], rows[part]):
                add(found, (equipment, hour), (samples, checksum))
        return found

    def _of(self, names: tuple[str, ...]) -> npt.NDArray[np.uint64]:
        known = self._hashes.get(id(names))
        if known is not None:
            return known[1]
        if len(self._hashes) >= _CACHED:
            self._hashes.clear()
        hashes = np.fromiter(map(name_hash, names), np.uint64, len(names))
        self._hashes[id(names)] = (names, hashes)  # The tuple is kept, so that its id stays its own.
        return hashes


def add(into: dict[tuple[str, int], Increment], key: tuple[str, int], more: Increment) -> None:
    """Adds an increment in place."""
    samples, checksum = into.get(key, (0, 0))
    into[key] = (samples + more[0], (checksum + more[1]) % _WRAP)


def _by_hour(hours: npt.NDArray[np.int64], rows: npt.NDArray[np.uint64]) -> list[tuple[int, int, int]]:
    first = int(hours[0])
    if int(hours[-1]) == first and bool((hours == first).all()):
        return [(first, len(rows), int(rows.sum(dtype=np.uint64)))]
    return [
        (int(hour), int((hours == hour).sum()), int(rows[hours == hour].sum(dtype=np.uint64)))
        for hour in np.unique(hours)
    ]
