"""Dictionaries that edges send again and again are one table; whatever the bytes, what comes out is right or refused."""

from __future__ import annotations

import resource
import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry import arrow_read
from telemetry.arrow_read import NameTables, decode_samples
from telemetry.batch import SampleBatch
from telemetry.errors import RecordError
from telemetry.wire import encode_samples

NAMES = st.lists(st.text(max_size=6), min_size=1, max_size=6, unique=True)


def record(names: list[str], signal: list[int] | None = None) -> bytes:
    index = np.array(range(len(names)) if signal is None else signal, np.int32)
    n = len(index)
    return encode_samples(
        SampleBatch(tuple(names), index, np.arange(n, dtype=np.int64), np.zeros(n), np.full(n, 192, np.uint8))
    ).value


def of_arrow(dictionary: pa.Array, index: list[int], kind: pa.DataType | None = None) -> bytes:
    """As some other writer may make it."""
    kind = kind or pa.int32()
    n = len(index)
    signal = pa.DictionaryArray.from_arrays(pa.array(index, kind), dictionary)
    columns = [
        signal,
        pa.array(range(n), pa.timestamp("us", tz="UTC")),
        pa.array([0.0] * n),
        pa.array([192] * n, pa.uint8()),
    ]
    batch = pa.record_batch(columns, ["signal", "time", "value", "quality"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def rows(batch: SampleBatch) -> list[str]:
    return [batch.names[place] for place in batch.signal.tolist()]


def test_the_same_bytes_share_one_tuple() -> None:
    known = NameTables()
    first, second = (decode_samples(record(["a/x", "b/y"], signal), known) for signal in ([0, 1], [1, 1, 0]))
    assert second.names is first.names
    assert (rows(first), rows(second)) == (["a/x", "b/y"], ["b/y", "b/y", "a/x"])


def test_the_same_text_cut_in_another_way_is_another_dictionary() -> None:
    known = NameTables()
    cut = [["a/xb/y"], ["a/x", "b/y"], ["a/xb", "/y"], ["", "a/xb/y"], ["a/xb/y", ""]]
    assert [decode_samples(record(names), known).names for names in cut] == [tuple(names) for names in cut]


@given(st.lists(NAMES, max_size=12))
def test_with_and_without_memory_the_same_comes_out(dictionaries: list[list[str]]) -> None:
    known = NameTables()
    for names in dictionaries * 2:
        value = record(names)
        assert rows(decode_samples(value, known)) == rows(decode_samples(value)) == names


@pytest.mark.parametrize(
    "made",
    [
        of_arrow(pa.array(["x", "a/x", "b/y"])[1:], [0, 1, 1]),
        of_arrow(pa.array(["a/x", "b/y"], pa.large_utf8()), [0, 1, 1]),
        of_arrow(pa.array(["a/x", "b/y"]), [0, 1, 1], pa.int8()),
        of_arrow(pa.array(["a/x", "b/y", "a/x"]), [0, 1, 1]),
        of_arrow(pa.array(["a/x", "b/y", "a/x"]), [2, 1, 1]),
    ],
    ids=["a part of an array", "long text", "short indices", "a name twice", "the second of a name twice"],
)
def test_dictionaries_of_other_writers_are_read_alike_each_time(made: bytes) -> None:
    known = NameTables()
    decode_samples(record(["a/x", "b/y", "c/z"]), known)
    for _ in range(2):
        found = decode_samples(made, known)
        assert rows(found) == ["a/x", "b/y", "b/y"]
        assert len(set(found.names)) == len(found.names)


def test_what_is_remembered_is_bounded_in_bytes_and_the_one_used_longest_ago_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrow_read, "REMEMBERED_BYTES", 100_000)
    known = NameTables()
    often = record(["often/x"])
    first = decode_samples(often, known).names
    seldom = record(["seldom/x"])
    before = decode_samples(seldom, known).names
    for n in range(30):
        decode_samples(record([f"{n}" + "long" * 2_500]), known)  # some 20 kB each, but one name
        assert decode_samples(often, known).names is first
    assert sum(2 * len(key) for key in known._tables) <= 100_000
    assert decode_samples(seldom, known).names is not before


def test_one_dictionary_beyond_the_bound_is_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_read, "REMEMBERED_BYTES", 10)
    known = NameTables()
    for names in (["a/x"], ["b/y"], ["a/x"]):
        assert decode_samples(record(names), known).names == tuple(names)
    assert len(known._tables) == 1


@pytest.mark.parametrize("offsets", [(0, 3, 99), (0, 99, 6), (-1, 3, 6), (0, 6, 3), (0, -3, 6), (2**31 - 1, 3, 6)])
def test_offsets_that_lead_out_of_the_text_are_refused_and_not_remembered(offsets: tuple[int, int, int]) -> None:
    whole, broken = struct.pack("<3i", 0, 3, 6), struct.pack("<3i", *offsets)
    value = record(["a/x", "b/y"])
    assert value.count(whole) == 1
    known = NameTables()
    with pytest.raises(RecordError, match="arrow"):
        decode_samples(value.replace(whole, broken), known)
    assert not known._tables
    assert decode_samples(value, known).names == ("a/x", "b/y")


@settings(max_examples=150)
@given(st.data())
def test_damaged_bytes_raise_record_errors_only_and_leave_the_memory_right(data: st.DataObject) -> None:
    known = NameTables()
    whole = record(["a/x", "b/y", "锅炉/压力"])
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode_samples(bytes(damaged), known)
    except RecordError:
        pass
    else:
        again = decode_samples(bytes(damaged))
        assert (found.names, rows(found)) == (again.names, rows(again))
    assert decode_samples(whole, known).names == ("a/x", "b/y", "锅炉/压力")


@pytest.mark.parametrize("said", [1 << 62, 8 << 30, 20_000 * 8 + 8, 20_000 * 4 - 8, 0, -1, -5])
@pytest.mark.parametrize("bytes_a_row", [8, 4])
def test_a_compressed_buffer_that_lies_about_its_length_is_refused_and_costs_no_memory(
    said: int, bytes_a_row: int
) -> None:
    """Arrow puts the length before the LZ4 frame; whoever believes it sets aside 8 GB for 20 kB."""
    whole = record(["a/x"], [0] * 20_000)
    place = whole.index(struct.pack("<q", 20_000 * bytes_a_row) + b"\x04\x22\x4d\x18")
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RecordError, match="arrow: ") as refused:
        decode_samples(whole[:place] + struct.pack("<q", said) + whole[place + 8 :])
    assert refused.value.reason == "arrow"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 50_000
    assert len(decode_samples(whole)) == 20_000
