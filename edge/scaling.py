"""Scale and offset without a rounding that the device did not make: 3 × 0.1 is 0.3, not 0.30000000000000004.

A profile's 0.1 means one tenth, which no double holds. So scale and offset are taken as the decimal fractions that
they are written as, and value = (raw · mul + add) / div with whole mul, add, div: for whole raw values the numerator is
exact (below 2^53) and the one division rounds to the nearest double, which is what the decimal text would parse to.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Final

EXACT: Final = 2**53
"""Whole numbers up to here are exact in a double."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """value = (raw · mul + add) / div + offset."""

    mul: float = 1.0
    add: float = 0.0
    div: float = 1.0
    offset: float = 0.0

    def apply(self, raw: float) -> float:
        """One raw value, scaled."""
        return (raw * self.mul + self.add) / self.div + self.offset


def whole_scaling(scale: float, offset: float, *, largest: int) -> Scaling:
    """For whole raw values of magnitude up to `largest`: exact where a double can be."""
    by, plus = Fraction(repr(scale)), Fraction(repr(offset))
    div = lcm(by.denominator, plus.denominator)
    mul, add = int(by * div), int(plus * div)
    if div >= EXACT or abs(mul) * largest + abs(add) >= EXACT:
        return real_scaling(scale, offset)
    return Scaling(float(mul), float(add), float(div))


def real_scaling(scale: float, offset: float) -> Scaling:
    """For raw values that are real numbers, or too large to be scaled exactly."""
    by = Fraction(repr(scale))
    if max(abs(by.numerator), by.denominator) >= EXACT:
        return Scaling(scale, offset=offset)
    return Scaling(float(by.numerator), div=float(by.denominator), offset=offset)
