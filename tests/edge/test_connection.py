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
