"""A lane over real sockets: turns, time-outs, late answers, pauses, places and reconnecting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from edge.asking import Failure
from edge.connection import RECONNECT_S
from edge.frames import Mbap
from edge.lane import LOOK_S, OVERDUE, Lane, Watch
from edge.reach import NetworkReach
from telemetry.clock import SystemClock
from tests.edge.asking import ReadFailed, Told, ask, query_of, result
from tests.edge.device import Ask, Close, Device, data, frame, good, send, silent
from tests.fixtures.waiting import until

TIMEOUT_S = 0.4
PATIENCE_S = 0.06


@asynccontextmanager
async def lane_to(*devices: Device, patience_s: float | None = None) -> AsyncIterator[Lane]:
    """A lane that finds its endpoint at these places."""
    reach = NetworkReach(tuple(("127.0.0.1", device.port) for device in devices))
    lane = Lane(reach, Mbap(), SystemClock(), Watch(), patience_s=lambda: patience_s)
    yield lane
    lane.close()


def put(lane: Lane, asker: Told, *, unit: int = 1, address: int = 10, timeout_s: float = TIMEOUT_S) -> Told:
    lane.ask(asker, query_of(unit=unit, address=address), timeout_s)
    return asker


class Holding:
    """A device that answers when it is told to."""

    def __init__(self) -> None:
        self.held: list[tuple[Ask, asyncio.StreamWriter]] = []

    async def __call__(self, ask: Ask, writer: asyncio.StreamWriter) -> None:
        self.held.append((ask, writer))

    def answer(self, unit: int) -> None:
        place = next(n for n, (ask, _) in enumerate(self.held) if ask.unit == unit)
        ask, writer = self.held.pop(place)
        writer.write(frame(ask, data(ask, shift=unit)))


# ---- turns


async def test_a_request_that_keeps_its_turn_too_long_lets_others_go_first_and_its_late_answer_is_still_used() -> None:
    behaviour = Holding()
    async with Device(behaviour) as device, lane_to(device, patience_s=PATIENCE_S) as lane:
        slow, other = put(lane, Told(), unit=1), put(lane, Told(), unit=2)
        await until(lambda: len(behaviour.held) == 2)
        assert slow.words == ["sent", "overdue"]
        behaviour.answer(2)
        assert await result(other) == b"\0\x0c\0\x0d"
        behaviour.answer(1)
        assert await result(slow) == b"\0\x0b\0\x0c", "its own, though it came after another's"
        assert slow.words == ["sent", "overdue", "answered"]
        assert other.words == ["sent", "answered"]
        assert device.connections == 1


async def test_nobody_goes_before_a_request_has_kept_its_turn_as_long_as_it_may() -> None:
    behaviour = Holding()
    async with Device(behaviour) as device, lane_to(device, patience_s=PATIENCE_S) as lane:
        began = time.monotonic()
        put(lane, Told(), unit=1)
        put(lane, Told(), unit=2)
        await until(lambda: len(device.asked) == 2)
        assert device.asked[1].at_s - began >= PATIENCE_S * 0.9
        assert device.asked[1].at_s - device.asked[0].at_s < TIMEOUT_S, "not at its time-out"


async def test_nobody_goes_while_an_answer_has_begun_to_come() -> None:
    """Else what is said to the next would be taken for the rest of it."""

    async def halves_one(ask: Ask, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(ask, data(ask))[: 9 if ask.unit == 1 else None])

    async with Device(halves_one) as device, lane_to(device, patience_s=PATIENCE_S) as lane:
        half, other = put(lane, Told(), unit=1), put(lane, Told(), unit=2)
        with pytest.raises(ReadFailed, match="unusable answer: 9 bytes"):
            await result(half)
        assert [a.unit for a in device.asked] == [1]
        assert await result(other) == b"\0\x0a\0\x0b"
        assert device.asked[1].connection == 2


async def test_no_more_than_a_few_wait_for_an_answer_at_once_and_room_is_used_when_there_is_some() -> None:
    behaviour = Holding()
    async with Device(behaviour) as device, lane_to(device, patience_s=PATIENCE_S) as lane:
        asked = [put(lane, Told(), unit=u, timeout_s=2.0) for u in range(1, OVERDUE + 3)]
        await until(lambda: len(device.asked) == OVERDUE)
        full_s = time.monotonic()
        await until(lambda: time.monotonic() > full_s + 2 * PATIENCE_S)
        assert len(device.asked) == OVERDUE
        behaviour.answer(1)
        await until(lambda: len(device.asked) == OVERDUE + 1, within_s=PATIENCE_S + 10 * LOOK_S)
        for unit in range(2, OVERDUE + 3):
            await until(lambda unit=unit: any(ask.unit == unit for ask, _ in behaviour.held))
            behaviour.answer(unit)
        assert [(await result(told))[1] for told in asked] == [10 + u for u in range(1, OVERDUE + 3)]
        assert [told.endings for told in asked] == [1] * len(asked)


async def test_a_time_out_runs_from_when_a_request_is_the_oldest_because_the_other_side_may_be_busy_with_that() -> None:
    """Two in a row, one second each: a gateway that serves in order keeps the second waiting for the first."""
    behaviour = Holding()
    async with Device(behaviour) as device, lane_to(device, patience_s=PATIENCE_S) as lane:
        first, second = put(lane, Told(), unit=1), put(lane, Told(), unit=2)
        await until(lambda: len(behaviour.held) == 2)
        second_sent_s = device.asked[1].at_s
        await until(lambda: time.monotonic() > second_sent_s + TIMEOUT_S * 0.75)
        assert not first.endings
        behaviour.answer(1)
        await result(first)
        answered_s = time.monotonic()
        await until(lambda: time.monotonic() > second_sent_s + TIMEOUT_S * 1.25)
        assert not second.endings, "its own time-out has only begun"
        with pytest.raises(ReadFailed, match="no answer within"):
            await result(second)
        assert time.monotonic() - answered_s >= TIMEOUT_S * 0.9


async def test_how_long_an_answer_took_is_not_how_long_it_waited_for_another() -> None:
    behaviour = Holding()
    async with Device(behaviour) as device, lane_to(device, patience_s=PATIENCE_S) as lane:
        put(lane, Told(), unit=1)
        second = put(lane, Told(), unit=2)
        await until(lambda: len(behaviour.held) == 2)
        await until(lambda: time.monotonic() > device.asked[1].at_s + 0.15)
        behaviour.answer(1)
        behaviour.answer(2)
        await result(second)
        assert second.took_s < 0.1


async def test_a_late_answer_of_a_request_that_timed_out_is_nobodys() -> None:
    behaviour = Holding()
    async with Device(behaviour) as device, lane_to(device) as lane:
        lost = put(lane, Told(), unit=1, timeout_s=0.1)
        with pytest.raises(ReadFailed):
            await result(lost)
        next_one = put(lane, Told(), unit=1)
        await until(lambda: len(behaviour.held) == 2)
        behaviour.answer(1)
        behaviour.answer(1)
        assert await result(next_one) == b"\0\x0b\0\x0c"
        assert lost.words == ["sent", "failed"]
        assert device.connections == 1


# ---- leaving and closing


async def test_who_left_is_told_nothing_more_and_others_lose_nothing() -> None:
    behaviour = Holding()
    async with Device(behaviour) as device, lane_to(device) as lane:
        waiting, queued, other = (put(lane, Told(), unit=u) for u in (1, 2, 3))
        await until(lambda: behaviour.held)
        lane.leave(waiting)
        lane.leave(queued)
        behaviour.answer(1)
        await until(lambda: behaviour.held)
        behaviour.answer(3)
        assert await result(other) == b"\0\x0d\0\x0e"
        assert (waiting.words, queued.words) == (["sent"], [])
        assert [a.unit for a in device.asked] == [1, 3], "what was not sent is not sent"


async def test_a_lane_that_is_closed_tells_nobody_and_leaves_nothing_behind() -> None:
    async with Device(silent) as device, lane_to(device) as lane:
        asked = [put(lane, Told(), unit=u, timeout_s=0.05) for u in (1, 2, 3)]
        await until(lambda: device.asked)
        lane.close()
        watch = lane.watch
        await until(lambda: not watch.busy and watch._timer is None)
        assert [told.endings for told in asked] == [0, 0, 0]
        assert asyncio.all_tasks() - {asyncio.current_task()} <= set(device._serving)


async def test_a_lane_that_is_closed_while_it_connects_makes_no_connection() -> None:
    async with Device() as device, lane_to(device) as lane:
        told = put(lane, Told())
        lane.close()
        async with Device() as other, lane_to(other) as second:
            await ask(second)
        assert not told.words
        assert lane.connection.transport is None
        assert not device.asked


async def test_a_lane_rests_only_when_nobody_waits() -> None:
    behaviour = Holding()
    async with Device(behaviour) as device, lane_to(device) as lane:
        told = put(lane, Told())
        await until(lambda: behaviour.held)
        lane.rest()
        behaviour.answer(1)
        await result(told)
        lane.rest()
        again = put(lane, Told())
        await until(lambda: behaviour.held)
        behaviour.answer(1)
        await result(again)
        assert device.connections == 2


# ---- rests


async def test_the_rests_that_a_device_needs_are_kept_after_connecting_and_between_requests() -> None:
    async with Device() as device, lane_to(device) as lane:
        lane.settle_s, lane.pause_s = 0.15, 0.05
        began = time.monotonic()
        await asyncio.gather(*(ask(lane, unit=u) for u in range(1, 6)))
        times = [a.at_s - began for a in device.asked]
        assert times[0] >= 0.145
        assert min(b - a for a, b in pairwise(times)) >= 0.045
        assert times[-1] < 1.5


# ---- places and reconnecting


async def test_the_other_place_is_tried_when_the_first_cannot_be_reached() -> None:
    async with Device() as gone:
        pass
    async with Device() as fallback, lane_to(gone, fallback) as lane:
        assert await ask(lane) == b"\0\x0a\0\x0b"
        assert fallback.connections == 1


async def test_when_no_place_can_be_reached_both_are_named() -> None:
    async with Device() as one, Device() as other:
        pass
    async with lane_to(one, other) as lane:
        with pytest.raises(ReadFailed) as caught:
            await ask(lane)
        assert caught.value.outcome == "refused"
        assert f"127.0.0.1:{one.port}" in caught.value.why
        assert f"127.0.0.1:{other.port}" in caught.value.why


async def test_a_place_that_connects_and_says_nothing_is_left_for_the_other_one() -> None:
    async with Device(silent) as deaf, Device() as fallback, lane_to(deaf, fallback) as lane:
        assert deaf.connections == 0
        for _ in range(3):
            with pytest.raises(ReadFailed):
                await ask(lane, timeout_s=0.1)
        assert await ask(lane) == b"\0\x0a\0\x0b"
        assert (deaf.connections, fallback.connections) == (1, 1)


async def test_what_is_queued_when_a_connection_is_lost_goes_on_the_next_one() -> None:
    async def first_is_closed(ask: Ask, writer: asyncio.StreamWriter) -> None:
        if ask.connection == 1:
            raise Close
        await good(ask, writer)

    async with Device(first_is_closed) as device, lane_to(device) as lane:
        asked = [put(lane, Told(), unit=u) for u in (1, 2, 3)]
        with pytest.raises(ReadFailed, match="connection lost"):
            await result(asked[0])
        assert [await result(told) for told in asked[1:]] == [b"\0\x0a\0\x0b"] * 2
        assert device.connections == 2


async def test_a_device_that_closes_before_it_may_be_asked_is_not_tried_for_ever() -> None:
    """It needs a rest after connecting, and closes during it: whoever waits is told, and the next attempt waits."""
    connections = 0

    async def close_soon(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await asyncio.sleep(0.01)
        writer.close()

    server = await asyncio.start_server(close_soon, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    lane = Lane(NetworkReach((("127.0.0.1", port),)), Mbap(), SystemClock(), Watch(), settle_s=0.2)
    began = time.monotonic()
    told = put(lane, Told())
    with pytest.raises(ReadFailed) as caught:
        await result(told)
    assert time.monotonic() - began < RECONNECT_S
    assert caught.value.outcome in ("refused", "reset")
    assert connections <= 2
    lane.close()
    server.close()
    await server.wait_closed()


async def test_one_who_asks_again_whenever_it_fails_is_not_answered_in_a_loop() -> None:
    class Stubborn(Told):
        def failed(self, failure: Failure, time_us: int) -> None:
            super().failed(failure, time_us)
            if len(self.words) < 50:
                lane.ask(self, query_of(), TIMEOUT_S)

    async with Device() as gone:
        pass
    async with lane_to(gone) as lane:
        stubborn = Stubborn()
        began = time.monotonic()
        put(lane, stubborn)
        await stubborn.over.wait()
        assert stubborn.endings == 50, "told each time, at once, without a connection being tried"
        assert time.monotonic() - began < 0.3


async def test_an_answer_in_one_piece_with_the_rest_of_another_is_found() -> None:
    """Two answers in three pieces, cut anywhere."""
    behaviour = Holding()
    async with Device(behaviour) as device, lane_to(device, patience_s=PATIENCE_S) as lane:
        first, second = put(lane, Told(), unit=1), put(lane, Told(), unit=2)
        await until(lambda: len(behaviour.held) == 2)
        both = b"".join(frame(a, data(a, shift=a.unit)) for a, _ in behaviour.held)
        writer = behaviour.held[0][1]
        for piece in (both[:5], both[5:16], both[16:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        assert await result(first) == b"\0\x0b\0\x0c"
        assert await result(second) == b"\0\x0c\0\x0d"


async def test_an_answer_that_comes_twice_harms_nobody() -> None:
    twice = send(lambda a: frame(a, data(a)) * 2)
    async with Device(twice) as device, lane_to(device) as lane:
        for address in range(5):
            assert await ask(lane, address=address) == bytes([0, address, 0, address + 1])
        assert device.connections == 1
