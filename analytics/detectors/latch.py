"""The state of many latches, with what was measured when their present condition began.

Symbols come as events sorted by rule; only changes of symbol are worked on, in rounds (the first change of every rule,
then the second …), so a batch costs per event, and a quiet one hardly anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from analytics.detectors.contract import Arrays
from analytics.kernels.compare import UNKNOWN
from analytics.kernels.latch import CLEARING, IDLE, PENDING, RAISED, Step, complete, enter
from analytics.kernels.segments import firsts, lasts, rounds

Index = npt.NDArray[np.intp]
Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

NEVER_US: Final = np.iinfo(np.int64).min // 2
"""Before any time."""
_COLUMNS: Final = ("phase", "symbol", "since_us", "onset_us", "last_us", "mark")


@dataclass(frozen=True, slots=True)
class Transition:
    """A latch that was raised or cleared. `values` (K,): what was measured when its condition, or its end, began."""

    rule: int
    raised: bool
    onset_us: int
    time_us: int
    values: Float64


class Latches:
    """R latches, each with K measured values."""

    def __init__(self, on_us: Int64, off_us: Int64, equipment: Index, width: int) -> None:
        """on_us, off_us (R,): delays in µs; equipment (R,): whose rules they are; `width` is K."""
        n = len(on_us)
        self.on_us, self.off_us, self._equipment = on_us, off_us, equipment
        self._waiting: set[int] = set()  # those in a delay: few, and all that `advance` looks at
        self.phase = np.full(n, IDLE, np.int8)
        self.symbol = np.full(n, UNKNOWN, np.int8)
        self.since_us = np.zeros(n, np.int64)
        self.onset_us = np.zeros(n, np.int64)
        self.last_us = np.full(n, NEVER_US, np.int64)
        self.mark = np.full((n, width), np.nan)

    def apply(self, rule: Index, time_us: Int64, symbol: Int8, values: Float64) -> list[Transition]:
        """Takes symbols. rule (n,) sorted; time_us (n,) not falling within a rule, nor behind its `last_us`;
        values (n, K). Returns what was raised and cleared, in order within each rule."""
        if not len(rule):
            return []
        first = firsts(rule)
        end = lasts(first)
        previous = np.empty_like(symbol)
        previous[1:] = symbol[:-1]
        previous[first] = self.symbol[rule[first]]
        changed = np.nonzero(symbol != previous)[0]
        found: list[Transition] = []
        for round_ in rounds(firsts(rule[changed])):
            rows = changed[round_]
            self._event(rule[rows], time_us[rows], symbol[rows], values[rows], found)
        self._complete(rule[end], time_us[end], found)
        self.last_us[rule[end]] = np.maximum(self.last_us[rule[end]], time_us[end])
        return found

    def advance(self, time_us: int, equipment: npt.NDArray[np.bool_]) -> list[Transition]:
        """The log's time of the equipment in the mask (Q,) has reached `time_us`. Costs per latch in a delay."""
        found: list[Transition] = []
        waiting = np.array(sorted(self._waiting), np.intp)
        waiting = waiting[equipment[self._equipment[waiting]]]
        if len(waiting):
            self._complete(waiting, np.full(len(waiting), time_us, np.int64), found)
        return found

    def lose(self, equipment: npt.NDArray[np.bool_]) -> None:
        """Nothing is known of the equipment in the mask until its next event."""
        if equipment.any():
            self.symbol[equipment[self._equipment]] = UNKNOWN

    def standing(self) -> Index:
        """Rules that are raised and not yet cleared."""
        return np.nonzero((self.phase == RAISED) | (self.phase == CLEARING))[0]

    def snapshot(self) -> Arrays:
        """All state, copied."""
        return {name: getattr(self, name).copy() for name in _COLUMNS}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]], mine: Index, theirs: Index) -> None:
        """Takes rows `theirs` of a snapshot for the rules `mine`."""
        for name in _COLUMNS:
            getattr(self, name)[mine] = arrays[name][theirs]
        self._waiting = set(np.nonzero(_waits(self.phase))[0].tolist())

    def _event(self, rule: Index, time_us: Int64, symbol: Int8, values: Float64, found: list[Transition]) -> None:
        self._complete(rule, time_us, found)
        time_us = np.maximum(time_us, self.last_us[rule])
        step = enter(
            self.phase[rule], symbol, self.since_us[rule], self.onset_us[rule],
            on_us=self.on_us[rule], off_us=self.off_us[rule], time_us=time_us,
        )  # fmt: skip
        self.symbol[rule] = symbol
        self.last_us[rule] = time_us
        self.mark[rule[step.began]] = values[step.began]
        self._take(rule, step, found)

    def _complete(self, rule: Index, time_us: Int64, found: list[Transition]) -> None:
        step = complete(
            self.phase[rule], self.symbol[rule], self.since_us[rule], self.onset_us[rule],
            on_us=self.on_us[rule], off_us=self.off_us[rule], time_us=time_us,
        )  # fmt: skip
        self._take(rule, step, found)

    def _take(self, rule: Index, step: Step, found: list[Transition]) -> None:
        waits = _waits(step.phase)
        other = waits != _waits(self.phase[rule])
        self._waiting.update(rule[other & waits].tolist())
        self._waiting.difference_update(rule[other & ~waits].tolist())
        self.phase[rule] = step.phase
        self.since_us[rule] = step.since_us
        self.onset_us[rule] = step.onset_us
        for i in np.nonzero(step.up | step.down)[0].tolist():
            r, time_us = int(rule[i]), int(step.time_us[i])
            self.last_us[r] = max(int(self.last_us[r]), time_us)
            found.append(Transition(r, bool(step.up[i]), int(step.onset_us[i]), time_us, self.mark[r].copy()))


def _waits(phase: Int8) -> npt.NDArray[np.bool_]:
    waits: npt.NDArray[np.bool_] = (phase == PENDING) | (phase == CLEARING)
    return waits
