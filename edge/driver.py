"""The seam between drivers and everything else: a driver receives what equipment says, undecoded; edge.policy decides
when a device is asked and what then; the journal's thread has many things of one kind decoded at once.

Three shapes of driver, one currency. A polling driver is asked for a group of points; a pushing driver delivers when
its equipment speaks, whether it dials out to a broker or listens for terminals to dial in. None of them knows schedules,
breakers, counters or the spool; none decodes on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from edge.columns import NOTHING, Columns
from telemetry.messages import Event
from telemetry.wire import Encoded

UNREADABLE: Final = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What data that nobody thought of can make of its reader: it costs that data, not the service. Anything else is no matter of
data (a disk, a lock, memory, an assertion), and ends the service."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What some received things said."""

    columns: Columns = NOTHING
    texts: Sequence[tuple[str, str, str, int]] = ()
    """(equipment, point, text, time_us) of string points, changed or not."""
    events: Sequence[Event] = ()
    records: Sequence[Encoded] = ()
    """The agent's own, already encoded."""
    state: Mapping[str, str] = field(default_factory=dict)
    """Kept in the journaling transaction, given back at the next start."""
    thinned: Columns = NOTHING
    """Readings that went through report by exception before, and come now."""
    delivered: Sequence[bytes] = ()
    """16-byte keys of messages, kept in the journaling transaction, so that they are known when they come again."""


class Source(Protocol):
    """Things received in one way, of one shape: how many of them become readings at once."""

    @property
    def sender_keeps(self) -> bool:
        """Whether what is not journaled stays with its sender (an unacknowledged message). Else it may be given up."""
        ...

    def decode(self, received: Sequence[Any]) -> Decoded:
        """On the journal's thread, once for each thing, in the order received. Never raises for what equipment says."""
        ...

    def kept(self, received: Any) -> Decoded:
        """From any thread: what of a received thing outlives its readings, where those are given up or cannot be decoded:
        events, and state that was learned with it.
        """
        ...

    def journaled(self, received: Sequence[Any]) -> None:
        """On the journal's thread: these are durable now, or say nothing worth keeping."""
        ...


class Put(Protocol):
    """Takes something received, from any thread."""

    def __call__(self, source: Source, received: Any, rows: int) -> bool:
        """`rows`: about how many samples it holds. False where there is no room: it was not taken."""
        ...


@dataclass(slots=True, eq=False)
class Outcome:
    """How a cycle went: what was received, and how the device behaved. Not to be changed (freezing it costs a µs)."""

    source: Source
    received: Any
    rows: int
    answered: int
    """Requests that the device answered, with data or with an exception of its own."""
    unanswered: int
    """Requests that it was sent and did not answer, or not readably."""
    faults: tuple[str, ...] = ()
    """One text for each request that failed: which and why. The same texts in each cycle while nothing changes."""
    begun_s: float | None = None
    """Monotonic time at which its first request left. None: none did."""


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

    def begin(self, group: int, done: Callable[[Outcome], None], *, probe: bool = False) -> bool:
        """Begins a cycle of a group; `done` is called at its end, whose time is bounded by the device's time-outs.

        A callback, for a task or future each would cost more than the reading. Never raises for what a device does.
        False where the last cycle of the group is still under way: nothing was begun. `probe`: the device has not
        answered lately, so nobody is to wait for it longer than need be.
        """
        ...

    def wind_up(self) -> bool:
        """It is to be read no more: gives up cycles of which no request has left. Returns whether others are under way."""
        ...

    def cut(self) -> None:
        """Ends the cycles under way now, before it returns: `done` is given what was read, the rest of it bad with its reason.
        One of which nothing was read comes to nothing. Nobody is told anything later.
        """
        ...

    def unreadable(self, time_us: int) -> Sequence[tuple[Source, Any, int]]:
        """(source, received, rows) that decode to one bad sample of every point of every group."""
        ...


class PushingDriver(Protocol):
    """Delivers what its equipment says, when it says it."""

    @property
    def endpoint(self) -> str:
        """Where it is reached, or where it listens."""
        ...

    async def run(self, put: Put) -> None:
        """Works until cancelled, reconnecting with back-off. What is put is acknowledged once it is journaled."""
        ...

    def unreachable(self, now_us: int) -> Mapping[str, int]:
        """Equipment that is silent or said that it is off → since when, µs."""
        ...
