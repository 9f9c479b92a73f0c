"""Writes the Arrow IPC stream of a record of samples, with numpy alone: an edge needs no pyarrow to be read by one.

Four messages: schema, one dictionary (the names), one record batch, end of stream. Their metadata has a fixed shape, so
it is built once when this module is imported, and only its lengths and offsets are filled in. Each buffer of the bodies
is compressed with LZ4 where that makes it shorter by SAVED, else it is the column as it is in memory.

Invariant: what is written reads back bit for bit (NaN stays the NaN that it was, there are no nulls), every buffer
begins at a multiple of 8 bytes of the stream, and nothing is written that a reader would refuse.

Sources: the Arrow columnar format, "Serialization and Interprocess Communication" and "Compression"; Schema.fbs and
Message.fbs, whose field numbers and enumerations these are.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from telemetry import lz4_frame
from telemetry.flatbuffer import OPEN, Field, Flatbuffer, Scalar, Structs, Table, Tables, Text, flatbuffer
from telemetry.name_block import NameBlock

_V5: Final = 4  # MetadataVersion
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3  # MessageHeader
_INT, _FLOAT, _UTF8, _TIMESTAMP = 2, 3, 5, 10  # Type
_DOUBLE, _MICROSECOND = 2, 2  # Precision, TimeUnit
_LZ4_FRAME, _BUFFER = 0, 0  # CompressionType, BodyCompressionMethod
_DICTIONARY_ID: Final = 0
_CONTINUATION: Final = b"\xff\xff\xff\xff"
_END: Final = _CONTINUATION + bytes(4)
_LARGEST: Final = 2**31 - 1
"""Bytes of names in one dictionary: its offsets are int32."""
SAVED: Final = 8
"""A buffer is compressed where that saves an eighth of it: less is not worth a reader's time."""
_AS_IT_IS: Final = struct.pack("<q", -1)
"""In place of its length, before a buffer that is not compressed."""


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


def _columns(fields: int, buffers: int, *, packed: bool) -> Table:
    """A RecordBatch with its lengths open: (length, null count) of each field, (offset, length) of each buffer."""
    lengths: dict[int, Field] = {
        0: _long(OPEN),
        1: Structs(((OPEN, 0),) * fields),
        2: Structs(((OPEN, OPEN),) * buffers),
    }
    compression = Table({0: Scalar("b", _LZ4_FRAME), 1: Scalar("b", _BUFFER)})
    return Table({**lengths, 3: compression} if packed else lengths)


class _Metadata:
    """The encapsulated metadata of one message, whose open numbers are filled in for each record."""

    def __init__(self, made: Flatbuffer) -> None:
        self._words = np.frombuffer(_CONTINUATION + struct.pack("<i", len(made.content)) + made.content, "<i8")
        self._open = np.array(made.open, np.intp) // 8 + 1

    def begins(self, stream: bytes, at: int) -> bool:
        """Whether a message with as much metadata is there."""
        return stream[at : at + 8] == self._words[:1].tobytes()

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


def _batches(*, packed: bool) -> tuple[_Metadata, _Metadata]:
    """Metadata of the names and of the rows."""
    names = _message(_DICTIONARY, Table({0: _long(_DICTIONARY_ID), 1: _columns(1, 3, packed=packed)}), OPEN)
    return _Metadata(names), _Metadata(_message(_BATCH, _columns(4, 8, packed=packed), OPEN))


_NAMES, _ROWS = _batches(packed=True)
_PLAIN_NAMES, _PLAIN_ROWS = _batches(packed=False)
"""Of a record that was written before records were compressed: a spool may still have some."""


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
    utf8_bytes = sum(len(block.utf8) for block in blocks)
    if utf8_bytes > _LARGEST:
        raise ValueError("names: over 2 GiB in one record")
    offsets = _offsets(blocks)
    names, n = len(offsets) - 1, len(signal)
    _check(names, signal, time_us, value, quality)
    # Of each field the validity, of no bytes because there are no nulls, and then what it holds. Offsets only grow, and
    # so do indices of names that come once: LZ4 finds nothing in them.
    names_body, names_places = _laid(b"", _as_it_is(offsets.astype("<i4", copy=False)), _text(blocks, utf8_bytes))
    rows_body, rows_places = _laid(
        b"",
        _packed(signal, "<i4") if n > names else _as_it_is(np.ascontiguousarray(signal, "<i4")),
        b"",
        _packed(time_us, "<i8"),
        b"",
        _packed(value, "<f8"),
        b"",
        _packed(quality, "u1"),
    )
    return b"".join(
        (
            SCHEMA_MESSAGE,
            _NAMES.filled(_length(names_body), names, names, *names_places),
            *names_body,
            _ROWS.filled(_length(rows_body), n, n, n, n, n, *rows_places),
            *rows_body,
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
    packed = _NAMES.begins(stream, len(SCHEMA_MESSAGE))
    names_of, rows_of = (_NAMES, _ROWS) if packed else (_PLAIN_NAMES, _PLAIN_ROWS)
    body, (length, names, _, *places) = names_of.read(stream, len(SCHEMA_MESSAGE))
    offsets = np.frombuffer(_buffer(stream, body, places[2:4], packed=packed), "<i4")
    utf8 = _buffer(stream, body, places[4:6], packed=packed)
    body, (_, n, *rest) = rows_of.read(stream, body + length)
    places = rest[4:]
    signal = np.frombuffer(_buffer(stream, body, places[2:4], packed=packed), "<i4")
    time_us = np.frombuffer(_buffer(stream, body, places[6:8], packed=packed), "<i8")
    if not len(offsets) == names + 1 or not len(signal) == len(time_us) == n:
        raise ValueError("expected columns as long as the record says")
    if offsets[-1] != len(utf8) or (n and signal.view(np.uint32).max() >= names):
        raise ValueError("expected names and indices that fit one another")
    return utf8, offsets, signal, time_us


def _laid(*buffers: bytes) -> tuple[list[bytes], list[int]]:
    """(a body's buffers and what pads them, [offset and length of each]): one after another, at multiples of 8."""
    at = 0
    body: list[bytes] = []
    places: list[int] = []
    for buffer in buffers:
        padding = -len(buffer) % 8
        places += (at, len(buffer))
        body += (buffer, bytes(padding))
        at += len(buffer) + padding
    return body, places


def _length(body: Sequence[bytes]) -> int:
    return sum(map(len, body))


def _packed(column: npt.NDArray[Any], dtype: str) -> bytes:
    """A buffer: a column compressed, or as it is."""
    raw = np.ascontiguousarray(column, dtype)
    return _shorter(raw, lz4_frame.compress(raw.view(np.uint8).data))


def _shorter(raw: npt.NDArray[Any], frame: bytes) -> bytes:
    if len(frame) * SAVED > raw.nbytes * (SAVED - 1):
        return _as_it_is(raw)
    return struct.pack("<q", raw.nbytes) + frame


def _as_it_is(raw: npt.NDArray[Any]) -> bytes:
    return _AS_IT_IS + raw.tobytes() if raw.nbytes else b""


def _text(blocks: Sequence[NameBlock], utf8_bytes: int) -> bytes:
    """The buffer of the names' bytes, joined of what was compressed when their blocks were made."""
    frame = lz4_frame.joined([block.packed for block in blocks])
    if len(frame) * SAVED > utf8_bytes * (SAVED - 1):
        return _as_it_is(np.frombuffer(b"".join(block.utf8 for block in blocks), np.uint8))
    return struct.pack("<q", utf8_bytes) + frame


def _buffer(stream: bytes, body: int, place: Sequence[int], *, packed: bool) -> bytes:
    """What a buffer holds. Raises ValueError where it is damaged."""
    at, length = place
    buffer = stream[body + at : body + at + length]
    if len(buffer) != length:
        raise ValueError(f"expected a buffer of {length} bytes, found {len(buffer)}")
    if not packed or not buffer:
        return buffer
    if length < len(_AS_IT_IS):
        raise ValueError(f"expected a buffer's length before it, found {length} bytes")
    (size,) = struct.unpack_from("<q", buffer)
    return buffer[8:] if size < 0 else lz4_frame.decompress(buffer[8:], size)


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
