"""A large part of a JSON record, packed: what repeats a profile's points for each of thousands of units must still fit
into one record of any log.

A part whose JSON is larger than PACK_BYTES travels as {"deflate": base64 of zlib of its JSON}; a smaller one as it is.
Invariant: `unpack(pack(part)) == part`, and what is packed unfolds to at most UNPACKED_BYTES, whatever it claims.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from telemetry.errors import RecordError

PACK_BYTES: Final = 250_000
UNPACKED_BYTES: Final = 256 << 20
_KEY: Final = "deflate"


def pack(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part, packed if it is large. Folded piece by piece: the whole of its JSON is never in memory."""
    folding, folded, size = zlib.compressobj(6), bytearray(), 0
    for piece in _pieces(part):
        size += len(piece)
        folded += folding.compress(piece)
    if size <= PACK_BYTES:
        return part
    return {_KEY: base64.b64encode(folded + folding.flush()).decode()}


def _pieces(part: Mapping[str, Any]) -> Iterator[bytes]:
    """The JSON of the part: lists at its top come item by item."""
    before = b"{"
    for key, item in part.items():
        yield before + orjson.dumps(key) + b":"
        before = b","
        if isinstance(item, list) and item:
            for place, one in enumerate(item):
                yield (b"," if place else b"[") + orjson.dumps(one)
            yield b"]"
        else:
            yield orjson.dumps(item)
    yield b"}" if part else b"{}"


def unpack(part: Any) -> Any:
    """The part that `pack` made this of. Raises RecordError `json`."""
    if not isinstance(part, dict) or part.keys() != {_KEY}:
        return part
    try:
        unfolding = zlib.decompressobj()
        plain = unfolding.decompress(base64.b64decode(part[_KEY], validate=True), UNPACKED_BYTES)
        if not unfolding.eof:
            raise ValueError(f"expected at most {UNPACKED_BYTES} bytes, whole")
        return orjson.loads(plain)
    except (TypeError, ValueError, binascii.Error, zlib.error) as error:
        raise RecordError("json", f"packed part: {error}") from error
