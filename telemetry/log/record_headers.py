"""Headers of a record in the embedded log: name length (u16), value length (u32), name, value; again and again."""

from __future__ import annotations

import struct
from collections.abc import Mapping

_LENGTHS = struct.Struct("<HI")


def pack_headers(headers: Mapping[str, bytes]) -> bytes:
    """The headers as bytes."""
    parts: list[bytes] = []
    for name, value in headers.items():
        raw = name.encode()
        parts += (_LENGTHS.pack(len(raw), len(value)), raw, value)
    return b"".join(parts)


def unpack_headers(packed: bytes) -> dict[str, bytes]:
    """The headers from bytes that pack_headers made."""
    headers: dict[str, bytes] = {}
    at = 0
    while at < len(packed):
        name_length, value_length = _LENGTHS.unpack_from(packed, at)
        at += _LENGTHS.size
        name = packed[at : at + name_length].decode()
        at += name_length
        headers[name] = packed[at : at + value_length]
        at += value_length
    return headers
