"""Times of readings on a gateway whose clock may not be set yet.

While the wall clock reads a time before 2000, `now_us` gives µs since boot instead: CLOCK_BOOTTIME, which never steps.
Nothing was read before 2000 and no gateway runs for thirty years, so such a *provisional* time is never taken for another.
Invariant: a provisional time leaves the agent only as wall time: exactly, once the clock is set, or estimated and said so.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from telemetry.clock import Clock

SET_US: Final = 946_684_800_000_000
"""2000-01-01: a clock that reads less was never set; a time below it is µs since boot."""
BUILT_US: Final = 1_793_491_200_000_000
"""2026-11-01: no reading is older than this code. The last resort of an estimate."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Offset:
    """What is added to µs since boot."""

    us: int
    exact: bool
    """False: estimated; what it is added to is marked as of an uncertain clock."""


@dataclass(slots=True)
class Stamps:
    """A Clock for everything that stamps readings. Read from any thread; `estimate_us` is set by the spool's."""

    clock: Clock
    boot: str
    """Names this boot of the machine."""
    since_boot: Callable[[], int]
    """µs since boot of the machine's own time."""
    floor_us: int = BUILT_US
    """No reading of this agent is older: estimates begin there where the spool knows nothing later."""
    hold_s: float = 60.0
    """Readings wait so long for the clock to be set; then they go out with estimated times."""
    estimate_us: int | None = None
    """Wall time at boot: as it was while the clock was set, or as it is estimated once readings are not held any longer."""

    @property
    def speed(self) -> float:
        """See Clock."""
        return self.clock.speed

    def now_us(self) -> int:
        """See Clock; µs since boot while the clock is not set."""
        wall_us = self.clock.now_us()
        return wall_us if wall_us >= SET_US else self.since_boot_us()

    def since_boot_us(self) -> int:
        """µs since boot, in the clock's own seconds. Never steps."""
        return int(self.since_boot() * self.clock.speed)

    def monotonic_s(self) -> float:
        """See Clock."""
        return self.clock.monotonic_s()

    async def sleep(self, seconds: float) -> None:
        """See Clock."""
        await self.clock.sleep(seconds)

    @property
    def is_set(self) -> bool:
        """Whether the wall clock is."""
        return self.clock.now_us() >= SET_US

    def offset(self) -> Offset | None:
        """What makes a provisional time of this boot a wall time. None while it is worth waiting for the clock."""
        wall_us = self.clock.now_us()
        if wall_us >= SET_US:
            return Offset(wall_us - self.since_boot_us(), exact=True)
        return None if self.estimate_us is None else Offset(self.estimate_us, exact=False)

    def on_log(self, time_us: int) -> int | None:
        """A time that `now_us` gave, as the log may be told. None while readings are held for the clock."""
        if time_us >= SET_US:
            return time_us
        offset = self.offset()
        return None if offset is None else time_us + offset.us

    def log_us(self) -> int | None:
        """Now, as the log may be told: for heartbeats and registries. None while readings are held for the clock."""
        offset = self.offset()
        return None if offset is None else self.since_boot_us() + offset.us


def machine_stamps(clock: Clock, *, floor_us: int = BUILT_US, hold_s: float = 60.0) -> Stamps:
    """Stamps by this machine's clock. A machine that does not name its boots is taken for newly booted at each start."""
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        boot = secrets.token_hex(16)
    return Stamps(clock, boot, _since_boot, floor_us, hold_s)


def _since_boot() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def floor_of(*files: Path) -> int:
    """No reading of this agent is older, µs: when the newest of these files was written (those that are there), and never
    before this code was."""
    return max([BUILT_US, *(file.stat().st_mtime_ns // 1000 for file in files if file.exists())])
