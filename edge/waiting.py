"""Requests of a lane: those that wait to be sent, those that were, and those whose time is over.

Invariants: what is put is taken, left or given back once; requests are taken in the order in which they were asked, those
of a unit that is left alone for now passed over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from edge.asking import Asker
from edge.frames import Query

Entry = tuple[Asker, Query, float, int]
"""Who asks, what, the time-out in seconds, and the suspicion: more than 0, and it is asked alone (edge.blame)."""

REMEMBERED: Final = 64
"""Transactions that timed out and whose late answers are still known for what they are."""


@dataclass(slots=True, eq=False)
class Sent:
    """A request that left, at `sent_s` of the loop's time. Whoever asked may go: then GONE asked."""

    asker: Asker
    query: Query
    timeout_s: float
    sent_s: float
    transaction: int
    number: bytes
    """The transaction, as it is sent."""
    suspicion: int = 0


@dataclass(slots=True, eq=False)
class Expired:
    """Transactions of one connection that timed out and were not answered since."""

    _numbers: dict[int, None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._numbers)

    def note(self, transaction: int) -> None:
        """Its time is over."""
        self._numbers[transaction] = None
        if len(self._numbers) > REMEMBERED:
            del self._numbers[next(iter(self._numbers))]

    def is_late(self, transaction: int) -> bool:
        """Whether an answer is the late one of a transaction that timed out. It has come now."""
        if transaction not in self._numbers:
            return False
        del self._numbers[transaction]
        return True


@dataclass(slots=True, eq=False)
class Waiting:
    """Those that wait to be sent. Times are the loop's, in seconds."""

    queue: deque[Entry] = field(default_factory=deque)
    held: dict[int, float] = field(default_factory=dict)
    """Unit → until when it is not asked."""

    def __len__(self) -> int:
        return len(self.queue)

    def put(self, entry: Entry) -> None:
        """The last in the queue."""
        self.queue.append(entry)

    def put_first(self, entries: Sequence[Entry]) -> None:
        """Before all others, in this order."""
        self.queue.extendleft(reversed(entries))

    @property
    def first_alone(self) -> bool:
        """Whether the first is to be asked while nobody else waits for an answer."""
        return bool(self.queue) and self.queue[0][3] > 0

    def take(self, now_s: float) -> Entry | None:
        """The first that may be asked now; None: not before `free_s`."""
        if not self.held:
            return self.queue.popleft()
        self.held = {unit: until_s for unit, until_s in self.held.items() if until_s > now_s}
        for at, entry in enumerate(self.queue):
            if entry[1].unit not in self.held:
                del self.queue[at]
                return entry
        return None

    @property
    def first_timeout_s(self) -> float:
        """The time-out of the first."""
        return self.queue[0][2]

    @property
    def free_s(self) -> float:
        """When the first of those who are left alone may be asked again."""
        return min(self.held.values())

    def hold(self, unit: int, until_s: float) -> None:
        """The unit is left alone until then."""
        self.held[unit] = until_s

    def leave(self, asker: Asker) -> None:
        """Forgets what `asker` asked."""
        self.queue = deque(entry for entry in self.queue if entry[0] is not asker)

    def give_back(self) -> list[Entry]:
        """All of them; none wait any more."""
        left = list(self.queue)
        self.queue.clear()
        return left
