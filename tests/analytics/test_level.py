"""The level detector against its oracle, and what it must and must not find."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.detectors.level import Levels
from analytics.kernels.level import LevelRule, LevelState, level_step
from telemetry.messages import Finding
from tests.analytics.naive import NaiveLevel
from tests.analytics.plants import POINTS, T0, S, catalogue, point, profile
from tests.analytics.streams import Row, readings

FAST_S, SLOW_S, THRESHOLD = 5.0, 120.0, 6.0


def rule(n: int, min_spread: float = 0.0) -> LevelRule:
    return LevelRule(*(np.full(n, x) for x in (FAST_S, SLOW_S, THRESHOLD, min_spread, 60.0)))


def fresh(n: int) -> LevelState:
    return LevelState(np.zeros(n, np.int64), *(np.zeros(n) for _ in range(6)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.5]),
    st.lists(st.tuples(st.sampled_from([0.0, 0.1, 1.0, 30.0, 1e5]), st.floats(-1e6, 1e6)), max_size=30),
)
def test_the_kernel_is_its_oracle(seed: int, min_spread: float, extra: list[tuple[float, float]]) -> None:
    random = np.random.default_rng(seed)
    steps = [(1.0, float(x)) for x in random.normal(50.0, 2.0, 100)] + extra + [(300.0, 90.0)] * 12
    oracle = NaiveLevel(FAST_S, SLOW_S, THRESHOLD, min_spread, 60.0)
    state = fresh(2)
    for i, (dt, x) in enumerate(steps):
        gap = dt if i else 0.0
        state, judged = level_step(np.array([x, 1.0]), np.array([gap, gap]), state, rule(2, min_spread))
        assert judged.z[0] == pytest.approx(oracle.step(x, gap), rel=1e-6, abs=1e-9)
        assert judged.z[1] == 0.0


CATALOGUE = catalogue("a", of=profile(points={**POINTS, "wander": point(detectors=[
    {"time_constant_s": 5.0, "baseline_s": 600.0, "threshold": 6.0, "warmup_s": 120.0, "on_delay_s": 3.0, "off_delay_s": 5.0}
])}))  # fmt: skip
SIGNAL = CATALOGUE.signals["a/wander"]


def judge(values: np.ndarray, detector: Levels | None = None, start: int = 0) -> list[Finding]:
    rows = [Row(SIGNAL, T0 + (start + i) * S, float(v)) for i, v in enumerate(values)]
    return (detector or Levels(CATALOGUE)).update(readings(rows))


def noise(n: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(20.0, 1.0, n)


def test_plain_noise_raises_nothing_for_hours() -> None:
    assert [f for seed in range(5) for f in judge(noise(7200, seed))] == []


def test_a_slow_day_is_followed_and_raises_nothing() -> None:
    wave = 3.0 * np.sin(np.arange(20_000) / 86_400 * 2 * np.pi * 4)
    assert judge(noise(20_000) + wave) == []


def test_one_wild_reading_raises_nothing_and_moves_the_baseline_by_a_bounded_step() -> None:
    values = noise(2000)
    values[1000] = 1e9
    assert judge(values) == []


@pytest.mark.parametrize("shift", [-5.0, 5.0, 50.0])
def test_a_lasting_shift_is_raised_within_seconds_and_cleared_after_its_end(shift: float) -> None:
    values = noise(2000)
    values[1500:1700] += shift
    found = judge(values)
    assert [f.raised for f in found] == [True, False]
    raised, cleared = found
    assert 1500 <= (raised.onset_us - T0) / S <= 1515
    assert raised.time_us == raised.onset_us + 3 * S
    assert 1700 <= (cleared.time_us - T0) / S <= 1760
    assert raised.evidence["level"] == pytest.approx(20.0, abs=0.5)
    assert abs(raised.evidence["z"]) > raised.evidence["threshold"] == 6.0


def test_an_anomaly_that_stands_is_not_learned_until_it_is_plainly_the_new_normal() -> None:
    detector = Levels(CATALOGUE)
    assert [f.raised for f in judge(np.concatenate((noise(1500), noise(1200, 8) + 8.0)), detector)] == [True]
    found = judge(noise(3000, 9) + 8.0, detector, start=2700)
    assert [f.raised for f in found] == [False]
    assert (found[0].time_us - T0) / S > 1500 + 4 * 600


def test_nothing_is_judged_before_the_warm_up_is_over() -> None:
    values = np.concatenate((noise(60), noise(40) + 30.0))
    assert judge(values) == []


def test_the_time_constant_is_of_time_and_not_of_samples() -> None:
    dense = [Row(SIGNAL, T0 + i * S // 4, float(v)) for i, v in enumerate(np.repeat(noise(1000), 4))]
    shifted = [Row(r.signal, r.time_us + 1000 * S, 26.0) for r in dense[:200]]
    detector = Levels(CATALOGUE)
    assert detector.update(readings(dense)) == []
    found = detector.update(readings(shifted))
    assert [f.raised for f in found] == [True]
    assert (found[0].onset_us - T0) / S == pytest.approx(1001.5, abs=1.5)


def test_a_spread_below_the_smallest_that_matters_is_not_judged_by() -> None:
    detectors = [{"time_constant_s": 5.0, "baseline_s": 600.0, "warmup_s": 120.0, "min_spread": 1.0}]
    calm = catalogue("a", of=profile(points={**POINTS, "wander": point(detectors=detectors)}))
    values = np.full(600, 20.0)
    values[400:] = 25.0
    rows = [Row(calm.signals["a/wander"], T0 + i * S, float(v)) for i, v in enumerate(values)]
    assert Levels(calm).update(readings(rows)) == []
    values[400:] = 27.0
    rows = [Row(calm.signals["a/wander"], T0 + i * S, float(v)) for i, v in enumerate(values)]
    assert [f.raised for f in Levels(calm).update(readings(rows))] == [True]


def test_scores_are_of_readings_in_zero_to_one_and_rise_with_the_distance() -> None:
    detector = Levels(CATALOGUE)
    rows = [Row(SIGNAL, T0 + i * S, float(v)) for i, v in enumerate(np.concatenate((noise(600), np.full(20, 60.0))))]
    other = CATALOGUE.signals["a/plain"]
    _, scores = detector.judge(readings([*rows, Row(other, T0, 1.0)]))
    assert np.isnan(scores[-1])
    assert (scores[:120] == 0.0).all()
    assert ((scores[:-1] >= 0.0) & (scores[:-1] <= 1.0)).all()
    assert scores[600:605].min() > scores[300:600].max()
    assert (np.diff(scores[600:620]) > 0).all()
