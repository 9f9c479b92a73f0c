"""A set of sequence numbers as sorted, disjoint ranges: what was accepted of an epoch, in the space of its holes.

Invariant: ranges are half-open [first, end), sorted, never empty, and never touch (touching ones are one).
Adding at or after the end costs O(1); elsewhere a search and an insertion.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator


class SeqSet:
    """A set of integers. Not frozen: it grows with what is accepted."""

    __slots__ = ("_ends", "_firsts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        """`ranges` are half-open [first, end), in any order, overlapping or not; empty ones do not count."""
        self._firsts: list[int] = []
        self._ends: list[int] = []
        for first, end in sorted(ranges):
            self.add_range(first, end)

    def __contains__(self, seq: int) -> bool:
        place = bisect_right(self._firsts, seq) - 1
        return place >= 0 and seq < self._ends[place]

    def __len__(self) -> int:
        """How many numbers it holds."""
        return sum(self._ends) - sum(self._firsts)

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SeqSet):
            return NotImplemented
        return self._firsts == other._firsts and self._ends == other._ends

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"SeqSet({list(self.ranges())})"

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Its ranges [first, end), sorted and disjoint."""
        return zip(self._firsts, self._ends, strict=True)

    @property
    def end(self) -> int:
        """One past the largest number; 0 when empty."""
        return self._ends[-1] if self._ends else 0

    def add(self, seq: int) -> bool:
        """Adds one number. Returns whether it was new."""
        if self._ends and seq == self._ends[-1]:
            self._ends[-1] = seq + 1
            return True
        if seq in self:
            return False
        self.add_range(seq, seq + 1)
        return True

    def add_range(self, first: int, end: int) -> None:
        """Adds all of [first, end)."""
        if first >= end:
            return
        # The ranges that overlap or touch the new one are those at low … high − 1.
        low = bisect_right(self._firsts, first)
        if low and self._ends[low - 1] >= first:
            low -= 1
        high = bisect_right(self._firsts, end)
        if low < high:
            first, end = min(first, self._firsts[low]), max(end, self._ends[high - 1])
        self._firsts[low:high] = [first]
        self._ends[low:high] = [end]

    def missing(self, *, start: int = 0) -> list[tuple[int, int]]:
        """The holes [first, end) between `start` and `end`."""
        holes = []
        for first, end in self.ranges():
            if first > start:
                holes.append((start, first))
            start = max(start, end)
        return holes

    def copy(self) -> SeqSet:
        """Another set of the same numbers."""
        return SeqSet(self.ranges())
