"""Report by exception with a swinging door: lines between reported readings pass every suppressed one within a deviation.

From the last reported reading A, each later reading (t, v) leaves open the slopes from (v − a − deviation)/(t − tₐ) to
(v − a + deviation)/(t − tₐ); the door is what all of them leave open. A new reading N whose own slope from A lies in the
door may end a line that passes all those between. It is *held*, in place of the one held before, and narrows the door.
Where its slope lies outside, the held one, H, is reported and is A from now on; N is held and makes a new door.

    A · · ○ · · ○ · · H        A–H passes each ○ within the deviation: H's slope lay in the door when it was held.
                               N's does not, so H is reported, and the next line begins at H.
                         N

Source: E. H. Bristol, US patent 4,669,097 (1987), and "Swinging door trending: adaptive trend recording?", ISA 1990; with
slopes from the reported reading itself, as in the PI historian's compression. Where doors hang above and below A instead,
the line drawn in the end need not lie in the door, and the deviation is no bound.

Fidelity: the line between two reported readings that follow one another in time, of one quality, misses no suppressed
reading between them by more than the deviation. This holds for the doubles as they are, in exact arithmetic: what the
roundings here can do is taken off beforehand (SLACK). Who draws the line in doubles adds the rounding of doing so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edge.columns import Float64, Int64, UInt8
from edge.slots import NEVER_US, NO_QUALITY, Bool, Index, Int16, Readings, grown, reference

SLACK: Final = 2.0**-49
"""Of |v − a| + deviation: twice what the roundings of v − a, of a door's edge and of a slope add up to (7 × 2^-53)."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Readings that were held and are reported now: (h,) arrays; `at` says which of the judged ones, or slots, they are."""

    at: Index
    time_us: Int64
    value: Float64
    quality: UInt8


NOTHING_HELD: Final = Held(np.empty(0, np.intp), np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint8))


@dataclass(slots=True)
class Doors:
    """The line's beginning, the door and the held reading, by slot: arrays (capacity,)."""

    _deviation: Float64 = field(default_factory=lambda: np.empty(0))
    """In the point's unit, less SLACK."""
    _beat_us: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    _value: Float64 = field(default_factory=lambda: np.empty(0))
    _reported_us: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    _low: Float64 = field(default_factory=lambda: np.empty(0))
    """The door: slopes in the unit per µs, infinite where nothing came since."""
    _high: Float64 = field(default_factory=lambda: np.empty(0))
    _seen_us: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    """Time of the latest reading: of the held one, if one is held."""
    _held: Bool = field(default_factory=lambda: np.empty(0, np.bool_))
    _held_value: Float64 = field(default_factory=lambda: np.empty(0))
    _quality: Int16 = field(default_factory=lambda: np.empty(0, np.int16))
    """Of the reported reading and of the held one."""

    def watch(self, slots: Sequence[int], deviation: Sequence[float], beat_us: Sequence[int]) -> None:
        """Sets what slots go by: the deviation in the unit, and the heartbeat."""
        size = max(slots) + 1
        self._deviation, self._beat_us = grown(self._deviation, size, 0.0), grown(self._beat_us, size, 0)
        self._value, self._reported_us = grown(self._value, size, np.nan), grown(self._reported_us, size, NEVER_US)
        self._low, self._high = grown(self._low, size, -np.inf), grown(self._high, size, np.inf)
        self._seen_us, self._quality = grown(self._seen_us, size, NEVER_US), grown(self._quality, size, NO_QUALITY)
        self._held, self._held_value = grown(self._held, size, False), grown(self._held_value, size, np.nan)
        at = np.array(slots)
        self._deviation[at], self._beat_us[at] = np.array(deviation) * (1 - SLACK), beat_us

    def begin(self, slots: Sequence[int]) -> None:
        """Forgets what these slots last said."""
        self._quality[slots], self._seen_us[slots], self._held[slots] = NO_QUALITY, NEVER_US, False

    def holding(self, until_us: int | None = None) -> Index:
        """Slots that hold a reading, of a time up to `until_us` if given."""
        return np.flatnonzero(self._held if until_us is None else self._held & (self._seen_us <= until_us))

    @property
    def held(self) -> int:
        """How many readings are held."""
        return int(np.count_nonzero(self._held))

    def kept(self, slots: Index) -> Held:
        """What these slots hold, those that do (`at`); UNWATCHED ones do not. They go on holding it."""
        at = np.flatnonzero((slots >= 0) & self._held[slots]) if len(slots) else np.empty(0, np.intp)
        slot = slots[at]
        return Held(at, self._seen_us[slot], self._held_value[slot], self._quality[slot].astype(np.uint8))

    def let_go(self, slots: Index) -> Held:
        """What these slots (all different) hold, those that do (`at`): it is reported, and the next lines begin there."""
        had = np.flatnonzero(self._held[slots])
        return self._release(slots[had], had)

    def judge(self, readings: Readings) -> tuple[Bool, Held]:
        """(k,) which readings are reported as they come, and the held ones that are. About 25 ns a reading."""
        slot, time_us = readings.slot, readings.time_us
        seen_us, beat_us = self._seen_us.take(slot), self._beat_us.take(slot)
        goes_on = time_us > seen_us
        goes_on &= time_us - seen_us < beat_us
        goes_on &= readings.quality == self._quality.take(slot)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            since_us = time_us - self._reported_us.take(slot)
            due = since_us >= beat_us
            slope = (readings.value - self._value.take(slot)) / since_us
            hold = goes_on & (slope >= self._low.take(slot)) & (slope <= self._high.take(slot))
            told, held = hold & due, NOTHING_HELD
            rest = np.flatnonzero(~hold)
            hold &= ~due
            if len(rest):
                told[rest], hold[rest], held = self._turn(readings.at(rest), goes_on[rest], due[rest])
                held = Held(rest[held.at], held.time_us, held.value, held.quality)
            self._seen_us[slot] = time_us  # Late ones are reported, and mended there.
            self._hold(readings.at(hold))
            self._tell(readings.at(told), seen_us[told])
        return told, held

    def _turn(self, readings: Readings, goes_on: Bool, due: Bool) -> tuple[Bool, Bool, Held]:
        """Which of the readings beyond the door are reported, which are held, and which held ones they push out."""
        slot = readings.slot
        had = self._held[slot]
        void, was_void = np.isnan(readings.value), np.isnan(self._value[slot])
        held = self._release(slot[had], np.flatnonzero(had))
        hold = goes_on & had & ~void
        return ~hold & ~(goes_on & void & was_void & ~due), hold, held

    def _release(self, slot: Index, at: Index) -> Held:
        """The held readings of these slots; the next lines begin there."""
        held = Held(at, self._seen_us[slot], self._held_value[slot], self._quality[slot].astype(np.uint8))
        self._begin_line(slot, held.time_us, held.value)
        return held

    def _hold(self, readings: Readings) -> None:
        """Holds these and narrows their doors by them."""
        slot = readings.slot
        rise = readings.value - self._value.take(slot)
        since_us = readings.time_us - self._reported_us.take(slot)
        reach = self._deviation.take(slot) - SLACK * np.abs(rise)
        self._low[slot] = np.maximum(self._low.take(slot), (rise - reach) / since_us)
        self._high[slot] = np.minimum(self._high.take(slot), (rise + reach) / since_us)
        self._held[slot], self._held_value[slot] = True, readings.value

    def _tell(self, told: Readings, seen_us: Int64) -> None:
        """The next lines begin at these."""
        slot = told.slot
        self._seen_us[slot], self._quality[slot] = reference(told, seen_us, self._beat_us[slot])
        self._begin_line(slot, told.time_us, told.value)

    def _begin_line(self, slot: Index, time_us: Int64, value: Float64) -> None:
        self._reported_us[slot], self._value[slot], self._held[slot] = time_us, value, False
        self._low[slot], self._high[slot] = -np.inf, np.inf
