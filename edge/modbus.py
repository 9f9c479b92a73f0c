"""The Modbus driver: one equipment read by its plan over its endpoint's bus (edge.bus).

Invariant: what was read in a cycle is kept; the points of a request that failed are bad with its reason, and only those.
After GIVE_UP requests without an answer in a row the rest of the cycle is not tried: its points are bad as well. So are
those that a cycle still waits for when the equipment is read no more; they say nothing of the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import structlog

from edge import metrics
from edge.asking import Failure
from edge.bus import Bus
from edge.decode import Frame
from edge.driver import Outcome, Source
from edge.layouts import Layouts
from edge.learned import Learned, read_learned
from edge.plan import Request, limits_of, plan, poll_groups
from edge.read_plan import Plan as Plan
from edge.read_plan import Planner
from telemetry.clock import Clock
from telemetry.messages import VIGIL_SCHEME, Event
from telemetry.plant import Endpoint, Equipment
from telemetry.profile import ModbusPoint, Profile
from telemetry.quality import BAD_COMMS, BAD_CONFIG

log = structlog.get_logger()

GIVE_UP: Final = 2
STRIKES: Final = 2
"""So often in a row a long request must go unanswered, by a device that answers others, before it is halved."""
REFUSED_S: Final = 60.0
"""A point that the device refuses is asked for again so often: it may have been updated."""
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_REFUSALS: Final = frozenset({2, 3})
_NOT_TRIED: Final = Failure("not-tried", "")
_CUT: Final = Failure("cut", "not waited for: it is read no more")
_REFUSED: Final = Failure("refused-point", "refused by the device, asked again every minute", BAD_CONFIG)


@dataclass(slots=True, eq=False)
class Group:
    """Points read together, and the cycle that reads them: asks one request after another. An edge.lane.Asker."""

    device: ModbusDevice
    interval_s: float
    points: Mapping[str, ModbusPoint]
    plan: Plan
    busy: bool = False
    _at: int = 0
    _probe: bool = False
    _done: Callable[[Outcome], None] | None = None
    _payloads: list[bytes | None] = field(default_factory=list)
    _times_us: list[int] = field(default_factory=list)
    _failures: dict[int, Failure] = field(default_factory=dict)
    _silent: int = 0
    _begun_s: float | None = None
    _strikes: dict[Request, int] = field(default_factory=dict)
    _probed: bool = False
    """Whether the probe of this cycle was answered."""
    _again: bool = False
    """Whether this cycle asks for refused points."""
    _refused_s: float = 0.0
    """When they were asked for last."""
    _new_plan: Plan | None = None
    """From the next cycle on: what is under way goes on as it was begun."""

    def begin(self, done: Callable[[Outcome], None], *, probe: bool) -> bool:
        """See PollingDriver.begin."""
        if self.busy:
            return False
        # A device that has not answered lately is asked for one point first: long requests may be what it cannot.
        if self._new_plan is not None:
            self.plan, self._new_plan = self._new_plan, None
        at = -1 if probe and self.plan.probe is not None else 0
        self.busy, self._at, self._probe, self._done, self._silent = True, at, probe, done, 0
        self._payloads, self._times_us, self._begun_s, self._probed = [], [], None, False
        if self._failures:
            self._failures = {}
        if self.plan.has_refused:
            self._again = self._ask_refused()
            self._go_on()
        else:
            self._again = False
            self._ask()
        return True

    # ---- told by the lane

    def sent(self) -> None:
        """See Asker."""
        if self._begun_s is None:
            self._begun_s = self.device.clock.monotonic_s()

    def answered(self, payload: bytes, time_us: int, took_s: float) -> None:
        """See Asker."""
        device = self.device
        if device.bus.shared:
            device.bus.note(device.unit, took_s)
        self._silent = 0
        if self._at >= 0:
            self._payloads.append(payload)
            self._times_us.append(time_us)
        else:
            self._probed = True
        self._at += 1
        if self._at == len(self.plan.queries):
            self._finish()
        else:
            self._go_on()

    def failed(self, failure: Failure, time_us: int) -> None:
        """See Asker."""
        device = self.device
        if failure.answered:
            self._silent = 0
        else:
            if failure.outcome != "refused":
                device.bus.accuse(device.unit, failure.outcome)
            self._silent += 1
        if self._at < 0:
            self._probed, self._at = failure.answered, 0
            if failure.answered:  # an exception is a sign of life
                self._go_on()
                return
            self._silent = device.give_up
        self._fail(failure, time_us)
        if self._silent >= device.give_up:
            while self._at < len(self.plan.queries):
                self._fail(_NOT_TRIED, time_us)
        self._go_on()

    def overdue(self) -> None:
        """See Asker."""
        self.device.bus.overdue(self.device.unit)

    # ---- at the end

    def wind_up(self) -> bool:
        """See PollingDriver."""
        if self.busy and self._begun_s is None:
            self._leave()
        return self.busy

    def cut(self) -> None:
        """See PollingDriver."""
        if not self.busy:
            return
        if all(payload is None for payload in self._payloads):
            self._leave()
            return
        self.device.bus.leave(self)
        now_us = self.device.clock.now_us()
        while self._at < len(self.plan.queries):
            self._fail(_REFUSED if self.plan.refused[self._at] else _CUT, now_us)
        self._finish()

    def _leave(self) -> None:
        """The cycle comes to nothing."""
        self.device.bus.leave(self)
        self.busy, self._done = False, None

    # ---- the cycle

    def plan_anew(self) -> Plan:
        """Plans by what is known now; for a cycle that is under way nothing changes."""
        made = self.device.planner.plan(self.points)
        self._strikes.clear()
        if self.busy:
            self._new_plan = made
        else:
            self.plan, self._new_plan = made, None
        return made

    def _go_on(self) -> None:
        while 0 <= self._at < len(self.plan.queries) and self.plan.refused[self._at] and not self._again:
            self._fail(_REFUSED, self.device.clock.now_us())
        if self._at == len(self.plan.queries):
            self._finish()
        else:
            self._ask()

    def _ask(self) -> None:
        device, at = self.device, self._at
        if at < 0:
            assert self.plan.probe is not None  # noqa: S101
            device.bus.ask(self, self.plan.probe, device.timeout_s, probe=True)
        else:
            device.bus.ask(self, self.plan.queries[at], device.timeout_s, probe=self._probe)

    def _ask_refused(self) -> bool:
        """Whether it is time to ask for refused points. Always where there may be nothing else to ask a silent device."""
        now_s = self.device.clock.monotonic_s()
        if now_s - self._refused_s < REFUSED_S and not self._probe:
            return False
        self._refused_s = now_s
        return True

    def _fail(self, failure: Failure, time_us: int) -> None:
        self._failures[self._at] = failure
        self._payloads.append(None)
        self._times_us.append(time_us)
        self._at += 1

    def _finish(self) -> None:
        """The cycle is over: what was received goes to whoever began it."""
        done, self._done = self._done, None
        self.busy = False
        device, made = self.device, self.plan
        frame = Frame(device.equipment, made.block, self._payloads, self._times_us, None, (), NOTHING)
        if not self._failures and not self._again and not device.learned.doubtful and not device.learned.tried:
            if self._strikes:
                self._strikes.clear()
            outcome = Outcome(made.layout, frame, len(made.layout.points), len(made.queries), 0, (), self._begun_s)
        else:
            outcome = self._troubled(frame)
        if device.close_after_cycle:
            device.bus.rest()
        if done is not None:
            done(outcome)

    def _troubled(self, frame: Frame) -> Outcome:
        """The outcome of a cycle of which some requests failed, or of which something is to be learned."""
        made, failures = self.plan, self._failures
        frame.qualities = [failures[i].quality if i in failures else 0 for i in range(len(made.queries))]
        tried = {i: f for i, f in failures.items() if f not in (_NOT_TRIED, _REFUSED, _CUT)}
        answered = sum(payload is not None for payload in self._payloads) + sum(f.answered for f in tried.values())
        unanswered = sum(not f.answered for f in tried.values())
        faults = tuple(
            f"{made.requests[i].table} {made.requests[i].address}+{made.requests[i].count}: {why}"
            for i, f in failures.items()
            if (why := _REFUSED.why if made.refused[i] else f.why)
        )
        if _CUT not in failures.values() and self._learn(tried):
            frame.events, frame.state = self.device.relearned(frame.times_us[-1])
        return Outcome(made.layout, frame, len(made.layout.points), answered, unanswered, faults, self._begun_s)

    def _learn(self, tried: Mapping[int, Failure]) -> bool:
        """Whether something was learned of the device: its groups are planned anew."""
        learned, changed = self.device.learned, False
        for i, request in enumerate(self.plan.requests):
            failure = tried.get(i)
            if failure is None:
                if self._payloads[i] is not None:
                    self._strikes.pop(request, None)
                    if self.plan.refused[i]:
                        learned.accept(request, self.device.points)
                        changed = True
            elif failure.exception in _REFUSALS and not self.plan.refused[i]:
                changed |= learned.split(request, self.points)
                if set(request.points) <= learned.refused:
                    learned.mend(self.device.whole(self, request), self.device.points)
            elif failure.outcome == "timeout" and self._short_is_answered():
                self._strikes[request] = self._strikes.get(request, 0) + 1
                if self._strikes[request] >= STRIKES:
                    changed |= learned.shorten(request)
        if not changed and (learned.doubtful or learned.tried):
            answered = [r for r, payload in zip(self.plan.requests, self._payloads, strict=True) if payload is not None]
            changed = learned.doubt(answered, self.points, all_known=not tried)
        return changed

    def _short_is_answered(self) -> bool:
        """Whether the device has answered lately, so that a time-out is not its silence."""
        return self._probed or any(payload is not None for payload in self._payloads)


@dataclass(slots=True, eq=False)
class ModbusDevice:
    """Reads one equipment. See edge.driver.PollingDriver."""

    equipment: str
    endpoint: str
    unit: int
    bus: Bus
    profile: Profile
    planner: Planner
    timeout_s: float
    clock: Clock
    fingerprint: str
    learned: Learned
    kept: dict[str, str]
    """What is known of all equipment, as it is journaled; what this one learns is added."""
    close_after_cycle: bool = False
    groups: list[Group] = field(default_factory=list)

    @property
    def intervals_s(self) -> Sequence[float]:
        """See PollingDriver."""
        return [group.interval_s for group in self.groups]

    @property
    def points(self) -> dict[str, ModbusPoint]:
        """All that is read of it."""
        return {name: point for group in self.groups for name, point in group.points.items()}

    @property
    def give_up(self) -> int:
        """After so many requests without an answer the rest of a cycle is not tried."""
        return GIVE_UP if self.bus.main.framing.transactions else 1

    def begin(self, group: int, done: Callable[[Outcome], None], *, probe: bool = False) -> bool:
        """See PollingDriver."""
        if probe and not self.bus.may_probe():
            return False
        return self.groups[group].begin(done, probe=probe)

    def unreadable(self, time_us: int) -> list[tuple[Source, Any, int]]:
        """See PollingDriver."""
        found: list[tuple[Source, Any, int]] = []
        for group in self.groups:
            made = group.plan
            requests = len(made.requests)
            bad = [BAD_COMMS] * requests
            frame = Frame(self.equipment, made.block, [None] * requests, [time_us] * requests, bad)
            found.append((made.layout, frame, len(made.layout.points)))
        return found

    def wind_up(self) -> bool:
        """See PollingDriver."""
        return any([group.wind_up() for group in self.groups])

    def cut(self) -> None:
        """See PollingDriver."""
        for group in self.groups:
            group.cut()

    def whole(self, group: Group, part: Request) -> Request:
        """The request that would hold `part`, had nothing been learned."""
        return next(r for r in plan(group.points, self.planner.limits) if set(part.points) <= set(r.points))

    def relearned(self, time_us: int) -> tuple[tuple[Event, ...], dict[str, str]]:
        """Plans anew by what was learned; returns the event that tells of it, and what is to be kept."""
        learned, plans = self.learned, [group.plan_anew() for group in self.groups]
        shown = {
            "requests": sum(len(made.requests) for made in plans),
            "breaks": [f"{table} {address}" for table, address in sorted(learned.breaks)],
            "refused": sorted(learned.refused),
            "longest": learned.longest or 0,
        }
        metrics.LEARNED.inc()
        log.info("read plan changed by what was learned", equipment=self.equipment, **shown)
        event = Event(self.equipment, time_us, VIGIL_SCHEME, "plan-learned", True, shown)
        state = {plan_key(self.equipment): learned.spell(self.fingerprint)}
        self.kept.update(state)
        return (event,), state


def plan_key(equipment: str) -> str:
    """Where what was learned of an equipment is kept."""
    return f"plan/{equipment}"


def make_device(
    equipment: Equipment,
    bus: Bus,
    clock: Clock,
    endpoint: Endpoint,
    *,
    layouts: Layouts | None = None,
    state: dict[str, str] | None = None,
) -> ModbusDevice:
    """The driver of one equipment. Raises ValueError for a point that no request can read."""
    profile = equipment.profile
    quirks = endpoint.quirks(profile.modbus)
    layouts = layouts or Layouts()
    fingerprint = layouts.fingerprint(profile, endpoint)
    kept = {} if state is None else state
    learned = read_learned(kept.get(plan_key(equipment.id)), fingerprint)
    device = ModbusDevice(
        equipment.id,
        equipment.address.endpoint,
        equipment.address.unit,
        bus,
        profile,
        Planner(equipment.id, equipment.address.unit, profile, limits_of(quirks), layouts, learned),
        endpoint.timeout_s or profile.timeout_s,
        clock,
        fingerprint,
        learned,
        kept,
        quirks.close_after_cycle,
    )
    for interval_s, points in sorted(poll_groups(equipment, base=quirks.address_base).items()):
        group = Group(device, interval_s, points, device.planner.plan(points), _refused_s=clock.monotonic_s())
        device.groups.append(group)
    return device
