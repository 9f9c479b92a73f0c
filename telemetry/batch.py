"""The sample batch: the one currency between driver and database. Columns, never single samples.

Invariant: all columns have one length, every index points into `names`, and no array can be written to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from telemetry.quality import is_bad

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class SampleBatch:
    """Readings of many signals.

    names    the signals, "equipment/point", each once; the dictionary of `signal`
    signal   (n,) int32, index into names
    time_us  (n,) int64, µs since 1970-01-01 UTC, taken at the read or from the device
    value    (n,) float64, as read: never rounded or clamped; NaN where a bad reading has none
    quality  (n,) uint8, OPC style (telemetry.quality)
    """

    names: tuple[str, ...]
    signal: Int32
    time_us: Int64
    value: Float64
    quality: UInt8

    def __post_init__(self) -> None:
        n = len(self.signal)
        for column, dtype in (
            ("signal", np.int32),
            ("time_us", np.int64),
            ("value", np.float64),
            ("quality", np.uint8),
        ):
            array = getattr(self, column)
            if array.dtype != dtype or array.shape != (n,):
                raise ValueError(f"{column}: expected ({n},) {np.dtype(dtype)}, found {array.shape} {array.dtype}")
            array.flags.writeable = False
        if n and (self.signal.min() < 0 or self.signal.max() >= len(self.names)):
            raise ValueError(
                f"signal: expected indices in 0..{len(self.names) - 1}, found {self.signal.min()}..{self.signal.max()}"
            )

    def __len__(self) -> int:
        return len(self.signal)

    @property
    def bad(self) -> npt.NDArray[np.bool_]:
        """(n,) bool: which readings are bad. A new array."""
        return is_bad(self.quality)

    def take(self, index: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> SampleBatch:
        """The rows at `index` (positions or a mask), same dictionary. Copies."""
        return SampleBatch(self.names, self.signal[index], self.time_us[index], self.value[index], self.quality[index])


EMPTY = SampleBatch((), np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.float64), np.empty(0, np.uint8))


def concatenate(batches: Sequence[SampleBatch]) -> SampleBatch:
    """One batch with the rows of all, in order, under one dictionary. Copies; cost is per row and per dictionary entry."""
    if len(batches) == 1:
        return batches[0]
    index: dict[str, int] = {}
    remapped = []
    for batch in batches:
        table = np.fromiter((index.setdefault(n, len(index)) for n in batch.names), np.int32, len(batch.names))
        remapped.append(table[batch.signal] if len(batch) else batch.signal)
    if not remapped:
        return EMPTY
    return SampleBatch(
        tuple(index),
        np.concatenate(remapped),
        np.concatenate([b.time_us for b in batches]),
        np.concatenate([b.value for b in batches]),
        np.concatenate([b.quality for b in batches]),
    )


def from_rows(rows: Iterable[tuple[str, int, float, int]]) -> SampleBatch:
    """A batch from (signal, time_us, value, quality) rows: for small hand-made batches, not for the hot path."""
    listed = list(rows)
    index: dict[str, int] = {}
    signal = np.array([index.setdefault(r[0], len(index)) for r in listed], np.int32)
    return SampleBatch(
        tuple(index),
        signal,
        np.array([r[1] for r in listed], np.int64),
        np.array([r[2] for r in listed], np.float64),
        np.array([r[3] for r in listed], np.uint8),
    )
