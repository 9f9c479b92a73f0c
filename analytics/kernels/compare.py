"""What a reading says about a term: true, false, in between, or nothing.

A limit with hysteresis has a band in which a raised alarm stays and a cleared one stays cleared: BETWEEN.
A bad or missing reading says nothing: UNKNOWN.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from telemetry.profile import Comparison

Int8 = npt.NDArray[np.int8]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

FALSE: Final = 0
TRUE: Final = 1
BETWEEN: Final = 2
UNKNOWN: Final = 3

COMPARISONS: Final[dict[Comparison, int]] = {
    Comparison.ABOVE: 0,
    Comparison.BELOW: 1,
    Comparison.EQUALS: 2,
    Comparison.NOT_EQUALS: 3,
}

ROLE_NONE: Final = 0
ROLE_ALL: Final = 1
"""The term must hold."""
ROLE_UNLESS: Final = 2
"""The term must not hold."""


def compare(value: Float64, known: Bool, comparison: Int8, limit: Float64, hysteresis: Float64) -> Int8:
    """What each reading says. All (n,); value and limit in the point's unit, `comparison` of COMPARISONS → (n,) int8.

    Above: TRUE beyond the limit, FALSE at or below limit − hysteresis, BETWEEN in the band; below is its mirror image.
    `known` is false for bad readings; NaN is never known.
    """
    below = comparison == COMPARISONS[Comparison.BELOW]
    back = np.where(below, limit + hysteresis, limit - hysteresis)
    beyond = np.where(below, value < limit, value > limit)
    band = np.where(below, value < back, value > back)
    ordered = np.where(beyond, TRUE, np.where(band, BETWEEN, FALSE))
    same = value == limit
    result = np.where(comparison == COMPARISONS[Comparison.EQUALS], same, ordered)
    result = np.where(comparison == COMPARISONS[Comparison.NOT_EQUALS], ~same, result)
    said: Int8 = np.where(known & ~np.isnan(value), result, UNKNOWN).astype(np.int8)
    return said


def conjoin(symbols: Int8, role: Int8) -> Int8:
    """What a rule's terms say together. symbols, role (n, K) → (n,) int8.

    FALSE if a term that must hold is false or one that must not hold is true; else UNKNOWN if one that must hold is
    unknown; else BETWEEN if one is between; else TRUE. An `unless` term that is unknown does not hold: a missing
    reading silences no alarm.
    """
    needed = role == ROLE_ALL
    refused = ((role == ROLE_UNLESS) & (symbols == TRUE)).any(axis=1)
    false = (needed & (symbols == FALSE)).any(axis=1) | refused
    unknown = (needed & (symbols == UNKNOWN)).any(axis=1)
    between = (needed & (symbols == BETWEEN)).any(axis=1)
    said: Int8 = np.where(false, FALSE, np.where(unknown, UNKNOWN, np.where(between, BETWEEN, TRUE))).astype(np.int8)
    return said


def carry_forward(
    said: npt.NDArray[np.bool_], slot: npt.NDArray[np.integer], start: npt.NDArray[np.intp], width: int
) -> npt.NDArray[np.intp]:
    """For each row and slot, the row in the same group that last said something of that slot; −1 for none.

    said (n,) bool, slot (n,) in 0 … width − 1, start (n,) the row where each row's group begins → (n, width) intp.
    """
    n = len(slot)
    place = np.full((n, width), -1, np.intp)
    rows = np.nonzero(said)[0]
    place[rows, slot[rows]] = rows
    np.maximum.accumulate(place, axis=0, out=place)
    place[place < start[:, None]] = -1
    return place
