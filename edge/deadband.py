"""Report by exception with a deadband: a reading is reported when it differs from the last reported one by more than that.

Fidelity: holding the last reported value reproduces every suppressed reading within the deadband: absolute, or a
percentage of the magnitude of the last reported value (so that after a reported 0 every change is reported). Compared is
with what was reported, not with what was read, so that no slow drift creeps away. In doubles: |read − reported| ≤ band,
as the subtraction rounds it. What is reported besides stands in edge.report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.columns import Float64, Int64
from edge.slots import NEVER_US, NO_QUALITY, Bool, Int16, Readings, grown, reference


@dataclass(slots=True)
class Deadbands:
    """What was last reported, by slot: arrays (capacity,)."""

    _absolute: Float64 = field(default_factory=lambda: np.empty(0))
    """The band in the point's unit; 0 where it is relative."""
    _relative: Float64 = field(default_factory=lambda: np.empty(0))
    """The band in percent of the value; 0 where it is absolute."""
    _beat_us: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    _value: Float64 = field(default_factory=lambda: np.empty(0))
    _band: Float64 = field(default_factory=lambda: np.empty(0))
    """Round `_value`, in the unit."""
    _reported_us: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    _seen_us: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    """Time of the latest reading, reported or not."""
    _quality: Int16 = field(default_factory=lambda: np.empty(0, np.int16))

    def watch(
        self, slots: Sequence[int], absolute: Sequence[float], relative: Sequence[float], *, beat_us: Sequence[int]
    ) -> None:
        """Sets what slots go by: the band in the unit or in percent (the other is 0), and the heartbeat."""
        size = max(slots) + 1
        self._absolute, self._relative = grown(self._absolute, size, 0.0), grown(self._relative, size, 0.0)
        self._beat_us, self._value = grown(self._beat_us, size, 0), grown(self._value, size, np.nan)
        self._band, self._reported_us = grown(self._band, size, 0.0), grown(self._reported_us, size, NEVER_US)
        self._seen_us, self._quality = grown(self._seen_us, size, NEVER_US), grown(self._quality, size, NO_QUALITY)
        at = np.array(slots)
        self._absolute[at], self._relative[at], self._beat_us[at] = absolute, relative, beat_us

    def begin(self, slots: Sequence[int]) -> None:
        """Forgets what these slots last said."""
        self._quality[slots], self._seen_us[slots] = NO_QUALITY, NEVER_US

    def judge(self, readings: Readings) -> Bool:
        """(k,) which readings are reported. About 12 ns a reading."""
        slot, time_us, value = readings.slot, readings.time_us, readings.value
        seen_us = self._seen_us.take(slot)
        goes_on = time_us > seen_us
        goes_on &= time_us - self._reported_us.take(slot) < self._beat_us.take(slot)
        goes_on &= readings.quality == self._quality.take(slot)
        self._seen_us[slot] = time_us  # Late ones are reported, and mended there.
        with np.errstate(invalid="ignore", over="ignore"):
            told = ~(goes_on & (np.abs(value - self._value.take(slot)) <= self._band.take(slot)))
            some = np.flatnonzero(told)
            if len(some):
                told[some] = ~(goes_on[some] & np.isnan(value[some]) & np.isnan(self._value[slot[some]]))
                self._tell(readings.at(told), seen_us[told])
        return told

    def _tell(self, told: Readings, seen_us: Int64) -> None:
        """The next readings are compared with these."""
        slot = told.slot
        self._seen_us[slot], self._quality[slot] = reference(told, seen_us, self._beat_us[slot])
        self._reported_us[slot], self._value[slot] = told.time_us, told.value
        band = self._absolute[slot] + self._relative[slot] * np.abs(told.value) / 100
        self._band[slot] = np.where(np.isfinite(band), band, np.nan)  # No percentage of infinity: the next is reported.
