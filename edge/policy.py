"""What is done with drivers, once for all of them: when a device is asked, what happens when it does not answer, what
becomes of a reading. The whole of it is in `Poller.cycle`.

Invariants: a device is asked at its scheduled times and no others; one that is silent is asked as its breaker permits
and delays nobody else; its silence is journaled once (one bad sample of every point, when the breaker opens) and from
then on told by heartbeats; when it answers again, all its points are read at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from edge import metrics
from edge.breaker import Breaker, State
from edge.codes import Changes
from edge.driver import Deliver, Outcome, PollingDriver, PushingDriver, Reading
from edge.journal import Journal
from edge.schedule import Schedule, phase_of
from telemetry.clock import Clock
from telemetry.service import cancel_all

log = structlog.get_logger()


@dataclass(slots=True)
class Intake:
    """Where readings of all drivers come in: code and string points become events, then it is journaled."""

    journal: Journal
    changes: Mapping[str, Changes]

    def deliver(self, reading: Reading, done: Callable[[], None] | None = None) -> bool:
        """See edge.driver.Deliver."""
        changes = self.changes[reading.equipment]
        before = dict(changes.last)
        events, state = changes.events(reading)
        if events:
            reading = replace(reading, events=(*reading.events, *events), state=state)
        if self.journal.put(reading, done):
            return True
        changes.last = before
        return False


@dataclass(slots=True)
class Reachability:
    """Polled equipment that does not answer → since when (µs). Logs and counts the transitions."""

    since_us: dict[str, int] = field(default_factory=dict)

    def lost(self, equipment: str, since_us: int, why: Sequence[str]) -> None:
        """The equipment does not answer."""
        self.since_us[equipment] = since_us
        log.warning("equipment unreachable", equipment=equipment, why=list(why))

    def back(self, equipment: str) -> None:
        """The equipment answers again."""
        if self.since_us.pop(equipment, None) is not None:
            log.info("equipment answers again", equipment=equipment)


@dataclass(slots=True)
class Poller:
    """Asks one equipment on its schedule."""

    driver: PollingDriver
    deliver: Deliver
    reach: Reachability
    clock: Clock
    origin_s: float
    """Monotonic time that all schedules are counted from."""
    breaker: Breaker = field(default_factory=Breaker)
    _faults: dict[int, tuple[str, ...]] = field(default_factory=dict)

    async def run(self) -> None:
        """Works until cancelled: one loop for each group of points.

        Not a task group: that cancels once, and pymodbus can swallow it when a connection comes at that very moment.
        """
        groups = [asyncio.create_task(self._keep(group)) for group in range(len(self.driver.intervals_s))]
        try:
            await asyncio.gather(*groups)
        finally:
            await cancel_all(groups)

    async def _keep(self, group: int) -> None:
        interval_s = self.driver.intervals_s[group]
        origin_s = self.origin_s + phase_of(self.driver.equipment, interval_s)
        schedule = Schedule(interval_s, origin_s)
        while True:
            await self.clock.sleep(max(schedule.due_s - self.clock.monotonic_s(), 0.0))
            due_s, now_s = schedule.due_s, self.clock.monotonic_s()
            missed = schedule.begin(now_s)
            metrics.LATENESS.observe(max(now_s - due_s, 0.0))
            if missed:
                metrics.MISSED.inc(missed)
            await self.cycle(group)

    async def cycle(self, group: int) -> None:
        """One cycle: ask if the breaker permits, deliver what came, mind how the device behaved."""
        if not self.breaker.permits(self.clock.monotonic_s()):
            metrics.CYCLES.labels("skipped").inc()
            return
        outcome = await self.driver.read(group)
        self._note(group, outcome)
        if outcome.answered:
            self.deliver(outcome.reading, None)
            if self.breaker.succeeded():
                await self._recovered(group)
            return
        opened = any([self._failed() for _ in range(outcome.unanswered)])
        if opened:
            self._unreachable(outcome)
        elif self.breaker.state is State.CLOSED:
            self.deliver(outcome.reading, None)

    def _failed(self) -> bool:
        return self.breaker.failed(self.clock.monotonic_s(), self.clock.now_us())

    def _unreachable(self, outcome: Outcome) -> None:
        equipment, now_us = self.driver.equipment, self.clock.now_us()
        self.reach.lost(equipment, self.breaker.failing_since_us or now_us, outcome.faults)
        for batch in self.driver.unreadable(now_us):
            self.deliver(Reading(equipment, batch), None)

    async def _recovered(self, group: int) -> None:
        """The rest of its points is read at once, not when a slow schedule comes round."""
        self.reach.back(self.driver.equipment)
        for other in range(len(self.driver.intervals_s)):
            if other != group and self.breaker.state is State.CLOSED:
                await self.cycle(other)

    def _note(self, group: int, outcome: Outcome) -> None:
        """Counts the cycle, and logs its faults when they change."""
        worked = "ok" if not outcome.faults else "partial" if outcome.answered else "failed"
        metrics.CYCLES.labels(worked).inc()
        if outcome.faults != self._faults.get(group, ()):
            self._faults[group] = outcome.faults
            if outcome.faults:
                log.warning("requests failed", equipment=self.driver.equipment, faults=list(outcome.faults))
            else:
                log.info("all requests answered", equipment=self.driver.equipment)


@dataclass(slots=True)
class Presence:
    """Who is unreachable, over all drivers: what the heartbeat says."""

    reach: Reachability
    pushing: Sequence[PushingDriver]

    def unreachable(self, now_us: int) -> dict[str, int]:
        """Equipment → since when (µs)."""
        found = dict(self.reach.since_us)
        for driver in self.pushing:
            found.update(driver.unreachable(now_us))
        return found
