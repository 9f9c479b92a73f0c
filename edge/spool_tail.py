"""The newest records of the spool, in memory on their way to the log; and which records the forwarder has.

Written by the spool's thread, read by the forwarder on the event loop: neither waits for the other's disk or network.
Invariants
- A record that is not yet with the log is in exactly one place: waiting here, out (with the forwarder), withdrawn (being
  dropped), or on the disk alone, and then its position is at most `spilled`.
- Records wait in the order of their positions; beyond `max_bytes` the oldest are left to the disk, to be back-filled.
- One that is out is given to nobody else until its deletion is committed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from telemetry.wire import Encoded, Identity

TAIL_BYTES: Final = 8 << 20
"""About two seconds of 100,000 samples/s, some minutes of a small installation."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A record in the spool."""

    position: int
    identity: Identity
    encoded: Encoded


class Tail:
    """The newest records, and what is out."""

    def __init__(self, max_bytes: int = TAIL_BYTES) -> None:
        self.max_bytes = max_bytes
        self.spilled = 0
        self.deletable_bytes = 0
        """Of what was acknowledged since the last deletion, about."""
        self._lock = threading.Lock()
        self._waiting: deque[Stored] = deque()
        self._bytes = 0
        self._withdrawn: frozenset[int] = frozenset()
        self._out: set[int] = set()
        self._acknowledged: list[int] = []

    def __len__(self) -> int:
        """Records that wait here."""
        return len(self._waiting)

    @property
    def known(self) -> int:
        """Records that wait here or are out."""
        return len(self._waiting) + len(self._out)

    # ---- the forwarder's

    def take(self, *, max_records: int, max_bytes: int) -> list[Stored]:
        """The oldest records that wait here, at least one if there is any. They are out from now on."""
        taken: list[Stored] = []
        with self._lock:
            size = 0
            while self._waiting and len(taken) < max_records:
                record = self._waiting[0]
                if record.position in self._withdrawn:
                    break
                size += len(record.encoded.value)
                if taken and size > max_bytes:
                    break
                self._bytes -= len(record.encoded.value)
                taken.append(self._waiting.popleft())
            self._out.update(record.position for record in taken)
        return taken

    def acknowledge(self, records: Iterable[Stored]) -> None:
        """The log has these: they may be deleted."""
        with self._lock:
            for record in records:
                self._acknowledged.append(record.position)
                self.deletable_bytes += len(record.encoded.value)

    def is_through(self, position: int) -> bool:
        """Whether nothing up to this position waits here or is out unacknowledged. What only the disk has may be left."""
        with self._lock:
            if self._waiting and self._waiting[0].position <= position:
                return False
            return not any(out <= position for out in self._out.difference(self._acknowledged))

    # ---- the spool's

    def push(self, records: Sequence[Stored]) -> None:
        """Takes records that were just committed, newer than all before."""
        with self._lock:
            for record in records:
                self._waiting.append(record)
                self._bytes += len(record.encoded.value)
            while self._bytes > self.max_bytes and len(self._waiting) > 1:
                oldest = self._waiting.popleft()
                self._bytes -= len(oldest.encoded.value)
                self.spilled = oldest.position

    def is_out(self, position: int) -> bool:
        """Whether the forwarder has it."""
        return position in self._out

    def hand_out(self, records: Iterable[Stored]) -> None:
        """The forwarder is given these from the disk."""
        with self._lock:
            self._out.update(record.position for record in records)

    def withdraw(self, positions: Iterable[int]) -> frozenset[int]:
        """Which of these are not out; they will not be taken, until `restore` or `forget`."""
        with self._lock:
            granted = frozenset(positions) - self._out
            self._withdrawn |= granted
            return granted

    def restore(self) -> None:
        """What was withdrawn may be taken again."""
        with self._lock:
            self._withdrawn = frozenset()

    def forget(self) -> None:
        """What was withdrawn is no more."""
        if not self._withdrawn:
            return
        with self._lock:
            self._waiting = deque(r for r in self._waiting if r.position not in self._withdrawn)
            self._bytes = sum(len(r.encoded.value) for r in self._waiting)
            self._withdrawn = frozenset()

    def acknowledged(self) -> list[int]:
        """Positions that may be deleted. They stay out until `settled`."""
        with self._lock:
            return list(self._acknowledged)

    def settled(self, positions: Sequence[int]) -> None:
        """These were deleted, for good."""
        gone = set(positions)
        with self._lock:
            self._out -= gone
            self.deletable_bytes = 0
            self._acknowledged = [position for position in self._acknowledged if position not in gone]
