"""Flatbuffers written front to back: enough of the format for the metadata of an Arrow stream, no more.

Invariant: every scalar stands at a multiple of its own size, every reference points forward, and a value that is left
open (`OPEN`) is a 64-bit integer at a multiple of 8, so that a finished buffer can be filled in as an array of words.

Source: flatbuffers.dev, "FlatBuffer Internals": a buffer begins with the distance to its root table; a table begins with
the signed distance back to its vtable, which holds its own size, the table's, and where each field stands (0: absent).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

OPEN: Final = None
"""A 64-bit integer to be filled in later."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number in place. `code` is struct's: b, B, h, i, q; a value may be OPEN only where it is `q`."""

    code: str
    value: int | None


@dataclass(frozen=True, slots=True)
class Text:
    """A string."""

    value: str


@dataclass(frozen=True, slots=True)
class Structs:
    """A vector of structs of 64-bit integers; each row is one struct."""

    rows: tuple[tuple[int | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Tables:
    """A vector of tables."""

    items: tuple[Table, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its fields by their number in the schema file. What is not named is absent and has its default."""

    fields: Mapping[int, Field]


Content = Text | Structs | Tables | Table
"""What is referred to, at the end of a distance."""
Field = Scalar | Content


@dataclass(frozen=True, slots=True)
class Flatbuffer:
    """A finished buffer, a multiple of 8 bytes long, and where it is still open: offsets in the order of writing."""

    content: bytes
    open: tuple[int, ...]


def flatbuffer(root: Table) -> Flatbuffer:
    """The buffer of `root`. Open values are written as 0, in the order: a table's own, then those of what it refers to."""
    writer = _Writer(bytearray(4), [], {})
    writer.refer(0, root)
    writer.pad(8)
    return Flatbuffer(bytes(writer.out), tuple(writer.open))


@dataclass(slots=True)
class _Writer:
    out: bytearray
    open: list[int]
    vtables: dict[bytes, int]

    def pad(self, size: int, beyond: int = 0) -> int:
        """Zeros until `beyond` bytes further on is a multiple of `size`; returns where that leaves us."""
        self.out += bytes(-(len(self.out) + beyond) % size)
        return len(self.out)

    def put(self, code: str, value: int | None) -> None:
        if value is OPEN:
            self.open.append(len(self.out))
        self.out += struct.pack("<" + code, value or 0)

    def refer(self, at: int, content: Content) -> None:
        """Writes `content` at the end and its distance at `at`."""
        match content:
            case Text():
                place = self._text(content)
            case Structs():
                place = self._structs(content)
            case Tables():
                place = self._tables(content)
            case Table():
                place = self._table(content)
        struct.pack_into("<I", self.out, at, place - at)

    def _text(self, text: Text) -> int:
        place = self.pad(4)
        encoded = text.value.encode()
        self.out += struct.pack("<I", len(encoded)) + encoded + b"\0"
        return place

    def _structs(self, structs: Structs) -> int:
        place = self.pad(8, beyond=4)  # The first element follows the count.
        self.put("I", len(structs.rows))
        for row in structs.rows:
            for value in row:
                self.put("q", value)
        return place

    def _tables(self, tables: Tables) -> int:
        place = self.pad(4)
        self.put("I", len(tables.items))
        first = len(self.out)
        self.out += bytes(4 * len(tables.items))
        for number, item in enumerate(tables.items):
            self.refer(first + 4 * number, item)
        return place

    def _table(self, table: Table) -> int:
        """The table with its widest fields first: behind the 4 bytes of its head they need no padding in between."""
        fields = sorted(table.fields.items(), key=lambda field: -_size(field[1]))
        vtable = self._vtable({number: _size(field) for number, field in fields})
        place = self.pad(max((_size(field) for _, field in fields), default=4), beyond=4)
        self.put("i", place - vtable)
        references: list[tuple[int, Content]] = []
        for _, field in fields:
            if isinstance(field, Scalar):
                self.put(field.code, field.value)
            else:
                references.append((len(self.out), field))
                self.put("I", 0)
        for at, content in references:
            self.refer(at, content)
        return place

    def _vtable(self, sizes: dict[int, int]) -> int:
        """Where the vtable of fields of these sizes in this order is; tables of one shape share it."""
        places = [0] * (max(sizes, default=-1) + 1)
        at = 4
        for number, size in sizes.items():
            places[number] = at
            at += size
        content = struct.pack(f"<{2 + len(places)}H", 4 + 2 * len(places), at, *places)
        if content not in self.vtables:
            self.vtables[content] = self.pad(2)
            self.out += content
        return self.vtables[content]


def _size(field: Field) -> int:
    return struct.calcsize(field.code) if isinstance(field, Scalar) else 4
