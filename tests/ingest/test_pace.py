"""When a flush leaves: small fleets at once, large ones with rows enough of each signal, none without a bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.pace import (
    BUSY_ROWS_PER_S,
    FETCH_BYTES,
    FETCH_RECORDS,
    FETCH_ROWS,
    MAX_BYTES,
    MAX_ROWS,
    MIN_ROWS,
    OLD_S,
    OLDEST_S,
    YOUNG_S,
    Pace,
    records_to_fetch,
)

SIGNALS = st.integers(0, 10_000_000)


@pytest.mark.parametrize(
    ("signals", "rows"),
    [(0, MIN_ROWS), (5_000, MIN_ROWS), (10_000, 1_000_000), (40_000, MAX_ROWS), (1_000_000, MAX_ROWS)],
)
def test_a_flush_is_full_with_a_hundred_rows_a_signal_within_bounds(signals: int, rows: int) -> None:
    pace = Pace(signals)
    assert not pace.full(rows - 1, 0)
    assert pace.full(rows, 0)


@given(SIGNALS, st.integers(0, 2 * MAX_ROWS))
def test_a_flush_never_holds_more_than_the_bounds_say_whatever_the_fleet(signals: int, rows: int) -> None:
    assert Pace(signals).full(rows, MAX_BYTES)
    assert Pace(signals).full(max(rows, MAX_ROWS), 0)
    assert not Pace(signals).full(min(rows, MIN_ROWS - 1), MAX_BYTES - 1)


@pytest.mark.parametrize(
    ("signals", "patience_s"), [(0, 1.0), (25_000, 1.0), (50_000, 2.0), (100_000, 4.0), (1_000_000, 4.0)]
)
def test_under_load_a_flush_waits_longer_the_more_signals_there_are(signals: int, patience_s: float) -> None:
    assert Pace(signals).patience_s(1_000_000, 0.5) == patience_s


@given(SIGNALS, st.floats(0, 10))
def test_without_load_a_flush_leaves_young_whatever_the_fleet(signals: int, age_s: float) -> None:
    assert Pace(signals).patience_s(int(BUSY_ROWS_PER_S * max(age_s, YOUNG_S)), age_s) == YOUNG_S
    assert Pace(signals).patience_s(0, age_s) == YOUNG_S


@given(SIGNALS, st.integers(0, MAX_ROWS), st.floats(0, 10))
def test_no_flush_waits_longer_than_the_longest(signals: int, rows: int, age_s: float) -> None:
    assert Pace(signals).patience_s(rows, age_s) in (YOUNG_S, min(max(signals / 25_000, OLD_S), OLDEST_S))


def test_a_load_that_ends_lets_the_flush_go() -> None:
    """Rows that came in the first moment of a flush; nothing comes after them."""
    pace = Pace(1_000_000)
    assert pace.patience_s(30_000, 0.1) == OLDEST_S
    assert pace.patience_s(30_000, 1.5) == YOUNG_S


@pytest.mark.parametrize(
    ("size", "rows", "records"),
    [
        (225_000, 10_000, 49),  # rows are the bound
        (54_000, 10_000, 49),  # the same rows, compressed: not four times as many
        (1_000_000, 1_000, 16),  # bytes are
        (300, 0, FETCH_RECORDS),  # heartbeats
        (64 << 20, 4_000_000, 1),
    ],
)
def test_so_many_records_are_fetched_as_rows_and_bytes_allow(size: float, rows: float, records: int) -> None:
    assert records_to_fetch(size=size, rows=rows) == records


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_fetch_is_never_nothing_and_never_beyond_its_bounds_but_for_one_record(size: float, rows: float) -> None:
    records = records_to_fetch(size=size, rows=rows)
    assert 1 <= records <= FETCH_RECORDS
    assert records == 1 or (records * size <= FETCH_BYTES and records * rows <= FETCH_ROWS)
