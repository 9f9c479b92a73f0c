"""A counter that wraps, reading by reading in whole numbers: the oracle of edge.counters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from edge.counters import Wrapping
from telemetry.quality import GOOD, MAJOR_MASK, UNCERTAIN_OUT_OF_RANGE


@dataclass(slots=True)
class NaiveCounter:
    """One signal."""

    rule: Wrapping
    last: int | None = None
    base: int = 0

    def read(self, raw: float, quality: int) -> tuple[float, int, tuple[int, int] | None]:
        """(value, quality, counts before and after a reset)."""
        if math.isnan(raw):
            return raw, quality, None
        count, reset = int(raw), None
        good = bool(quality & MAJOR_MASK)
        counts = good and 0 <= count < self.rule.wrap
        if counts:
            if self.last is not None and count < self.last:
                if self.last < self.rule.wrap and count + self.rule.wrap - self.last <= self.rule.max_step:
                    self.base += self.rule.wrap
                else:
                    self.base += self.last
                    reset = self.last, count
            self.last = count
        value = float((self.base + count) * Fraction(repr(self.rule.scale)) + Fraction(repr(self.rule.offset)))
        inside = counts and self.rule.low <= value <= self.rule.high
        return value, UNCERTAIN_OUT_OF_RANGE if quality == GOOD and not inside else quality, reset
