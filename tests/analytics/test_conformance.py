"""Each detector passes the conformance suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from analytics.detectors.conditions import Conditions
from analytics.detectors.contract import Detector
from analytics.detectors.level import Levels
from tests.analytics.conformance import DetectorConformance, Item
from tests.analytics.plants import POINTS, T0, S, catalogue
from tests.analytics.streams import Row

CATALOGUE = catalogue("a", "b")
SIGNALS = CATALOGUE.signals


class TestConditions(DetectorConformance):
    signals = tuple(SIGNALS[f"{e}/{p}"] for e in "ab" for p in POINTS if p not in ("wander", "note"))
    values = st.sampled_from([0.0, 1.0, 2.0, 3.0, 9.0, 11.0, 46.0, 51.0, 85.0, 86.0, 90.0, 91.0, float("nan")])

    def make(self) -> Detector:
        return Conditions(CATALOGUE)

    def anomalous(self) -> tuple[list[Item], list[Row], list[Row]]:
        plain = SIGNALS["a/plain"]
        return [[Row(plain, T0, 50.0)]], [Row(plain, T0 + S, 91.0)], [Row(plain, T0 + 2 * S, 900.0)]


class TestLevels(DetectorConformance):
    signals = (SIGNALS["a/wander"], SIGNALS["b/wander"])
    values = st.floats(-100, 100, width=32) | st.just(float("nan"))

    def make(self) -> Detector:
        return Levels(CATALOGUE)

    def memory(self, detector: Detector) -> Mapping[str, npt.NDArray[Any]]:
        learned = ("level_base", "level_variance", "level_deviation", "level_age_s")
        return {name: column for name, column in detector.snapshot().items() if name in learned}

    def anomalous(self) -> tuple[list[Item], list[Row], list[Row]]:
        signal, random = SIGNALS["a/wander"], np.random.default_rng(1)
        calm: list[Item] = [[Row(signal, T0 + i * S, 20.0 + float(x))] for i, x in enumerate(random.normal(size=400))]
        mild = [Row(signal, T0 + (400 + i) * S, 26.0) for i in range(12)]
        strong = [Row(signal, T0 + (412 + i) * S, 60.0) for i in range(12)]
        return calm, mild, strong

    def streams(self) -> st.SearchStrategy[list[Item]]:
        """Long enough to be judged: calm, then whatever comes."""
        calm = self.anomalous()[0][:100]

        def after(stream: list[Item]) -> list[Item]:
            shift = 101 * S
            late: list[Item] = [
                item + shift
                if isinstance(item, int)
                else [Row(r.signal, r.time_us + shift, r.value, r.known) for r in item]
                for item in stream
            ]
            return [*calm, *late]

        return super().streams().map(after)
