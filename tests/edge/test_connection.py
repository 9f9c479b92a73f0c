"""When a connection is tried again, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from edge.connection import RECONNECT_MAX_S, RECONNECT_S, Connection
from edge.reach import Reach
from edge.ties import ALONE, Ties


@dataclass
class Owner:
    served: bool = False
    lost_of: list[str] = field(default_factory=list)
    ties: Ties = ALONE

    def received(self, data: bytes) -> None: ...

    def lost(self, why: str) -> None:
        self.lost_of.append(why)


@dataclass
class ClosedAtOnce:
    """Connects, and is closed before anybody could say so."""

    places: int = 1
    why_closed: str = "closed"

    def name(self, place: int) -> str:
        return "there"

    async def open(self, place: int, protocol: Callable[[], asyncio.Protocol]) -> Any:
        protocol().connection_lost(None)
        return None


async def test_what_cannot_be_reached_is_tried_more_and_more_rarely() -> None:
    connection, loop = Connection(cast(Reach, ClosedAtOnce()), Owner()), asyncio.get_running_loop()
    waits = []
    for _ in range(7):
        now_s = loop.time()
        connection.back_off("refused")
        assert not connection.may_try(now_s + RECONNECT_S / 2)
        waits.append(connection._retry_s - now_s)
    assert waits == pytest.approx([RECONNECT_S, 1.0, 2.0, 4.0, 8.0, RECONNECT_MAX_S, RECONNECT_MAX_S], abs=0.1)


async def test_a_connection_that_was_closed_at_once_is_none() -> None:
    connection, told = Connection(cast(Reach, ClosedAtOnce()), Owner()), list[bool]()
    connection.open(1.0, told.append)
    assert connection._connecting is not None
    await connection._connecting
    assert told == [False]
    assert connection.transport is None
    assert connection.why == "there closed the connection at once"


async def test_connections_that_are_closed_while_others_are_answered_are_not_counted() -> None:
    """Then one of the units closes them, and the next one that is asked may be another."""
    loop = asyncio.get_running_loop()
    for heard_s, is_well in ((lambda: loop.time() + 1.0, True), (lambda: 0.0, False)):
        owner = Owner(ties=Ties(last_heard_s=heard_s))
        connection = Connection(cast(Reach, ClosedAtOnce()), owner)
        for _ in range(5):
            connection.ended("closed")
        assert connection.may_try(loop.time()) is is_well
        assert owner.lost_of == ["closed"] * 5, "whoever waited is told in any case"


async def test_a_connection_that_served_begins_the_count_anew() -> None:
    loop, owner = asyncio.get_running_loop(), Owner()
    connection = Connection(cast(Reach, ClosedAtOnce()), owner)
    for served in (False, True, False):
        owner.served = served
        connection.ended("closed")
        assert connection.may_try(loop.time())
    connection.ended("closed")
    assert not connection.may_try(loop.time()), "two in a row were no better than none"
