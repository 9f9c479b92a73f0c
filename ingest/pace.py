"""How much is fetched, and when a flush leaves: by rows, bytes and age, so that a fleet of any size is fresh, and its
segments are well filled. Pure.

Direct Compress writes a segment for each signal of a flush: the more rows a signal has in it, the faster and the smaller.
So a flush waits for more rows the more signals there are, within bounds of memory and age. `python -m benchmarks.ingest`
has the measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ROWS_PER_SIGNAL: Final = 100
MIN_ROWS: Final = 500_000
MAX_ROWS: Final = 4_000_000
"""With records, sorted columns and what sorting needs some 70 bytes a row, of three flushes at a time."""
MAX_BYTES: Final = 224 << 20
"""Of records, compressed or not: 6 to 50 bytes a sample."""

FETCH_RECORDS: Final = 2_000
FETCH_BYTES: Final = 16 << 20
FETCH_ROWS: Final = 500_000
"""About how much is fetched at once; a flush is larger than it should be by so much at most, and what is being decoded."""
FIRST_RECORDS: Final = 16
"""Fetched before anything is known of their size."""

YOUNG_S: Final = 0.05
"""Age of a flush while the fleet is small: the console is live."""
OLD_S: Final = 1.0
"""Age of a flush under load: more rows of each signal come together."""
OLDEST_S: Final = 4.0
"""The same for a very large fleet."""
SIGNALS_A_SECOND: Final = 25_000
"""A flush under load waits a second for so many signals."""
BUSY_ROWS_PER_S: Final = 20_000


@dataclass(frozen=True, slots=True)
class Pace:
    """For a fleet that had so many signals in its last flush."""

    signals: int = 0

    def full(self, rows: int, size: int) -> bool:
        """Whether a flush of these rows and bytes leaves, whatever its age."""
        return rows >= min(max(ROWS_PER_SIGNAL * self.signals, MIN_ROWS), MAX_ROWS) or size >= MAX_BYTES

    def patience_s(self, rows: int, age_s: float) -> float:
        """How old a flush that holds these rows at this age may become."""
        if rows <= BUSY_ROWS_PER_S * max(age_s, YOUNG_S):
            return YOUNG_S
        return min(max(self.signals / SIGNALS_A_SECOND, OLD_S), OLDEST_S)


def records_to_fetch(*, size: float, rows: float) -> int:
    """How many records to fetch when those before had so many bytes and rows each."""
    return int(max(min(FETCH_BYTES / (size + 1), FETCH_ROWS / (rows + 1), FETCH_RECORDS), 1))
