"""The breaker of one (endpoint, unit): a device that does not answer is asked rarely, so that it delays nobody.

    closed ──`threshold` failures in a row──▶ open ──after the back-off──▶ half-open: one probe
       ▲                                        ▲                              │
       └──────────────── success ───────────────┼──────────────────────────────┤
                                                └── failure: back-off doubled ─┘

Pure: time is handed in (monotonic for waiting, wall clock for what people read).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

THRESHOLD: Final = 3
BACK_OFF_S: Final = 1.0
BACK_OFF_MAX_S: Final = 30.0


class State(Enum):
    """What the breaker lets through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(slots=True)
class Breaker:
    """One device's breaker."""

    threshold: int = THRESHOLD
    back_off_s: float = BACK_OFF_S
    back_off_max_s: float = BACK_OFF_MAX_S
    state: State = field(default=State.CLOSED, init=False)
    failures: int = field(default=0, init=False)
    failing_since_us: int | None = field(default=None, init=False)
    """Wall clock of the first failure of the present row."""
    retry_s: float = field(default=0.0, init=False)
    _wait_s: float = field(default=0.0, init=False)

    def permits(self, now_s: float) -> bool:
        """Whether a cycle may be tried now. True for an open breaker whose wait is over makes this cycle its probe."""
        if self.state is State.OPEN and now_s >= self.retry_s:
            self.state = State.HALF_OPEN
            return True
        return self.state is State.CLOSED

    def put_off(self) -> None:
        """The probe could not be made now: the next cycle is one."""
        self.state = State.OPEN

    def reopen(self, now_s: float, since_us: int) -> None:
        """It has been failing since then; the next cycle is a probe."""
        self.state, self.retry_s, self.failing_since_us = State.OPEN, now_s, since_us

    def succeeded(self) -> bool:
        """The device answered. Returns whether this closed the breaker."""
        closed = self.state is not State.CLOSED
        self.state, self.failures, self.failing_since_us, self._wait_s = State.CLOSED, 0, None, 0.0
        return closed

    def failed(self, now_s: float, now_us: int) -> bool:
        """The device did not answer. Returns whether this opened a closed breaker."""
        self.failures += 1
        if self.failing_since_us is None:
            self.failing_since_us = now_us
        if self.state is State.CLOSED and self.failures < self.threshold:
            return False
        opened = self.state is State.CLOSED
        self._wait_s = min(self._wait_s * 2 or self.back_off_s, self.back_off_max_s)
        self.state, self.retry_s = State.OPEN, now_s + self._wait_s
        return opened
