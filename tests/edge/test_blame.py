"""Who fails when several wait on a connection that is spoiled, and how the others are asked again; over real TCP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from edge.blame import SUSPECTED, blame
from edge.frames import Mbap
from edge.lane import Lane, Watch
from edge.reach import NetworkReach
from edge.waiting import Sent
from telemetry.clock import SystemClock
from tests.edge.asking import ReadFailed, Told, query_of, result
from tests.edge.device import Ask, Device, Reset, data, frame

PATIENCE_S = 0.06
RIGHT = b"\0\x0a\0\x0b"
FIRST, CULPRIT, LAST = 1, 2, 3


@asynccontextmanager
async def lane_to(device: Device) -> AsyncIterator[Lane]:
    lane = Lane(
        NetworkReach((("127.0.0.1", device.port),)), Mbap(), SystemClock(), Watch(), patience_s=lambda: PATIENCE_S
    )
    yield lane
    lane.close()


class Spoils:
    """Nobody is answered on the first connection until three have asked; then the culprit's answer spoils it. On later
    ones it does so at once, and the others are answered.
    """

    def __init__(self, wrong: bytes | None) -> None:
        self.wrong = wrong
        """What the culprit says, in place of the unit and what follows it; None: it resets the connection."""
        self.waiting: list[Ask] = []
        self.beside: list[int] = []
        """How many others waited for an answer when each request of a later connection came."""
        self._busy = 0

    async def __call__(self, ask: Ask, writer: asyncio.StreamWriter) -> None:
        if ask.connection == 1:
            self.waiting.append(ask)
            if len(self.waiting) == 3:
                self._spoil(next(one for one in self.waiting if one.unit == CULPRIT), writer)
        elif ask.unit == CULPRIT:
            self._spoil(ask, writer)
        else:
            self.beside.append(self._busy)
            self._busy += 1
            await asyncio.sleep(0.01)
            self._busy -= 1
            writer.write(frame(ask, data(ask)))

    def _spoil(self, ask: Ask, writer: asyncio.StreamWriter) -> None:
        if self.wrong is None:
            raise Reset
        writer.write(frame(ask, self.wrong))


def put_three(lane: Lane) -> list[Told]:
    told = [Told() for _ in range(3)]
    for unit, one in zip((FIRST, CULPRIT, LAST), told, strict=True):
        lane.ask(one, query_of(unit=unit), 2.0)
    return told


async def test_an_answer_that_is_none_fails_the_one_whose_transaction_it_names_and_the_others_are_asked_again() -> None:
    behaviour = Spoils(b"\x04\x02\0\0")
    async with Device(behaviour) as device, lane_to(device) as lane:
        first, culprit, last = put_three(lane)
        with pytest.raises(ReadFailed, match="answer of function 4, expected 3"):
            await result(culprit)
        assert await result(first) == await result(last) == RIGHT
        assert [a.unit for a in device.asked] == [FIRST, CULPRIT, LAST, FIRST, LAST], "in the order of asking"
        assert device.connections == 2
        assert [one.endings for one in (first, culprit, last)] == [1, 1, 1]


async def test_after_a_reset_with_three_waiting_each_is_asked_again_alone_and_the_one_that_does_it_again_fails() -> (
    None
):
    behaviour = Spoils(None)
    async with Device(behaviour) as device, lane_to(device) as lane:
        first, culprit, last = put_three(lane)
        with pytest.raises(ReadFailed, match="connection lost") as caught:
            await result(culprit)
        assert caught.value.outcome == "reset"
        assert await result(first) == await result(last) == RIGHT
        assert [a.unit for a in device.asked] == [FIRST, CULPRIT, LAST, FIRST, CULPRIT, LAST]
        assert behaviour.beside == [0, 0]
        assert device.connections == 3
        assert [one.endings for one in (first, culprit, last)] == [1, 1, 1]


async def test_nobody_is_asked_beside_one_that_is_under_suspicion_however_long_it_takes() -> None:
    async def slow(ask: Ask, writer: asyncio.StreamWriter) -> None:
        if ask.unit == FIRST:
            await asyncio.sleep(4 * PATIENCE_S)
        writer.write(frame(ask, data(ask)))

    async with Device(slow) as device, lane_to(device) as lane:
        suspect, other = Told(), Told()
        lane.ask(suspect, query_of(unit=FIRST), 2.0, 1)
        lane.ask(other, query_of(unit=LAST), 2.0)
        await result(suspect)
        assert len(device.asked) == 1
        assert await result(other) == RIGHT
        assert "overdue" in suspect.words, "and its unit is told to be slow"


async def test_one_under_suspicion_waits_until_nobody_else_does() -> None:
    answered: list[float] = []

    async def first_is_slow(ask: Ask, writer: asyncio.StreamWriter) -> None:
        if ask.unit == FIRST:
            asyncio.get_running_loop().call_later(4 * PATIENCE_S, say, ask, writer)
        else:
            writer.write(frame(ask, data(ask)))

    def say(ask: Ask, writer: asyncio.StreamWriter) -> None:
        answered.append(time.monotonic())
        writer.write(frame(ask, data(ask)))

    async with Device(first_is_slow) as device, lane_to(device) as lane:
        slow, suspect = Told(), Told()
        lane.ask(slow, query_of(unit=FIRST), 2.0)
        lane.ask(suspect, query_of(unit=LAST), 2.0, 1)
        assert await result(slow) == await result(suspect) == RIGHT
        assert device.asked[1].at_s >= answered[0]


def sent(*, suspicion: int = 0) -> Sent:
    return Sent(Told(), query_of(), 1.0, 0.0, 1, b"\0\1", suspicion)


def test_the_only_one_that_waits_did_it_unless_a_late_answer_may_have() -> None:
    one = sent()
    assert blame([one], None, late=False) == ([one], [])
    assert blame([one], None, late=True) == ([], [(one.asker, one.query, 1.0, 1)])


def test_a_doubt_ends_with_who_was_there_too_often_and_a_known_culprit_adds_none() -> None:
    often, once, new = sent(suspicion=SUSPECTED), sent(suspicion=1), sent()
    guilty, again = blame([often, once, new], None, late=False)
    assert guilty == [often]
    assert [entry[3] for entry in again] == [2, 1]
    guilty, again = blame([often, once, new], new, late=True)
    assert guilty == [new]
    assert [entry[3] for entry in again] == [SUSPECTED, 1]
