"""The ledger's increments against the plain definition: one row at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.journal import merge
from edge.ledger import Tally
from telemetry.batch import SampleBatch, concatenate
from telemetry.ledger import HOUR_US, row_hashes

NAMES = {e: tuple(f"{e}/p{i}" for i in range(4)) for e in ("a", "b", "c")}


@st.composite
def readings(draw: st.DrawFn) -> tuple[str, SampleBatch]:
    equipment = draw(st.sampled_from(sorted(NAMES)))
    n = draw(st.integers(0, 12))

    def ints(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=n, max_size=n))

    return equipment, SampleBatch(
        NAMES[equipment],
        np.array(ints(0, 3), np.int32),
        np.array(ints(-5, 3 * HOUR_US), np.int64),
        np.array(draw(st.lists(st.floats(), min_size=n, max_size=n)), np.float64),
        np.array(ints(0, 255), np.uint8),
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(readings(), max_size=8))
def test_increments_are_counts_and_checksums_by_equipment_and_hour(batches: list[tuple[str, SampleBatch]]) -> None:
    expected: dict[tuple[str, int], tuple[int, int]] = {}
    for equipment, batch in batches:
        for time_us, row in zip(batch.time_us.tolist(), row_hashes(batch).tolist(), strict=True):
            key = (equipment, time_us // HOUR_US * HOUR_US)
            n, checksum = expected.get(key, (0, 0))
            expected[key] = (n + 1, (checksum + row) % 2**64)
    assert Tally().count(batches) == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(readings(), max_size=8))
def test_merged_batches_hold_the_same_rows_in_the_same_order(batches: list[tuple[str, SampleBatch]]) -> None:
    parts = [batch for _, batch in batches]
    whole, merged = concatenate(parts), concatenate(merge(parts))
    names = np.array(whole.names)[whole.signal] if len(whole) else np.array([])
    merged_names = np.array(merged.names)[merged.signal] if len(merged) else np.array([])
    np.testing.assert_array_equal(names, merged_names)
    np.testing.assert_array_equal(whole.time_us, merged.time_us)
    np.testing.assert_array_equal(whole.value, merged.value)
    assert len(set(merged.names)) == len(merged.names), "each signal once"


def test_merging_keeps_records_below_their_bound() -> None:
    part = SampleBatch(
        NAMES["a"], np.zeros(3000, np.int32), np.zeros(3000, np.int64), np.zeros(3000), np.zeros(3000, np.uint8)
    )
    assert [len(b) for b in merge([part] * 5)] == [6000, 6000, 3000]
