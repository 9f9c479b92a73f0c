"""Each row of the table against the answer that it came from, and each answer against its row. Pure: arrays in, counts out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tests.soak.devices import GOOD, NEVER
from tests.soak.layout import SLOW_S, TIMEOUT_S
from tests.soak.world import Excuse

TOLD_S = 2 * TIMEOUT_S + 0.5
"""An answer that came too late is told by a bad reading within so long."""

BEFORE_S = SLOW_S + 0.05
"""… or up to so long before: a request fails with its connection while a slow unit still makes up its answer."""

SHOWN = 20
"""Most rows of a sort that are kept as text."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Given:
    """The answers of one block of a device: number n at place n − 1."""

    at_s: Floats
    status: npt.NDArray[np.uint8]
    again: npt.NDArray[np.bool_]
    """Whether the next number answers the same request, asked again (tests.soak.devices)."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The rows of one block of a device."""

    number: npt.NDArray[np.int64]
    """Of rows with a value, by time."""
    check: npt.NDArray[np.int64]
    """That was stored with it; −1: none."""
    at_s: Floats
    """The rows' times."""
    bad_s: Floats
    """When readings were bad, ascending."""


@dataclass(slots=True)
class Traced:
    """Counts over devices and blocks."""

    answers: int = 0
    """That had to come to the table."""
    rows: int = 0
    doubled: int = 0
    unknown: int = 0
    """Rows with a number that was never given, or only in an answer that is nobody's."""
    wrong: int = 0
    """Rows whose check belongs to another number or device."""
    told: int = 0
    """Answers without a row, where a bad reading says so: they came too late."""
    twice: int = 0
    """Answers without a row because the device saw the same request again, on another connection, and that answer has one."""
    unreachable: int = 0
    """Answers without a row while the newest reading is bad: to probes that failed all the same (too late, or the
    connection was lost). Such silence is told once, by a bad reading, until the device is read again."""
    excused: dict[str, int] = field(default_factory=dict)
    """Answers without a row, by the fault in which they were given."""
    lost: list[str] = field(default_factory=list)
    """Answers without a row and without an excuse."""
    odd: list[str] = field(default_factory=list)
    """Rows that are doubled, unknown or wrong, some of each."""

    def add(
        self, name: str, given: Given, stored: Stored, checks: npt.NDArray[np.int64], why: Sequence[Excuse]
    ) -> None:
        """`checks`: of number n at place n − 1."""
        number = stored.number
        known = (number >= 1) & (number <= len(given.status))
        self.rows += len(number)
        at = np.where(known, number - 1, 0)
        doubled = np.isin(np.arange(len(number)), np.unique(number, return_index=True)[1], invert=True)
        unknown = ~known | (given.status[at] == NEVER) if len(given.status) else ~known
        wrong = known & (stored.check >= 0)
        wrong[wrong] = checks[at[wrong]] != stored.check[wrong]
        self.doubled += int(doubled.sum())
        self.unknown += int(unknown.sum())
        self.wrong += int(wrong.sum())
        for word, which in (("doubled", doubled), ("unknown", unknown), ("wrong", wrong)):
            self._keep(word, name, stored, np.flatnonzero(which))
        have = np.zeros(len(given.status), dtype=bool)
        have[number[known] - 1] = True
        must, good_s = given.status == GOOD, given.at_s[have]
        self.answers += int(must.sum())
        for place in np.flatnonzero(must & ~have):
            if _asked_again(int(place), given.again, have):
                self.twice += 1
                continue
            self._missing(name, int(place) + 1, float(given.at_s[place]), stored, good_s, why)

    def _keep(self, word: str, name: str, stored: Stored, rows: npt.NDArray[np.intp]) -> None:
        for row in rows[: max(SHOWN - len(self.odd), 0)]:
            found = f"number {stored.number[row]:.0f}, check {stored.check[row]:.0f}"
            self.odd.append(f"{word}: {name} at {stored.at_s[row]:.6f}, {found}")

    def _missing(
        self, name: str, number: int, at_s: float, stored: Stored, good_s: Floats, why: Sequence[Excuse]
    ) -> None:
        excuse = next((e for e in why if e.begin_s <= at_s <= e.end_s and e.name in ("", name)), None)
        if excuse is not None:
            self.excused[excuse.why] = self.excused.get(excuse.why, 0) + 1
            return
        at = np.searchsorted(stored.bad_s, at_s - BEFORE_S)
        if at < len(stored.bad_s) and stored.bad_s[at] <= at_s + TOLD_S:
            self.told += 1
            return
        if _newest(stored.bad_s, at_s) > _newest(good_s, at_s):
            self.unreachable += 1
            return
        self.lost.append(f"{name} {number} at {at_s:.2f}")


def _asked_again(place: int, again: npt.NDArray[np.bool_], have: npt.NDArray[np.bool_]) -> bool:
    """Whether the answer there was asked for again, once or more often, until one of its answers had a row."""
    while place < len(again) - 1 and again[place]:
        place += 1
        if have[place]:
            return True
    return False


def _newest(times_s: Floats, at_s: float) -> float:
    """The last one before a time; −∞: none."""
    place = int(np.searchsorted(times_s, at_s))
    return float(times_s[place - 1]) if place else -math.inf


def falls(totals: Mapping[str, Floats]) -> int:
    """How often a running total went back."""
    return sum(int((np.diff(total) < 0).sum()) for total in totals.values())
