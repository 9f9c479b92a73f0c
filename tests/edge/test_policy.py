"""The policy round drivers, on a clock that the test turns."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from structlog.testing import capture_logs

from edge.breaker import State
from edge.driver import Outcome, Source
from edge.losses import Losses, LossReport
from edge.policy import Poller, Presence, Reachability
from edge.schedule import Rota
from tests.edge.build import NOW_US
from tests.edge.sources import Given

SOURCE = Given()


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
    probes: list[float] = field(default_factory=list)
    busy: dict[int, asyncio.Task[None]] = field(default_factory=dict)

    def begin(self, group: int, done: Callable[[Outcome], None], *, probe: bool = False) -> bool:
        if group in self.busy:
            return False
        self.read_at.append((group, self.clock.s))
        if probe:
            self.probes.append(self.clock.s)
        well, begun_s = self.answers(self.clock.s), self.clock.s
        faults = () if well else ("holding 0+1: no answer",)
        outcome = Outcome(SOURCE, "read", 1, int(well), int(not well), faults, begun_s)
        if self.takes_s:
            self.busy[group] = asyncio.create_task(self._later(group, done, outcome))
        else:
            done(outcome)
        return True

    async def _later(self, group: int, done: Callable[[Outcome], None], outcome: Outcome) -> None:
        await self.clock.sleep(self.takes_s)
        del self.busy[group]
        done(outcome)

    def wind_up(self) -> bool:
        return bool(self.busy)

    def cut(self) -> None:
        for task in self.busy.values():
            task.cancel()
        self.busy.clear()

    def unreadable(self, time_us: int) -> list[tuple[Source, Any, int]]:
        return [(SOURCE, "all bad", 1) for _ in self.intervals_s]


@dataclass
class Made:
    """A poller, what it puts, and its rota."""

    poller: Poller
    put: list[str]
    reach: Reachability
    rota: Rota


def make(driver: Scripted) -> Made:
    came: list[str] = []
    reach = Reachability()

    def put(source: Source, received: Any, rows: int) -> bool:
        came.append(received)
        return True

    poller = Poller(driver, put, reach, driver.clock)
    rota = Rota(driver.clock, 0.0, 1)
    poller.join(rota)
    return Made(poller, came, reach, rota)


async def run_until(made: Made, clock: TurnedClock, end_s: float) -> None:
    task = asyncio.create_task(made.rota.run())
    while clock.s < end_s:
        await clock.turn()
        assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_polls_stay_on_their_grid_however_long_they_take() -> None:
    clock = TurnedClock()
    driver = Scripted(clock, lambda s: True, takes_s=0.3)
    await run_until(make(driver), clock, 200)
    first = driver.read_at[0][1]
    assert [round(at - first, 6) for _, at in driver.read_at[:200]] == [float(n) for n in range(200)]


async def test_a_cycle_that_takes_longer_than_its_interval_is_not_begun_beside_itself() -> None:
    clock = TurnedClock()
    driver = Scripted(clock, lambda s: True, takes_s=2.5)
    made = make(driver)
    await run_until(made, clock, 30)
    times = [at for _, at in driver.read_at]
    assert [round(b - a, 6) for a, b in pairwise(times)] == [3.0] * (len(times) - 1), "on its grid, each third turn"
    assert len(made.put) >= 9


async def test_what_is_under_way_when_a_poller_stops_comes_to_nothing() -> None:
    """Of which nothing was read: it puts nothing, begins nothing, and calls nobody unreachable."""
    clock = TurnedClock()
    driver = Scripted(clock, lambda s: False, intervals_s=(1.0, 5.0), takes_s=0.4)
    made = make(driver)
    await run_until(made, clock, 2.5)
    made.reach.lost("e", NOW_US, ())
    await until_busy(driver, made, clock)
    shown, read = len(made.put), len(driver.read_at)
    assert made.poller.stop() == NOW_US, "since when it was silent"
    assert not driver.busy
    await run_until(made, clock, clock.s + 60)
    assert (len(made.put), len(driver.read_at)) == (shown, read)
    assert made.reach.since_us == {}


async def until_busy(driver: Scripted, made: Made, clock: TurnedClock) -> None:
    """Turns the clock until a cycle is under way."""
    task = asyncio.create_task(made.rota.run())
    while not driver.busy:
        await clock.turn()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_who_joins_while_others_are_polled_takes_turns_from_then_on_and_moves_nobody() -> None:
    clock = TurnedClock()
    first, second = (Scripted(clock, lambda s: True, equipment=name) for name in ("e1", "e2"))
    made = make(first)
    await run_until(made, clock, 10.5)
    Poller(second, lambda source, received, rows: True, made.reach, clock).join(made.rota)
    await run_until(made, clock, 30)
    times = [at for _, at in first.read_at]
    assert {round(b - a, 6) for a, b in pairwise(times)} == {1.0}
    joined = [at for _, at in second.read_at]
    assert 10.0 <= joined[0] <= 11.5
    assert {round(b - a, 6) for a, b in pairwise(joined)} == {1.0}


async def test_a_silent_device_costs_one_probe_a_back_off_and_one_set_of_bad_samples() -> None:
    clock = TurnedClock()
    driver = Scripted(clock, lambda s: False)
    made = make(driver)
    await run_until(made, clock, 300)
    assert len(driver.read_at) < 20, "three, then probes at most every 30 s"
    assert driver.probes == [at for _, at in driver.read_at[3:]], "which are known for what they are"
    assert made.put == ["read", "read", "all bad"]
    assert made.reach.since_us == {"e": NOW_US + int(driver.read_at[0][1] * 1e6)}, "since the first failure"


async def test_a_device_that_answers_again_is_read_whole_at_once() -> None:
    clock = TurnedClock()
    driver = Scripted(clock, lambda s: s > 50, intervals_s=(1.0, 600.0))
    made = make(driver)
    await run_until(made, clock, 90)
    back = next(at for group, at in driver.read_at if at > 50 and group == 0)
    assert any(group == 1 and back <= at < back + 0.5 for group, at in driver.read_at), "the slow group did not wait"
    assert made.reach.since_us == {}
    assert made.poller.breaker.state is State.CLOSED


async def test_a_device_that_answers_every_third_time_is_never_called_unreachable() -> None:
    clock = TurnedClock()
    turn = iter(range(10**6))
    driver = Scripted(clock, lambda s: next(turn) % 3 == 2)
    made = make(driver)
    await run_until(made, clock, 60)
    assert made.reach.since_us == {}
    assert len(made.put) == len(driver.read_at), "bad readings are told as long as it is not unreachable"


def test_presence_joins_polled_and_pushed() -> None:
    class Pushing:
        endpoint = "mqtt://"

        async def run(self, put: object) -> None: ...

        def unreachable(self, now_us: int) -> dict[str, int]:
            return {"p": now_us}

    assert Presence(Reachability({"e": 1}), [Pushing()]).unreachable(7) == {"e": 1, "p": 7}


def test_losses_are_told_when_they_begin_while_they_grow_and_when_they_end() -> None:
    report = LossReport("edge-1")
    told = []
    with capture_logs() as said:
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
    assert [(line["log_level"], line["code"], line["dropped_samples"]) for line in said] == [
        ("warning", "spool-dropped", 10),
        ("info", "spool-dropped", 310),
    ]
