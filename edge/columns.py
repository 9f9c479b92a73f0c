"""Readings of many equipments at once, on their way from decoding to the spool.

Invariant: rows lie part by part; a part is what was read of one equipment at once, and its `place` points into its own
block. No Python object is made for a row, nor for a name: blocks are made once and go from record to record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from telemetry.name_block import NameBlock, name_block
from telemetry.wire import Encoded, encode_columns

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]
UInt64 = npt.NDArray[np.uint64]

RECORD_BYTES: Final = 600_000
"""Most bytes in one record, about: below any log's record size."""
ROW_BYTES: Final = 21
DIVIDED_ROWS: Final = 2_000
"""Of a part too large for a record; with names of 256 bytes they still fit."""
NAME_BYTES: Final = 4
"""That a name takes beside its own bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """(parts,) equipment, blocks, counts; (n,) place, time_us, value, quality, where n = counts.sum()."""

    equipment: Sequence[str] = ()
    """Whose each part is."""
    blocks: Sequence[NameBlock] = ()
    """The signals of each part; all of its equipment. The same object wherever they are the same."""
    counts: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    """Rows of each part, at least 1."""
    place: Int32 = field(default_factory=lambda: np.empty(0, np.int32))
    """Index into the part's block."""
    time_us: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    value: Float64 = field(default_factory=lambda: np.empty(0))
    quality: UInt8 = field(default_factory=lambda: np.empty(0, np.uint8))

    def __len__(self) -> int:
        return len(self.place)

    @property
    def starts(self) -> Int64:
        """(parts,) first row of each part. A new array."""
        return np.cumsum(self.counts) - self.counts

    def hashes(self) -> UInt64:
        """(n,) uint64: telemetry.ledger.name_hash of each row's signal. A new array."""
        sizes = np.fromiter((len(block.hashes) for block in self.blocks), np.int64, len(self.blocks))
        base = np.repeat(np.cumsum(sizes) - sizes, self.counts)
        found: UInt64 = np.concatenate([block.hashes for block in self.blocks])[base + self.place]
        return found

    def keep(self, rows: npt.NDArray[np.bool_]) -> Columns:
        """Only the rows where `rows` (n,) bool holds; parts that lose all of theirs go. Copies."""
        if not len(self):
            return self
        left = np.add.reduceat(rows, self.starts, dtype=np.int64)
        parts = np.flatnonzero(left).tolist()
        return Columns(
            [self.equipment[p] for p in parts],
            [self.blocks[p] for p in parts],
            left[parts],
            self.place[rows],
            self.time_us[rows],
            self.value[rows],
            self.quality[rows],
        )

    def parts(self, first: int, last: int) -> Columns:
        """Parts first … last − 1. The columns are views."""
        starts = self.starts
        low = int(starts[first]) if first < len(starts) else len(self)
        high = int(starts[last]) if last < len(starts) else len(self)
        rows = slice(low, high)
        return Columns(
            self.equipment[first:last],
            self.blocks[first:last],
            self.counts[first:last],
            self.place[rows],
            self.time_us[rows],
            self.value[rows],
            self.quality[rows],
        )


NOTHING: Final = Columns()


def join(several: Sequence[Columns]) -> Columns:
    """All parts of all, in order. Copies unless there is only one."""
    filled = [columns for columns in several if len(columns)]
    if len(filled) <= 1:
        return filled[0] if filled else NOTHING
    return Columns(
        [e for c in filled for e in c.equipment],
        [b for c in filled for b in c.blocks],
        np.concatenate([c.counts for c in filled]),
        np.concatenate([c.place for c in filled]),
        np.concatenate([c.time_us for c in filled]),
        np.concatenate([c.value for c in filled]),
        np.concatenate([c.quality for c in filled]),
    )


def encode(columns: Columns) -> list[Encoded]:
    """Few large records with all rows, in order. A block that comes again is in a record's dictionary once.

    Cost is per part and per row copied, not per name.
    """
    if not len(columns):
        return []
    names = np.array([len(block.utf8) + NAME_BYTES * len(block.names) for block in columns.blocks])
    if int((names + ROW_BYTES * columns.counts).max()) > RECORD_BYTES:
        columns = _divided(columns)
        names = np.array([len(block.utf8) + NAME_BYTES * len(block.names) for block in columns.blocks])
    weights = np.cumsum(names + ROW_BYTES * columns.counts)
    records, first = [], 0
    while first < len(weights):
        before = int(weights[first - 1]) if first else 0
        last = max(int(np.searchsorted(weights, before + RECORD_BYTES, "right")), first + 1)
        records.append(_encode(columns if first == 0 and last == len(weights) else columns.parts(first, last)))
        first = last
    return records


def _divided(columns: Columns) -> Columns:
    """No part too large for a record: of thousands of signals, or of thousands of rows. Those get blocks of their own."""
    several: list[Columns] = []
    for part, block in enumerate(columns.blocks):
        one = columns.parts(part, part + 1)
        if len(block.utf8) + NAME_BYTES * len(block.names) + ROW_BYTES * len(one) <= RECORD_BYTES:
            several.append(one)
            continue
        for at in range(0, len(one), DIVIDED_ROWS):
            rows = slice(at, at + DIVIDED_ROWS)
            used, place = np.unique(one.place[rows], return_inverse=True)
            own = name_block([block.names[p] for p in used.tolist()])
            count = np.array([len(place)], np.int64)
            values = (one.time_us[rows], one.value[rows], one.quality[rows])
            several.append(Columns(one.equipment, [own], count, place.astype(np.int32), *values))
    return join(several)


def _encode(columns: Columns) -> Encoded:
    blocks: list[NameBlock] = []
    base_of: dict[int, int] = {}
    total = 0
    for block in columns.blocks:
        if id(block) not in base_of:
            base_of[id(block)] = total
            blocks.append(block)
            total += len(block.names)
    bases = np.fromiter((base_of[id(block)] for block in columns.blocks), np.int32, len(columns.blocks))
    signal = columns.place + np.repeat(bases, columns.counts)
    return encode_columns(blocks, signal, columns.time_us, columns.value, columns.quality)
