"""What goes wrong and when: drawn from a seed, so that a run can be had again. Pure.

A fault is for one target. Those of one target happen one after another: one that is due while an earlier one still lasts
(a broker that takes its time to come up) begins when that is over; those of different targets overlap.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """Begins `at_s` after the first moment, and lasts for `for_s` seconds."""

    at_s: float
    for_s: float
    kind: str
    target: str
    luck: int
    """Seeds what else is drawn when it happens."""

    def __str__(self) -> str:
        return f"{self.at_s:8.2f} s  {self.kind:10} {self.target:16} {self.for_s:5.2f} s"


@dataclass(frozen=True, slots=True)
class Pace:
    """How thick the faults come, and how long they last: seconds are scaled by `stretch`."""

    every_s: float
    stretch: float
    black_holes: bool
    """Whether connections may be left half-open for good: found out by time-outs only, which takes minutes in all."""


LONG: Final = Pace(every_s=4.0, stretch=1.0, black_holes=True)
SHORT: Final = Pace(every_s=1.6, stretch=0.25, black_holes=False)


@dataclass(frozen=True, slots=True)
class _Sort:
    """How often among all faults, on which sort of target, and how long in a long run."""

    weight: float
    on: str
    low_s: float
    high_s: float


SORTS: Final = {
    "edge-kill": _Sort(3, "edge", 0, 6),
    "edge-pause": _Sort(2, "edge", 0.5, 8),
    "ingest-kill": _Sort(4, "ingest", 0, 8),
    "ingest-pause": _Sort(3, "ingest", 1, 14),
    "broker-kill": _Sort(2, "broker", 0, 4),
    "broker-pause": _Sort(2, "broker", 1, 12),
    "database-kill": _Sort(2, "database", 0, 4),
    "database-pause": _Sort(1.5, "database", 1, 8),
    "session-kill": _Sort(1.5, "database", 0, 1),
    "cut": _Sort(4, "link", 0, 6),
    "tear": _Sort(3, "link", 0.2, 2),
    "deaf": _Sort(4, "link", 0.3, 8),
    "half-open": _Sort(3, "link", 2, 14),
    "black-hole": _Sort(1, "link", 1, 2),
    "delay": _Sort(2, "link", 2, 10),
    "throttle": _Sort(1, "link", 2, 10),
}
"""What an edge, ingest or link suffers happens to one of them; targets are named SORT or SORT:WHICH."""
REST_S: Final = 4.0
"""A target has peace for so long after a fault, times `stretch`; the broker and the database for three times as long, or
nothing would ever be stored."""


def draw(seed: int, count: int, targets: Sequence[str], pace: Pace) -> list[Fault]:
    """So many faults on these targets, by time; each sort of target that is there gets its share."""
    drawn = random.Random(seed)
    there = {target.partition(":")[0] for target in targets}
    names = [name for name, sort in SORTS.items() if sort.on in there and (pace.black_holes or name != "black-hole")]
    weights = [SORTS[name].weight for name in names]
    free_s: dict[str, float] = {}
    made: list[Fault] = []
    at_s = 0.0
    while len(made) < count:
        at_s += drawn.expovariate(1 / pace.every_s)
        kind = drawn.choices(names, weights)[0]
        sort = SORTS[kind]
        target = drawn.choice([target for target in targets if target.partition(":")[0] == sort.on])
        for_s = drawn.uniform(sort.low_s, sort.high_s) * pace.stretch
        luck = drawn.getrandbits(32)
        if at_s < free_s.get(target, 0.0):
            continue
        rest_s = REST_S * pace.stretch * (3 if target in ("broker", "database") else 1)
        free_s[target] = at_s + for_s + rest_s
        made.append(Fault(round(at_s, 2), round(for_s, 2), kind, target, luck))
    return made


def counts(faults: Sequence[Fault]) -> dict[str, int]:
    """How many of each kind."""
    return dict(sorted(Counter(fault.kind for fault in faults).items()))
