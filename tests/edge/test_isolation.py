"""One silent and one slow unit behind a gateway disturb nobody: how late each cycle reaches its unit, by kind of gateway.

Measured at the gateway, on a clock that jumps (tests.edge.swift_time): what a busy machine adds is not in it. The same
with a real clock: benchmarks/edge/isolation.py.
"""

from __future__ import annotations

import asyncio
from itertools import groupby, pairwise

import pytest

from tests.edge.gateways import Gateway, Kind
from tests.edge.isolation import SILENT, SLOW, Measured, measure
from tests.edge.swift_time import LoopClock, run_swiftly

UNITS = 100
SECONDS = 12.0
INTERVAL_S = 1.0
LATE_S = 0.2 * INTERVAL_S
USUAL_S = 0.003
SLOW_S = 0.15
WAIT_S = 0.8


def run(
    kind: Kind, *, wait_s: float = WAIT_S, slow_s: float = SLOW_S, seconds: float = SECONDS
) -> tuple[Measured, Gateway]:
    async def read() -> tuple[Measured, Gateway]:
        async with Gateway(kind, USUAL_S, {SLOW: slow_s}, frozenset({SILENT}), wait_s) as gateway:
            return await measure(gateway, UNITS, seconds, LoopClock(), interval_s=INTERVAL_S), gateway

    return run_swiftly(read)


@pytest.mark.parametrize("kind", ["concurrent", "in order"])
@pytest.mark.parametrize(("slow_s", "wait_s"), [(0.15, 0.8), (0.9, 0.8), (0.9, 3.0)])
def test_where_connections_are_served_beside_one_another_nobody_is_late(
    kind: Kind, slow_s: float, wait_s: float
) -> None:
    """Whether the gateway tells of the silent unit before our time-out (1 s) or long after it."""
    found, _ = run(kind, wait_s=wait_s, slow_s=slow_s)
    assert len(found.late_s) == UNITS - 2
    assert min(len(cycles) for cycles in found.late_s.values()) >= SECONDS - 3
    assert found.worst_s() <= LATE_S
    assert found.missed == 0
    assert found.failed.keys() <= {f"e{SILENT}"}
    assert found.unreachable == {f"e{SILENT}"}
    assert found.silent_reached >= 4, "it is asked again, rarely"
    assert found.slow_reached >= 0.8 * SECONDS, "the slow one is read as well"


@pytest.mark.parametrize("kind", ["one line", "newest only", "one only", "deaf to more"])
def test_where_all_share_one_line_or_connection_only_a_probe_of_the_silent_unit_is_felt(kind: Kind) -> None:
    """While a gateway waits for a unit nobody else can be served: that, and what has to be caught up, and no more."""
    found, gateway = run(kind)
    assert found.missed == 0, "late, but no cycle lost"
    assert found.failed.keys() <= {f"e{SILENT}"}, "no value lost"
    assert found.unreachable == {f"e{SILENT}"}
    assert found.worst_s() <= WAIT_S + SLOW_S
    # Work of a second on the line: each unit once. What gathers while it is held takes so long to be caught up.
    load = (UNITS * USUAL_S + SLOW_S) / INTERVAL_S
    caught_up_s = (WAIT_S + SLOW_S) / (1 - load)
    probes = gateway.reached[SILENT]
    for unit, cycles in found.late_s.items():
        for due_s, late_s in zip(found.due_s[unit], cycles, strict=True):
            held = any(-SLOW_S <= due_s - probe <= caught_up_s for probe in probes)
            assert late_s <= LATE_S or held, f"unit {unit} is late by {late_s:.3f} s, and no probe is why"
    assert found.slow_reached >= 0.9 * SECONDS
    assert found.accepted <= 4, "a second connection is not tried again and again"


def test_a_gateway_that_takes_longer_than_our_time_out_costs_no_healthy_unit_its_place() -> None:
    """One line, and the gateway waits three times as long as we do: values are lost, units are not."""
    seconds = 60.0
    found, _ = run("one line", wait_s=3.0, seconds=seconds)
    assert found.unreachable == {f"e{SILENT}"}
    assert sum(found.failed.values()) < 0.01 * UNITS * seconds


def test_a_unit_that_answers_again_is_read_at_its_interval_again() -> None:
    async def read() -> tuple[Measured, Gateway]:
        async with Gateway("in order", USUAL_S, {SLOW: SLOW_S}, frozenset({SILENT}), WAIT_S) as gateway:
            first = await measure(gateway, UNITS, 8.0, LoopClock(), interval_s=INTERVAL_S, heals_after_s=4.0)
            return first, gateway

    found, gateway = run_swiftly(read)
    assert found.unreachable == frozenset()
    last = gateway.reached[SILENT][-3:]
    assert [round(b - a, 1) for a, b in pairwise(last)] == [INTERVAL_S, INTERVAL_S]


def test_a_unit_that_was_slow_once_is_soon_among_the_others_again_and_later_each_time() -> None:
    """A hiccup of the machine must not leave a healthy unit in the company of the silent."""
    unit, slow = 40, {SLOW: SLOW_S}

    async def read() -> Gateway:
        async with Gateway("in order", USUAL_S, slow, frozenset({SILENT}), WAIT_S) as gateway:

            def hiccups() -> None:
                loop = asyncio.get_running_loop()
                for at_s in (2.0, 10.0):
                    loop.call_later(at_s, slow.update, {unit: SLOW_S})
                    loop.call_later(at_s + INTERVAL_S, slow.pop, unit)

            await measure(gateway, UNITS, 20.0, LoopClock(), interval_s=INTERVAL_S, meanwhile=hiccups)
            return gateway

    ways = run_swiftly(read).ways[unit]
    assert [len(list(stay)) for way, stay in groupby(ways) if way == 2] == [2, 4]
    assert ways[-1] == 1
