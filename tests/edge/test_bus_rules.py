"""Where the requests of a shared endpoint go, and what a witness says of its second connection; without a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edge.asking import Asker, Failure, exception_failure
from edge.bus import Bus
from edge.frames import Query
from edge.lane import Lane
from edge.ties import ALONE, Ties
from edge.usual import Usual
from tests.edge.asking import Told, query_of

SUSPECT, WELL, OTHER = 1, 2, 3
TIMEOUT = Failure("timeout", "no answer within 1 s")
GATEWAY_TIMEOUT = exception_failure(11)


@dataclass
class Noted:
    """In place of a lane: notes what it is asked."""

    served: bool = False
    ties: Ties = ALONE
    asked: list[tuple[Asker, int, int]] = field(default_factory=list)
    """(who asks, the unit, the suspicion)."""
    waits: bool = False
    reachable: bool = True
    handed_over: int = 0
    reach: Any = field(default_factory=lambda: SimpleNamespace(on_wire_s=lambda size: 0.0))
    connection: Any = field(default_factory=lambda: SimpleNamespace(older=lambda other: True))

    def ask(self, asker: Asker, query: Query, timeout_s: float, suspicion: int = 0) -> None:
        self.asked.append((asker, query.unit, suspicion))

    def hand_over(self, heir: object) -> None:
        self.handed_over += 1


def bus_of(main: Noted, side: Noted | None) -> Bus:
    bus = Bus(cast(Lane, main), Usual(), cast(Lane, side))
    bus.shared = True
    return bus


def ask(bus: Bus, unit: int) -> Told:
    told = Told()
    bus.ask(told, query_of(unit=unit), 1.0, probe=False)
    return told


@pytest.mark.parametrize("has_side", [False, True])
async def test_a_unit_that_cost_the_main_connection_is_asked_alone_there_until_it_is_trusted(
    has_side: bool,
) -> None:
    """Where there is no second connection that is known to be served."""
    main = Noted()
    bus = bus_of(main, Noted() if has_side else None)
    bus.accuse(SUSPECT, "reset")
    for unit in (SUSPECT, WELL):
        ask(bus, unit)
    assert [(unit, suspicion) for _, unit, suspicion in main.asked] == [(SUSPECT, 1), (WELL, 0)]
    bus.note(SUSPECT, 0.01)
    ask(bus, SUSPECT)
    assert main.asked[-1][2] == 1, "once is not enough"
    bus.note(SUSPECT, 0.01)
    ask(bus, SUSPECT)
    assert main.asked[-1][2] == 0


async def test_a_unit_that_was_only_slow_is_asked_beside_others() -> None:
    main = Noted()
    bus = bus_of(main, None)
    bus.accuse(SUSPECT, "timeout")
    ask(bus, SUSPECT)
    assert main.asked[-1][2] == 0


async def witnessed() -> tuple[Bus, Noted, Noted, Told]:
    """A witness on the side lane."""
    main, side = Noted(served=True), Noted()
    bus = bus_of(main, side)
    bus.accuse(SUSPECT)
    told = ask(bus, WELL)
    assert [unit for _, unit, _ in side.asked] == [WELL]
    assert not main.asked
    return bus, main, side, told


async def test_a_witness_that_is_not_answered_is_asked_alone_on_the_main_lane_and_the_other_is_given_up() -> None:
    bus, main, side, told = await witnessed()
    side.asked[-1][0].failed(TIMEOUT, 0)
    assert [(unit, suspicion) for _, unit, suspicion in main.asked] == [(WELL, 1)]
    assert side.handed_over == 1
    assert told.endings == 0
    main.asked[-1][0].answered(b"\0\1", 0, 0.01)
    assert told.payload == b"\0\1"
    ask(bus, OTHER)
    assert len(side.asked) == 1, "for a while nobody is asked there"


@pytest.mark.parametrize(
    ("on_main", "is_acquitted"),
    [
        (TIMEOUT, True),
        (Failure("reset", "connection lost"), True),
        (Failure("refused", "not connected"), False),
        (GATEWAY_TIMEOUT, False),
        (exception_failure(2), False),
    ],
)
async def test_a_witness_that_fails_on_the_main_lane_as_well_said_nothing_of_the_other(
    on_main: Failure, is_acquitted: bool
) -> None:
    """What was wrong was the unit, and the next one that answers is heard. An exception is an answer of somebody; where there
    is no connection nothing was asked.
    """
    bus, main, side, told = await witnessed()
    side.asked[-1][0].failed(TIMEOUT, 0)
    main.asked[-1][0].failed(on_main, 0)
    assert told.failure == on_main
    assert told.endings == 1
    ask(bus, OTHER)
    assert [unit for _, unit, _ in side.asked] == ([WELL, OTHER] if is_acquitted else [WELL])


async def test_a_witness_that_is_answered_by_the_gateway_for_its_unit_was_served() -> None:
    bus, main, side, told = await witnessed()
    side.asked[-1][0].failed(GATEWAY_TIMEOUT, 0)
    assert told.failure == GATEWAY_TIMEOUT
    ask(bus, SUSPECT)
    assert [unit for _, unit, _ in side.asked] == [WELL, SUSPECT], "so the suspect goes there"
    assert not main.asked
