"""How far a device's clock is off, measured against the time of receipt, and when that is told.

A message is late by its way and by its device's clock; it is never early. So of each second the message with the least
delay counts, and the skew is the median of the last such seconds: messages that a device kept while it was offline and
sends beside live ones do not count, nor does a single wild time. Nothing is ever corrected by it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median_low
from typing import Final

from telemetry.messages import VIGIL_SCHEME, Event

CODE: Final = "clock-skew"
SECONDS: Final = 31
"""Seconds with messages that the median is of."""
ENOUGH: Final = 10
EVERY: Final = 8
"""The median is taken every so many seconds with messages."""
BACK: Final = 0.5
"""The clock is right again when it is off by less than this part of the limit."""


@dataclass(slots=True)
class Skew:
    """The clock of one device. Positive: behind."""

    equipment: str
    limit_us: int
    is_off: bool = False
    """Whether it is off by more than the limit, and was told."""
    _second: int = -1
    _least_us: int = 0
    _recent: deque[int] = field(default_factory=lambda: deque(maxlen=SECONDS))
    _since: int = 0

    def note(self, received_us: int, clock_us: int) -> Event | None:
        """A live message with a time came. The event, when the clock is found off, or right again."""
        delay_us, second = received_us - clock_us, received_us // 1_000_000
        if second == self._second:
            if delay_us < self._least_us:
                self._least_us = delay_us
            return None
        if self._second >= 0:
            self._recent.append(self._least_us)
            self._since += 1
        self._second, self._least_us = second, delay_us
        if self._since < EVERY or len(self._recent) < ENOUGH:
            return None
        self._since = 0
        return self._judge(received_us)

    def _judge(self, now_us: int) -> Event | None:
        skew_us = median_low(self._recent)
        off = abs(skew_us) > self.limit_us * (BACK if self.is_off else 1.0)
        if off == self.is_off:
            return None
        self.is_off = off
        attributes = {"skew_s": round(skew_us / 1e6, 3), "limit_s": self.limit_us / 1e6}
        return Event(self.equipment, now_us, VIGIL_SCHEME, CODE, off, attributes)
