"""A simulated plant: groups of units of one class each, the faults that befall them, and time.

Invariant: the plant's state at a time depends only on its groups' seeds and its faults; a fault begins and ends at its own
time, between ticks, however seldom the plant is looked at.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np

from simulators.faults import COMMS_LOSS, Fault
from simulators.physics.elevators import Elevators
from simulators.physics.escalators import Escalators
from simulators.physics.fleet import DeviceEvent, Fleet
from simulators.physics.forklifts import Forklifts
from simulators.physics.sola_boilers import SolaBoilers
from simulators.physics.steam_boilers import SteamBoilers
from telemetry.profile import Profile

CLASSES: Final[dict[str, type[Fleet]]] = {
    "elevators": Elevators,
    "escalators": Escalators,
    "forklifts": Forklifts,
    "sola-boilers": SolaBoilers,
    "steam-boilers": SteamBoilers,
}
"""What a scenario may ask for, and the profile that each speaks by default."""
PROFILES: Final = {
    "elevators": "lift-monitor",
    "escalators": "escalator-monitor",
    "forklifts": "forklift-terminal",
    "sola-boilers": "sola-boiler",
    "steam-boilers": "small-steam-boiler",
}


@dataclass(frozen=True, slots=True)
class Group:
    """Units of one class: their names, addresses, physics and profile."""

    ids: tuple[str, ...]
    addresses: tuple[str, ...]
    fleet: Fleet
    profile: Profile

    @property
    def kinds(self) -> tuple[str, ...]:
        """The faults that each of its units can have."""
        return (*self.fleet.kinds, COMMS_LOSS)

    def values(self) -> list[dict[str, float | str]]:
        """Present readings of each unit, by the profile's points; NaN where it has none."""
        readings = {name: array for name, array in self.fleet.readings().items() if name in self.profile.points}
        texts = {name: words for name, words in self.fleet.texts().items() if name in self.profile.points}
        return [
            {**{n: float(a[unit]) for n, a in readings.items()}, **{n: words[unit] for n, words in texts.items()}}
            for unit in range(len(self.ids))
        ]


@dataclass(frozen=True, slots=True)
class UnitEvent:
    """A device's event, with the equipment's name."""

    equipment: str
    event: DeviceEvent


class SimulatedPlant:
    """Groups under faults. `faults` come in the order of their start and may be endless."""

    def __init__(self, groups: Sequence[Group], faults: Iterable[Fault]) -> None:
        self.groups = tuple(groups)
        self.unreachable: set[str] = set()
        self.injected: list[Fault] = []
        """Faults that have begun, in the order of their start."""
        self._where = {name: (group, unit) for group in self.groups for unit, name in enumerate(group.ids)}
        self._coming: Iterator[Fault] = iter(faults)
        self._next: Fault | None = next(self._coming, None)
        self._ending: list[tuple[float, int, Fault]] = []
        self.time_s = 0.0

    def knows(self, equipment: str, kind: str) -> bool:
        """Whether there is such an equipment and it can have such a fault."""
        return equipment in self._where and kind in self._where[equipment][0].kinds

    def advance(self, until_s: float) -> list[UnitEvent]:
        """Lets time pass up to `until_s`. Returns what the devices reported, in the order of time."""
        events: list[UnitEvent] = []
        while (at_s := self._next_switch_s()) <= until_s:
            events += self._pass(at_s)
            self._switch_all(at_s)
        events += self._pass(until_s)
        self.time_s = until_s
        return events

    def active(self) -> list[Fault]:
        """Faults that have begun and not ended."""
        return [fault for _, _, fault in sorted(self._ending)]

    def _next_switch_s(self) -> float:
        begins = self._next.start_s if self._next is not None else np.inf
        ends = self._ending[0][0] if self._ending else np.inf
        return float(min(begins, ends))

    def _pass(self, until_s: float) -> list[UnitEvent]:
        told = [[UnitEvent(g.ids[event.unit], event) for event in g.fleet.advance(until_s)] for g in self.groups]
        return sorted(chain.from_iterable(told), key=lambda one: one.event.time_s)

    def _switch_all(self, at_s: float) -> None:
        while self._ending and self._ending[0][0] <= at_s:
            self._set(heapq.heappop(self._ending)[2], on=False)
        while self._next is not None and self._next.start_s <= at_s:
            self._set(self._next, on=True)
            self.injected.append(self._next)
            heapq.heappush(self._ending, (self._next.end_s, len(self.injected), self._next))
            self._next = next(self._coming, None)

    def _set(self, fault: Fault, *, on: bool) -> None:
        group, unit = self._where[fault.equipment]
        if fault.kind != COMMS_LOSS:
            group.fleet.switch(unit, fault.kind, on)
        elif on:
            self.unreachable.add(fault.equipment)
        else:
            self.unreachable.discard(fault.equipment)
