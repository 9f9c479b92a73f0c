"""Reads the records of samples that telemetry.wire writes, or any other writer of Arrow; needs pyarrow, so no edge does.

Invariant: what comes out is a whole batch, checked; no bytes whatever raise anything but RecordError.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telemetry.batch import SampleBatch, concatenate
from telemetry.errors import RecordError

MAX_ROWS: Final = 1_000_000
"""Of one record of samples; what a record may hold (telemetry.log.protocol.MAX_RECORD_BYTES) is far less."""

_ARROW_SCHEMA: Final = pa.schema(
    [
        ("signal", pa.dictionary(pa.int32(), pa.utf8())),
        ("time", pa.timestamp("us", tz="UTC")),
        ("value", pa.float64()),
        ("quality", pa.uint8()),
    ]
)


def decode_samples(value: bytes) -> SampleBatch:
    """The sample batch of a record; NULL values become NaN. Raises RecordError `arrow` or `columns`, whatever the bytes.

    Names are not checked: a row whose signal is no equipment/point is for the reader to set aside.
    """
    try:
        with pa.ipc.open_stream(value) as reader:
            batches: list[SampleBatch] = []
            left = MAX_ROWS
            for table in reader:
                left -= table.num_rows
                if left < 0:
                    raise RecordError("arrow", f"expected at most {MAX_ROWS} rows")
                batches.append(_batch(table))
    except RecordError:
        raise
    except (pa.ArrowException, ValueError, TypeError, LookupError, OSError, MemoryError, OverflowError) as error:
        raise RecordError("arrow", f"{type(error).__name__}: {error}"[:500]) from error
    return concatenate(batches)


def _batch(table: pa.RecordBatch) -> SampleBatch:
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
    table_names, index = _dictionary(signal)
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


def _dictionary(signal: pa.Array) -> tuple[tuple[str, ...], npt.NDArray[np.int32]]:
    """(names, each once; (n,) int32 indices into them)."""
    if not pa.types.is_dictionary(signal.type):
        signal = signal.dictionary_encode()
    if signal.dictionary.null_count:
        raise RecordError("columns", "signal: its dictionary may not contain null")
    names: list[str] = signal.dictionary.to_pylist()
    index: npt.NDArray[np.int32] = signal.indices.cast(pa.int32()).to_numpy(zero_copy_only=False)
    if len(set(names)) == len(names):
        return tuple(names), index
    once: dict[str, int] = {}
    table = np.array([once.setdefault(name, len(once)) for name in names], np.int32)
    return tuple(once), table[index]
