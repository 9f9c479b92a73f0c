"""The level detector: the robust level kernel over many signals, with a latch for its delays.

Readings of one signal within a batch are taken one after the other, in rounds over all signals; the cost is per reading.
A signal's age and baseline are part of the snapshot: a restart does not warm up again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from analytics.detectors import keys
from analytics.detectors.conditions import cleared_of_gone_rules
from analytics.detectors.contract import Arrays, Bool, Readings
from analytics.detectors.latch import NEVER_US, Latches, Transition
from analytics.kernels.compare import FALSE, TRUE, UNKNOWN
from analytics.kernels.level import LevelRule, LevelState, level_step, score
from analytics.kernels.segments import expand, firsts, rounds
from analytics.rules import US_PER_S, Catalogue
from telemetry.messages import Finding

Float64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

LARGEST: Final = 1e150
"""A reading beyond this is no reading: its square would not be a number."""
_STATE = tuple(f.name for f in fields(LevelState))


class Levels:
    """All level detectors of a catalogue: L of them."""

    def __init__(self, catalogue: Catalogue) -> None:
        levels = sorted(catalogue.levels, key=lambda level: level.signal)
        self._levels = tuple(levels)
        self._keys = tuple(level.key for level in levels)
        self._key = keys.column(self._keys)
        equipment = np.array([level.equipment for level in levels], np.intp)
        signal = np.array([level.signal for level in levels], np.intp)
        self._count = np.bincount(signal, minlength=len(catalogue.signals)).astype(np.intp)
        self._start = np.cumsum(self._count) - self._count
        asked = [level.detector for level in levels]
        self._rule = LevelRule(
            np.array([d.time_constant_s for d in asked], np.float64),
            np.array([d.baseline_s for d in asked], np.float64),
            np.array([d.threshold for d in asked], np.float64),
            np.array([d.min_spread for d in asked], np.float64),
            np.array([d.warmup_s for d in asked], np.float64),
        )
        delays = ([d.on_delay_s for d in asked], [d.off_delay_s for d in asked])
        on_us, off_us = (np.array([round(s * US_PER_S) for s in d], np.int64) for d in delays)
        self._latches = Latches(on_us, off_us, equipment, 4)
        self._last_us = np.full(len(levels), NEVER_US, np.int64)
        self._state = LevelState(np.zeros(len(levels), np.int64), *(np.zeros(len(levels)) for _ in _STATE[1:]))

    def update(self, readings: Readings) -> list[Finding]:
        """See Detector."""
        return self.judge(readings)[0]

    def judge(self, readings: Readings) -> tuple[list[Finding], Float64]:
        """As update; also the score of each reading, (n,) in 0–1: NaN where nothing judged it."""
        scores = np.full(len(readings), np.nan)
        row, level = expand(self._count[readings.signal], self._start[readings.signal])
        if not len(row):
            return [], scores
        order = np.argsort(level, kind="stable")
        row, level = row[order], level[order]
        symbol = np.full(len(row), UNKNOWN, np.int8)
        values = np.full((len(row), 4), np.nan)
        known = readings.known[row] & (np.abs(readings.value[row]) < LARGEST)
        good = np.nonzero(known)[0]
        for round_ in rounds(firsts(level[good])):
            at = good[round_]
            z, threshold, values[at] = self._step(level[at], readings.value[row[at]], readings.time_us[row[at]])
            symbol[at] = np.where(np.abs(z) > threshold, TRUE, FALSE)
            scores[row[at]] = np.fmax(scores[row[at]], score(z, threshold))
        time_us = np.maximum(readings.time_us[row], self._latches.last_us[level])
        return self._findings(self._latches.apply(level, time_us, symbol, values)), scores

    def advance(self, time_us: int, equipment: Bool) -> list[Finding]:
        """See Detector."""
        return self._findings(self._latches.advance(time_us, equipment))

    def lose(self, equipment: Bool) -> None:
        """See Detector."""
        self._latches.lose(equipment)

    def snapshot(self) -> Arrays:
        """See Detector."""
        return {
            "key": self._key,
            "read_us": self._last_us.copy(),
            **{f"level_{name}": getattr(self._state, name).copy() for name in _STATE},
            **self._latches.snapshot(),
        }

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> list[Finding]:
        """See Detector."""
        mine, theirs, gone = keys.match(self._keys, arrays["key"])
        self._last_us[mine] = arrays["read_us"][theirs]
        for name in _STATE:
            getattr(self._state, name)[mine] = arrays[f"level_{name}"][theirs]
        self._latches.restore(arrays, mine, theirs)
        return cleared_of_gone_rules(arrays, gone)

    def _step(self, level: Index, value: Float64, time_us: npt.NDArray[np.int64]) -> tuple[Float64, Float64, Float64]:
        """One reading of each of the detectors `level`: (z, threshold, evidence (n, 4))."""
        state = LevelState(*(getattr(self._state, name)[level] for name in _STATE))
        rule = self._rule.take(level)
        dt_s = np.where(state.count == 0, 0.0, (time_us - self._last_us[level]) / US_PER_S)
        after, judged = level_step(value, dt_s, state, rule)
        for name in _STATE:
            getattr(self._state, name)[level] = getattr(after, name)
        self._last_us[level] = time_us
        evidence = np.column_stack((value, judged.level, judged.spread, judged.z))
        return judged.z, rule.threshold, evidence

    def _findings(self, transitions: list[Transition]) -> list[Finding]:
        return [self._finding(t) for t in transitions]

    def _finding(self, t: Transition) -> Finding:
        level = self._levels[t.rule]
        value, base, spread, z = t.values.tolist()
        judged = score(np.array([z]), np.array([level.detector.threshold]))
        evidence = {"value": value, "level": base, "spread": spread, "z": z, "threshold": level.detector.threshold}
        return level.subject.finding(
            t.raised, onset_us=t.onset_us, time_us=t.time_us, score=float(judged[0]), evidence=evidence
        )
