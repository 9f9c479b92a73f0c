"""Faults with labels: what goes wrong with which equipment from when to when, and the list of it for judging detectors.

Invariant: whatever is injected is in the labels with the time at which it began and ended, in the scenario's own time.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from telemetry.clock import US_PER_S, iso

COMMS_LOSS: Final = "comms-loss"
"""The one fault that every equipment can have: it says nothing any more."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault, in seconds since the scenario's start."""

    start_s: float
    end_s: float
    equipment: str
    kind: str


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Faults that come and go by themselves: one about every `every_s`, each as long as `lasting_s` (least, most)."""

    every_s: float
    lasting_s: tuple[float, float]
    after_s: float = 0.0
    kinds: tuple[str, ...] = ()
    """Empty: every kind that the equipment knows."""


def rhythm_faults(
    rhythm: Rhythm, choices: Sequence[tuple[str, Sequence[str]]], rng: np.random.Generator
) -> Iterator[Fault]:
    """Endless faults in the order of their start, never two at once on one equipment.

    `choices` are (equipment, kinds that it knows).
    """
    able = [(name, [k for k in kinds if not rhythm.kinds or k in rhythm.kinds]) for name, kinds in choices]
    able = [(name, kinds) for name, kinds in able if kinds]
    if not able:
        return
    busy_until_s = dict.fromkeys((name for name, _ in able), 0.0)
    now_s = rhythm.after_s
    while True:
        now_s += float(rng.uniform(0.5, 1.5)) * rhythm.every_s
        name, kinds = able[int(rng.integers(len(able)))]
        kind, lasting_s = kinds[int(rng.integers(len(kinds)))], float(rng.uniform(*rhythm.lasting_s))
        if busy_until_s[name] > now_s:
            continue
        busy_until_s[name] = now_s + 2 * lasting_s
        yield Fault(round(now_s, 1), round(now_s + lasting_s, 1), name, kind)


def write_labels(path: Path, faults: Iterable[Fault], start_us: int) -> int:
    """Writes labels as docs/simulators.md has them. Returns how many."""
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("equipment", "kind", "start", "end"))
        for fault in faults:
            begin, end = (iso(start_us + round(at_s * US_PER_S)) for at_s in (fault.start_s, fault.end_s))
            writer.writerow((fault.equipment, fault.kind, begin, end))
            count += 1
    return count
