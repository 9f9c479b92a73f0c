"""The sample batch: columns of one length that nobody can write to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.batch import EMPTY, SampleBatch, concatenate, from_rows

Row = tuple[str, int, float, int]
rows = st.lists(
    st.tuples(st.sampled_from(["a/x", "a/y", "b/x"]), st.integers(-(2**62), 2**62), st.floats(), st.integers(0, 255)),
    max_size=20,
)


def listed(batch: SampleBatch) -> list[tuple[str, int, bytes, int]]:
    return [
        (batch.names[batch.signal[i]], int(batch.time_us[i]), batch.value[i].tobytes(), int(batch.quality[i]))
        for i in range(len(batch))
    ]


def expected(sent: list[Row]) -> list[tuple[str, int, bytes, int]]:
    return [(name, time, np.float64(value).tobytes(), quality) for name, time, value, quality in sent]


@given(rows)
def test_rows_are_kept_in_order_and_bit_for_bit(sent: list[Row]) -> None:
    batch = from_rows(sent)
    assert listed(batch) == expected(sent)
    assert len(set(batch.names)) == len(batch.names)


@given(st.lists(rows, max_size=5))
def test_batches_of_different_dictionaries_join_in_order_under_one(parts: list[list[Row]]) -> None:
    joined = concatenate([from_rows(part) for part in parts])
    assert listed(joined) == [row for part in parts for row in expected(part)]
    assert len(set(joined.names)) == len(joined.names)


@given(rows, st.data())
def test_taking_rows_by_mask_or_place_keeps_the_dictionary(sent: list[Row], data: st.DataObject) -> None:
    batch = from_rows(sent)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(sent), max_size=len(sent))), bool)
    assert listed(batch.take(mask)) == [row for row, kept in zip(expected(sent), mask, strict=True) if kept]
    assert listed(batch.take(np.flatnonzero(mask))) == listed(batch.take(mask))
    assert batch.take(mask).names == batch.names


def test_nobody_can_write_to_a_batch() -> None:
    batch = from_rows([("a/x", 1, 1.0, 192)])
    for array in (batch.signal, batch.time_us, batch.value, batch.quality, batch.take(np.array([0])).value):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(AttributeError):
        batch.names = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("column", "array", "said"),
    [
        ("signal", np.zeros(2, np.int64), r"signal: expected \(2,\) int32, found \(2,\) int64"),
        ("time_us", np.zeros(2, np.float64), r"time_us: expected \(2,\) int64, found \(2,\) float64"),
        ("value", np.zeros(3), r"value: expected \(2,\) float64, found \(3,\) float64"),
        ("value", np.zeros((2, 1)), r"value: expected \(2,\) float64, found \(2, 1\)"),
        ("quality", np.zeros(2, np.int8), r"quality: expected \(2,\) uint8"),
        ("signal", np.array([0, 1], np.int32), r"signal: expected indices in 0\.\.0, found 0\.\.1"),
        ("signal", np.array([-1, 0], np.int32), r"found -1\.\.0"),
    ],
)
def test_a_column_of_another_shape_type_or_beyond_the_dictionary_is_refused(
    column: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], said: str
) -> None:
    columns = {
        "signal": np.zeros(2, np.int32),
        "time_us": np.zeros(2, np.int64),
        "value": np.zeros(2),
        "quality": np.zeros(2, np.uint8),
    }
    with pytest.raises(ValueError, match=said):
        SampleBatch(("a/x",), **{**columns, column: array})  # type: ignore[arg-type]


def test_an_empty_batch_joins_and_has_no_bad_rows() -> None:
    assert len(concatenate([])) == 0
    assert len(concatenate([EMPTY, EMPTY])) == 0
    assert EMPTY.bad.shape == (0,)


def test_bad_rows_are_those_of_bad_quality() -> None:
    assert from_rows([("a/x", 1, 1.0, 192), ("a/x", 2, 1.0, 24), ("a/x", 3, 1.0, 64)]).bad.tolist() == [
        False,
        True,
        False,
    ]
