"""The Arrow stream written without pyarrow: what pyarrow and Rust's arrow read is what was written, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from io import BytesIO
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from arro3.io import read_ipc_stream
from hypothesis import example, given, settings

from telemetry import lz4_frame
from telemetry.arrow_read import decode_samples
from telemetry.arrow_stream import write_stream
from telemetry.batch import SampleBatch
from telemetry.ledger import name_hash
from telemetry.name_block import NameBlock, name_block
from telemetry.wire import encode_columns, encode_samples
from tests.telemetry.arrow_records import Columns, Record, columns, records

SCHEMA = pa.schema(
    [
        ("signal", pa.dictionary(pa.int32(), pa.utf8())),
        ("time", pa.timestamp("us", tz="UTC")),
        ("value", pa.float64()),
        ("quality", pa.uint8()),
    ]
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


@given(records())
@example(([], columns([])))
@example(([[], ["锅炉/压力", ""], []], columns([1, 0, 1], value=[math.nan, -0.0, math.inf])))
@example(([["a/b"], ["a/b"]], columns([1, 0])))
def test_pyarrow_reads_what_was_written_and_what_its_own_writer_would_have_written(
    record: Record,
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
def test_a_reader_that_shares_no_code_with_pyarrow_reads_it_too(record: Record) -> None:
    blocks, written = record
    names = [name for block in blocks for name in block]
    table = read_ipc_stream(BytesIO(write_stream([name_block(b) for b in blocks], *written))).read_all()
    assert table.schema.names == SCHEMA.names
    read = pa.table(table).combine_chunks()
    signal, *rest = (read.column(name) for name in SCHEMA.names)
    assert signal.to_pylist() == [names[i] for i in written[0]]
    assert [b"".join(bytes(chunk.buffers()[1]) for chunk in column.chunks) for column in rest] == [
        column.tobytes() for column in written[1:]
    ]


@pytest.mark.parametrize(
    ("point", "least", "most"),
    [(lambda chance: "p" * 3000, 0, 1_000_000), (lambda chance: chance.randbytes(1500).hex(), 9_000_000, 9_100_000)],
    ids=["compressed in many blocks", "as they are"],
)
def test_names_that_fill_megabytes_are_read_back(point: Callable[[Random], str], least: int, most: int) -> None:
    chance = Random(1)
    names = [f"{number:06}/{point(chance)}" for number in range(3000)]
    stream = write_stream([name_block(names[:1000]), name_block(names[1000:])], *columns([0, 2999, 1000]))
    assert least <= len(stream) <= most
    read = content(stream)
    assert read["names"] == names
    assert read["signal"] == [0, 2999, 1000]


def test_more_names_than_an_offset_can_say_are_refused_before_anything_is_copied() -> None:
    large = NameBlock(("x",), bytes(1 << 24), b"", np.array([1 << 24], np.int32), np.zeros(1, np.uint64))
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
    assert lz4_frame.decompress(lz4_frame.joined([block.packed]), len(block.utf8)) == block.utf8
    assert block.lengths.tolist() == [13, 0, 11]
    assert block.hashes.tolist() == [name_hash(name) for name in block.names]
    assert block.hashes.dtype == np.uint64
    assert not block.lengths.flags.writeable
    assert not block.hashes.flags.writeable
    with pytest.raises(UnicodeEncodeError):
        name_block(["\ud800"])
