"""The robust level: a fast exponential average judged against a slow level and its spread, both winsorised.

Per signal, for a reading x that comes dt seconds after the last (weights of irregular sampling: 1 − exp(−dt / τ)):

    r       = x − base                                        innovation
    fast   += w_fast · (base + clip(r, ±c) − fast)            c = max(6 s, 2 · threshold · spread): bounded, and
                                                              never too tight for the threshold to be reached
    d       = fast − base
    spread  = max(√E[d²], 0.65 · s · √(w_fast / (2 − w_fast)), min_spread)
    z       = d / spread                                      judged before anything is learned
    base   += w_slow · clip(r, ±3 s);  s² and E[d²] likewise, winsorised at 3

and the slow part learns only where |z| ≤ threshold: an anomaly is not learned. `s` is the spread of readings, `spread`
that of the fast level, which is far smaller for noise and adapts to signals that wander. During warm-up the weight is
1/(n + 1), an ordinary mean, and nothing is judged. An anomaly that stands for RELEARN baselines is a new normal: the
signal warms up again.
Sources: Huber, Robust Statistics (1981), winsorised updates; Roberts, Technometrics 1 (1959), control charts on
geometric moving averages: the spread of an EWMA of white noise is s √(w / (2 − w)).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

CLIP_FAST: Final = 6.0
CLIP_SLOW: Final = 3.0
FREE: Final = 8
"""The first readings are not clipped: there is no spread yet to clip by."""
MIN_COUNT: Final = 30
"""Readings before anything is judged, whatever their times."""
NOISE_SHARE: Final = 0.65
"""The spread is at least this share of what white noise of the readings' spread would give."""
LONGEST_STEP: Final = 0.1
"""No reading counts for more than this share of a baseline, however long the gap before it."""
RELEARN: Final = 4.0
TINY: Final = 1e-9
"""Of the level's size: the spread of a signal that never moved."""


@dataclass(frozen=True, slots=True, eq=False)
class LevelState:
    """Of each signal, all (n,): count of readings, seconds learned, level, variance of readings, fast level,
    mean square of fast − level, seconds that the present anomaly has stood."""

    count: Int64
    age_s: Float64
    base: Float64
    variance: Float64
    fast: Float64
    deviation: Float64
    hot_s: Float64


@dataclass(frozen=True, slots=True, eq=False)
class LevelRule:
    """Parameters, all (n,): telemetry.profile.LevelDetector."""

    fast_s: Float64
    slow_s: Float64
    threshold: Float64
    min_spread: Float64
    warmup_s: Float64

    def take(self, index: npt.NDArray[np.intp]) -> LevelRule:
        """The parameters at `index`. Copies."""
        return LevelRule(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What was found, all (n,): z in spreads (0 while warming up), the level and spread that judged."""

    z: Float64
    level: Float64
    spread: Float64


def level_step(value: Float64, dt_s: Float64, state: LevelState, rule: LevelRule) -> tuple[LevelState, Judged]:
    """One reading of each of n signals. value in the points' units, finite; dt_s ≥ 0 (0 for the first). Pure."""
    new = state.count == 0
    base = np.where(new, value, state.base)
    fast = np.where(new, value, state.fast)
    dt = np.minimum(dt_s, LONGEST_STEP * rule.slow_s)
    floor = np.maximum(rule.min_spread, TINY * np.abs(base)) + TINY
    spread_of_readings = np.maximum(np.sqrt(state.variance), floor)
    wander = np.maximum(np.sqrt(state.deviation), floor)
    bound = np.maximum(CLIP_FAST * spread_of_readings, 2.0 * rule.threshold * wander)
    w_fast = -np.expm1(-dt_s / rule.fast_s)
    r = value - base
    free = state.count < FREE
    fast = fast + w_fast * (base + _clip(r, bound, free) - fast)
    d = fast - base
    noise = NOISE_SHARE * np.sqrt(state.variance * w_fast / (2.0 - w_fast))
    spread = np.maximum(wander, noise)
    ready = (state.age_s >= rule.warmup_s) & (state.count >= MIN_COUNT)
    z = np.where(ready, d / spread, 0.0)
    hot = np.abs(z) > rule.threshold
    weight = np.maximum(-np.expm1(-dt / rule.slow_s), np.where(ready, 0.0, 1.0 / (state.count + 1.0)))
    weight = np.where(hot, 0.0, weight)
    step = _clip(r, CLIP_SLOW * spread_of_readings, free)
    small = _clip(d, CLIP_SLOW * spread, free)
    hot_s = np.where(hot, state.hot_s + dt, 0.0)
    again = hot_s > RELEARN * rule.slow_s
    after = LevelState(
        np.where(again, 0, state.count + 1),
        np.where(again, 0.0, state.age_s + np.where(hot, 0.0, dt)),
        base + weight * step,
        np.where(again, 0.0, (1.0 - weight) * (state.variance + weight * step * step)),
        fast,
        np.where(again, 0.0, state.deviation + weight * (small * small - state.deviation)),
        np.where(again, 0.0, hot_s),
    )
    return after, Judged(z, base, spread)


def score(z: Float64, threshold: Float64) -> Float64:
    """z as a score in 0–1: 0.5 at the threshold, rising with |z|. (n,) each → (n,)."""
    size = np.abs(z)
    result: Float64 = size / (size + threshold)
    return result


def _clip(value: Float64, bound: Float64, free: Bool) -> Float64:
    return np.where(free, value, np.clip(value, -bound, bound))
