"""The bytes of a record of samples, by the format's documents: where each buffer lies, and what is compressed of it."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from telemetry.arrow_read import decode_samples
from telemetry.arrow_stream import SCHEMA_MESSAGE, read_places, write_stream
from telemetry.name_block import name_block
from tests.telemetry.arrow_records import Record, columns, records

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
@example(([[f"lift-{i}/speed" for i in range(100)]] * 2, columns([0] * 500, value=[1.5] * 500)))
def test_every_buffer_lies_where_the_metadata_says_at_a_multiple_of_eight(
    record: Record,
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
        found = [uncompressed(stream[begin + at : begin + at + size]) for at, size in places]
        assert found == [buffer for buffers in expected for buffer in buffers]
        compression = batch.table(3)
        assert (compression.number(0, "b"), compression.number(1, "b")) == (0, 0), "LZ4_FRAME, BUFFER"


def uncompressed(buffer: bytes) -> bytes:
    """By the format: its length in 64 bits, or -1 for one that is as it is; one that is empty has no length either."""
    if not buffer:
        return b""
    (length,) = struct.unpack_from("<q", buffer)
    if length == -1:
        return buffer[8:]
    content = pa.Codec("lz4").decompress(buffer[8:], length)
    assert len(content) == length
    assert len(buffer) <= 8 + length * 7 / 8, "not compressed for nothing"
    return bytes(content)


def test_what_repeats_itself_takes_little_room_and_what_does_not_no_more_than_it_has() -> None:
    """A hundred readings each of forty lifts, as a commit of the spool has them."""
    blocks = [name_block([f"lift-{i:04}/point-{j:03}" for j in range(100)]) for i in range(40)]
    n, chance = 4000, np.random.default_rng(1)
    signal, time_us, quality = np.arange(n, dtype=np.int32), np.repeat(np.arange(40), 100), np.full(n, 192, np.uint8)
    names_bytes = sum(len(block.utf8) for block in blocks)
    constant = write_stream(blocks, signal, time_us, np.full(n, 3.5), quality)
    random = write_stream(blocks, signal, time_us, chance.random(n), chance.integers(0, 256, n, dtype=np.uint8))
    offsets_and_indices = 4 * n + 4 * n
    assert len(constant) < offsets_and_indices + names_bytes / 2
    assert len(random) < offsets_and_indices + names_bytes / 2 + 9 * n


@given(records())
def test_what_a_record_is_of_is_read_without_pyarrow(record: Record) -> None:
    blocks, written = record
    names = [name.encode() for block in blocks for name in block]
    utf8, offsets, signal, time_us = read_places(write_stream([name_block(block) for block in blocks], *written))
    assert [utf8[a:b] for a, b in itertools.pairwise(offsets.tolist())] == names
    assert (signal.tolist(), time_us.tolist()) == (written[0].tolist(), written[1].tolist())


@given(records(), st.integers(0, 2**32))
def test_a_record_that_is_damaged_is_refused_or_read_without_pyarrow(record: Record, seed: int) -> None:
    blocks, written = record
    stream, chance = bytearray(write_stream([name_block(block) for block in blocks], *written)), random.Random(seed)
    stream[chance.randrange(len(SCHEMA_MESSAGE), len(stream))] ^= 1 << chance.randrange(8)
    del stream[chance.choice([len(stream), chance.randrange(len(stream))]) :]
    with suppress(ValueError):
        utf8, offsets, signal, time_us = read_places(bytes(stream))
        assert len(signal) == len(time_us)
        assert len(utf8) == offsets[-1]


def laid_out(*lines: str) -> bytes:
    return b"".join(bytes.fromhex(line.partition("#")[0]) for line in lines)


def test_the_smallest_record_is_these_bytes() -> None:
    """One reading of 1.5, good, 1 µs before 1970, of a/b; laid out from the format's documents."""
    stream = write_stream([name_block(["a/b"])], *columns([0], value=[1.5]))
    assert stream[: len(SCHEMA_MESSAGE)] == SCHEMA_MESSAGE
    assert stream[len(SCHEMA_MESSAGE) :] == laid_out(
        "ffffffff c8000000      # continuation; 200 bytes of metadata",
        "14000000               # 0: Message is at 20",
        "0c00 1300 1000 1200 0c00 0400  # 4: its vtable: version at 16, kind at 18, header at 12, bodyLength at 4",
        "00000000               # 16: padding",
        "10000000 2000000000000000  # 20: vtable 16 back; bodyLength 32",
        "14000000 0400 02 00    # 32: header 20 on, V5, DictionaryBatch",
        "0800 1000 0400 0c00 00000000  # 40: vtable: id at 4, data at 12, isDelta absent; padding",
        "0c000000 0000000000000000 14000000  # 52: DictionaryBatch: id 0, data 20 on",
        "0c00 1800 0400 0c00 1000 1400 00000000  # 68: vtable: length at 4, nodes 12, buffers 16, compression 20",
        "10000000 0100000000000000  # 84: RecordBatch: one name",
        "0c000000 20000000 58000000  # 96: nodes 12 on, buffers 32 on, compression 88 on",
        "01000000 0100000000000000 0000000000000000  # 108: one node: one value, no null",
        "00000000 03000000      # 128: padding; three buffers",
        "0000000000000000 0000000000000000  # validity: none",
        "0000000000000000 1000000000000000  # offsets: at 0, 16 bytes",
        "1000000000000000 0b00000000000000  # characters: at 16, 11 bytes",
        "0800 0600 0400 0500    # 184: vtable: codec at 4, method at 5",
        "08000000 00 00 0000    # 192: BodyCompression: LZ4_FRAME, BUFFER",
        "ffffffffffffffff 00000000 03000000  # the body: as it is: 0, 3",
        "ffffffffffffffff 612f62 0000000000  # as it is: a/b",
        "ffffffff 28010000      # continuation; 296 bytes of metadata",
        "14000000               # 0: Message is at 20",
        "0c00 1300 1000 1200 0c00 0400 00000000  # 4: its vtable, as before",
        "10000000 4000000000000000  # 20: bodyLength 64",
        "14000000 0400 03 00    # 32: header 20 on, V5, RecordBatch",
        "0c00 1800 0400 0c00 1000 1400  # 40: vtable: length at 4, nodes at 12, buffers at 16, compression at 20",
        "0c000000 0100000000000000  # 52: RecordBatch: one row",
        "0c000000 50000000 d8000000  # 64: nodes 12 on, buffers 80 on, compression 216 on",
        "04000000               # 76: four nodes",
        *["0100000000000000 0000000000000000  # one value, no null"] * 4,
        "00000000 08000000      # 144: padding; eight buffers: of each column the validity, none, then the values",
        "0000000000000000 0000000000000000 0000000000000000 0c00000000000000  # signal: at 0, 12 bytes",
        "1000000000000000 0000000000000000 1000000000000000 1000000000000000  # time: at 16, 16 bytes",
        "2000000000000000 0000000000000000 2000000000000000 1000000000000000  # value: at 32, 16 bytes",
        "3000000000000000 0000000000000000 3000000000000000 0900000000000000  # quality: at 48, 9 bytes",
        "0800 0600 0400 0500    # 280: vtable: codec at 4, method at 5",
        "08000000 00 00 0000    # 288: BodyCompression: LZ4_FRAME, BUFFER",
        "ffffffffffffffff 00000000 00000000  # the body, all as it is: 0, and padding",
        "ffffffffffffffff ffffffffffffffff  # -1",
        "ffffffffffffffff 000000000000f83f  # 1.5",
        "ffffffffffffffff c0 00000000000000  # 192, and padding",
        "ffffffff 00000000      # the end",
    )


def test_a_record_of_a_spool_from_before_records_were_compressed_is_still_read_without_pyarrow() -> None:
    """The same record, as it was written then."""
    utf8, offsets, signal, time_us = read_places(SCHEMA_MESSAGE + BEFORE)
    assert (utf8, offsets.tolist(), signal.tolist(), time_us.tolist()) == (b"a/b", [0, 3], [0], [-1])
    (sample,) = decode_samples(SCHEMA_MESSAGE + BEFORE).value
    assert sample == 1.5


BEFORE = laid_out(
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
