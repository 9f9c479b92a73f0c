"""Streams of readings for the tests: made by hypothesis, turned into Readings in any cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analytics.detectors.contract import Readings
from telemetry.messages import Finding


@dataclass(frozen=True, slots=True)
class Row:
    """One sample."""

    signal: int
    time_us: int
    value: float
    known: bool = True


def readings(rows: Sequence[Row], record: Iterable[int] | None = None) -> Readings:
    """Rows as Readings; `record` numbers them (default: all of one record)."""
    numbers = list(record) if record is not None else [0] * len(rows)
    return Readings(
        np.array([r.signal for r in rows], np.intp),
        np.array([r.time_us for r in rows], np.int64),
        np.array([r.value for r in rows], np.float64),
        np.array([r.known and r.value == r.value for r in rows], np.bool_),
        np.array(numbers, np.int64),
    )


def plain(findings: Iterable[Finding]) -> list[tuple[str, str, str, bool, int, int, str]]:
    """Findings in a canonical order, as comparable values, evidence included."""
    return sorted(
        (f.equipment, f.point, f.detector, f.raised, f.onset_us, f.time_us, repr(sorted(f.evidence.items())))
        for f in findings
    )
