"""Where the state of a signal lies: rows of Columns → places ("slots") in a stage's arrays, all parts at once.

A block is registered once, with a key for each of its signals that the stage watches; equal keys share a slot, so a
signal keeps its state when its block is made anew. Invariant: a slot belongs to one key from the first block that has it
until `release`, and a registered block is kept alive, so that its id stays its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from edge.columns import Columns, Float64, Int64, UInt8
from telemetry.name_block import NameBlock

Bool = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]
Int16 = npt.NDArray[np.int16]
Scalar = TypeVar("Scalar", bound=np.generic)

UNWATCHED: Final = -1
"""In place of a slot: no state of this signal."""
NO_ROW: Final = -1
"""In place of a row of these Columns: there is none."""
NEVER_US: Final = -(2**62)
"""Time of a signal's latest reading where there was none; differences with it stay within 64 bits."""
NO_QUALITY: Final = -1
"""No quality byte: whatever comes next differs from it."""


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """Rows of Columns that a stage watches: (m,) `row`, ascending, and (m,) `slot` of each."""

    row: Index
    slot: Index


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """Some watched rows, no signal twice: (k,) `row`, `slot`, and `before`: the signal's row before it, or NO_ROW."""

    row: Index
    slot: Index
    before: Index

    def readings(self, columns: Columns) -> Readings:
        """What the rows say. Copies, unless they are all rows."""
        row = self.row
        if len(row) == len(columns):
            return Readings(self.slot, columns.time_us, columns.value, columns.quality)
        return Readings(self.slot, columns.time_us.take(row), columns.value.take(row), columns.quality.take(row))


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """Readings of different signals: (k,) arrays."""

    slot: Index
    time_us: Int64
    value: Float64
    quality: UInt8

    def at(self, which: Index | Bool) -> Readings:
        """Some of them. Copies."""
        return Readings(self.slot[which], self.time_us[which], self.value[which], self.quality[which])

    def __len__(self) -> int:
        return len(self.slot)


NONE_WATCHED: Final = Watched(np.empty(0, np.intp), np.empty(0, np.intp))


@dataclass(slots=True)
class Slots:
    """The slots of one stage. About 8 B a name of a registered block, and what a dict takes for a watched one."""

    capacity: int = 0
    """One more than the highest slot ever given."""
    _slot_of: dict[Hashable, int] = field(default_factory=dict)
    _key_of: dict[int, Hashable] = field(default_factory=dict)
    _blocks_of: dict[int, int] = field(default_factory=dict)
    """Slot → how many registered places have it."""
    _free: list[int] = field(default_factory=list)
    _base: dict[int, int] = field(default_factory=dict)
    """id of a block → where in `_table` its places begin."""
    _blocks: dict[int, NameBlock] = field(default_factory=dict)
    _table: Index = field(default_factory=lambda: np.empty(0, np.intp))
    """Slot of each place of each block, or UNWATCHED."""
    room: int = 0
    """Places of all registered blocks, and gaps between them."""
    _gaps: dict[int, list[int]] = field(default_factory=dict)
    """Length → where in `_table` a forgotten block of this length lay."""
    _latest: Index = field(default_factory=lambda: np.empty(0, np.intp))
    """Scratch of `passes`."""

    def add(self, block: NameBlock, keys: Sequence[Hashable | None]) -> list[int]:
        """Registers a block; `keys` are its signals' in their order, None where one is not watched.

        The slot of each place, or UNWATCHED. Raises ValueError for a block that is registered, or other keys than names.
        """
        if len(keys) != len(block.names) or id(block) in self._base:
            raise ValueError(
                f"a block of {len(block.names)} names: expected it once with as many keys, got {len(keys)}"
            )
        slots = [UNWATCHED if key is None else self._take(key) for key in keys]
        if max(slots, default=UNWATCHED) != UNWATCHED:
            base = self._region(len(slots))
            self._table[base : base + len(slots)] = slots
            self._base[id(block)], self._blocks[id(block)] = base, block
        return slots

    def slots_of(self, block: NameBlock) -> Index:
        """(names,) slot of each place of a block, UNWATCHED where it has none; (0,) for a block without any. A copy."""
        base = self._base.get(id(block))
        return np.empty(0, np.intp) if base is None else self._table[base : base + len(block.names)].copy()

    def blocks(self) -> list[NameBlock]:
        """All registered blocks that have a watched signal."""
        return list(self._blocks.values())

    def forget(self, block: NameBlock) -> list[int]:
        """Unregisters a block; the slots that no other block has any more. They keep their key until `release`."""
        base = self._base.pop(id(block), None)
        if base is None:
            return []
        del self._blocks[id(block)]
        length = len(block.names)
        slots = [slot for slot in self._table[base : base + length].tolist() if slot != UNWATCHED]
        self._gaps.setdefault(length, []).append(base)
        for slot in slots:
            self._blocks_of[slot] -= 1
        return sorted({slot for slot in slots if not self._blocks_of[slot]})

    def release(self, slots: Sequence[int]) -> None:
        """Gives slots back, for other keys."""
        for slot in slots:
            del self._slot_of[self._key_of.pop(slot)], self._blocks_of[slot]
        self._free.extend(slots)

    def watched(self, columns: Columns) -> Watched:
        """The watched rows. A commit without any costs about 0.1 µs a part."""
        if not self._base:
            return NONE_WATCHED
        find = self._base.get
        bases = np.array([find(id(block), UNWATCHED) for block in columns.blocks], np.intp)
        known = bases >= 0
        if not known.any():
            return NONE_WATCHED
        if known.all():
            row = np.arange(len(columns))
            slot = self._table.take(np.repeat(bases, columns.counts) + columns.place)
        else:
            row = np.flatnonzero(np.repeat(known, columns.counts))
            slot = self._table.take(np.repeat(bases[known], columns.counts[known]) + columns.place[row])
        mine = slot >= 0
        return Watched(row, slot) if mine.all() else Watched(row[mine], slot[mine])

    def passes(self, watched: Watched) -> Iterator[Pass]:
        """The rows in turns: each turn has a signal at most once, and its earlier rows are of earlier turns.

        Costs a few ns a row where no signal comes twice, the usual case; else a sort, and a turn for each time that the
        most frequent signal comes.
        """
        slot, n = watched.slot, len(watched.slot)
        if not n:
            return
        self._latest = grown(self._latest, self.capacity, 0)
        number = np.arange(n)
        self._latest[slot] = number
        if bool((self._latest.take(slot) == number).all()):
            yield Pass(watched.row, slot, np.full(n, NO_ROW, np.intp))
            return
        order = np.argsort(slot, kind="stable")
        first = np.concatenate([[True], slot[order[1:]] != slot[order[:-1]]])
        before = np.full(n, NO_ROW, np.intp)
        before[order[1:]] = np.where(first[1:], NO_ROW, watched.row[order[:-1]])
        starts = np.flatnonzero(first)
        turn = np.arange(n) - np.repeat(starts, np.diff(starts, append=n))
        by_turn = order[np.argsort(turn, kind="stable")]
        for at in np.split(by_turn, np.cumsum(np.bincount(turn))[:-1]):
            yield Pass(watched.row[at], slot[at], before[at])

    def _take(self, key: Hashable) -> int:
        slot = self._slot_of.get(key)
        if slot is None:
            slot = self._free.pop() if self._free else self.capacity
            self.capacity = max(self.capacity, slot + 1)
            self._slot_of[key], self._key_of[slot] = slot, key
        self._blocks_of[slot] = self._blocks_of.get(slot, 0) + 1
        return slot

    def _region(self, length: int) -> int:
        """Where `length` places of the table are free."""
        if gaps := self._gaps.get(length):
            return gaps.pop()
        base = self.room
        self.room += length
        self._table = grown(self._table, self.room, UNWATCHED)
        return base


def grown(array: npt.NDArray[Scalar], size: int, fill: Any) -> npt.NDArray[Scalar]:
    """The array (n, …) itself if n ≥ size, else a copy at least twice as long, with `fill` behind."""
    if len(array) >= size:
        return array
    longer = np.full((max(size, 2 * len(array), 64), *array.shape[1:]), fill, array.dtype)
    longer[: len(array)] = array
    return longer


def reference(readings: Readings, seen_us: Int64, beat_us: Int64) -> tuple[Int64, Int16]:
    """(k,) latest time and quality to go on from after these reported readings, of signals last read at `seen_us`.

    A late reading leaves the time, and no quality: the next is reported whatever it says. One set back by a heartbeat or
    more begins a new line of time.
    """
    late = (readings.time_us <= seen_us) & (readings.time_us > seen_us - beat_us)
    return np.where(late, seen_us, readings.time_us), np.where(late, np.int16(NO_QUALITY), readings.quality)
