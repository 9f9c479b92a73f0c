"""Units that spoil the connection which they share with others: by a reset, garbage, or an answer that is none.

The rule: whoever did it fails, and nobody else; it is asked alone from then on, where it can be on a connection of its
own; the others keep their interval; and connections are not made faster than those units' breakers let them be asked.
Measured at the gateway, on a clock that jumps (tests.edge.swift_time).
"""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from tests.edge.gateways import KINDS, SPOILS, Gateway, Kind, Spoil
from tests.edge.isolation import SILENT, SLOW, Measured, measure
from tests.edge.swift_time import LoopClock, run_swiftly

UNITS = 40
CULPRITS = frozenset({2, 3, 4, SILENT, 21})
"""`measure` begins when unit SILENT has failed first."""
SECONDS = 20.0
INTERVAL_S = 1.0
LATE_S = 0.2 * INTERVAL_S
USUAL_S = 0.003
SLOW_S = 0.35
PROBES = 5
"""Of a unit with an open breaker in these seconds, after 1, 2, 4, 8 s, and one more that was due when they began."""
THRESHOLD = 3


def run(kind: Kind, spoils: dict[int, Spoil], *, heals_after_s: float | None = None) -> tuple[Measured, Gateway]:
    async def read() -> tuple[Measured, Gateway]:
        async with Gateway(kind, USUAL_S, {SLOW: SLOW_S}, spoils=dict(spoils)) as gateway:

            def later() -> None:
                if heals_after_s is not None:
                    asyncio.get_running_loop().call_later(heals_after_s, gateway.spoils.clear)

            found = await measure(
                gateway, UNITS, SECONDS, LoopClock(), interval_s=INTERVAL_S, besides=CULPRITS, meanwhile=later
            )
            return found, gateway

    return run_swiftly(read)


def names(units: frozenset[int]) -> set[str]:
    return {f"e{unit}" for unit in units}


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("kind", ["concurrent", "in order"])
def test_of_forty_units_five_that_spoil_the_connection_disturb_nobody(kind: Kind, spoil: Spoil) -> None:
    found, gateway = run(kind, dict.fromkeys(CULPRITS, spoil))
    assert found.unreachable == names(CULPRITS)
    assert found.failed.keys() <= names(CULPRITS), "no value of another unit is lost"
    assert found.worst_s() <= LATE_S
    assert found.missed == 0
    assert found.slow_reached >= 0.9 * SECONDS, "the slow one is read as well"
    assert gateway.accepted <= 4 + len(CULPRITS) * (THRESHOLD + PROBES), "no storm of connections"


@pytest.mark.parametrize("spoil", ["reset", "garbage", "short"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("concurrent", "in order")])
def test_where_all_share_one_line_or_connection_they_cost_nobody_a_value(kind: Kind, spoil: Spoil) -> None:
    found, gateway = run(kind, dict.fromkeys(CULPRITS, spoil))
    assert found.unreachable == names(CULPRITS)
    assert found.failed.keys() <= names(CULPRITS)
    assert found.worst_s() <= LATE_S + 2 * SLOW_S, "the slow unit holds the line, twice where it was asked again"
    assert found.missed == 0
    assert gateway.accepted <= 12 + len(CULPRITS) * (THRESHOLD + PROBES)


@pytest.mark.parametrize("kind", ["concurrent", "one only"])
def test_units_that_spoil_no_more_are_read_at_their_interval_again(kind: Kind) -> None:
    found, gateway = run(kind, dict.fromkeys(CULPRITS, "reset"), heals_after_s=6.0)
    assert found.unreachable == frozenset()
    for unit in CULPRITS:
        last = gateway.reached[unit][-3:]
        assert [round(b - a, 1) for a, b in pairwise(last)] == [INTERVAL_S, INTERVAL_S]


@pytest.mark.parametrize("kind", ["concurrent", "in order"])
def test_different_faults_at_once_are_told_apart(kind: Kind) -> None:
    found, _ = run(kind, dict(zip(sorted(CULPRITS), SPOILS, strict=False)))
    assert found.unreachable == names(CULPRITS)
    assert found.failed.keys() <= names(CULPRITS)
    assert found.worst_s() <= LATE_S


def test_a_gateway_that_closes_every_connection_is_left_alone_for_longer_and_longer() -> None:
    """Whoever is asked there, the connection is closed: that is no unit's fault, and no use to try for each of them."""
    found, gateway = run("concurrent", dict.fromkeys(range(1, UNITS + 1), "reset"))
    assert found.unreachable == names(frozenset(range(1, UNITS + 1)))
    assert gateway.accepted <= 30
