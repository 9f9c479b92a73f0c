"""Report by exception: of the signals whose profile says so, only the readings that say something new go on.

Reported is always, with the time and quality that it was read with:
- the first reading after the start; any change of the quality byte, or between a value and none, so bad readings when
  they begin and the good one that ends them;
- a reading `heartbeat_s` or more after the last reported one, by the time of the samples: so also the first after a gap;
- what the deadband (edge.deadband) or the swinging door (edge.swinging_door) says.

Fidelity: from what is reported, every suppressed reading is reproduced within the deadband by holding the last reported
value, or within the deviation by the line between the two reported readings around it. Signals without a policy go through
untouched.

The swinging door holds the latest reading back: it goes out when the door, the quality, a gap of `heartbeat_s` or `flush`
says so, in its own time, before any later reading of its signal, perhaps in a later commit. What is held after a commit is
kept with it (edge.held): a kill costs none of it.

The bound is of readings whose time advances. A late one (not later than one before it) is reported, and so is the next that
is later, whatever they say; readings suppressed between the two reported ones among which a late one falls may be off. Set
back by `heartbeat_s` or more, the clock of a signal goes on from there.

Invariant: the result does not depend on how readings are cut into commits. Each reading is to be given once: what a failed
commit tries again is what `thin` gave.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from edge.columns import NOTHING, Columns, join
from edge.deadband import Deadbands
from edge.slots import NO_ROW, UNWATCHED, Bool, Index, Pass, Slots
from edge.swinging_door import Doors, Held
from telemetry.name_block import NameBlock
from telemetry.names import split_signal

Scalar = TypeVar("Scalar", bound=np.generic)

LONGEST_US: Final = 2**61
"""A heartbeat as good as none: 73,000 years."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How one point is reported, in its unit: exactly one of the three, and the heartbeat. Raises ValueError."""

    deadband: float | None = None
    deadband_percent: float | None = None
    swinging_door: float | None = None
    heartbeat_s: float = 600.0

    def __post_init__(self) -> None:
        ways = [way for way in (self.deadband, self.deadband_percent, self.swinging_door) if way is not None]
        if len(ways) != 1 or not 0 < ways[0] < math.inf or not self.heartbeat_s > 0:
            raise ValueError(f"report: expected one way and a heartbeat, above 0 and finite, found {self}")

    @property
    def beat_us(self) -> int:
        """The heartbeat in µs."""
        return round(min(self.heartbeat_s * 1e6, LONGEST_US))


@dataclass(frozen=True, slots=True)
class Thinned:
    """Readings of signals with a policy, since the start: read = reported + suppressed + held."""

    read: int = 0
    reported: int = 0
    held: int = 0

    @property
    def suppressed(self) -> int:
        """Those that will not go on."""
        return self.read - self.reported - self.held


@dataclass(slots=True)
class Reporter:
    """The state of all signals with a policy. All of it on one thread."""

    _band_slots: Slots = field(default_factory=Slots)
    _door_slots: Slots = field(default_factory=Slots)
    _bands: Deadbands = field(default_factory=Deadbands)
    _doors: Doors = field(default_factory=Doors)
    _read: int = 0
    _reported: int = 0

    def add(self, block: NameBlock, policies: Sequence[Policy | None]) -> None:
        """Registers a block, once: the policies of its signals in their order. Blocks without any need none of this.

        A signal that another block has, with an equal policy, goes on from there; with another policy it begins anew.
        Raises ValueError for a block that is registered, or other than one policy a name.
        """
        keyed = list(zip(block.names, policies, strict=True))
        bands = [(name, p) if p is not None and p.swinging_door is None else None for name, p in keyed]
        doors = [(name, p) if p is not None and p.swinging_door is not None else None for name, p in keyed]
        if mine := _given(self._band_slots.add(block, bands), policies):
            absolute = [p.deadband or 0.0 for p in mine.values()]
            percent = [p.deadband_percent or 0.0 for p in mine.values()]
            self._bands.watch(list(mine), absolute, percent, beat_us=[p.beat_us for p in mine.values()])
        if mine := _given(self._door_slots.add(block, doors), policies):
            deviation = [p.swinging_door or 0.0 for p in mine.values()]
            self._doors.watch(list(mine), deviation, beat_us=[p.beat_us for p in mine.values()])

    def forget(self, block: NameBlock) -> Columns:
        """Unregisters a block; what its signals hold, to be journaled. A signal that no other block has is forgotten."""
        held = self._let_go(block, self._doors.holding())
        for slots, state in ((self._band_slots, self._bands), (self._door_slots, self._doors)):
            if last := slots.forget(block):
                state.begin(last)
                slots.release(last)
        return held

    def thin(self, columns: Columns) -> Columns:
        """What is reported of these readings, and held ones before them, in order for each signal.

        Parts and rows stay in order; a held reading of an earlier commit stands before the row that let it go. The Columns
        themselves where nothing is suppressed, else copies. On a busy core 24 ns a row with a deadband, 40 ns with a
        swinging door, nothing a row of other blocks (benchmarks.report).
        """
        bands, doors = self._band_slots.watched(columns), self._door_slots.watched(columns)
        watched = len(bands.row) + len(doors.row)
        if not watched:
            return columns
        keep = np.ones(len(columns), np.bool_)
        for turn in self._band_slots.passes(bands):
            keep[turn.row] = self._bands.judge(turn.readings(columns))
        earlier = [self._swing(turn, columns, keep) for turn in self._door_slots.passes(doors)]
        self._read += watched
        self._reported += int(np.count_nonzero(keep)) + sum(len(h.at) for h in earlier) - len(columns) + watched
        return _select(columns, keep, [held for held in earlier if len(held.at)])

    def flush(self, until_us: int | None = None) -> Columns:
        """What is held, of times up to `until_us` if given: for a clean stop, and for signals that have gone silent.

        It breaks no bound: the next lines begin at these readings.
        """
        due = self._doors.holding(until_us)
        return join([self._let_go(block, due) for block in self._door_slots.blocks()]) if len(due) else NOTHING

    def holds(self, block: NameBlock) -> Held:
        """What a block's signals hold back, and go on holding; `at`: their places in the block."""
        return self._doors.kept(self._door_slots.slots_of(block))

    @property
    def counts(self) -> Thinned:
        """As of now."""
        return Thinned(self._read, self._reported, self._doors.held)

    def _swing(self, turn: Pass, columns: Columns, keep: Bool) -> Held:
        """Marks in `keep` what the doors report of a turn; held ones of earlier commits, `at` the rows that let them go."""
        told, held = self._doors.judge(turn.readings(columns))
        keep[turn.row] = told
        before = turn.before[held.at]
        earlier = before == NO_ROW
        keep[before[~earlier]] = True
        return Held(turn.row[held.at[earlier]], held.time_us[earlier], held.value[earlier], held.quality[earlier])

    def _let_go(self, block: NameBlock, due: Index) -> Columns:
        """One part, or nothing: what the signals of a block hold, of these slots."""
        places = np.flatnonzero(np.isin(slots := self._door_slots.slots_of(block), due))
        held = self._doors.let_go(slots[places])
        if not len(held.at):
            return NOTHING
        self._reported += len(held.at)
        equipment, _ = split_signal(block.names[0])
        place = places[held.at].astype(np.int32)
        return Columns([equipment], [block], np.array([len(place)]), place, held.time_us, held.value, held.quality)


def _given(slots: Sequence[int], policies: Sequence[Policy | None]) -> dict[int, Policy]:
    """Slot → policy, of those that have both."""
    return {slot: p for slot, p in zip(slots, policies, strict=True) if slot != UNWATCHED and p is not None}


def _select(columns: Columns, keep: Bool, several: Sequence[Held]) -> Columns:
    """Rows where `keep` (n,) holds, and before the rows `at` what was held. At most one held reading a row."""
    if not several:
        return columns if keep.all() else columns.keep(keep)
    at = np.concatenate([held.at for held in several])
    rows = np.flatnonzero(keep)
    each = keep.astype(np.intp)
    each[at] += 1
    ends = np.cumsum(each)
    counts = np.add.reduceat(each, columns.starts)
    parts = np.flatnonzero(counts).tolist()

    def woven(kept: npt.NDArray[Scalar], held: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        column = np.empty(int(ends[-1]), kept.dtype)
        column[ends[at] - each[at]] = held
        column[ends[rows] - 1] = kept[rows]
        return column

    return Columns(
        [columns.equipment[p] for p in parts],
        [columns.blocks[p] for p in parts],
        counts[parts],
        woven(columns.place, columns.place[at]),
        woven(columns.time_us, np.concatenate([held.time_us for held in several])),
        woven(columns.value, np.concatenate([held.value for held in several])),
        woven(columns.quality, np.concatenate([held.quality for held in several])),
    )
