"""Report by exception and counters: CPU ns a row, and how much of realistic readings is kept.

50 devices × 100 points, a commit a second: temperatures that swing by 5 °C an hour and wander, with noise of 0.05 °C, as a
sensor with a resolution of 0.1 °C says them. Each stage gets commits that are already columns; the first are not counted.

    python -m benchmarks.report [--json]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from edge.columns import Columns
from edge.counters import Counters, Wrapping
from edge.report import Policy, Reporter
from telemetry.name_block import NameBlock, name_block
from telemetry.quality import GOOD

DEVICES: Final = 50
POINTS: Final = 100
SECONDS: Final = 400
SETTLING: Final = 50
NOW_US: Final = 1_795_000_000_000_000

POLICIES: Final[dict[str, Policy | None]] = {
    "no point reports by exception": None,
    "deadband 0.3 °C": Policy(deadband=0.3, heartbeat_s=60.0),
    "deadband 1 %": Policy(deadband_percent=1.0, heartbeat_s=60.0),
    "swinging door 0.3 °C": Policy(swinging_door=0.3, heartbeat_s=60.0),
}


def temperatures(seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(seconds, points) °C around 60, as read."""
    random, n = np.random.default_rng(seed), DEVICES * POINTS
    phase, t = random.uniform(0, 2 * np.pi, n), np.arange(SECONDS)[:, None]
    swing = 5 * np.sin(2 * np.pi * t / 3600 + phase)
    wander = np.cumsum(random.normal(0, 0.01, (SECONDS, n)), axis=0)
    read: np.ndarray[Any, np.dtype[np.float64]] = np.round(
        60 + swing + wander + random.normal(0, 0.05, (SECONDS, n)), 1
    )
    return read


def commits(blocks: Sequence[NameBlock], values: np.ndarray[Any, np.dtype[np.float64]]) -> list[Columns]:
    """One a second, a part a device."""
    n = DEVICES * POINTS
    equipment = [block.names[0].partition("/")[0] for block in blocks]
    counts, place = np.full(DEVICES, POINTS), np.tile(np.arange(POINTS, dtype=np.int32), DEVICES)
    quality = np.full(n, GOOD, np.uint8)
    return [
        Columns(equipment, blocks, counts, place, np.full(n, NOW_US + second * 1_000_000), row, quality)
        for second, row in enumerate(values)
    ]


def cost(stage: Callable[[Columns], int], given: Sequence[Columns]) -> dict[str, float]:
    """CPU ns a row, of the median commit, and the share of rows that comes out, once settled."""
    spent, out = [], 0
    for number, columns in enumerate(given):
        began = time.thread_time_ns()
        left = stage(columns)
        spent.append((time.thread_time_ns() - began) / len(columns))
        out += left if number >= SETTLING else 0
    rows = sum(len(columns) for columns in given[SETTLING:])
    return {"ns_per_row": round(float(np.median(spent[SETTLING:])), 1), "kept": round(out / rows, 4)}


def thinning(blocks: Sequence[NameBlock], policy: Policy | None) -> Callable[[Columns], int]:
    """All points by this policy."""
    reporter = Reporter()
    for block in blocks if policy else ():
        reporter.add(block, [policy] * POINTS)
    return lambda columns: len(reporter.thin(columns))


def counting(blocks: Sequence[NameBlock], each: int) -> Callable[[Columns], int]:
    """The first `each` points of each device are counters."""
    counters = Counters({})
    for block in blocks:
        counters.add(block, [Wrapping(65536, 16384, scale=0.1)] * each + [None] * (POINTS - each))
    return lambda columns: len(counters.count(columns).columns)


def measure() -> dict[str, Any]:
    """All cases, with what they were measured on."""
    blocks = [name_block([f"boiler-{d:02}/t{p:02}" for p in range(POINTS)]) for d in range(DEVICES)]
    read = commits(blocks, temperatures(1))
    counted = commits(blocks, np.cumsum(np.full((SECONDS, DEVICES * POINTS), 7.0), axis=0))
    cases = {name: cost(thinning(blocks, policy), read) for name, policy in POLICIES.items()}
    for each in (5, POINTS):
        cases[f"{each} of {POINTS} points are counters"] = cost(counting(blocks, each), counted)
    return {
        "machine": f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}",
        "cases": cases,
    }


def main() -> None:
    """Prints the costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="for machines, on stdout")
    arguments = parser.parse_args()
    found = measure()
    if arguments.json:
        json.dump(found, sys.stdout, ensure_ascii=False)
        print()
        return
    print(f"{DEVICES} devices × {POINTS} points a commit, {found['machine']}")
    for name, case in found["cases"].items():
        print(f"  {name:34} {case['ns_per_row']:>7} ns a row   {case['kept']:>7.1%} kept")


if __name__ == "__main__":
    main()
