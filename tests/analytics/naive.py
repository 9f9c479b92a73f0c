"""Oracles in plain loops: one sample at a time, written from the rules' text and not from the kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from analytics.rules import Clause, Rule
from telemetry.profile import Comparison

S = 1_000_000


@dataclass
class NaiveLatch:
    on_us: int
    off_us: int
    active: bool = False
    pending: int | None = None
    ending: int | None = None
    onset: int = 0
    said: str = "unknown"
    last: int = -(2**62)
    out: list[tuple[bool, int, int]] = field(default_factory=list)

    def pass_time(self, now: int) -> None:
        if self.pending is not None and self.said == "true" and now >= self.pending + self.on_us:
            self.raise_at(self.pending + self.on_us)
        elif self.ending is not None and self.said == "false" and now >= self.ending + self.off_us:
            self.clear_at(self.ending + self.off_us)

    def raise_at(self, now: int) -> None:
        assert self.pending is not None
        self.active, self.onset, self.pending = True, self.pending, None
        self.last = max(self.last, now)
        self.out.append((True, self.onset, now))

    def clear_at(self, now: int) -> None:
        self.active, self.ending = False, None
        self.last = max(self.last, now)
        self.out.append((False, self.onset, now))

    def say(self, said: str, now: int) -> None:
        now = max(now, self.last)
        self.pass_time(now)
        self.last, self.said = now, said
        if said == "unknown":
            return
        if not self.active:
            if said != "true":
                self.pending = None
                return
            if self.pending is None:
                now = max(now, self.onset + 1)
                self.pending = now
            if now >= self.pending + self.on_us:
                self.raise_at(now)
            return
        if said != "false":
            self.ending = None
            return
        self.ending = now if self.ending is None else self.ending
        if now >= self.ending + self.off_us:
            self.clear_at(now)


def say(clause: Clause, value: float, known: bool) -> str:
    if not known or math.isnan(value):
        return "unknown"
    if clause.comparison is Comparison.EQUALS:
        return "true" if value == clause.limit else "false"
    if clause.comparison is Comparison.NOT_EQUALS:
        return "true" if value != clause.limit else "false"
    if clause.comparison is Comparison.ABOVE:
        if value > clause.limit:
            return "true"
        return "between" if value > clause.limit - clause.hysteresis else "false"
    if value < clause.limit:
        return "true"
    return "between" if value < clause.limit + clause.hysteresis else "false"


class NaiveRule:
    """One rule, one reading of the equipment (all its samples of one time) at a time."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.latch = NaiveLatch(round(rule.on_s * S), round(rule.off_s * S))
        self.terms = ["unknown"] * len(rule.clauses)

    def read(self, time_us: int, samples: list[tuple[int, float, bool]]) -> None:
        """samples: (signal, value, known), all of one time."""
        touched = False
        for signal, value, known in samples:
            for i, clause in enumerate(self.rule.clauses):
                if clause.signal == signal:
                    touched = True
                    said = say(clause, value, known)
                    if not (clause.role == 2 and said == "unknown"):
                        self.terms[i] = said
        if touched:
            self.latch.say(self.together(), time_us)

    def together(self) -> str:
        must = [t for t, c in zip(self.terms, self.rule.clauses, strict=True) if c.role == 1]
        unless = [t for t, c in zip(self.terms, self.rule.clauses, strict=True) if c.role == 2]
        if "true" in unless or "false" in must:
            return "false"
        if "unknown" in must:
            return "unknown"
        return "between" if "between" in must else "true"


@dataclass
class NaiveLevel:
    """The level kernel's text, in scalars."""

    fast_s: float
    slow_s: float
    threshold: float
    min_spread: float
    warmup_s: float
    count: int = 0
    age: float = 0.0
    base: float = 0.0
    variance: float = 0.0
    fast: float = 0.0
    deviation: float = 0.0
    hot: float = 0.0

    def step(self, x: float, dt: float) -> float:
        if self.count == 0:
            self.base = self.fast = x
        floor = max(self.min_spread, 1e-9 * abs(self.base)) + 1e-9
        s = max(math.sqrt(self.variance), floor)
        w_fast = 1 - math.exp(-dt / self.fast_s)
        r = x - self.base
        free = self.count < 8
        bound = max(6 * s, 2 * self.threshold * max(math.sqrt(self.deviation), floor))
        self.fast += w_fast * (self.base + (r if free else min(max(r, -bound), bound)) - self.fast)
        d = self.fast - self.base
        noise = 0.65 * math.sqrt(self.variance * w_fast / (2 - w_fast))
        spread = max(math.sqrt(self.deviation), noise, floor)
        ready = self.age >= self.warmup_s and self.count >= 30
        z = d / spread if ready else 0.0
        hot = abs(z) > self.threshold
        capped = min(dt, 0.1 * self.slow_s)
        if not hot:
            w = 1 - math.exp(-capped / self.slow_s)
            if not ready:
                w = max(w, 1 / (self.count + 1))
            step = r if free else min(max(r, -3 * s), 3 * s)
            small = d if free else min(max(d, -3 * spread), 3 * spread)
            self.base += w * step
            self.variance = (1 - w) * (self.variance + w * step * step)
            self.deviation += w * (small * small - self.deviation)
            self.age += capped
        self.count += 1
        self.hot = self.hot + capped if hot else 0.0
        if self.hot > 4 * self.slow_s:
            self.count, self.age, self.variance, self.deviation, self.hot = 0, 0.0, 0.0, 0.0, 0.0
        return z
