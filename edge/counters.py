"""Counters that wrap: raw counts of 0 … wrap − 1 become a running total, which never goes back while its state is kept.

total = base + raw, scaled as the profile says (edge.scaling), where base is what wraps and resets before have added:
- the first reading ever: base 0, the total is the raw count;
- a raw count below the last one, by going on at most `max_step` past `wrap`: the counter wrapped, base grows by `wrap`;
- any other decrease: the device began anew (a restart, a new meter). The total goes on from where it was, base grows by the
  last raw count, and an event `counter-reset` says so. For whoever reads a total reads differences of it: consumption, runs,
  starts. A total that fell would be a negative consumption, one that took the reset for a wrap a huge one; so only what the
  device counted between its last reading and its reset is missing;
- an increase, of whatever size: that is what was counted. After an outage it may be large; wraps meanwhile are not seen.

A bad reading changes nothing. A count outside 0 … wrap − 1 contradicts the profile: its total is uncertain
(`UNCERTAIN_OUT_OF_RANGE`), as is a total outside the point's range, and it changes nothing either.

Totals and raw counts are doubles: exact up to 2^53, beyond it the nearest doubles. Invariant: state that `count` gives out
is that after all of its readings; journaled with them, it makes a restart invisible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, islice
from typing import Final

import numpy as np
import orjson

from edge.columns import Columns, Float64, UInt8
from edge.scaling import whole_scaling
from edge.slots import Bool, Index, Readings, Slots, grown
from telemetry.messages import VIGIL_SCHEME, Event
from telemetry.name_block import NameBlock
from telemetry.names import split_signal
from telemetry.quality import GOOD, UNCERTAIN_OUT_OF_RANGE, is_bad

STATE: Final = "counter/"
"""Of the keys of state: counter/EQUIPMENT → {point: [last raw count, base]}."""


@dataclass(frozen=True, slots=True)
class Wrapping:
    """How a counter counts: raw counts up to `wrap` − 1, an increase of at most `max_step` at once; total → value."""

    wrap: int
    max_step: int
    scale: float = 1.0
    offset: float = 0.0
    low: float = -math.inf
    """The range of the value, in the point's unit."""
    high: float = math.inf


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """What counters made of some readings."""

    columns: Columns
    events: Sequence[Event] = ()
    state: Mapping[str, str] = field(default_factory=dict)
    """To be kept with the readings."""


@dataclass(slots=True)
class _Equipment:
    """The counters of one equipment."""

    name: str
    number: int
    slots: list[int] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    absent: dict[str, list[float]] = field(default_factory=dict)
    """State of points that no block has had since the start: kept as it was."""


class Counters:
    """The last count and base of all counters that wrap. All of it on one thread."""

    def __init__(self, state: Mapping[str, str]) -> None:
        """`state`: what `count` gave out before the restart, among anything else. Raises ValueError where it is not JSON."""
        self._equipment: dict[str, _Equipment] = {}
        for key, text in state.items():
            if key.startswith(STATE):
                self._of(key.removeprefix(STATE)).absent = orjson.loads(text)
        self._slots = Slots()
        self._signal: list[tuple[str, str]] = []
        """Equipment and point, by slot."""
        self._owner = np.empty(0, np.intp)
        """(capacity,) number of the equipment."""
        self._rule = np.empty((0, 8))
        """(capacity, 8): wrap, max_step, mul, add, div, offset, low, high."""
        self._count = np.empty((0, 2))
        """(capacity, 2): the last raw count, NaN before the first, and base."""

    def add(self, block: NameBlock, rules: Sequence[Wrapping | None]) -> None:
        """Registers a block, once: how its signals count, in their order. Blocks without such need none of this.

        Their values come raw. A signal goes on from where it was in another block or before the restart, by the new rule.
        Raises ValueError for a block that is registered, or other than one rule a name.
        """
        given = [name if rule is not None else None for name, rule in zip(block.names, rules, strict=True)]
        for slot, name, rule in zip(self._slots.add(block, given), block.names, rules, strict=True):
            if rule is not None:
                self._begin(slot, name)
                self._rule[slot] = _numbers(rule)

    def forget(self, block: NameBlock) -> None:
        """Unregisters a block. Its counters go on when they come again."""
        self._slots.forget(block)

    def count(self, columns: Columns) -> Counted:
        """Totals in place of raw counts, scaled; everything else as it is. The Columns themselves without any counter.

        About 15 ns a row of blocks that have counters, nothing of others, and 0.3 µs a counter of an equipment of which one
        moved: its state is text (benchmarks.report).
        """
        watched = self._slots.watched(columns)
        if not len(watched.row):
            return Counted(columns)
        value, quality = columns.value.copy(), columns.quality.copy()
        events: list[Event] = []
        moved: list[Index] = []
        for turn in self._slots.passes(watched):
            readings = turn.readings(columns)
            moved.append(self._advance(readings, events))
            value[turn.row], quality[turn.row] = self._scaled(readings)
        return Counted(replace(columns, value=value, quality=quality), events, self._state(np.concatenate(moved)))

    def _begin(self, slot: int, name: str) -> None:
        """Room for a slot that is new, and what was kept of its signal. Slots come in order and are never given back."""
        if slot < len(self._signal):
            return
        equipment, point = split_signal(name)
        self._signal.append((equipment, point))
        self._owner, self._rule = grown(self._owner, slot + 1, 0), grown(self._rule, slot + 1, 0.0)
        self._count = grown(self._count, slot + 1, 0.0)
        owner = self._of(equipment)
        owner.slots.append(slot)
        owner.points.append(point)
        self._owner[slot], self._count[slot] = owner.number, owner.absent.pop(point, (np.nan, 0.0))

    def _of(self, equipment: str) -> _Equipment:
        return self._equipment.setdefault(equipment, _Equipment(equipment, len(self._equipment)))

    def _advance(self, readings: Readings, events: list[Event]) -> Index:
        """Takes the counts in; the slots whose state changed."""
        slot, raw = readings.slot, readings.value
        last = self._count[:, 0].take(slot)
        wrap, max_step = self._rule.take(slot, axis=0).T[:2]
        valid = _valid(readings, wrap)
        fell = np.flatnonzero(valid & (raw < last))
        if len(fell):
            at, before, after, full = slot[fell], last[fell], raw[fell], wrap[fell]
            wrapped = (before < full) & (after + full - before <= max_step[fell])
            self._count[at, 1] += np.where(wrapped, full, before)
            events += [self._reset(readings, n) for n in fell[~wrapped].tolist()]
        moved = np.flatnonzero(valid & (raw != last))
        self._count[slot[moved], 0] = raw[moved]
        return slot[moved]

    def _scaled(self, readings: Readings) -> tuple[Float64, UInt8]:
        """Values and qualities of the totals."""
        slot, quality = readings.slot, readings.quality
        wrap, _, mul, add, div, offset, low, high = self._rule.take(slot, axis=0).T
        value = ((self._count[:, 1].take(slot) + readings.value) * mul + add) / div + offset
        odd = ~(_valid(readings, wrap) & (value >= low) & (value <= high)) & (quality == GOOD) & ~np.isnan(value)
        return value, np.where(odd, np.uint8(UNCERTAIN_OUT_OF_RANGE), quality)

    def _reset(self, readings: Readings, number: int) -> Event:
        """Of the reading with this number, before its count is taken in."""
        slot = int(readings.slot[number])
        equipment, point = self._signal[slot]
        attributes = {"point": point, "before": int(self._count[slot, 0]), "after": int(readings.value[number])}
        return Event(equipment, int(readings.time_us[number]), VIGIL_SCHEME, "counter-reset", True, attributes)

    def _state(self, moved: Index) -> dict[str, str]:
        """The state of all counters of the equipments of these slots."""
        touched = np.zeros(len(self._equipment), np.bool_)
        touched[self._owner[moved]] = True
        owners = list(compress(self._equipment.values(), touched.tolist()))
        counts = iter(self._count[[slot for owner in owners for slot in owner.slots]].tolist())
        found: dict[str, str] = {}
        for owner in owners:
            now = {
                point: count
                for point, count in zip(owner.points, islice(counts, len(owner.points)), strict=True)
                if count[0] == count[0]
            }
            found[STATE + owner.name] = orjson.dumps(owner.absent | now).decode()
        return found


def _valid(readings: Readings, wrap: Float64) -> Bool:
    """(k,) which readings count: not bad, and in 0 … wrap − 1."""
    valid: Bool = ~is_bad(readings.quality) & (readings.value >= 0) & (readings.value < wrap)
    return valid


def _numbers(rule: Wrapping) -> tuple[float, ...]:
    scaling = whole_scaling(rule.scale, rule.offset, largest=1)  # Exact as long as a total's numerator is below 2^53.
    return (rule.wrap, rule.max_step, scaling.mul, scaling.add, scaling.div, scaling.offset, rule.low, rule.high)
