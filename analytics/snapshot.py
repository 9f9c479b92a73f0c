"""A snapshot as bytes: columns of numpy without pickle, so that nothing in a snapshot can be code.

Layout: 4 bytes magic, then zlib of [8 bytes little-endian length of the header][header, JSON][the columns' bytes].
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from analytics.detectors.contract import Arrays
from telemetry.errors import RecordError

MAGIC: Final = b"VGS1"
LEVEL: Final = 1


def pack(arrays: Mapping[str, npt.NDArray[Any]], plain: Mapping[str, Any]) -> bytes:
    """Columns and plain data as bytes. The same content gives the same bytes."""
    names = sorted(arrays)
    columns = [np.ascontiguousarray(arrays[name]) for name in names]
    head = orjson.dumps(
        {
            "plain": plain,
            "columns": [[n, c.dtype.str, list(arrays[n].shape)] for n, c in zip(names, columns, strict=True)],
        },
        option=orjson.OPT_SORT_KEYS,
    )
    body = b"".join((len(head).to_bytes(8, "little"), head, *(c.tobytes() for c in columns)))
    return MAGIC + zlib.compress(body, LEVEL)


def unpack(data: bytes) -> tuple[Arrays, dict[str, Any]]:
    """What `pack` was given. Raises RecordError `snapshot`."""
    if data[:4] != MAGIC:
        raise RecordError("snapshot", f"expected {MAGIC!r} first, found {data[:4]!r}")
    try:
        body = zlib.decompress(data[4:])
        end = 8 + int.from_bytes(body[:8], "little")
        head = orjson.loads(body[8:end])
        arrays: Arrays = {}
        for name, dtype, shape in head["columns"]:
            count = int(np.prod(shape, dtype=np.int64))
            column = np.frombuffer(body, np.dtype(dtype), count, end) if count else np.empty(0, np.dtype(dtype))
            arrays[name] = column.reshape(shape).copy()
            end += column.nbytes
    except (zlib.error, ValueError, KeyError, TypeError) as error:
        raise RecordError("snapshot", str(error)) from error
    return arrays, head["plain"]
