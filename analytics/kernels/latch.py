"""The latch: what a rule says becomes raised and cleared, after its delays. Times are of the log, never of a clock.

    IDLE ── TRUE ──▶ PENDING ── held for on-delay ──▶ RAISED ── FALSE ──▶ CLEARING ── held for off-delay ──▶ IDLE
      ◀─ FALSE, BETWEEN ─┘                               ◀── TRUE, BETWEEN ──┘

A symbol holds until the next one, so a delay is over at since + delay whether a sample, a heartbeat or nothing came at
that moment: a raise carries that time, and does not depend on how the stream was cut into batches. UNKNOWN changes
nothing and ends no delay: only a known symbol can, at its own time. An onset names its finding, so no two onsets of a
latch are equal: one that would be is 1 µs later. Both functions are pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from analytics.kernels.compare import BETWEEN, FALSE, TRUE

Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

IDLE: Final = 0
PENDING: Final = 1
RAISED: Final = 2
CLEARING: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What became of some latches, all (n,).

    phase     int8, after
    since_us  int64, when the present PENDING or CLEARING began
    onset_us  int64, when the condition that is or was last raised began
    up, down  bool: raised, cleared just now
    began     bool: PENDING or CLEARING began just now
    time_us   int64: of the raise or clear
    """

    phase: Int8
    since_us: Int64
    onset_us: Int64
    up: Bool
    down: Bool
    began: Bool
    time_us: Int64


def complete(
    phase: Int8, symbol: Int8, since_us: Int64, onset_us: Int64, *, on_us: Int64, off_us: Int64, time_us: Int64
) -> Step:
    """Ends the delays that are over by `time_us` while the known `symbol` held. All (n,)."""
    up = (phase == PENDING) & (symbol == TRUE) & (time_us >= since_us + on_us)
    down = (phase == CLEARING) & (symbol == FALSE) & (time_us >= since_us + off_us)
    after = np.where(up, RAISED, np.where(down, IDLE, phase)).astype(np.int8)
    at = np.where(up, since_us + on_us, since_us + off_us)
    return Step(after, since_us, np.where(up, since_us, onset_us), up, down, np.zeros(len(phase), np.bool_), at)


def enter(
    phase: Int8, symbol: Int8, since_us: Int64, onset_us: Int64, *, on_us: Int64, off_us: Int64, time_us: Int64
) -> Step:
    """Takes a new `symbol` at `time_us`, after `complete` up to that time with the old one. All (n,)."""
    true, false, between = symbol == TRUE, symbol == FALSE, symbol == BETWEEN
    again = (phase == IDLE) & true & (time_us <= onset_us)
    time_us = np.where(again, onset_us + 1, time_us)
    began = ((phase == IDLE) & true) | ((phase == RAISED) & false)
    since = np.where(began, time_us, since_us)
    after = np.where((phase == IDLE) & true, PENDING, np.where((phase == RAISED) & false, CLEARING, phase))
    after = np.where((phase == PENDING) & (false | between), IDLE, after)
    after = np.where((phase == CLEARING) & (true | between), RAISED, after)
    up = (after == PENDING) & true & (time_us >= since + on_us)
    down = (after == CLEARING) & false & (time_us >= since + off_us)
    after = np.where(up, RAISED, np.where(down, IDLE, after)).astype(np.int8)
    return Step(after, since, np.where(up, since, onset_us), up, down, began, time_us)
