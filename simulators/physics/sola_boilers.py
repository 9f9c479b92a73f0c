"""Hot-water boilers behind a SOLA burner control: the burner's sequence and a thermal model of the water.

The sequence: standby, pre-purge, pre-ignition, pilot, main flame, run, post-purge; lockout on a failure, until it is
reset. Invariants: a flame only from pilot to run; cycles and run time never fall.

Water: C dT/dt = P·rate·η − demand − loss; the firing rate follows the outlet temperature (proportional-integral); the
stack runs above the water by what the rate, and fouling, add.

Faults
    ignition-failed    the next ignition makes no flame: lockout 109
    flame-lost         the flame goes out while running: lockout 106
    high-outlet        the rate stays at its maximum and the demand falls away: outlet above 95 °C, at 103 °C
                       lockout 79 (outlet high limit)
    stack-drift        fouling: the stack temperature creeps up by 60 K at the same rate
    sensor-lost        the inlet sensor is not available (0x8FFF)
    short-cycling      the demand is so small that the burner starts again and again: hold code 61
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from simulators.physics.fleet import Fleet, Float, Mask, noise

STANDBY, PREPURGE, PREIGNITION, PILOT, MAIN_FLAME, RUN, POSTPURGE, LOCKOUT = range(8)
SEQUENCE_STATE: Final = np.array([2, 5, 7, 9, 10, 12, 13, 14], np.float64)
"""Register 0x0021 for each phase."""
BURNER_STATUS: Final = np.array([48, 50, 50, 50, 50, 50, 51, 1], np.float64)
"""Register 0x0020 for each phase."""
DURATION_S: Final = np.array([np.inf, 8.0, 3.0, 4.0, 3.0, np.inf, 10.0, np.inf])
FOLLOWING: Final = np.array([PREPURGE, PREIGNITION, PILOT, MAIN_FLAME, RUN, POSTPURGE, STANDBY, LOCKOUT])

LOCKOUT_IGNITION, LOCKOUT_FLAME, LOCKOUT_HIGH_LIMIT = 109.0, 106.0, 79.0
HOLD_ANTI_SHORT_CYCLE, HOLD_NONE = 61.0, 0.0
DEMAND_CENTRAL_HEAT: Final = 2.0
ANTI_SHORT_CYCLE_S: Final = 15.0
HYSTERESIS_K: Final = 4.0
HIGH_LIMIT_C: Final = 103.0
RATED_KW: Final = 350.0
EFFICIENCY: Final = 0.91
CAPACITY_KJ_K: Final = 2100.0
LOSS_KW_K: Final = 0.05
ROOM_C: Final = 22.0
FLOW_KW_K: Final = 16.0
FOULING_K: Final = 60.0
FOULING_S: Final = 120.0
FAN_RPM: Final = 5200.0


class SolaBoilers(Fleet):
    """`count` hot-water boilers."""

    tick_s = 0.5
    kinds = ("ignition-failed", "flame-lost", "high-outlet", "stack-drift", "sensor-lost", "short-cycling")

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        super().__init__(count, rng)
        self.phase = np.full(count, RUN)
        self.phase_s = np.zeros(count)
        self.setpoint_c = rng.choice([72.0, 75.0, 78.0], count)
        self.outlet_c = self.setpoint_c + noise(rng, count, 1.0)
        self.stack_c = self.outlet_c + 55.0
        self.rate = rng.uniform(0.4, 0.6, count)
        self.demand_kw = rng.uniform(120.0, 200.0, count)
        self.fouling = np.zeros(count)
        self.lockout = np.zeros(count)
        self.hold_s = np.zeros(count)
        self.cycles = rng.integers(60_000, 400_000, count)
        self.run_s = self.cycles * rng.uniform(400.0, 900.0, count)
        self._integral = self.rate.copy()
        self._jitter = np.zeros((4, count))

    @property
    def flame(self) -> Mask:
        """Which burners burn."""
        return (self.phase >= PILOT) & (self.phase <= RUN)

    def _tick(self) -> None:
        self._jitter = self.rng.normal(0.0, 1.0, (4, self.count))
        self._sequence()
        self._control()
        self._heat()

    def _sequence(self) -> None:
        active = self.active
        self.phase_s = self.phase_s + self.tick_s
        self.hold_s = np.maximum(self.hold_s - self.tick_s, 0.0)
        cold = self.outlet_c < self.setpoint_c - HYSTERESIS_K
        wanted = cold | active["ignition-failed"] | active["flame-lost"] | active["high-outlet"]
        too_hot = (self.outlet_c > self.setpoint_c + HYSTERESIS_K) & ~active["high-outlet"]
        start = (self.phase == STANDBY) & wanted & (self.hold_s <= 0.0) & (self.lockout == 0.0)
        stop = (self.phase == RUN) & (too_hot | (active["ignition-failed"] & (self.phase_s > 4.0)))
        no_flame = (self.phase == PILOT) & (self.phase_s >= DURATION_S[PILOT]) & active["ignition-failed"]
        lost = (self.phase == RUN) & (self.phase_s > 3.0) & active["flame-lost"]
        timed = (self.phase_s >= DURATION_S[self.phase]) & ~no_flame
        ended = timed & (self.phase == POSTPURGE)
        self._enter(timed, FOLLOWING[self.phase])
        self.cycles = self.cycles + start
        self._enter(start, np.full(self.count, PREPURGE))
        self._enter(stop, np.full(self.count, POSTPURGE))
        limit = self.flame & (self.outlet_c >= HIGH_LIMIT_C)
        self._enter(no_flame | lost | limit, np.full(self.count, LOCKOUT))
        codes = [LOCKOUT_IGNITION, LOCKOUT_FLAME, LOCKOUT_HIGH_LIMIT]
        self.lockout = np.select([no_flame, lost, limit], codes, self.lockout)
        self.hold_s = np.where(ended, ANTI_SHORT_CYCLE_S, self.hold_s)

    def _enter(self, units: Mask, phase: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
        self.phase = np.where(units, phase, self.phase)
        self.phase_s = np.where(units, 0.0, self.phase_s)

    def _control(self) -> None:
        error = (self.setpoint_c - self.outlet_c) / 10.0
        running = self.phase == RUN
        self._integral = np.where(
            running, np.clip(self._integral + 0.01 * error * self.tick_s, 0.0, 1.0), self._integral
        )
        wanted = np.clip(self._integral + 0.5 * error, 0.2, 1.0)
        wanted = np.where(self.active["high-outlet"], 1.0, wanted)
        wanted = np.select([running, self.flame], [wanted, 0.3], 0.0)
        self.rate = self.rate + np.clip(wanted - self.rate, -0.1, 0.05) * self.tick_s
        self.rate = np.where(self.flame, np.maximum(self.rate, 0.2), 0.0)
        self.run_s = self.run_s + running * self.tick_s

    def _heat(self) -> None:
        mean_kw = np.where(self.active["high-outlet"], 15.0, 170.0)
        mean_kw = np.where(self.active["short-cycling"], 30.0, mean_kw)
        pull = np.where(self.active["high-outlet"] | self.active["short-cycling"], 0.05, 0.004)
        drift = (mean_kw - self.demand_kw) * pull * self.tick_s + self._jitter[0] * 1.2
        self.demand_kw = np.clip(self.demand_kw + drift, 5.0, 280.0)
        drawn_kw = self.demand_kw * np.clip((self.outlet_c - 40.0) / 30.0, 0.0, 1.3)
        burning = (self.phase == MAIN_FLAME) | (self.phase == RUN)
        heat_kw = RATED_KW * EFFICIENCY * self.rate * burning
        loss_kw = LOSS_KW_K * (self.outlet_c - ROOM_C)
        self.outlet_c = self.outlet_c + (heat_kw - drawn_kw - loss_kw) / CAPACITY_KJ_K * self.tick_s
        creep = np.where(self.active["stack-drift"], 1.0 / FOULING_S, -4.0 / FOULING_S) * self.tick_s
        self.fouling = np.clip(self.fouling + creep, 0.0, 1.0)
        aim = self.outlet_c + np.where(burning, 30.0 + 50.0 * self.rate + FOULING_K * self.fouling, 2.0)
        self.stack_c = self.stack_c + (aim - self.stack_c) * 0.06 * self.tick_s

    def _switched(self, unit: int, kind: str, on: bool) -> None:
        """The end of a lockout's fault is its reset by a person."""
        if not on and kind in ("ignition-failed", "flame-lost", "high-outlet") and self.phase[unit] == LOCKOUT:
            self.lockout[unit] = 0.0
            self.phase[unit] = STANDBY
            self.phase_s[unit] = 0.0

    def age(self, days: float) -> None:
        """See Fleet."""
        self.cycles = self.cycles + round(days * 2_000)
        self.run_s = self.run_s + days * 86_400.0

    def readings(self) -> Mapping[str, Float]:
        """See Fleet."""
        flame = self.flame.astype(np.float64)
        inlet = self.outlet_c - self.demand_kw / FLOW_KW_K + 0.05 * self._jitter[1]
        fan = np.select([self.phase == PREPURGE, self.phase == POSTPURGE], [0.8, 0.7], 0.25 + 0.75 * self.rate)
        fan = np.where((self.phase == STANDBY) | (self.phase == LOCKOUT), 0.0, fan)
        holding = (self.phase == STANDBY) & (self.hold_s > 0.0)
        return {
            "demand_source": np.where(self.phase == STANDBY, 0.0, DEMAND_CENTRAL_HEAT),
            "outlet_temperature": self.outlet_c + 0.04 * self._jitter[2],
            "inlet_temperature": np.where(self.active["sensor-lost"], np.nan, inlet),
            "stack_temperature": self.stack_c + 0.15 * self._jitter[3],
            "firing_rate": self.rate * 100.0,
            "fan_speed": np.round(FAN_RPM * fan),
            "flame_signal": flame * (8.0 + 0.15 * self._jitter[1]),
            "flame": flame,
            "setpoint_1": self.setpoint_c.copy(),
            "setpoint_2": self.setpoint_c - 10.0,
            "steam_pressure": np.full(self.count, np.nan),
            "burner_status": BURNER_STATUS[self.phase],
            "sequence_state": SEQUENCE_STATE[self.phase],
            "lockout_code": self.lockout.copy(),
            "hold_code": np.where(holding, HOLD_ANTI_SHORT_CYCLE, HOLD_NONE),
            "burner_cycles": self.cycles.astype(np.float64),
            "run_time": self.run_s / 3600.0,
        }
