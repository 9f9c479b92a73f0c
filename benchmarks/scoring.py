"""Scoring of alarms against labels: by rows as the SKAB board does, and by episodes as people live with them.

No point adjustment: a labelled episode counts once, however many of its rows were flagged, and flags outside count too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """Counts of rows."""

    hit: int = 0
    false: int = 0
    missed: int = 0
    quiet: int = 0

    def __add__(self, other: Rows) -> Rows:
        return Rows(
            self.hit + other.hit, self.false + other.false, self.missed + other.missed, self.quiet + other.quiet
        )

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, by rows."""
        return _share(2 * self.hit, 2 * self.hit + self.false + self.missed)

    @property
    def far(self) -> float:
        """False alarm rate: share of normal rows that were flagged."""
        return _share(self.false, self.false + self.quiet)

    @property
    def mar(self) -> float:
        """Missed alarm rate: share of anomalous rows that were not flagged."""
        return _share(self.missed, self.hit + self.missed)


@dataclass(frozen=True, slots=True)
class Episodes:
    """Counts of episodes."""

    labelled: int
    detected: int
    alarms: int
    true_alarms: int
    delays_s: tuple[float, ...]

    def __add__(self, other: Episodes) -> Episodes:
        return Episodes(
            self.labelled + other.labelled,
            self.detected + other.detected,
            self.alarms + other.alarms,
            self.true_alarms + other.true_alarms,
            self.delays_s + other.delays_s,
        )

    @property
    def recall(self) -> float:
        """Share of labelled episodes that an alarm overlapped."""
        return _share(self.detected, self.labelled)

    @property
    def precision(self) -> float:
        """Share of alarms that overlapped a labelled episode."""
        return _share(self.true_alarms, self.alarms)

    def delay_s(self, quantile: float) -> float:
        """Seconds from the start of a labelled episode to its alarm; NaN where none was detected."""
        return float(np.quantile(self.delays_s, quantile)) if self.delays_s else float("nan")


NONE = Episodes(0, 0, 0, 0, ())


def rows(flag: Bool, label: Bool) -> Rows:
    """(n,) flagged, (n,) anomalous."""
    return Rows(
        int((flag & label).sum()), int((flag & ~label).sum()), int((~flag & label).sum()), int((~flag & ~label).sum())
    )


def episodes(flag: Bool, label: Bool, time_s: npt.NDArray[np.float64], tolerance_s: float) -> Episodes:
    """Runs of flags against runs of labels, each label run stretched at its end by `tolerance_s`."""
    labelled = [(time_s[a], time_s[b] + tolerance_s) for a, b in runs(label)]
    alarms = [(time_s[a], time_s[b]) for a, b in runs(flag)]
    delays = []
    for start, end in labelled:
        overlapping = [max(begin, start) for begin, until in alarms if begin <= end and until >= start]
        if overlapping:
            delays.append(float(min(overlapping) - start))
    true = sum(any(begin <= end and until >= start for start, end in labelled) for begin, until in alarms)
    return Episodes(len(labelled), len(delays), len(alarms), true, tuple(delays))


def runs(flag: Bool) -> list[tuple[int, int]]:
    """First and last index of each run of true."""
    edge = np.diff(np.concatenate(([0], flag.view(np.int8), [0])))
    return list(zip(np.nonzero(edge == 1)[0].tolist(), (np.nonzero(edge == -1)[0] - 1).tolist(), strict=True))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
