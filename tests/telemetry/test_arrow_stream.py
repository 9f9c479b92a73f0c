"""The Arrow stream written without pyarrow: what pyarrow and nanoarrow read is what was written, bit for bit."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import nanoarrow
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from telemetry.arrow_read import decode_samples
from telemetry.arrow_stream import SCHEMA_MESSAGE, write_stream
from telemetry.batch import SampleBatch
from telemetry.ledger import name_hash
from telemetry.name_block import NameBlock, name_block
from telemetry.wire import encode_columns, encode_samples

SCHEMA = pa.schema(
    [
        ("signal", pa.dictionary(pa.int32(), pa.utf8())),
        ("time", pa.timestamp("us", tz="UTC")),
        ("value", pa.float64()),
        ("quality", pa.uint8()),
    ]
)

Columns = tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.uint8]]


def columns(signal: Sequence[int], *, value: Sequence[float] | None = None) -> Columns:
    n = len(signal)
    return (
        np.array(signal, np.int32),
        np.arange(n, dtype=np.int64) - 1,
        np.arange(n, dtype=np.float64) if value is None else np.array(value, np.float64),
        np.full(n, 192, np.uint8),
    )


def as_pyarrow_writes(names: Sequence[str], written: Columns) -> bytes:
    signal, time_us, value, quality = written
    batch = pa.record_batch(
        [
            pa.DictionaryArray.from_arrays(pa.array(signal), pa.array(names, pa.utf8())),
            pa.array(time_us).cast(pa.timestamp("us", tz="UTC")),
            pa.array(value),
            pa.array(quality),
        ],
        schema=SCHEMA,
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def content(stream: bytes) -> dict[str, Any]:
    """All that pyarrow finds, bits included."""
    with pa.ipc.open_stream(stream) as reader:
        schema = reader.schema
        batches = list(reader)
    for batch in batches:
        batch.validate(full=True)
    (batch,) = batches
    signal = batch.column("signal")
    return {
        "schema": schema,
        "nulls": [column.null_count for column in batch.columns],
        "names": signal.dictionary.to_pylist(),
        "signal": signal.indices.to_numpy().tolist(),
        "time": batch.column("time").cast(pa.int64()).to_numpy().tolist(),
        "value": batch.column("value").to_numpy().tobytes(),
        "quality": batch.column("quality").to_numpy().tolist(),
    }


@st.composite
def records(draw: st.DrawFn) -> tuple[list[list[str]], Columns]:
    blocks = draw(st.lists(st.lists(st.text(max_size=12), max_size=6), max_size=5))
    names = sum(map(len, blocks))
    n = draw(st.integers(0, 40)) if names else 0
    bits = draw(st.lists(st.integers(0, 2**64 - 1), min_size=n, max_size=n))  # NaN of every kind among them
    signal = draw(st.lists(st.integers(0, max(names - 1, 0)), min_size=n, max_size=n))
    time_us = draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=n, max_size=n))
    quality = draw(st.lists(st.integers(0, 255), min_size=n, max_size=n))
    value = np.array(bits, np.uint64).view(np.float64)
    return blocks, (np.array(signal, np.int32), np.array(time_us, np.int64), value, np.array(quality, np.uint8))


@given(records())
@example(([], columns([])))
@example(([[], ["锅炉/压力", ""], []], columns([1, 0, 1], value=[math.nan, -0.0, math.inf])))
@example(([["a/b"], ["a/b"]], columns([1, 0])))
def test_pyarrow_reads_what_was_written_and_what_its_own_writer_would_have_written(
    record: tuple[list[list[str]], Columns],
) -> None:
    blocks, written = record
    names = [name for block in blocks for name in block]
    read = content(write_stream([name_block(block) for block in blocks], *written))
    signal, time_us, value, quality = written
    assert read == {
        "schema": SCHEMA,
        "nulls": [0, 0, 0, 0],
        "names": names,
        "signal": signal.tolist(),
        "time": time_us.tolist(),
        "value": value.tobytes(),
        "quality": quality.tolist(),
    }
    assert read == content(as_pyarrow_writes(names, written))


@given(records())
@settings(max_examples=50)
def test_a_reader_that_shares_no_code_with_pyarrow_reads_it_too(record: tuple[list[list[str]], Columns]) -> None:
    blocks, written = record
    names = [name for block in blocks for name in block]
    stream = nanoarrow.ArrayStream.from_readable(BytesIO(write_stream([name_block(b) for b in blocks], *written)))
    assert [field.name for field in stream.schema.fields] == SCHEMA.names
    signal = written[0]
    batches = list(stream.read_all().iter_chunks())
    if not len(signal):
        assert sum(map(len, batches)) == 0
        return
    (batch,) = batches
    assert [batch.child(0)[i].as_py() for i in range(len(signal))] == [names[i] for i in signal]
    found = [bytes(batch.child(child).buffers[1]) for child in range(4)]
    assert found == [column.tobytes() for column in written]


def test_names_that_fill_megabytes_are_read_back() -> None:
    names = [f"{number:06}/" + "p" * 3000 for number in range(3000)]
    stream = write_stream([name_block(names[:1000]), name_block(names[1000:])], *columns([0, 2999, 1000]))
    assert len(stream) > 9_000_000
    read = content(stream)
    assert read["names"] == names
    assert read["signal"] == [0, 2999, 1000]


def test_more_names_than_an_offset_can_say_are_refused_before_anything_is_copied() -> None:
    large = NameBlock(("x",), bytes(1 << 24), np.array([1 << 24], np.int32), np.zeros(1, np.uint64))
    with pytest.raises(ValueError, match="over 2 GiB"):
        write_stream([large] * 128, *columns([0]))


def test_what_a_reader_would_refuse_is_never_written() -> None:
    signal, time_us, value, quality = columns([0, 1])
    block = name_block(["a/x", "a/y"])
    for wrong in (
        (np.array([0, 2], np.int32), time_us, value, quality),
        (np.array([0, -1], np.int32), time_us, value, quality),
        (np.array([0, 1], np.int64), time_us, value, quality),
        (signal, time_us[:1], value, quality),
        (signal, time_us, value.astype(np.float32), quality),
        (signal, time_us, value, quality.reshape(2, 1)),
    ):
        with pytest.raises(ValueError, match="expected"):
            write_stream([block], *wrong)
    with pytest.raises(ValueError, match=r"expected indices in 0\.\.-1"):
        write_stream([], signal, time_us, value, quality)


def test_columns_that_are_views_with_steps_are_written_as_they_read() -> None:
    signal, time_us, value, quality = columns(list(range(8)))
    block = name_block([f"a/{i}" for i in range(8)])
    stepped = write_stream([block], signal[::2], time_us[::-2], value[1::2], quality[::2])
    assert stepped == write_stream(
        [block], signal[::2].copy(), time_us[::-2].copy(), value[1::2].copy(), quality[::2].copy()
    )
    assert content(stepped)["signal"] == [0, 2, 4, 6]


def test_a_record_of_columns_is_the_record_of_their_batch() -> None:
    names, written = ("a/x", "b/y", "b/z"), columns([0, 2, 1, 0])
    encoded = encode_columns([name_block(names[:1]), name_block(names[1:])], *written)
    assert encoded == encode_samples(SampleBatch(names, *written))
    assert encoded.count == 4
    assert decode_samples(encoded.value).names == names


def test_a_block_of_names_has_their_bytes_lengths_and_hashes() -> None:
    block = name_block(["lift-1/速度", "", "lift-1/door"])
    assert block.names == ("lift-1/速度", "", "lift-1/door")
    assert block.utf8 == "lift-1/速度lift-1/door".encode()
    assert block.lengths.tolist() == [13, 0, 11]
    assert block.hashes.tolist() == [name_hash(name) for name in block.names]
    assert block.hashes.dtype == np.uint64
    assert not block.lengths.flags.writeable
    assert not block.hashes.flags.writeable
    with pytest.raises(UnicodeEncodeError):
        name_block(["\ud800"])


# Field numbers and enumerations as Message.fbs and Schema.fbs of the format give them, read by a reader of this test's.


class Walk:
    """A table of a flatbuffer."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.vtable = at - struct.unpack_from("<i", data, at)[0]

    def place(self, field: int) -> int | None:
        (size,) = struct.unpack_from("<H", self.data, self.vtable)
        if 4 + 2 * field >= size:
            return None
        (offset,) = struct.unpack_from("<H", self.data, self.vtable + 4 + 2 * field)
        return self.at + offset if offset else None

    def number(self, field: int, code: str) -> int:
        place = self.place(field)
        return 0 if place is None else int(struct.unpack_from("<" + code, self.data, place)[0])

    def target(self, field: int) -> int:
        place = self.place(field)
        assert place is not None
        return place + int(struct.unpack_from("<I", self.data, place)[0])

    def table(self, field: int) -> Walk:
        return Walk(self.data, self.target(field))

    def text(self, field: int) -> str:
        place = self.target(field)
        (length,) = struct.unpack_from("<I", self.data, place)
        assert self.data[place + 4 + length] == 0
        return self.data[place + 4 : place + 4 + length].decode()

    def longs(self, field: int, each: int) -> list[tuple[int, ...]]:
        place = self.target(field)
        (count,) = struct.unpack_from("<I", self.data, place)
        assert (place + 4) % 8 == 0
        return [struct.unpack_from(f"<{each}q", self.data, place + 4 + 8 * each * i) for i in range(count)]

    def tables(self, field: int) -> list[Walk]:
        place = self.target(field)
        (count,) = struct.unpack_from("<I", self.data, place)
        places = [place + 4 + 4 * i for i in range(count)]
        return [Walk(self.data, at + struct.unpack_from("<I", self.data, at)[0]) for at in places]


def messages(stream: bytes) -> Iterator[tuple[Walk, int, int]]:
    """(Message, where its body begins in the stream, where it ends) up to the end-of-stream marker."""
    at = 0
    while True:
        assert at % 8 == 0
        assert stream[at : at + 4] == b"\xff\xff\xff\xff", "continuation"
        (size,) = struct.unpack_from("<i", stream, at + 4)
        if size == 0:
            assert at + 8 == len(stream), "nothing follows the end"
            return
        assert size % 8 == 0
        metadata = stream[at + 8 : at + 8 + size]
        message = Walk(metadata, struct.unpack_from("<I", metadata)[0])
        body = at + 8 + size
        at = body + message.number(3, "q")
        assert message.number(0, "h") == 4, "MetadataVersion V5"
        yield message, body, at


def test_the_schema_message_says_what_the_wire_format_promises() -> None:
    ((schema, begin, end), *_) = messages(write_stream([], *columns([])))
    assert schema.number(1, "B") == 1, "MessageHeader Schema"
    assert begin == end == len(SCHEMA_MESSAGE)
    assert schema.table(2).number(0, "h") == 0, "little-endian"
    signal, time, value, quality = fields = schema.table(2).tables(1)
    assert [field.text(0) for field in fields] == ["signal", "time", "value", "quality"]
    assert [field.number(1, "b") for field in fields] == [1, 1, 1, 1], "nullable, as pyarrow's"
    assert [field.number(2, "B") for field in fields] == [5, 10, 3, 2], "Utf8, Timestamp, FloatingPoint, Int"
    assert [field.tables(5) for field in fields] == [[], [], [], []], "children are there and empty"
    assert [field.place(4) is None for field in fields] == [False, True, True, True], "the one dictionary"
    assert signal.table(4).number(0, "q") == 0
    assert (signal.table(4).table(1).number(0, "i"), signal.table(4).table(1).number(1, "b")) == (32, 1)
    assert time.table(3).number(0, "h") == 2, "MICROSECOND"
    assert time.table(3).text(1) == "UTC"
    assert value.table(3).number(0, "h") == 2, "DOUBLE"
    assert (quality.table(3).number(0, "i"), quality.table(3).number(1, "b")) == (8, 0)


@given(records())
def test_every_buffer_lies_where_the_metadata_says_at_a_multiple_of_eight(
    record: tuple[list[list[str]], Columns],
) -> None:
    blocks, written = record
    utf8 = "".join(name for block in blocks for name in block).encode()
    names = [name.encode() for block in blocks for name in block]
    stream = write_stream([name_block(block) for block in blocks], *written)
    _, (dictionary, names_at, names_end), (rows, rows_at, rows_end) = messages(stream)
    assert (dictionary.number(1, "B"), rows.number(1, "B")) == (2, 3), "DictionaryBatch, RecordBatch"
    assert dictionary.table(2).number(0, "q") == 0, "its id"
    assert dictionary.table(2).number(2, "b") == 0, "no delta"
    offsets = np.cumsum([0, *map(len, names)]).astype("<i4")
    n = len(written[0])
    for batch, begin, end, length, expected in (
        (dictionary.table(2).table(1), names_at, names_end, len(names), [[b"", offsets.tobytes(), utf8]]),
        (rows.table(2), rows_at, rows_end, n, [[b"", column.tobytes()] for column in written]),
    ):
        assert batch.number(0, "q") == length
        assert batch.longs(1, 2) == [(length, 0)] * len(expected)
        places = batch.longs(2, 2)
        assert all((begin + at) % 8 == 0 and begin + at + size <= end for at, size in places)
        found = [stream[begin + at : begin + at + size] for at, size in places]
        assert found == [buffer for buffers in expected for buffer in buffers]


def laid_out(*lines: str) -> bytes:
    return b"".join(bytes.fromhex(line.partition("#")[0]) for line in lines)


def test_the_smallest_record_is_these_bytes() -> None:
    """One reading of 1.5, good, 1 µs before 1970, of a/b; laid out from the format's documents."""
    stream = write_stream([name_block(["a/b"])], *columns([0], value=[1.5]))
    assert stream[: len(SCHEMA_MESSAGE)] == SCHEMA_MESSAGE
    dictionary_bytes, batch_bytes = 208, 320
    assert stream[len(SCHEMA_MESSAGE) : len(SCHEMA_MESSAGE) + dictionary_bytes] == laid_out(
        "ffffffff b8000000      # continuation; 184 bytes of metadata",
        "14000000               # 0: Message is at 20",
        "0c00 1300 1000 1200 0c00 0400  # 4: its vtable: version at 16, kind at 18, header at 12, bodyLength at 4",
        "00000000               # 16: padding",
        "10000000 1000000000000000  # 20: vtable 16 back; bodyLength 16",
        "14000000 0400 02 00    # 32: header 20 on, V5, DictionaryBatch",
        "0800 1000 0400 0c00 00000000  # 40: vtable: id at 4, data at 12, isDelta absent; padding",
        "0c000000 0000000000000000 14000000  # 52: DictionaryBatch: id 0, data 20 on",
        "0a00 1400 0400 0c00 1000 0000 00000000  # 68: vtable: length at 4, nodes at 12, buffers at 16",
        "10000000 0100000000000000  # 84: RecordBatch: one name",
        "0c000000 20000000      # 96: nodes 12 on, buffers 32 on",
        "00000000               # 104: padding",
        "01000000 0100000000000000 0000000000000000  # 108: one node: one value, no null",
        "00000000 03000000      # 128: padding; three buffers",
        "0000000000000000 0000000000000000  # validity: none",
        "0000000000000000 0800000000000000  # offsets: at 0, 8 bytes",
        "0800000000000000 0300000000000000  # characters: at 8, 3 bytes",
        "00000000 03000000 612f62 0000000000  # the body: 0, 3; a/b",
    )
    assert stream[len(SCHEMA_MESSAGE) + dictionary_bytes :] == laid_out(
        "ffffffff 18010000      # continuation; 280 bytes of metadata",
        "14000000               # 0: Message is at 20",
        "0c00 1300 1000 1200 0c00 0400 00000000  # 4: its vtable, as before",
        "10000000 2000000000000000  # 20: bodyLength 32",
        "14000000 0400 03 00    # 32: header 20 on, V5, RecordBatch",
        "0a00 1400 0400 0c00 1000 0000  # 40: vtable: length at 4, nodes at 12, buffers at 16; padding",
        "0c000000 0100000000000000  # 52: RecordBatch: one row",
        "0c000000 50000000      # 64: nodes 12 on, buffers 80 on",
        "00000000 04000000      # 72: padding; four nodes",
        *["0100000000000000 0000000000000000  # one value, no null"] * 4,
        "00000000 08000000      # 144: padding; eight buffers: of each column the validity, none, then the values",
        "0000000000000000 0000000000000000 0000000000000000 0400000000000000  # signal: at 0, 4 bytes",
        "0800000000000000 0000000000000000 0800000000000000 0800000000000000  # time: at 8, 8 bytes",
        "1000000000000000 0000000000000000 1000000000000000 0800000000000000  # value: at 16, 8 bytes",
        "1800000000000000 0000000000000000 1800000000000000 0100000000000000  # quality: at 24, 1 byte",
        "00000000 00000000 ffffffffffffffff 000000000000f83f c000000000000000  # the body",
        "ffffffff 00000000      # the end",
    )
    assert len(stream) == len(SCHEMA_MESSAGE) + dictionary_bytes + batch_bytes + 8
