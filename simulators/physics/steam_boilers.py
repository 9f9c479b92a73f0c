"""Small gas steam boilers: drum level, steam pressure, feed cycles, combustion air.

The feed pump runs between two levels; the burner between two pressures; below the extreme low level the burner is cut
off. Invariant: pressure and draft stay within what the plant can do; the burner never burns below the cut-off level.

Faults
    low-water       the feed fails: the level falls to the low alarm and on to the cut-off
    high-pressure   the pressure switch fails: pressure rises to the safety valve
    stuck-level     the float sticks: the level reads flat while feed and steam vary
    blocked-flue    the flue is blocked: the furnace comes under pressure while it fires
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from simulators.physics.fleet import Fleet, Float, Mask

FEED_ON_MM: Final = -18.0
FEED_OFF_MM: Final = 18.0
CUT_OFF_MM: Final = -75.0
PRESSURE_ON_MPA: Final = 0.52
PRESSURE_OFF_MPA: Final = 0.64
SAFETY_VALVE_MPA: Final = 0.76
SAFETY_RESEAT_MPA: Final = 0.72
LEVEL_PER_FEED_MM_S: Final = 1.1
LEVEL_PER_STEAM_MM_S: Final = 0.55
RISE_MPA_S: Final = 0.0055
FALL_MPA_S: Final = 0.0028
BLOCKED_PA: Final = 1800.0


class SteamBoilers(Fleet):
    """`count` small steam boilers."""

    tick_s = 0.5
    kinds = ("low-water", "high-pressure", "stuck-level", "blocked-flue")

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        super().__init__(count, rng)
        self.level_mm = rng.uniform(-10.0, 10.0, count)
        self.shown_mm = self.level_mm.copy()
        self.pressure_mpa = rng.uniform(0.54, 0.62, count)
        self.feeding = rng.random(count) < 0.5
        self.firing = np.ones(count, bool)
        self.blowing = np.zeros(count, bool)
        self.steam = rng.uniform(0.7, 1.0, count)
        self.fire = np.ones(count)
        self._jitter = np.zeros((5, count))

    def _tick(self) -> None:
        self._jitter = self.rng.normal(0.0, 1.0, (5, self.count))
        self.steam = np.clip(self.steam + (0.85 - self.steam) * 0.01 + 0.01 * self._jitter[0], 0.4, 1.2)
        self._feed()
        self._burn()

    def _feed(self) -> None:
        self.feeding = np.where(self.level_mm <= FEED_ON_MM, True, self.feeding & (self.level_mm < FEED_OFF_MM))
        fed = self.feeding & ~self.active["low-water"]
        boiling = np.where(self.pressure_mpa > 0.1, self.steam, 0.1) * np.where(self.cut_off, 0.15, 1.0)
        change = fed * LEVEL_PER_FEED_MM_S - boiling * LEVEL_PER_STEAM_MM_S
        self.level_mm = np.clip(self.level_mm + change * self.tick_s + 0.15 * self._jitter[1], -110.0, 90.0)
        self.shown_mm = np.where(self.active["stuck-level"], self.shown_mm, self.level_mm)

    @property
    def cut_off(self) -> Mask:
        """Which burners are locked by extreme low water."""
        return self.level_mm <= CUT_OFF_MM

    def _burn(self) -> None:
        runaway = self.active["high-pressure"]
        below_off = self.pressure_mpa < PRESSURE_OFF_MPA
        self.firing = np.where(self.pressure_mpa <= PRESSURE_ON_MPA, True, self.firing & below_off)
        self.firing = (self.firing | runaway) & ~self.cut_off
        self.fire = np.clip(self.fire + np.where(self.firing, 0.2, -0.4) * self.tick_s, 0.0, 1.0)
        self.blowing = np.where(
            self.pressure_mpa >= SAFETY_VALVE_MPA, True, self.blowing & (self.pressure_mpa > SAFETY_RESEAT_MPA)
        )
        rise = self.fire * RISE_MPA_S - self.steam * FALL_MPA_S - self.blowing * 2.0 * RISE_MPA_S
        self.pressure_mpa = np.clip(self.pressure_mpa + rise * self.tick_s, 0.0, 1.2)

    def readings(self) -> Mapping[str, Float]:
        """See Fleet."""
        draft = -(8.0 + 22.0 * self.fire) + 0.8 * self._jitter[2]
        return {
            "drum_level": np.round(self.shown_mm),
            "furnace_draft": np.where(self.active["blocked-flue"], BLOCKED_PA * self.fire, draft),
            "air_pressure": 0.4 + 2.1 * self.fire + 0.02 * self._jitter[3],
            "gas_pressure": 4.5 - 0.8 * self.fire + 0.03 * self._jitter[4],
            "steam_pressure": self.pressure_mpa + 0.0008 * self._jitter[3],
            "feed_pump": self.feeding.astype(np.float64),
            "burner": self.firing.astype(np.float64),
        }
