"""Escalators: running by the day, slowing when empty, stopped by their safety circuit.

Invariant: an escalator moves only in normal service or inspection, and its run time never falls.

Faults
    safety-circuit  code 61: stopped until the fault ends
    overspeed       code 62: 1.25 times the nominal speed
    reversal        code 63: it runs backwards for a moment, then stops
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from simulators.physics.fleet import Fleet, Float

SCHEME: Final = "gbt24476-2017"
CODES: Final = {"safety-circuit": "61", "overspeed": "62", "reversal": "63"}
ACCELERATION_MS2: Final = 0.15
CRAWL: Final = 0.4
"""Part of the nominal speed at which an empty escalator runs."""
REVERSAL_S: Final = 3.0


class Escalators(Fleet):
    """`count` escalators."""

    tick_s = 0.2
    kinds = ("safety-circuit", "overspeed", "reversal")

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        super().__init__(count, rng)
        self.nominal_ms = np.full(count, 0.5)
        self.up = rng.random(count) < 0.5
        self.speed_ms = self.nominal_ms.copy()
        self.empty_s = np.zeros(count)
        self.running_s = rng.uniform(1e6, 5e7, count)
        self.starts = rng.integers(1_000, 20_000, count)
        self.energy_kwh = self.running_s / 3600.0 * 4.0
        self.motor_c = rng.uniform(40.0, 50.0, count)
        self.handrail_percent = np.zeros(count)
        self.stopping_m = rng.uniform(0.35, 0.55, count)
        self._reversed_s = np.full(count, np.inf)

    def _tick(self) -> None:
        chance = self.rng.random((2, self.count))
        self.empty_s = np.where(chance[0] < 0.02, 0.0, self.empty_s + self.tick_s)
        self._reversed_s = self._reversed_s + self.tick_s
        moved = self.speed_ms > 0.0
        stopped = self.active["safety-circuit"] | (self.active["reversal"] & (self._reversed_s > REVERSAL_S))
        aim = np.where(self.empty_s > 20.0, CRAWL, 1.0) * self.nominal_ms
        aim = np.where(self.active["overspeed"], 1.25 * self.nominal_ms, aim)
        aim = np.where(stopped, 0.0, aim)
        step = ACCELERATION_MS2 * self.tick_s
        self.speed_ms = np.maximum(self.speed_ms + np.clip(aim - self.speed_ms, -8 * step, step), 0.0)
        self.running_s = self.running_s + (self.speed_ms > 0.0) * self.tick_s
        self.starts = self.starts + ((self.speed_ms > 0.0) & ~moved)
        load_kw = np.where(self.speed_ms > 0.0, np.where(self.empty_s > 20.0, 1.5, 5.0), 0.0)
        self.energy_kwh = self.energy_kwh + load_kw * self.tick_s / 3600.0
        self.motor_c = self.motor_c + (28.0 + 6.0 * load_kw - self.motor_c) * 2e-3 * self.tick_s
        self.handrail_percent = 1.0 + 0.6 * (chance[1] - 0.5)

    def _switched(self, unit: int, kind: str, on: bool) -> None:
        if kind == "reversal" and on:
            self._reversed_s[unit] = 0.0
        self._report(np.arange(self.count) == unit, SCHEME, CODES[kind], on=on)

    def age(self, days: float) -> None:
        """See Fleet."""
        self.running_s = self.running_s + days * 86_400.0
        self.starts = self.starts + round(days * 2_000)
        self.energy_kwh = self.energy_kwh + days * 24 * 5.0

    def readings(self) -> Mapping[str, Float]:
        """See Fleet."""
        moving = self.speed_ms > 0.0
        backwards = self.active["reversal"] & (self._reversed_s <= REVERSAL_S)
        direction = np.where(self.up != backwards, 1.0, 2.0)
        stopped = self.active["safety-circuit"] | self.active["reversal"]
        return {
            "service_mode": np.where(stopped & ~moving, 0.0, 1.0),
            "operation_status": moving.astype(np.float64),
            "operation_direction": np.where(moving, direction, 0.0),
            "speed": np.round(self.speed_ms, 3),
            "handrail_deviation": np.where(moving, np.round(self.handrail_percent, 2), 0.0),
            "motor_temperature": np.round(self.motor_c, 1),
            "stopping_distance": np.round(self.stopping_m, 2),
            "run_hours": np.round(self.running_s / 3600.0, 2),
            "start_count": self.starts.astype(np.float64),
            "energy": np.round(self.energy_kwh, 2),
        }
