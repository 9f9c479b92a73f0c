"""Sorted segments: the tool by which several samples of one signal in one batch are handled as if one at a time.

Rows are sorted by group (stable, so each group keeps its order) and every function here works on all groups at once.
Cost is per row; the number of groups that exist elsewhere does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]
Int64 = npt.NDArray[np.int64]


def firsts(group: npt.NDArray[np.integer]) -> Bool:
    """Which rows begin a group. `group` (n,) sorted → (n,) bool."""
    first = np.ones(len(group), np.bool_)
    np.not_equal(group[1:], group[:-1], out=first[1:])
    return first


def lasts(first: Bool) -> Bool:
    """Which rows end a group, of `firsts` (n,) → (n,) bool."""
    last = np.ones(len(first), np.bool_)
    last[:-1] = first[1:]
    return last


def start_of(first: Bool) -> Index:
    """The row at which each row's group begins: (n,) bool → (n,) intp."""
    begin: Index = np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))
    return begin


def running_max(values: Int64, first: Bool) -> Int64:
    """Running maximum within each group. (n,) int64, (n,) bool → (n,) int64, a new array.

    Exact for any int64: where values already rise it copies, else it works on their ranks (one sort).
    """
    if bool(np.all((values[1:] >= values[:-1]) | first[1:])):
        return values.copy()
    distinct, rank = np.unique(values, return_inverse=True)
    lift = (np.cumsum(first) - 1) * len(distinct)
    result: Int64 = distinct[np.maximum.accumulate(rank + lift) - lift]
    return result


def rounds(first: Bool) -> Iterator[Index]:
    """Row indices of the first row of every group, then of the second of every group that has one, and so on.

    (n,) bool, of rows sorted by group. Together the rounds hold each row once; no round holds a group twice.
    """
    place = np.arange(len(first)) - start_of(first)
    counts = np.bincount(place)
    if len(counts) <= 1:
        if len(first):
            yield np.arange(len(first))
        return
    order = np.argsort(place, kind="stable")
    yield from np.split(order, np.cumsum(counts)[:-1])


def expand(counts: Index, starts: Index) -> tuple[Index, Index]:
    """Pairs (row, entry) where row i has the entries starts[i] … starts[i] + counts[i] − 1; rows in order.

    (n,) intp each → two (sum of counts,) intp.
    """
    row = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return row, starts[row] + within


def in_order(last_us: Int64, signal: npt.NDArray[np.integer], time_us: Int64) -> tuple[Bool, Int64, Index]:
    """Which rows are not behind what was processed of their signal, by those that precede them in the batch included.

    last_us (S,) µs of the newest row processed of each signal; signal (n,) index into it; time_us (n,) µs.
    Returns (n,) bool live, and for the distinct signals of the batch their new last time (m,) µs and index (m,).
    A row at the very time of the newest one is live: it replaces it.
    """
    order = np.argsort(signal, kind="stable")
    group = signal[order]
    time = time_us[order]
    first = firsts(group)
    floor = np.where(first, last_us[group], time)
    highest = running_max(np.maximum(time, floor), first)
    before = np.empty_like(highest)
    before[1:] = highest[:-1]
    before[first] = last_us[group[first]]
    live = np.empty(len(order), np.bool_)
    live[order] = time >= before
    end = lasts(first)
    return live, highest[end], group[end].astype(np.intp)
