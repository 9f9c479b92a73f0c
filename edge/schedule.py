"""When a poll is due: at origin + phase + k · interval for whole k, so that nothing drifts and nothing bursts.

Invariant: `due_s` is always origin + phase + k · interval computed from k, never from the last due time; after a stall
the cycles that were missed are counted and skipped, not caught up. Pure: time is handed in.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field


def phase_of(name: str, interval_s: float) -> float:
    """Where in the interval `name` has its turn: 0 ≤ phase < interval_s, spread by a hash that is the same for ever."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 * interval_s


@dataclass(slots=True)
class Schedule:
    """The due times of one poll group, on the monotonic clock."""

    interval_s: float
    origin_s: float
    cycle: int = field(default=0, init=False)
    """k of the cycle that is due next."""
    missed: int = field(default=0, init=False)

    @property
    def due_s(self) -> float:
        """When the next cycle is due."""
        return self.origin_s + self.cycle * self.interval_s

    def begin(self, now_s: float) -> int:
        """The due cycle begins at `now_s`: moves on to the first one due later. Returns how many were missed before.

        Begun a whole interval late or more, the cycles that should have run since are skipped and counted.
        """
        current = max(self.cycle, math.floor((now_s - self.origin_s) / self.interval_s))
        missed = current - self.cycle
        self.missed += missed
        self.cycle = current + 1
        return missed
