"""One clock for all services, so that a replay at N× stamps, schedules and delays at N× everywhere.

`VIGIL_CLOCK` is `system` or `scaled:START,N`: at system time START (ISO 8601) the clock reads START, and runs N times
as fast from there. Network time-outs use the event loop's own time and are never scaled.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

US_PER_S = 1_000_000


class Clock(Protocol):
    """What a service may ask of time."""

    @property
    def speed(self) -> float:
        """Seconds of this clock per second of the world."""
        ...

    def now_us(self) -> int:
        """µs since 1970-01-01 UTC; may step when the machine's clock is set."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never steps."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Sleeps so many seconds of this clock."""
        ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's own clock."""

    speed: float = 1.0

    def now_us(self) -> int:
        """See Clock."""
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        """See Clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See Clock."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class ScaledClock:
    """Reads `start_us` when the machine reads `start_us`, and runs `speed` times as fast from there."""

    start_us: int
    speed: float

    def now_us(self) -> int:
        """See Clock."""
        return self.start_us + int((time.time_ns() // 1000 - self.start_us) * self.speed)

    def monotonic_s(self) -> float:
        """See Clock."""
        return time.monotonic() * self.speed

    async def sleep(self, seconds: float) -> None:
        """See Clock."""
        await asyncio.sleep(seconds / self.speed)


def parse_clock(text: str) -> Clock:
    """The clock that `VIGIL_CLOCK` names. Raises ValueError that says what was expected."""
    if text == "system":
        return SystemClock()
    kind, _, rest = text.partition(":")
    start, _, speed = rest.rpartition(",")
    try:
        if kind != "scaled" or not 0 < float(speed) < math.inf:
            raise ValueError
        return ScaledClock(time_us(start), float(speed))
    except ValueError:
        raise ValueError(f"expected system or scaled:START,N (ISO 8601 with offset, N > 0), found {text!r}") from None


def time_us(text: str) -> int:
    """µs since 1970 of an ISO 8601 time with offset. Raises ValueError without one."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"expected ISO 8601 with an offset, found {text!r}")
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * US_PER_S + delta.microseconds


def iso(moment_us: int) -> str:
    """ISO 8601 in UTC of µs since 1970; the bare number of µs for a time that no calendar has."""
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment_us)
    except OverflowError:
        return f"{moment_us} µs"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
