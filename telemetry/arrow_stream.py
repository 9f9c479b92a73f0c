"""Writes the Arrow IPC stream of a record of samples, with numpy alone: an edge needs no pyarrow to be read by one.

Four messages: schema, one dictionary (the names), one record batch, end of stream. Their metadata has a fixed shape, so
it is built once when this module is imported, and only its lengths and offsets are filled in. The bodies are the columns
as they are in memory.

Invariant: what is written reads back bit for bit (NaN stays the NaN that it was, there are no nulls), every buffer
begins at a multiple of 8 bytes of the stream, and nothing is written that a reader would refuse.

Sources: the Arrow columnar format, "Serialization and Interprocess Communication"; Schema.fbs and Message.fbs, whose
field numbers and enumerations these are.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from telemetry.flatbuffer import OPEN, Field, Flatbuffer, Scalar, Structs, Table, Tables, Text, flatbuffer
from telemetry.name_block import NameBlock

_V5: Final = 4  # MetadataVersion
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3  # MessageHeader
_INT, _FLOAT, _UTF8, _TIMESTAMP = 2, 3, 5, 10  # Type
_DOUBLE, _MICROSECOND = 2, 2  # Precision, TimeUnit
_DICTIONARY_ID: Final = 0
_CONTINUATION: Final = b"\xff\xff\xff\xff"
_END: Final = _CONTINUATION + bytes(4)
_LARGEST: Final = 2**31 - 1
"""Bytes of names in one dictionary: its offsets are int32."""


def _long(value: int | None) -> Scalar:
    return Scalar("q", value)


def _message(kind: int, header: Table, body_length: int | None) -> Flatbuffer:
    return flatbuffer(Table({0: Scalar("h", _V5), 1: Scalar("B", kind), 2: header, 3: _long(body_length)}))


def _field(name: str, type_number: int, type_: Table, dictionary: Table | None = None) -> Table:
    """A field that may be null, as pyarrow's are by default. Readers want `children` even where there are none."""
    fields: dict[int, Field] = {0: Text(name), 1: Scalar("b", 1), 2: Scalar("B", type_number), 3: type_, 5: Tables(())}
    return Table(fields if dictionary is None else {**fields, 4: dictionary})


def _int(bits: int, signed: bool) -> Table:
    return Table({0: Scalar("i", bits), 1: Scalar("b", signed)})


def _schema() -> Flatbuffer:
    encoding = Table({0: _long(_DICTIONARY_ID), 1: _int(32, True)})
    fields = (
        _field("signal", _UTF8, Table({}), encoding),
        _field("time", _TIMESTAMP, Table({0: Scalar("h", _MICROSECOND), 1: Text("UTC")})),
        _field("value", _FLOAT, Table({0: Scalar("h", _DOUBLE)})),
        _field("quality", _INT, _int(8, False)),
    )
    return _message(_SCHEMA, Table({1: Tables(fields)}), 0)  # Endianness is absent: little.


def _columns(fields: int, buffers: int) -> Table:
    """A RecordBatch with its lengths open: (length, null count) of each field, (offset, length) of each buffer."""
    return Table({0: _long(OPEN), 1: Structs(((OPEN, 0),) * fields), 2: Structs(((OPEN, OPEN),) * buffers)})


class _Metadata:
    """The encapsulated metadata of one message, whose open numbers are filled in for each record."""

    def __init__(self, made: Flatbuffer) -> None:
        self._words = np.frombuffer(_CONTINUATION + struct.pack("<i", len(made.content)) + made.content, "<i8")
        self._open = np.array(made.open, np.intp) // 8 + 1

    def filled(self, *numbers: int) -> bytes:
        words = self._words.copy()
        words[self._open] = numbers
        return words.tobytes()

    def read(self, stream: bytes, at: int) -> tuple[int, list[int]]:
        """(where the message's body begins, the numbers that it was filled with). Raises ValueError for other metadata."""
        words = np.frombuffer(stream[at : at + self._words.nbytes], "<i8")
        if len(words) != len(self._words) or (np.delete(words, self._open) != np.delete(self._words, self._open)).any():
            raise ValueError("expected the metadata that this module writes")
        return at + self._words.nbytes, words[self._open].tolist()


SCHEMA_MESSAGE: Final = _Metadata(_schema()).filled()
"""The first message of every stream."""
_NAMES: Final = _Metadata(_message(_DICTIONARY, Table({0: _long(_DICTIONARY_ID), 1: _columns(1, 3)}), OPEN))
_ROWS: Final = _Metadata(_message(_BATCH, _columns(4, 8), OPEN))


def write_stream(
    blocks: Sequence[NameBlock],
    signal: npt.NDArray[np.int32],
    time_us: npt.NDArray[np.int64],
    value: npt.NDArray[np.float64],
    quality: npt.NDArray[np.uint8],
) -> bytes:
    """The stream of some rows. The dictionary is the blocks' names end to end; `signal` indexes into it.

    All columns (n,), n may be 0. Raises ValueError where a column has another type or length than the schema and
    `signal` say, an index points beyond the names, or the names together are over 2 GiB.
    """
    utf8 = [block.utf8 for block in blocks]
    utf8_bytes = sum(map(len, utf8))
    if utf8_bytes > _LARGEST:
        raise ValueError("names: over 2 GiB in one record")
    offsets = _offsets(blocks)
    names, n = len(offsets) - 1, len(signal)
    _check(names, signal, time_us, value, quality)
    # Of each field the validity, of no bytes because there are no nulls, and then what it holds.
    names_body, names_places = _laid(0, 4 * (names + 1), utf8_bytes)
    rows_body, rows_places = _laid(0, 4 * n, 0, 8 * n, 0, 8 * n, 0, n)
    return b"".join(
        (
            SCHEMA_MESSAGE,
            _NAMES.filled(names_body, names, names, *names_places),
            offsets.astype("<i4", copy=False).data,
            bytes(-offsets.nbytes % 8),
            *utf8,
            bytes(-utf8_bytes % 8),
            _ROWS.filled(rows_body, n, n, n, n, n, *rows_places),
            np.ascontiguousarray(signal, "<i4").data,
            bytes(-4 * n % 8),
            np.ascontiguousarray(time_us, "<i8").data,
            np.ascontiguousarray(value, "<f8").data,
            np.ascontiguousarray(quality).data,
            bytes(-n % 8),
            _END,
        )
    )


def read_places(stream: bytes) -> tuple[bytes, npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """What a record of samples is of, without pyarrow: (names end to end in UTF-8, (names + 1,) where each begins and the
    last one ends, (n,) which name each row has, (n,) its time in µs); arrays are views of the stream.

    Raises ValueError for a stream that `write_stream` did not write.
    """
    if not stream.startswith(SCHEMA_MESSAGE):
        raise ValueError("expected the schema that this module writes")
    body, (_, names, _, *places) = _NAMES.read(stream, len(SCHEMA_MESSAGE))
    offsets = np.frombuffer(stream, "<i4", names + 1, body + places[2])
    utf8 = stream[body + places[4] : body + places[4] + places[5]]
    body, (_, n, *rest) = _ROWS.read(stream, body + places[4] + places[5] + -places[5] % 8)
    places = rest[4:]
    signal = np.frombuffer(stream, "<i4", n, body + places[2])
    time_us = np.frombuffer(stream, "<i8", n, body + places[6])
    if offsets[-1] != len(utf8) or (n and signal.view(np.uint32).max() >= names):
        raise ValueError("expected names and indices that fit one another")
    return utf8, offsets, signal, time_us


def _laid(*lengths: int) -> tuple[int, list[int]]:
    """(bytes of a body, [offset and length of each of its buffers]): one after another, at multiples of 8."""
    at = 0
    places: list[int] = []
    for length in lengths:
        places += (at, length)
        at += length + -length % 8
    return at, places


def _offsets(blocks: Sequence[NameBlock]) -> npt.NDArray[np.int32]:
    """(names + 1,) int32: where each name begins, and the last one ends."""
    buffers: list[Any] = [block.lengths for block in blocks]  # numpy's stubs call an array a buffer from 3.12 on only.
    lengths = np.frombuffer(b"".join(buffers), np.int32)
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _check(
    names: int,
    signal: npt.NDArray[np.int32],
    time_us: npt.NDArray[np.int64],
    value: npt.NDArray[np.float64],
    quality: npt.NDArray[np.uint8],
) -> None:
    n = len(signal)
    for column, dtype in ((signal, np.int32), (time_us, np.int64), (value, np.float64), (quality, np.uint8)):
        if column.dtype != dtype or column.shape != (n,):
            raise ValueError(f"expected ({n},) {np.dtype(dtype)}, found {column.shape} {column.dtype}")
    if n and signal.view(np.uint32).max() >= names:  # A negative index is a huge one without its sign.
        raise ValueError(f"signal: expected indices in 0..{names - 1}, found {signal.min()}..{signal.max()}")
