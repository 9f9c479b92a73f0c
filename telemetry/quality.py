"""Quality of a reading in the OPC style: one byte, its top two bits say good, uncertain or bad.

Source: OPC Data Access 3.0, section 6.8 (quality flags). Sub-reasons are the values that Vigil uses of that table.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

GOOD: Final = 192
UNCERTAIN: Final = 64
UNCERTAIN_STALE: Final = 68
"""Last usable value: it was good, and is older than the point allows."""
UNCERTAIN_OUT_OF_RANGE: Final = 84
"""Outside the point's engineering range; the value is kept as it was read."""
UNCERTAIN_CLOCK: Final = 88
"""The time stamp is doubtful (a gateway or device whose clock is not set)."""
BAD: Final = 0
BAD_CONFIG: Final = 4
"""The device says that the address or function does not exist."""
BAD_DEVICE: Final = 12
"""The device answered with a failure of its own."""
BAD_SENSOR: Final = 16
"""The device says that this point has no value (a not-available code, NaN)."""
BAD_COMMS: Final = 24
"""The device could not be read: time-out, reset, refused, unreadable answer."""

MAJOR_MASK: Final = 0xC0

REASONS: Final[dict[int, str]] = {
    GOOD: "good",
    UNCERTAIN: "uncertain",
    UNCERTAIN_STALE: "stale",
    UNCERTAIN_OUT_OF_RANGE: "out_of_range",
    UNCERTAIN_CLOCK: "clock",
    BAD: "bad",
    BAD_CONFIG: "config",
    BAD_DEVICE: "device",
    BAD_SENSOR: "sensor",
    BAD_COMMS: "comms",
}

_MAJOR: Final[dict[int, str]] = {GOOD: "good", 0x80: "uncertain", UNCERTAIN: "uncertain", BAD: "bad"}
"""0x80 is reserved in OPC; like is_bad, not taken for bad."""


def is_bad(quality: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which readings are bad. `quality` (n,) uint8 → (n,) bool, a new array."""
    bad: npt.NDArray[np.bool_] = (quality & np.uint8(MAJOR_MASK)) == 0
    return bad


def name(quality: int) -> str:
    """The word for a quality code: its sub-reason if known, else its major class."""
    return REASONS.get(quality) or _MAJOR[quality & MAJOR_MASK]
