"""Records of samples for the tests of the Arrow stream: drawn ones, and plain ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

Columns = tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.uint8]]


def columns(signal: Sequence[int], *, value: Sequence[float] | None = None) -> Columns:
    n = len(signal)
    return (
        np.array(signal, np.int32),
        np.arange(n, dtype=np.int64) - 1,
        np.arange(n, dtype=np.float64) if value is None else np.array(value, np.float64),
        np.full(n, 192, np.uint8),
    )


Record = tuple[list[list[str]], Columns]
"""(names of each block, columns)."""


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Small records of anything, or long ones that repeat it: their buffers are compressed."""
    blocks = draw(st.lists(st.lists(st.text(max_size=12), max_size=6), max_size=5))
    names = sum(map(len, blocks))
    n = draw(st.integers(0, 40)) if names else 0
    bits = draw(st.lists(st.integers(0, 2**64 - 1), min_size=n, max_size=n))  # NaN of every kind among them
    signal = draw(st.lists(st.integers(0, max(names - 1, 0)), min_size=n, max_size=n))
    time_us = draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=n, max_size=n))
    quality = draw(st.lists(st.integers(0, 255), min_size=n, max_size=n))
    value = np.array(bits, np.uint64).view(np.float64)
    times, again = draw(st.sampled_from([1, 1, 50])), draw(st.sampled_from([1, 1, 200]))
    return blocks * again, (
        np.tile(np.array(signal, np.int32), times),
        np.tile(np.array(time_us, np.int64), times),
        np.tile(value, times),
        np.tile(np.array(quality, np.uint8), times),
    )
