"""The ledger's increments against the plain definition: one row at a time."""

from __future__ import annotations

import base64
import json
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.journal import merge
from edge.ledger import Tally
from telemetry.batch import SampleBatch, concatenate
from telemetry.errors import RecordError
from telemetry.ledger import HOUR_US, row_hashes
from telemetry.log.protocol import MAX_RECORD_BYTES
from telemetry.messages import Registry
from telemetry.wire import decode_registry, encode_registry, encode_samples

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


def test_merged_records_stay_below_a_logs_bound_with_the_longest_names() -> None:
    parts = []
    for e in range(60):
        names = tuple(f"{e:064}/{i:064}" for i in range(250))
        parts.append(
            SampleBatch(
                names, np.arange(250, dtype=np.int32), np.arange(250), np.arange(250.0), np.zeros(250, np.uint8)
            )
        )
    merged = merge([*parts, *parts])
    assert sum(map(len, merged)) == 2 * 60 * 250
    assert max(len(encode_samples(b).value) for b in merged) < MAX_RECORD_BYTES * 3 // 4
    assert len(merged) <= 8, "and they are few"


def test_a_registry_of_thousands_of_units_fits_into_one_record_and_comes_out_as_it_was() -> None:
    point = {"kind": "measurement", "unit": "°C", "name": {"zh": "点", "en": "point"}, "limits": []}
    plant = {"equipment": [{"id": f"e{n}", "points": {f"p{i}": point for i in range(50)}} for n in range(1000)]}
    registry = Registry("edge-1", 7, plant)
    encoded = encode_registry(registry)
    assert len(encoded.value) < MAX_RECORD_BYTES
    assert decode_registry(encoded.value) == registry
    small = Registry("edge-1", 7, {"equipment": []})
    assert b"deflate" not in encode_registry(small).value, "a small one stays readable"
    assert decode_registry(encode_registry(small).value) == small


@pytest.mark.parametrize("packed", ["", "not base64!", "AAAA", 7, base64.b64encode(zlib.compress(b"{")).decode()])
def test_a_packed_part_that_is_none_is_a_record_error(packed: object) -> None:
    value = json.dumps({"edge": "e", "time_us": 1, "plant": {"deflate": packed}}).encode()
    with pytest.raises(RecordError, match="packed part"):
        decode_registry(value)
