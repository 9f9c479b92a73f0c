"""The pure half: rows to bytes, order, validation, cells; each against a plain loop."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.accounts import cells
from ingest.copy import HEADER, SLICE_ROWS, TRAILER, Rows, encoded, last_of_each, ordered
from ingest.decode import read
from ingest.flush import Batch, Flush, prepare
from ingest.latest import Latest
from ingest.refused import cells_of
from ingest.signals import Dictionary
from ingest.validate import AHEAD_US, DAY_US, bounds_at, failing
from telemetry.batch import SampleBatch, from_rows
from telemetry.ledger import HOUR_US
from telemetry.log.protocol import InRecord, Partition
from telemetry.pg_array import EPOCH_2000_US
from telemetry.wire import Identity, encode_samples, headers

Row = tuple[int, int, float, int]
ROWS = st.lists(
    st.tuples(
        st.integers(1, 2**31 - 1),
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=True),
        st.integers(0, 255),
    ),
    max_size=40,
)


def rows(listed: list[Row]) -> Rows:
    return Rows(
        np.array([r[0] for r in listed], np.int32),
        np.array([r[1] for r in listed], np.int64),
        np.array([r[2] for r in listed], np.float64),
        np.array([r[3] for r in listed], np.uint8),
    )


def plain(listed: list[Row]) -> bytes:
    """The COPY format by the manual, field by field."""
    out = [b"PGCOPY\n\xff\r\n\0", struct.pack(">ii", 0, 0)]
    for signal, time, value, quality in listed:
        absent = value != value
        out.append(struct.pack(">hiiiq", 4, 4, signal, 8, time - EPOCH_2000_US))
        out.append(struct.pack(">i", -1) if absent else struct.pack(">id", 8, value))
        out.append(struct.pack(">ih", 2, quality))
    return b"".join([*out, struct.pack(">h", -1)])


@given(ROWS)
def test_rows_are_encoded_as_the_manual_says(listed: list[Row]) -> None:
    assert b"".join(map(bytes, encoded(rows(listed)))) == plain(listed)


def test_many_rows_leave_in_slices_of_about_a_megabyte() -> None:
    many = Rows(np.ones(60_000, np.int32), np.zeros(60_000, np.int64), np.zeros(60_000), np.full(60_000, 192, np.uint8))
    parts = list(map(bytes, encoded(many)))
    assert (parts[0], parts[-1]) == (HEADER, TRAILER)
    assert [len(p) // 40 for p in parts[1:-1]] == [SLICE_ROWS, SLICE_ROWS, 60_000 - 2 * SLICE_ROWS]


@given(ROWS)
def test_rows_are_ordered_by_signal_and_time_and_none_is_lost(listed: list[Row]) -> None:
    found = ordered(rows(listed))
    keys = list(zip(found.signal_id.tolist(), found.time_us.tolist(), strict=True))
    assert keys == sorted((r[0], r[1]) for r in listed)
    assert sorted(map(repr, zip(*[c.tolist() for c in _columns(found)], strict=True))) == sorted(
        map(repr, zip(*[c.tolist() for c in _columns(rows(listed))], strict=True))
    )


@given(st.lists(st.tuples(st.sampled_from(["a/x", "a/y", "b/x"]), st.integers(-40, 40)), min_size=1, max_size=60))
def test_rows_are_counted_by_signal_and_day_for_those_are_the_batches_of_direct_compress(
    listed: list[tuple[str, int]],
) -> None:
    listed = [(name, NOW // DAY_US * DAY_US + hours * HOUR_US) for name, hours in listed]
    content = from_rows([(name, time_us, 1.0, 192) for name, time_us in listed])
    ids = np.arange(1, len(content.names) + 1, dtype=np.int32)
    encoded_ = encode_samples(content)
    identity = Identity("edge", 1, 0)
    record = InRecord(Partition("t", 0), 0, 0, b"", encoded_.value, headers(identity, encoded_))
    dictionary = Dictionary(ids, np.zeros(len(ids), np.int32), ["e"])
    (reading,) = read([record])
    prepared = prepare([Batch(reading, identity, content, dictionary)], bounds_at(NOW, late_bound_days=1000))
    kept = [(name, time_us) for name, time_us in listed if time_us <= NOW + AHEAD_US]
    assert len(prepared.rows) == len(kept)
    segments = len({(name, time_us // DAY_US) for name, time_us in kept})
    assert prepared.rows_per_segment == (len(kept) / segments if segments else 0.0)


@pytest.mark.parametrize("run", [1, 3, 500])
@pytest.mark.parametrize("wide", [False, True])
def test_rows_of_one_signal_and_time_stay_in_the_order_of_the_log(run: int, wide: bool) -> None:
    """In short runs and long ones, and where the key of (signal, time) does not fit into one integer."""
    made = np.random.default_rng(run)
    n = 6_000
    signals = made.integers(1, 2**31 - 1 if wide else 300, (n // run, 1)) + np.arange(run)
    moments = made.integers(0, 3, n) * (1 << 40 if wide else 1)
    given_rows = Rows(signals.ravel().astype(np.int32), moments, np.arange(n, dtype=np.float64), np.zeros(n, np.uint8))
    twice = Rows(*(np.concatenate([column, column]) for column in _columns(given_rows)))
    found = ordered(replace(twice, value=np.arange(2 * n, dtype=np.float64)))
    assert np.array_equal(found.value, np.lexsort((np.arange(2 * n), twice.time_us, twice.signal_id)))
    last = last_of_each(found)
    assert (last.value >= n).all(), "of two equal rows the later one of the log is the latest"


@given(ROWS)
def test_the_last_of_each_signal_is_its_newest(listed: list[Row]) -> None:
    found = last_of_each(ordered(rows(listed)))
    newest: dict[int, int] = {}
    for signal, time, _, _ in listed:
        newest[signal] = max(time, newest.get(signal, time))
    assert dict(zip(found.signal_id.tolist(), found.time_us.tolist(), strict=True)) == newest


@given(
    st.lists(st.tuples(st.sampled_from(["a/x", "a/y", "b/x"]), st.integers(-3 * HOUR_US, 60 * HOUR_US)), max_size=30)
)
def test_cells_are_samples_counted_by_equipment_and_hour(listed: list[tuple[str, int]]) -> None:
    batch = from_rows([(name, time, 1.0, 192) for name, time in listed])
    equipments = tuple(dict.fromkeys(name.partition("/")[0] for name in batch.names))
    dictionary = Dictionary(
        np.zeros(len(batch.names), np.int32),
        np.array([equipments.index(name.partition("/")[0]) for name in batch.names], np.int32),
        equipments,
    )
    expected: dict[tuple[str, int], int] = {}
    for name, time in listed:
        cell = (name.partition("/")[0], time // HOUR_US * HOUR_US)
        expected[cell] = expected.get(cell, 0) + 1
    found = cells(batch, dictionary)
    where = zip(found.place.tolist(), found.hour.tolist(), strict=True)
    counted = [
        ((equipments[place], hour * HOUR_US), n) for (place, hour), n in zip(where, found.samples.tolist(), strict=True)
    ]
    assert dict(counted) == expected
    assert len(counted) == len(expected), "each pair once"
    assert {cell: n for cell, (n, _) in cells_of(batch).items()} == expected


NOW = 1_800_000_000_000_000


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20), st.booleans())
def test_a_row_fails_for_one_reason_exactly_when_it_must(times: list[int], nameless: bool) -> None:
    batch = from_rows([("a/x", time, 1.0, 192) for time in times])
    ids = np.array([-1 if nameless and n == 0 else 1 for n in range(len(times))], np.int32)
    masks = {refused.reason: mask for mask, refused in failing(batch, ids, bounds_at(NOW, late_bound_days=30))}
    for n, time in enumerate(times):
        found = [reason for reason, mask in masks.items() if mask[n]]
        old = time < NOW - 30 * 24 * HOUR_US
        expected = "name" if ids[n] < 0 else "future" if time > NOW + AHEAD_US else "too-old" if old else None
        assert found == ([expected] if expected else [])


def test_a_batch_that_is_empty_has_no_failing_rows() -> None:
    empty = SampleBatch((), np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint8))
    assert failing(empty, np.empty(0, np.int32), bounds_at(NOW, late_bound_days=30)) == []


def test_latest_writes_a_signal_at_most_once_a_second_and_keeps_the_newest() -> None:
    latest = Latest()
    latest.add(rows([(3, 100, 1.0, 192)]))
    assert latest.due(10.0).value.tolist() == [1.0]
    latest.add(rows([(3, 200, 2.0, 192)]))
    latest.add(rows([(3, 150, 9.0, 192)]))
    assert len(latest.due(10.5)) == 0
    assert latest.pending == 1
    assert latest.due(11.0).value.tolist() == [2.0]
    assert len(latest.due(12.0)) == 0


def test_a_partition_that_went_to_somebody_else_leaves_the_flush_with_its_rows_and_bytes() -> None:
    ours, theirs = Partition("vigil.telemetry", 0), Partition("vigil.telemetry", 1)

    def record(partition: Partition, offset: int, samples: int) -> InRecord:
        made = encode_samples(from_rows([("a/x", n, 1.0, 192) for n in range(samples)]))
        return InRecord(partition, offset, 0, b"e", made.value, headers(Identity("e", 7, offset), made))

    flush, kept = Flush(), Flush()
    flush.add(read([record(ours, 0, 2), record(theirs, 1, 5), record(ours, 2, 3)]))
    kept.add(read([record(ours, 0, 2), record(ours, 2, 3)]))
    flush.drop([theirs])
    assert list(flush.last()) == [ours]
    assert (flush.rows, flush.bytes) == (kept.rows, kept.bytes)
    assert [reading.record.offset for reading in flush.readings] == [0, 2]


def _columns(found: Rows) -> tuple[np.ndarray, ...]:
    return found.signal_id, found.time_us, found.value, found.quality
