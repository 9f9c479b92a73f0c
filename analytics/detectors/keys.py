"""Names in a snapshot: one column of bytes, made once, so that a snapshot of 100,000 rules does not write them anew.

Invariant: no name holds the separator (names are [a-z0-9_.-]+, keys add only \\x1f and hex; codes are checked).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.intp]
Column = npt.NDArray[np.uint8]

SEPARATOR: Final = "\x1e"


def column(keys: Sequence[str]) -> Column:
    """Keys as a read-only column of bytes."""
    made = np.frombuffer(SEPARATOR.join(keys).encode(), np.uint8)
    made.flags.writeable = False
    return made


def listed(made: npt.NDArray[Any]) -> list[str]:
    """The keys of a column. An empty column holds none."""
    return made.tobytes().decode().split(SEPARATOR) if len(made) else []


def match(mine: Sequence[str], made: npt.NDArray[Any]) -> tuple[Index, Index, Index]:
    """Which of my rules stand in a snapshot, by key: (my indices, theirs, theirs that I do not have)."""
    place = {key: i for i, key in enumerate(mine)}
    theirs = listed(made)
    found = np.fromiter((place.get(key, -1) for key in theirs), np.intp, len(theirs))
    here = found >= 0
    return found[here], np.nonzero(here)[0], np.nonzero(~here)[0]
