"""Reads the records of samples that telemetry.wire writes, or any other writer of Arrow; needs pyarrow, so no edge does.

Invariant: what comes out is a whole batch, checked; no bytes whatever raise anything but RecordError.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telemetry.batch import SampleBatch, concatenate
from telemetry.errors import RecordError

MAX_ROWS: Final = 1_000_000
"""Of one record of samples; what a record may hold (telemetry.log.protocol.MAX_RECORD_BYTES) is far less."""

REMEMBERED_BYTES: Final = 96 << 20
"""About what all remembered dictionaries may take together: their bytes, and their names as text."""
NAME_BYTES: Final = 64
"""What a name takes beside its characters."""

_ARROW_SCHEMA: Final = pa.schema(
    [
        ("signal", pa.dictionary(pa.int32(), pa.utf8())),
        ("time", pa.timestamp("us", tz="UTC")),
        ("value", pa.float64()),
        ("quality", pa.uint8()),
    ]
)


_READ: Final = pa.ipc.IpcReadOptions(use_threads=False)
"""Decompressing a buffer takes less than waking a thread for it."""


class NameTables:
    """Dictionaries of names seen before, by their bytes: edges send the same ones again and again. Of one thread at a time."""

    def __init__(self) -> None:
        self._tables: OrderedDict[bytes, tuple[str, ...]] = OrderedDict()
        self._size = 0

    def get(self, key: bytes) -> tuple[str, ...] | None:
        """The names of a dictionary of these bytes, or None."""
        found = self._tables.get(key)
        if found is not None:
            self._tables.move_to_end(key)
        return found

    def keep(self, key: bytes, names: tuple[str, ...]) -> None:
        """Remembers a dictionary, and forgets the ones used longest ago beyond REMEMBERED_BYTES."""
        self._tables[key] = names
        self._size += _size(key, names)
        while self._size > REMEMBERED_BYTES and len(self._tables) > 1:
            self._size -= _size(*self._tables.popitem(last=False))


def _size(key: bytes, names: tuple[str, ...]) -> int:
    return 2 * len(key) + NAME_BYTES * len(names)


def decode_samples(value: bytes, known: NameTables | None = None) -> SampleBatch:
    """The sample batch of a record; NULL values become NaN. Raises RecordError `arrow` or `columns`, whatever the bytes.

    Names are not checked: a row whose signal is no equipment/point is for the reader to set aside. With `known`, records
    with the same dictionary share one tuple of names.
    """
    try:
        with pa.ipc.open_stream(value, options=_READ) as reader:
            batches: list[SampleBatch] = []
            left = MAX_ROWS
            for table in reader:
                left -= table.num_rows
                if left < 0:
                    raise RecordError("arrow", f"expected at most {MAX_ROWS} rows")
                batches.append(_batch(table, known))
    except RecordError:
        raise
    except (pa.ArrowException, ValueError, TypeError, LookupError, OSError, MemoryError, OverflowError) as error:
        raise RecordError("arrow", f"{type(error).__name__}: {error}"[:500]) from error
    return concatenate(batches)


def _batch(table: pa.RecordBatch, known: NameTables | None) -> SampleBatch:
    names = table.schema.names
    if any(names.count(name) != 1 for name in _ARROW_SCHEMA.names):
        raise RecordError("columns", f"expected signal, time, value, quality once each, found {names}"[:500])
    signal, time, value, quality = (table.column(name) for name in _ARROW_SCHEMA.names)
    for name, column, fits in (
        ("signal", signal, _is_text(signal.type)),
        ("time", time, pa.types.is_timestamp(time.type) and time.type.tz is not None),
        ("value", value, pa.types.is_floating(value.type) or pa.types.is_integer(value.type)),
        ("quality", quality, pa.types.is_integer(quality.type)),
    ):
        if not fits:
            raise RecordError(
                "columns", f"{name}: expected {_ARROW_SCHEMA.field(name).type}, found {column.type}"[:500]
            )
        column.validate(full=True)  # Arrow believes a stream's offsets and indices unless told otherwise
        if name != "value" and column.null_count:
            raise RecordError("columns", f"{name}: may not be null")
    table_names, index = _dictionary(signal, known)
    return SampleBatch(
        table_names,
        index,
        time.cast(_ARROW_SCHEMA.field("time").type).cast(pa.int64()).to_numpy(zero_copy_only=False),
        value.cast(pa.float64()).to_numpy(zero_copy_only=False),
        quality.cast(pa.uint8()).to_numpy(zero_copy_only=False),
    )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _dictionary(signal: pa.Array, known: NameTables | None) -> tuple[tuple[str, ...], npt.NDArray[np.int32]]:
    """(names, each once; (n,) int32 indices into them)."""
    if not pa.types.is_dictionary(signal.type):
        signal = signal.dictionary_encode()
    if signal.dictionary.null_count:
        raise RecordError("columns", "signal: its dictionary may not contain null")
    index: npt.NDArray[np.int32] = signal.indices.cast(pa.int32()).to_numpy(zero_copy_only=False)
    key = _bytes_of(signal.dictionary) if known is not None else None
    if known is not None and key is not None and (table := known.get(key)) is not None:
        return table, index
    names: tuple[str, ...] = tuple(signal.dictionary.to_pylist())
    once = {name: place for place, name in enumerate(dict.fromkeys(names))}
    if len(once) == len(names):
        if known is not None and key is not None:
            known.keep(key, names)
        return names, index
    places = np.array([once[name] for name in names], np.int32)
    return tuple(once), places[index]


def _bytes_of(names: pa.Array) -> bytes | None:
    """Offsets and text of a dictionary, checked by the caller to be whole; None where they lie in another way."""
    if names.type != pa.utf8() or names.offset:
        return None
    _, offsets, text = names.buffers()
    if offsets is None or text is None:
        return None
    places = memoryview(offsets)[: 4 * (len(names) + 1)]
    return b"".join((places, memoryview(text)[: int.from_bytes(places[-4:], "little")]))
