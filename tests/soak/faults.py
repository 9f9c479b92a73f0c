"""What goes wrong and when: drawn from a seed, so that a run can be had again. Pure.

The run has two parts. In the first, the edge is killed and stopped among other things. Then it is started once more, left
in peace for `quiet_s`, and this one life is measured through the second part, in which everything fails but the edge.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.soak.devices import FAULTS
from tests.soak.layout import Place

EVERY_S: Final = 2.5
"""A fault begins so often, in the mean."""
QUIET_S: Final = 20.0
FIRST_S: Final = 6.0


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """From `at_s` for `for_s` seconds of the run."""

    at_s: float
    for_s: float
    kind: str
    target: str


@dataclass(frozen=True, slots=True)
class Run:
    """A whole run's faults."""

    first: Sequence[Fault]
    quiet_s: tuple[float, float]
    """From when to when nothing is wrong, between the parts."""
    second: Sequence[Fault]
    end_s: float


@dataclass(frozen=True, slots=True)
class _Sort:
    """A sort of fault: how often among all, and for how long."""

    weight: float
    low_s: float
    high_s: float
    target: str
    """What it happens to; two faults never happen to one target at a time."""


SORTS: Final = {
    "device": _Sort(30, 4, 20, "*"),
    "power": _Sort(6, 2, 10, "*"),
    "gateway-down": _Sort(2, 4, 12, "gateway"),
    "line-out": _Sort(2, 3, 10, "line"),
    "mqtt-restart": _Sort(2, 1, 8, "mosquitto"),
    "burst": _Sort(0.5, 1, 1, "burst"),
    "plant": _Sort(3, 8, 25, "plant"),
    "plant-bad": _Sort(2, 6, 12, "plant"),
    "edge-pause": _Sort(2, 0.5, 4, "edge"),
    "edge-kill": _Sort(2, 0, 1, "edge"),
    "edge-stop": _Sort(1, 0, 1, "edge"),
    "ingest-kill": _Sort(1.5, 0, 20, "ingest"),
    "database-kill": _Sort(0.7, 0, 3, "ingest"),
    "log-locked": _Sort(2, 5, 15, "log"),
    "log-full": _Sort(0.4, 60, 90, "ingest"),
}
MEASURED_LIFE: Final = frozenset(SORTS) - {"edge-kill", "edge-stop"}
REST_S: Final = {"edge": 15.0, "ingest": 15.0, "plant": 8.0, "mosquitto": 5.0, "log": 5.0}
"""A target has peace for so long after a fault."""


def draw(seed: int, minutes: float, found: Sequence[Place]) -> Run:
    """The faults of a run of so many minutes."""
    drawn = random.Random(seed)
    end_s = minutes * 60
    third_s = end_s / 3
    quiet_s = min(QUIET_S, end_s / 12)
    first = _faults(drawn, FIRST_S, third_s - quiet_s, frozenset(SORTS), found)
    second = _faults(drawn, third_s + quiet_s, end_s, MEASURED_LIFE, found)
    return Run(first, (third_s - quiet_s, third_s + quiet_s), second, end_s)


def _faults(
    drawn: random.Random, begin_s: float, end_s: float, sorts: frozenset[str], found: Sequence[Place]
) -> list[Fault]:
    """All over by `end_s`."""
    names = [name for name in SORTS if name in sorts]
    weights = [SORTS[name].weight for name in names]
    free_s: dict[str, float] = {}
    made: list[Fault] = []
    at_s = begin_s
    while (at_s := at_s + drawn.expovariate(1 / EVERY_S)) < end_s:
        kind = drawn.choices(names, weights)[0]
        sort = SORTS[kind]
        for_s = drawn.uniform(sort.low_s, sort.high_s)
        target, kind = _target(drawn, kind, sort, found)
        if at_s < free_s.get(target, 0.0) or at_s + for_s > end_s:
            continue
        free_s[target] = at_s + for_s + REST_S.get(target, 1.0)
        made.append(Fault(round(at_s, 2), round(for_s, 2), kind, target))
    return made


def _target(drawn: random.Random, kind: str, sort: _Sort, found: Sequence[Place]) -> tuple[str, str]:
    """(target, kind) of a fault: which device, and what it does."""
    if kind == "device":
        one = drawn.choice(found)
        return one.name, drawn.choice(("silent", "garbage", "reset")) if one.kind == "mqtt" else drawn.choice(FAULTS)
    if kind == "power":
        return drawn.choice([one.name for one in found if one.kind in ("tcp", "rtu-tcp")]), kind
    return sort.target, kind
