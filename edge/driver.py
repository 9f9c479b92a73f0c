"""The seam between drivers and everything else: a driver reads equipment, edge.policy decides when and what then.

Two kinds, one currency (Reading). A polling driver is asked for a group of points; a pushing driver delivers when the
equipment speaks (an MQTT client today; a driver that listens for terminals to dial in has the same shape). Neither
knows schedules, breakers, counters or the spool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from telemetry.batch import EMPTY, SampleBatch
from telemetry.messages import Event


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of one equipment at once."""

    equipment: str
    batch: SampleBatch = EMPTY
    """All its signals belong to `equipment`; the names tuple is the same object in every cycle."""
    texts: tuple[tuple[str, str, int], ...] = ()
    """(point, text, time_us) of string points, changed or not."""
    events: tuple[Event, ...] = ()
    state: Mapping[str, str] = field(default_factory=dict)
    """Kept in the journaling transaction, given back at the next start."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a cycle went: what was read, bad samples included, and how the device behaved."""

    reading: Reading
    answered: int
    """Requests that the device answered, with data or with an exception of its own."""
    unanswered: int
    """Requests that it was sent and did not answer, or not readably."""
    faults: tuple[str, ...] = ()
    """One text for each request that failed: which and why. The same texts in each cycle while nothing changes."""


class PollingDriver(Protocol):
    """Reads one equipment when asked."""

    @property
    def equipment(self) -> str:
        """Its id."""
        ...

    @property
    def endpoint(self) -> str:
        """Where it is reached; what several may share."""
        ...

    @property
    def intervals_s(self) -> Sequence[float]:
        """Seconds between polls of each group of points."""
        ...

    async def read(self, group: int) -> Outcome:
        """One cycle of a group. Never raises for what a device does; the time it takes is bounded by its timeouts."""
        ...

    def unreadable(self, time_us: int) -> list[SampleBatch]:
        """One bad sample of every point of every group."""
        ...


Deliver = Callable[[Reading, Callable[[], None] | None], bool]
"""Takes a reading, from any thread; the second argument is called once it is journaled. False: no room, not taken."""


class PushingDriver(Protocol):
    """Delivers what its equipment says, when it says it."""

    @property
    def endpoint(self) -> str:
        """Where it is reached."""
        ...

    async def run(self, deliver: Deliver) -> None:
        """Works until cancelled, reconnecting with back-off. What is delivered is acknowledged once it is journaled."""
        ...

    def unreachable(self, now_us: int) -> Mapping[str, int]:
        """Equipment that is silent or said that it is off → since when, µs."""
        ...
