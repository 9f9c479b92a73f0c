"""What all physics share: units of one class in arrays, time in whole ticks, faults as masks.

Invariants:
- the state at a time depends on the seed, the faults and when they were switched, never on how often it was looked at:
  time advances in ticks of a fixed length, and every tick draws the same number of random numbers;
- nothing here reads a clock, sleeps or does I/O.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """A device says that something began or ended."""

    unit: int
    time_s: float
    """Seconds since the fleet's start."""
    scheme: str
    code: str
    on: bool
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Fleet(ABC):
    """`count` units of one class of equipment."""

    tick_s: ClassVar[float]
    kinds: ClassVar[tuple[str, ...]]
    """The faults that it knows."""

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        self.count = count
        self.rng = rng
        self.active: dict[str, Mask] = {kind: np.zeros(count, bool) for kind in self.kinds}
        self._ticks = 0
        self._events: list[DeviceEvent] = []

    @property
    def time_s(self) -> float:
        """Seconds since the start up to which the state has come."""
        return self._ticks * self.tick_s

    def advance(self, until_s: float) -> Sequence[DeviceEvent]:
        """Lets time pass up to the last whole tick at or before `until_s`. Returns what the devices reported."""
        while (self._ticks + 1) * self.tick_s <= until_s + 1e-9:
            self._ticks += 1
            self._tick()
        events, self._events = self._events, []
        return events

    def switch(self, unit: int, kind: str, on: bool) -> None:
        """Begins or ends a fault of one unit. Raises KeyError for a kind that this fleet does not know."""
        if self.active[kind][unit] != on:
            self.active[kind][unit] = on
            self._switched(unit, kind, on)

    def age(self, days: float) -> None:  # noqa: B027  (some devices count nothing)
        """Adds so many days of use to what the devices count, a little more than they can count in that time.

        Called once before the first tick, so that counters do not fall when a simulation is started again later.
        """

    @abstractmethod
    def readings(self) -> Mapping[str, Float]:
        """Present readings: point → (count,) float64, in the unit of the profile; NaN where the device has none."""

    def texts(self) -> Mapping[str, Sequence[str]]:
        """Present texts: point → one per unit."""
        return {}

    @abstractmethod
    def _tick(self) -> None:
        """Lets one tick pass."""

    def _switched(self, unit: int, kind: str, on: bool) -> None:  # noqa: B027  (most faults need no more than the mask)
        """A fault of one unit has just begun or ended."""

    def _report(self, units: Mask, scheme: str, code: str, *, on: bool, **attributes: Any) -> None:
        for unit in np.flatnonzero(units):
            self._events.append(DeviceEvent(int(unit), self.time_s, scheme, code, on, attributes))

    def _report_changes(self, before: Mask, after: Mask, scheme: str, code: str) -> None:
        self._report(after & ~before, scheme, code, on=True)
        self._report(before & ~after, scheme, code, on=False)


def choose(rng: np.random.Generator, count: int, values: Iterable[float]) -> Float:
    """(count,) values, each drawn from `values`."""
    return rng.choice(np.array(list(values), np.float64), count)


def noise(rng: np.random.Generator, count: int, spread: float) -> Float:
    """(count,) normal noise."""
    return rng.normal(0.0, spread, count)
