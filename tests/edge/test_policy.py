"""The policy round drivers, on a clock that the test turns."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from edge.breaker import State
from edge.driver import Outcome, Reading
from edge.journal import Losses
from edge.losses import LossReport
from edge.mqtt import Listening
from edge.policy import Poller, Presence, Reachability
from telemetry.batch import SampleBatch
from tests.edge.build import NOW_US, batch_of


@dataclass
class TurnedClock:
    """Time passes when everybody sleeps: `turn` wakes the first who wants to."""

    s: float = 0.0
    speed: float = 1.0
    sleepers: list[tuple[float, int, asyncio.Future[None]]] = field(default_factory=list)
    slept: int = 0

    def now_us(self) -> int:
        return NOW_US + int(self.s * 1e6)

    def monotonic_s(self) -> float:
        return self.s

    async def sleep(self, seconds: float) -> None:
        self.slept += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self.sleepers, (self.s + seconds, self.slept, future))
        await future

    async def turn(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        at, _, future = heapq.heappop(self.sleepers)
        self.s = max(self.s, at)
        if not future.done():
            future.set_result(None)


@dataclass
class Scripted:
    """A driver that answers as told; a cycle takes `takes_s`."""

    clock: TurnedClock
    answers: Callable[[float], bool]
    intervals_s: Sequence[float] = (1.0,)
    takes_s: float = 0.0
    equipment: str = "e"
    endpoint: str = "test://"
    read_at: list[tuple[int, float]] = field(default_factory=list)

    async def read(self, group: int) -> Outcome:
        self.read_at.append((group, self.clock.s))
        well = self.answers(self.clock.s)
        self.clock.s += self.takes_s
        reading = Reading("e", batch_of("e", 1))
        return Outcome(reading, int(well), int(not well), () if well else ("holding 0+1: no answer",))

    def unreadable(self, time_us: int) -> list[SampleBatch]:
        return [batch_of("all-bad", 1) for _ in self.intervals_s]


def make(driver: Scripted) -> tuple[Poller, list[Reading], Reachability]:
    readings: list[Reading] = []
    reach = Reachability()

    def deliver(reading: Reading, done: object) -> bool:
        readings.append(reading)
        return True

    return Poller(driver, deliver, reach, driver.clock, 0.0), readings, reach


async def run_until(poller: Poller, clock: TurnedClock, end_s: float) -> None:
    task = asyncio.create_task(poller.run())
    while clock.s < end_s:
        await clock.turn()
        assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_polls_stay_on_their_grid_however_long_they_take() -> None:
    clock = TurnedClock()
    driver = Scripted(clock, lambda s: True, takes_s=0.3)
    await run_until(make(driver)[0], clock, 200)
    first = driver.read_at[0][1]
    assert [round(at - first, 6) for _, at in driver.read_at[:200]] == [float(n) for n in range(200)]


@dataclass
class Deaf(Scripted):
    """Swallows the first cancellation that meets it in a read, as pymodbus does when a connection comes just then."""

    swallowed: int = 0

    async def read(self, group: int) -> Outcome:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.swallowed += 1
            if self.swallowed > 1:
                raise
        return Outcome(Reading("e", batch_of("e", 1)), 1, 0, ())


async def test_a_poller_ends_though_its_driver_swallowed_the_cancellation() -> None:
    clock = TurnedClock()
    driver = Deaf(clock, lambda s: True, intervals_s=(1.0, 5.0))
    task = asyncio.create_task(make(driver)[0].run())
    for _ in range(2):
        await clock.turn()
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert driver.swallowed >= 1
    assert asyncio.all_tasks() == {asyncio.current_task()}, "none of its loops goes on"


async def test_a_silent_device_costs_one_probe_a_back_off_and_one_set_of_bad_samples() -> None:
    clock = TurnedClock()
    driver = Scripted(clock, lambda s: False)
    poller, readings, reach = make(driver)
    await run_until(poller, clock, 300)
    assert len(driver.read_at) < 20, "three, then probes at most every 30 s"
    assert [r.batch.names[0].partition("/")[0] for r in readings] == ["e", "e", "all-bad"]
    assert reach.since_us == {"e": NOW_US + int(driver.read_at[0][1] * 1e6)}, "since the first failure"


async def test_a_device_that_answers_again_is_read_whole_at_once() -> None:
    clock = TurnedClock()
    driver = Scripted(clock, lambda s: s > 50, intervals_s=(1.0, 600.0))
    poller, _, reach = make(driver)
    await run_until(poller, clock, 90)
    back = next(at for group, at in driver.read_at if at > 50 and group == 0)
    assert any(group == 1 and back <= at < back + 0.5 for group, at in driver.read_at), "the slow group did not wait"
    assert reach.since_us == {}
    assert poller.breaker.state is State.CLOSED


async def test_a_device_that_answers_every_third_time_is_never_called_unreachable() -> None:
    clock = TurnedClock()
    turn = iter(range(10**6))
    driver = Scripted(clock, lambda s: next(turn) % 3 == 2)
    poller, readings, reach = make(driver)
    await run_until(poller, clock, 60)
    assert reach.since_us == {}
    assert len(readings) == len(driver.read_at), "bad readings are told as long as it is not unreachable"


def test_an_mqtt_device_is_unreachable_by_its_last_will_or_when_it_is_silent() -> None:
    listening = Listening({"a": 30_000_000, "b": 30_000_000}, {"a": NOW_US, "b": NOW_US})
    assert listening.unreachable(NOW_US + 30_000_000) == {}
    listening.heard("a", NOW_US + 10_000_000, None, retained=False)
    assert listening.unreachable(NOW_US + 31_000_000) == {"b": NOW_US}
    listening.heard("a", NOW_US + 20_000_000, False, retained=True)
    assert listening.unreachable(NOW_US + 20_000_000) == {"a": NOW_US + 20_000_000}
    listening.heard("a", NOW_US + 21_000_000, None, retained=True)
    assert "a" in listening.unreachable(NOW_US + 21_000_000), "an old message says nothing about now"
    listening.heard("a", NOW_US + 22_000_000, True, retained=False)
    assert listening.unreachable(NOW_US + 22_000_000) == {}


def test_a_retained_message_is_no_sign_of_life() -> None:
    listening = Listening({"a": 30_000_000}, {"a": NOW_US})
    listening.heard("a", NOW_US + 20_000_000, None, retained=True)
    listening.heard("a", NOW_US + 20_000_000, True, retained=True)
    assert listening.unreachable(NOW_US + 31_000_000) == {"a": NOW_US}


def test_presence_joins_polled_and_pushed() -> None:
    class Pushing:
        endpoint = "mqtt://"

        async def run(self, deliver: object) -> None: ...

        def unreachable(self, now_us: int) -> dict[str, int]:
            return {"p": now_us}

    assert Presence(Reachability({"e": 1}), [Pushing()]).unreachable(7) == {"e": 1, "p": 7}


def test_losses_are_told_when_they_begin_while_they_grow_and_when_they_end() -> None:
    report = LossReport("edge-1")
    told = []
    for second in range(200):
        dropped = min(max(second - 9, 0), 31)
        losses = Losses(dropped_records=dropped, dropped_samples=dropped * 10)
        events = report.events(losses, float(second), NOW_US)
        told += [(second, e.code, e.on, e.attributes["dropped_samples"]) for e in events]
    assert told == [
        (10, "spool-dropped", True, 10),
        (20, "spool-dropped", True, 110),
        (30, "spool-dropped", True, 210),
        (40, "spool-dropped", True, 310),
        (100, "spool-dropped", False, 310),
    ]
