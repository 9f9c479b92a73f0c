"""When a poll is due: at origin + phase + k · interval for whole k, so that nothing drifts and nothing bursts.

Phases lie on a grid of slots: devices of one slot are asked together, and what they answer is decoded and journaled
together, which costs a fraction of what each by itself would.

Invariant: `due_s` is always origin + phase + k · interval computed from k, never from the last due time; after a stall
the cycles that were missed are counted and skipped, not caught up.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import math
from dataclasses import dataclass, field
from typing import Final, Protocol

from telemetry.clock import Clock

GRID_S: Final = 0.1
"""Slots are at least so far apart: slots of 20 ms cost each answer half as much CPU again (docs/benchmarks.md)."""
LONE_GRID_S: Final = 0.25
"""Of devices that are alone at their endpoint: nobody waits for another's answer."""
SLOTS_MIN: Final = 4
"""A fleet that polls faster than that has so many slots all the same."""
LOOK_S: Final = 1.0
"""A slot that is added while everybody sleeps is seen within this time."""
TOGETHER: Final = 8
"""A small fleet has a slot for about so many devices."""


def slots_for(devices: int, interval_s: float, *, grid_s: float = GRID_S) -> int:
    """How many slots an interval has for so many devices."""
    return max(1, min(math.ceil(devices / TOGETHER), max(math.floor(interval_s / grid_s), SLOTS_MIN)))


def phase_of(name: str, interval_s: float, slots: int) -> float:
    """Where in the interval `name` has its turn: 0 ≤ phase < interval_s, by a hash that is the same for ever."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") * slots // 2**64 / slots * interval_s


@dataclass(slots=True)
class Schedule:
    """The due times of one slot, on the monotonic clock."""

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


class Due(Protocol):
    """Who is told that something is due."""

    def due(self, group: int, due_s: float, missed: int) -> None:
        """A cycle of a group is due; so many before it were missed in a stall."""
        ...


@dataclass(slots=True, eq=False)
class _Slot:
    schedule: Schedule
    members: list[tuple[Due, int]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Rota:
    """Tells everybody when it is their turn."""

    clock: Clock
    origin_s: float
    """Monotonic time that all slots are counted from."""
    devices: int
    """How many slots are meant for. Those who have a turn keep it when there are more, and theirs are finer."""
    _slots: dict[tuple[float, float], _Slot] = field(default_factory=dict)
    _heap: list[tuple[float, int, _Slot]] = field(default_factory=list)
    _made: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, member: Due, group: int, *, name: str, interval_s: float, grid_s: float = GRID_S) -> None:
        """`member` has a turn every `interval_s` from now on."""
        phase_s = phase_of(name, interval_s, slots_for(self.devices, interval_s, grid_s=grid_s))
        slot = self._slots.get((interval_s, phase_s))
        if slot is None:
            schedule = Schedule(interval_s, self.origin_s + phase_s)
            schedule.cycle = max(math.ceil((self.clock.monotonic_s() - schedule.origin_s) / interval_s), 0)
            slot = self._slots[(interval_s, phase_s)] = _Slot(schedule)
            self._made += 1
            heapq.heappush(self._heap, (schedule.due_s, self._made, slot))
            self._changed.set()
        slot.members.append((member, group))

    def remove(self, *members: Due) -> None:
        """None of these has a turn any more."""
        gone = {id(member) for member in members}
        for slot in self._slots.values() if gone else ():
            slot.members = [entry for entry in slot.members if id(entry[0]) not in gone]

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            self._changed.clear()
            wait_s = self.turn()
            if wait_s is None:
                await self._changed.wait()
            else:
                await self.clock.sleep(max(min(wait_s, LOOK_S), 0.0))

    def turn(self) -> float | None:
        """Tells everybody whose cycle is due; seconds until the next one, None where there is none."""
        now_s = self.clock.monotonic_s()
        while self._heap and self._heap[0][0] <= now_s:
            due_s, made, slot = heapq.heappop(self._heap)
            missed = slot.schedule.begin(now_s)
            due_s += missed * slot.schedule.interval_s
            for member, group in slot.members:
                member.due(group, due_s, missed)
            heapq.heappush(self._heap, (slot.schedule.due_s, made, slot))
        return self._heap[0][0] - now_s if self._heap else None
