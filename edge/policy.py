"""What is done with drivers, once for all of them: when a device is asked, what happens when it does not answer, what
becomes of what it says. The whole of it is in `Poller.cycle` and `Poller._over`.

Invariants: a device is asked at its scheduled times and no others; one that is silent is asked as its breaker permits
and delays nobody else; its silence is journaled once (one bad sample of every point, when the breaker opens) and from
then on told by heartbeats; when it answers again, all its points are read at once. What was read of a cycle that is under
way when it is read no more is put before `stop` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from edge import metrics
from edge.breaker import Breaker, State
from edge.driver import Outcome, PollingDriver, PushingDriver, Put
from edge.schedule import GRID_S, Rota
from telemetry.clock import Clock

log = structlog.get_logger()


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


@dataclass(slots=True, eq=False)
class Poller:
    """Asks one equipment when it is due. See edge.schedule.Due."""

    driver: PollingDriver
    put: Put
    reach: Reachability
    clock: Clock
    breaker: Breaker = field(default_factory=Breaker)
    _faults: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _due_s: dict[int, float] = field(default_factory=dict)
    _overs: dict[int, Callable[[Outcome], None]] = field(default_factory=dict)
    _stopped: bool = False

    def join(self, rota: Rota, *, grid_s: float = GRID_S) -> None:
        """Takes its turns from now on."""
        for group, interval_s in enumerate(self.driver.intervals_s):
            rota.add(self, group, name=self.driver.equipment, interval_s=interval_s, grid_s=grid_s)

    def still_silent(self, since_us: int) -> None:
        """It was silent before its settings changed, and is told as such until it answers; it is asked at its first turn."""
        self.breaker.reopen(self.clock.monotonic_s(), since_us)
        self.reach.since_us[self.driver.equipment] = since_us

    def wind_up(self) -> bool:
        """Begins nothing more. Returns whether a cycle is under way that is worth waiting for: it has answered lately."""
        self._stopped = True
        return self.driver.wind_up() and self.breaker.state is State.CLOSED

    def stop(self) -> int | None:
        """Puts what was read in cycles under way, and nothing later. Returns since when it has been silent, if it is, µs."""
        self._stopped = True
        self.driver.cut()
        return self.reach.since_us.pop(self.driver.equipment, None)

    def due(self, group: int, due_s: float, missed: int) -> None:
        """See edge.schedule.Due."""
        if missed:
            metrics.cycles["missed"] += missed
        self._due_s[group] = due_s
        self.cycle(group)

    def cycle(self, group: int) -> None:
        """One cycle: ask if the breaker permits."""
        if self._stopped:
            return
        probe = False
        if self.breaker.state is not State.CLOSED:
            if not self.breaker.permits(self.clock.monotonic_s()):
                metrics.cycles["skipped"] += 1
                return
            probe = self.breaker.state is State.HALF_OPEN
        over = self._overs.get(group) or self._overs.setdefault(group, partial(self._over, group))
        if not self.driver.begin(group, over, probe=probe):
            if probe:
                self.breaker.put_off()
            metrics.cycles["skipped" if probe else "missed"] += 1

    def _over(self, group: int, outcome: Outcome) -> None:
        """A cycle is over: put what came, mind how the device behaved."""
        breaker = self.breaker
        if outcome.faults or self._faults or breaker.failures or breaker.state is not State.CLOSED:
            self._unusual(group, outcome)
            return
        self._time(group, outcome)
        metrics.cycles["ok"] += 1
        self.put(outcome.source, outcome.received, outcome.rows)

    def _unusual(self, group: int, outcome: Outcome) -> None:
        """A cycle is over, and this one or one before it was not without faults."""
        self._note(group, outcome)
        if outcome.answered:
            self.put(outcome.source, outcome.received, outcome.rows)
            if self.breaker.succeeded():
                self._recovered(group)
            return
        opened = any([self._failed() for _ in range(outcome.unanswered)])
        if opened:
            self._unreachable(outcome)
        elif self.breaker.state is State.CLOSED:
            self.put(outcome.source, outcome.received, outcome.rows)

    def _failed(self) -> bool:
        return self.breaker.failed(self.clock.monotonic_s(), self.clock.now_us())

    def _unreachable(self, outcome: Outcome) -> None:
        equipment, now_us = self.driver.equipment, self.clock.now_us()
        self.reach.lost(equipment, self.breaker.failing_since_us or now_us, outcome.faults)
        for source, received, rows in self.driver.unreadable(now_us):
            self.put(source, received, rows)

    def _recovered(self, group: int) -> None:
        """The rest of its points is read at once, not when a slow schedule comes round."""
        self.reach.back(self.driver.equipment)
        for other in range(len(self.driver.intervals_s)):
            if other != group and self.breaker.state is State.CLOSED:
                self.cycle(other)

    def _time(self, group: int, outcome: Outcome) -> None:
        due_s, begun_s = self._due_s.pop(group, None), outcome.begun_s
        if due_s is not None and begun_s is not None:
            metrics.lateness.note(begun_s - due_s if begun_s > due_s else 0.0)

    def _note(self, group: int, outcome: Outcome) -> None:
        """Counts the cycle, and logs its faults when they change."""
        self._time(group, outcome)
        metrics.cycles["ok" if not outcome.faults else "partial" if outcome.answered else "failed"] += 1
        if outcome.faults != self._faults.get(group, ()):
            if outcome.faults:
                self._faults[group] = outcome.faults
                log.warning("requests failed", equipment=self.driver.equipment, faults=list(outcome.faults))
            else:
                del self._faults[group]
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
