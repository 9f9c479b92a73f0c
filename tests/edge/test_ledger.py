"""The ledger's increments against the plain definition, one row at a time; and the records that a commit becomes."""

from __future__ import annotations

import base64
import json
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.columns import Columns, encode, join
from edge.ledger import count
from telemetry.arrow_read import decode_samples
from telemetry.batch import concatenate
from telemetry.errors import RecordError
from telemetry.ledger import HOUR_US, row_hashes
from telemetry.log.protocol import MAX_RECORD_BYTES
from telemetry.messages import Registry
from telemetry.name_block import name_block
from telemetry.wire import decode_registry, encode_registry
from tests.edge.readings import block_of, rows_of

BLOCKS = {e: [block_of(e, *(f"p{i}" for i in range(n))) for n in (4, 2)] for e in ("a", "b", "c")}


@st.composite
def readings(draw: st.DrawFn) -> Columns:
    """What was read of one equipment at once."""
    equipment = draw(st.sampled_from(sorted(BLOCKS)))
    block = draw(st.sampled_from(BLOCKS[equipment]))
    n = draw(st.integers(0, 12))
    if not n:
        return Columns()

    def ints(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=n, max_size=n))

    return Columns(
        [equipment],
        [block],
        np.array([n], np.int64),
        np.array(ints(0, len(block.names) - 1), np.int32),
        np.array(ints(-5, 3 * HOUR_US), np.int64),
        np.array(draw(st.lists(st.floats(), min_size=n, max_size=n)), np.float64),
        np.array(ints(0, 255), np.uint8),
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(readings(), max_size=8))
def test_increments_are_counts_and_checksums_by_equipment_and_hour(several: list[Columns]) -> None:
    expected: dict[tuple[str, int], tuple[int, int]] = {}
    for batch in (decode_samples(record.value) for record in encode(join(several))):
        for place, time_us, row in zip(batch.signal, batch.time_us.tolist(), row_hashes(batch).tolist(), strict=True):
            key = (batch.names[place].partition("/")[0], time_us // HOUR_US * HOUR_US)
            n, checksum = expected.get(key, (0, 0))
            expected[key] = (n + 1, (checksum + row) % 2**64)
    assert count(join(several)) == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(readings(), max_size=8))
def test_records_hold_the_same_rows_in_the_same_order(several: list[Columns]) -> None:
    rows = [row for columns in several for row in rows_of(columns)]
    assert repr(rows_of(join(several))) == repr(rows)
    batches = [decode_samples(record.value) for record in encode(join(several))]
    assert [record.count for record in encode(join(several))] == [len(batch) for batch in batches]
    whole = concatenate(batches)
    names = [whole.names[place] for place in whole.signal]
    came = zip(names, whole.time_us.tolist(), whole.value.tolist(), whole.quality.tolist(), strict=True)
    assert repr([(signal, tuple(reading)) for signal, *reading in came]) == repr(rows)


def test_a_block_that_comes_again_is_in_a_records_dictionary_once() -> None:
    block = block_of("a", "p0", "p1")
    part = Columns(
        ["a"], [block], np.array([2]), np.arange(2, dtype=np.int32), np.arange(2), np.ones(2), np.zeros(2, np.uint8)
    )
    [record] = encode(join([part] * 50))
    batch = decode_samples(record.value)
    assert batch.names == ("a/p0", "a/p1")
    assert len(batch) == 100


def test_records_stay_below_a_logs_bound_with_the_longest_names() -> None:
    parts = []
    for e in range(60):
        block = name_block([f"{e:064}/{i:064}" for i in range(250)])
        place = np.arange(250, dtype=np.int32)
        parts.append(
            Columns(
                [f"{e:064}"], [block], np.array([250]), place, np.arange(250), np.arange(250.0), np.zeros(250, np.uint8)
            )
        )
    records = encode(join([*parts, *parts]))
    assert sum(record.count for record in records) == 2 * 60 * 250
    assert max(len(record.value) for record in records) < MAX_RECORD_BYTES * 3 // 4
    assert len(records) <= 8, "and they are few"


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
