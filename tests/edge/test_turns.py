"""When a device has its turn, and what is said of it: small rules of schedule, breaker, policy and decoding."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from edge import metrics
from edge.breaker import THRESHOLD, Breaker
from edge.columns import ROW_BYTES, encode, join
from edge.policy import Poller, Reachability
from edge.schedule import LOOK_S, Rota
from telemetry.arrow_read import decode_samples
from telemetry.clock import SystemClock
from telemetry.messages import Event
from tests.edge.build import NOW_US, columns_of_points, frame_of, layout_of
from tests.edge.learning import FakeClock, Memory, reader_of
from tests.edge.profiles import make_profile
from tests.fixtures.waiting import until


@dataclass
class Told:
    """Whose turn it is."""

    dues: list[tuple[float, int]] = field(default_factory=list)
    """(due_s, missed)"""

    def due(self, group: int, due_s: float, missed: int) -> None:
        self.dues.append((due_s, missed))


def test_after_a_stall_a_turn_is_as_late_as_its_own_cycle_is_and_no_later() -> None:
    clock, told = FakeClock(), Told()
    rota = Rota(clock, clock.s, 1)
    rota.add(told, 0, name="e", interval_s=1.0)
    rota.turn()
    clock.s += 10.3
    rota.turn()
    assert told.dues == [(1000.0, 0), (1010.0, 9)]


def test_who_comes_later_has_missed_nothing_before() -> None:
    clock, told = FakeClock(), Told()
    rota = Rota(clock, clock.s, 1)
    clock.s += 100.5
    rota.add(told, 0, name="e", interval_s=1.0)
    assert rota.turn() == pytest.approx(0.5)
    clock.s += 0.5
    rota.turn()
    assert told.dues == [(1101.0, 0)]


async def test_a_rota_with_nobody_has_its_first_one_told() -> None:
    clock, told = SystemClock(), Told()
    rota = Rota(clock, clock.monotonic_s(), 1)
    running = asyncio.create_task(rota.run())
    await asyncio.sleep(0)  # it waits for somebody
    rota.add(told, 0, name="e", interval_s=0.01)
    await until(lambda: told.dues)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_since_when_a_device_fails_is_that_of_its_present_failures() -> None:
    breaker = Breaker()
    breaker.failed(1.0, 1_000_000)
    breaker.succeeded()
    opened = [breaker.failed(float(n), n * 1_000_000) for n in range(5, 5 + THRESHOLD)]
    assert opened == [False] * (THRESHOLD - 1) + [True]
    assert breaker.failing_since_us == 5_000_000


def test_a_turn_that_comes_while_the_last_cycle_is_under_way_is_missed_and_counted() -> None:
    reader = reader_of(make_profile({"x": {"modbus": {"address": 0}}}), Memory())
    poller = Poller(reader.device, lambda source, received, rows: True, Reachability(), reader.clock)
    before = metrics.cycles["missed"]
    poller.due(0, 0.0, 0)
    assert metrics.cycles["missed"] == before
    poller.due(0, 1.0, 0)
    poller.due(0, 4.0, 2)
    assert metrics.cycles["missed"] == before + 4


def test_a_block_that_comes_again_is_in_a_record_once() -> None:
    part = columns_of_points("e", 3)
    [record] = encode(join([part, part, part]))
    batch = decode_samples(record.value)
    assert list(batch.names) == ["e/p0", "e/p1", "e/p2"]
    assert batch.signal.tolist() == [0, 1, 2] * 3
    many = columns_of_points("e", 1_000)
    [one], [ten] = encode(many), encode(join([many] * 10))
    assert len(ten.value) < len(one.value) + 9 * ROW_BYTES * 1_000 * 1.01


def test_a_text_has_the_time_of_its_own_answer_and_what_was_learned_goes_with_its_cycle() -> None:
    text: dict[str, Any] = {"kind": "text", "modbus": {"address": 200, "type": "string", "length": 2}}
    event = Event("e", NOW_US, "vigil", "plan-learned", True)
    both: dict[str, Any] = {"x": {"modbus": {"address": 0}}, "t": text}
    for points, payloads in ((both, [b"\0\1", b"abcd"]), ({"t": text}, [b"abcd"])):
        layout = layout_of(make_profile(points))
        frame = frame_of(layout, list(payloads))
        frame.events, frame.state = (event,), {"plan/e": "known"}
        decoded = layout.decode([frame])
        assert decoded.texts == [("e", "t", "abcd", NOW_US + len(payloads) - 1)]
        assert (decoded.events, decoded.state) == ([event], {"plan/e": "known"})
        assert len(decoded.columns) == len(payloads) - 1


def test_a_cycle_that_ends_after_its_poller_was_stopped_comes_to_nothing() -> None:
    taken: list[Any] = []

    def put(source: object, received: object, rows: int) -> bool:
        taken.append(received)
        return True

    reader = reader_of(make_profile({"x": {"modbus": {"address": 0}}}), Memory())
    for stopped in (False, True):
        poller = Poller(reader.device, put, Reachability(), reader.clock)
        poller.cycle(0)
        if stopped:
            poller.stop()
        reader.memory.work()
    assert len(taken) == 1


async def test_who_comes_while_everybody_sleeps_long_is_seen_within_a_second() -> None:
    class Sleeping(FakeClock):
        async def sleep(self, seconds: float) -> None:
            slept.append(seconds)
            self.s += seconds
            if len(slept) == 1:
                rota.add(soon, 0, name="e", interval_s=0.5)
            await asyncio.sleep(0)

    slept: list[float] = []
    clock, late, soon = Sleeping(), Told(), Told()
    rota = Rota(clock, clock.s, 1)
    rota.add(late, 0, name="e", interval_s=600.0)
    running = asyncio.create_task(rota.run())
    await until(lambda: len(slept) >= 5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert slept[0] == LOOK_S
    assert soon.dues[0][0] <= 1000.0 + LOOK_S + 0.5
