"""Recorded sets whose files are not feeds as docs/simulators.md has them: how to take each as one.

- SKAB (water pump): `;`, first column `datetime` without an offset, taken as UTC; `anomaly` and `changepoint` are labels.
- Zenodo 3653909 (elevator door): `;`, no time at all; about 4 rows a second, from a fixed start. In every tenth row the
  vibration is spoiled ("18. 00"): no reading, never a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from telemetry.clock import time_us

LABEL_COLUMNS: Final = frozenset({"anomaly", "changepoint"})
"""Columns that say what happened, not what was read."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file keeps its time."""

    time_column: str | None = "time"
    """None: there is none, rows follow one another at `rate_hz` from `start_us`."""
    assume_utc: bool = False
    rate_hz: float = 1.0
    start_us: int = 0
    tolerant: bool = False
    """Cells that are no numbers are no readings, rather than faults."""


CONTRACT: Final = Layout()
SKAB: Final = Layout(time_column="datetime", assume_utc=True)
ELEVATOR_DOOR: Final = Layout(
    time_column=None, rate_hz=4.0, start_us=time_us("2020-01-01T00:00:00+00:00"), tolerant=True
)


def layout_of(columns: Sequence[str]) -> Layout:
    """The layout of a file, by its header."""
    if columns and columns[0] == "datetime" and "Accelerometer1RMS" in columns:
        return SKAB
    if list(columns) == ["ball-bearing", "humidity", "vibration"]:
        return ELEVATOR_DOOR
    return CONTRACT
