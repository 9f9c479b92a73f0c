"""The rows of a register list as points: each row a point, or a fault that says why not.

Invariant: every row is a point or is named in the faults, and so is every cell that was left out of its point; what a row
does not say is counted among the assumptions, never assumed in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, NoReturn, TypeVar

from telemetry.errors import Fault
from telemetry.register_cells import (
    CellAddress,
    CellType,
    cell_address,
    cell_type,
    factor,
    is_nothing,
    meanings,
    modicon,
    number,
    registers_of,
    table_of,
    value_range,
    widened,
    word_order,
)
from telemetry.register_counting import Counting, table_or_none
from telemetry.register_draft import ListedPoint
from telemetry.register_map import RegisterType, Table, bytes_in_order, stretch_word_order
from telemetry.register_table import RegisterTable, Row
from telemetry.register_texts import point_name, point_texts
from telemetry.wording import shown

V = TypeVar("V")

_COUNTS: Final = re.compile(r"count|total|accumul|cumulat|累计|累积|计数|总[电用流产]", re.IGNORECASE)
_WRITE_ONLY: Final = re.compile(r"w|wo|write\s*-?\s*only|write|只写|写", re.IGNORECASE)
_WRITES: Final = re.compile(r"w|写", re.IGNORECASE)
_BITS: Final = re.compile(
    r"(?:bits?|b|位|第)?\s*(\d{1,2})\s*(?:位)?(?:\s*(?:-|~|\.\.|to|至)\s*(?:bits?|b)?(\d{1,2}))?", re.IGNORECASE
)
_UNIT_WITH_SCALE: Final = re.compile(r"[x×*]?\s*(0?\.\d+|\d+\.\d+|1[eE]-\d)\s*([^\d\s].*)")
_SECTION: Final = re.compile(
    r"(?:功能码|功能|function(?:\s*code)?|fc)\s*[:：=]?\s*\(?(?:0x)?0?([1-4])(?!\d)", re.IGNORECASE
)
_SWITCH: Final = {0: {"zh": "断开", "en": "off"}, 1: {"zh": "接通", "en": "on"}}


class _Left(Exception):
    """The row is left out; why is told already."""


@dataclass(slots=True)
class Reading:
    """Goes through the rows of a list once."""

    table: RegisterTable
    file: str
    counting: Counting
    faults: list[Fault] = field(default_factory=list)
    section: Table | None = None

    def points(self) -> Iterator[ListedPoint]:
        """Every row that can be used, in order; the others are in `faults` afterwards."""
        for row in self.table.rows:
            if not row.cells or self._is_section(row):
                continue
            try:
                yield self._point(row)
            except _Left:
                continue

    def _point(self, row: Row) -> ListedPoint:
        self._readable(row)
        address = self._need(row, "address", lambda text: self._address(text))
        said = self._type(row, address)
        table, place, table_said = self._place(row, address, said)
        modbus: dict[str, Any] = {"address": place} if table == "holding" else {"table": table, "address": place}
        kind = self._shape(row, address, said, table, modbus)
        order = self._may(row, "order", lambda text: word_order(text, kind)) if table in ("holding", "input") else None
        if order is None and said is not None and said.order is not None:
            order = stretch_word_order(said.order, bytes_in_order(kind))
        data = self._data(row, kind, modbus)
        texts = point_texts(row.get)
        key = point_name(texts, f"{table}_{place}" + (f"_bit_{modbus['bit']}" if "bit" in modbus else ""))
        assumed = [
            *([] if table_said else ["table"]),
            *([] if row.get("type") or kind is RegisterType.BOOL else ["type"]),
        ]
        assumed += ["order"] if kind.registers > 1 and order is None else []
        return ListedPoint(row.line, key, data, modbus, kind, order, tuple(assumed))

    def _readable(self, row: Row) -> None:
        if _WRITE_ONLY.fullmatch(row.get("access")):
            self._leave(row, "access", "a point that can be read", row.get("access"))

    def _address(self, text: str) -> CellAddress:
        return cell_address(text, hexadecimal="address" in self.table.hex_columns)

    def _type(self, row: Row, address: CellAddress) -> CellType | None:
        """The type as the cell says it; None where it says nothing, or names a table instead."""
        text = row.get("type")
        if is_nothing(text):
            if not row.get("function") or table_or_none(row.get("function")) not in ("coil", "discrete"):
                count = self._registers(row, address)
                if count is not None and count > 1:
                    self._leave(row, "type", f"a type, for {count} registers", "nothing")
            return None
        try:
            return cell_type(text)
        except ValueError as error:
            if table_or_none(text) is not None:
                return None
            self._leave(row, "type", str(error), text)

    def _place(self, row: Row, address: CellAddress, said: CellType | None) -> tuple[Table, int, bool]:
        """(table, address, whether the list says which table)."""
        function = row.get("function")
        named = None if is_nothing(function) else self._need(row, "function", table_of)
        named = named or table_or_none(row.get("register")) or table_or_none(row.get("type"))
        if address.table is not None:
            return address.table, address.number, True
        numbered = modicon(address) if self.counting.numbers != "plain" else None
        if numbered is None and self.counting.numbers != "plain" and named == "coil":
            numbered = ("coil", address.number)
        if self.counting.numbers != "plain" and numbered is None and address.digits:
            self._leave(row, "address", "a Modicon number (40008, 400008)", row.get("address"))
        if numbered is not None:
            place = numbered[1] - (self.counting.numbers == "from 1")
            if place < 0:
                self._leave(row, "address", "a number from 1 on", row.get("address"))
            return numbered[0], place, True
        if address.number > 65535:
            self._leave(row, "address", "0..65535 (or Modicon numbers in the whole list)", row.get("address"))
        beside = self._beside(row)
        table = named or beside or self.section
        if (
            table is None
            and said is not None
            and said.kind is RegisterType.BOOL
            and address.bit is None
            and not row.get("bit")
        ):
            self._leave(row, "type", "a function code or a table, or a bit, for a bool", row.get("type"))
        return table or "holding", address.number, table is not None

    def _beside(self, row: Row) -> Table | None:
        """The table of a Modicon number in a column of its own, beside the address."""
        try:
            numbered = modicon(cell_address(row.get("register"), hexadecimal=False))
        except ValueError:
            return None
        return numbered[0] if numbered is not None else None

    def _registers(self, row: Row, address: CellAddress) -> int | None:
        """How many registers the list gives the row; None where it does not say."""
        if row.get("length"):
            return self._may(row, "length", lambda text: registers_of(text, each=self.counting.length_in))
        if row.get("bytes"):
            return self._may(row, "bytes", lambda text: registers_of(text, each=2))
        return address.registers

    def _shape(
        self, row: Row, address: CellAddress, said: CellType | None, table: Table, modbus: dict[str, Any]
    ) -> RegisterType:
        """The type, written into `modbus` with its bits or length."""
        if table in ("coil", "discrete"):
            if said is not None and said.kind not in (RegisterType.BOOL, RegisterType.U16) and said.family != "u":
                self._leave(row, "type", f"bool, in table {table}", row.get("type"))
            modbus["type"] = "bool"
            return RegisterType.BOOL
        bit, bits = self._bits(row, address, said)
        kind = self._kind(row, address, said, bit, bits)
        modbus["type"] = kind.value
        if bit is not None:
            modbus["bit"] = bit
            modbus |= {"bits": bits} if bits > 1 else {}
        elif kind is RegisterType.BOOL:
            self._leave(row, "type", "a bit's number, for a bool in a register", row.get("type"))
        if kind is RegisterType.STRING:
            modbus["length"] = self._length(row, address, said)
        return kind

    def _kind(self, row: Row, address: CellAddress, said: CellType | None, bit: int | None, bits: int) -> RegisterType:
        if said is None:
            return RegisterType.BOOL if bit is not None and bits == 1 else RegisterType.U16
        if said.kind in (RegisterType.STRING, RegisterType.BOOL) and bits == 1:
            return said.kind
        try:
            kind = widened(said, None if said.bit is not None else self._registers(row, address))
        except ValueError as error:
            self._leave(
                row, "length" if row.get("length") else "type", str(error), row.get("length") or row.get("type")
            )
        if kind is RegisterType.U16 and bit is not None and bits == 1:
            return RegisterType.BOOL
        return RegisterType.U16 if kind is RegisterType.BOOL else kind

    def _bits(self, row: Row, address: CellAddress, said: CellType | None) -> tuple[int | None, int]:
        text, own = row.get("bit"), said.bits if said is not None else 1
        if not is_nothing(text):
            found = _BITS.fullmatch(text)
            ends = sorted(int(end) for end in found.groups() if end) if found is not None else []
            if not ends or ends[-1] > 63:
                self._leave(row, "bit", "a bit from 0, or a first and a last one", text)
            if len(ends) == 2:
                return (None, 1) if ends == [0, 15] else (ends[0], ends[1] - ends[0] + 1)
            width = self._may(row, "bits", lambda cell: number(cell))
            return ends[0], own if width is None else max(1, round(width))
        bit = address.bit if address.bit is not None else said.bit if said is not None else None
        if bit is None and own > 1:
            self._leave(row, "type", f"a bit's number, for a field of {own} bits", row.get("type"))
        return bit, own

    def _length(self, row: Row, address: CellAddress, said: CellType | None) -> int:
        registers = self._registers(row, address)
        if registers is not None:
            return registers
        characters = address.characters or (said.characters if said is not None else None)
        if not characters:
            self._leave(row, "type", "a string's length, as string[20] or in registers", row.get("type"))
        return (characters + 1) // 2

    def _data(self, row: Row, kind: RegisterType, modbus: dict[str, Any]) -> dict[str, Any]:
        """What the profile says of the point, in the order in which ours say it."""
        texts = point_texts(row.get)
        data: dict[str, Any] = {"name": {"zh": texts.zh, "en": texts.en}}
        scale, unit = self._scaled(row, kind, modbus)
        listed = meanings(row.get("values")) or meanings(row.get("description"))
        if kind is RegisterType.STRING:
            data["kind"] = "text"
        elif kind is RegisterType.BOOL or (listed and scale == 1 and kind.is_integer):
            data["kind"] = "state"
        elif _COUNTS.search(f"{texts.zh} {texts.en}") and kind not in (RegisterType.F32, RegisterType.F64):
            data["kind"] = "counter"
        elif _WRITES.search(row.get("access")) and self.counting.access_tells:
            data["kind"] = "setpoint"
        data |= {"unit": unit} if unit else {}
        data |= {"group": row.get("group")} if row.get("group") else {}
        data["modbus"] = modbus
        if data.get("kind") == "state":
            data["enum"] = {value: {"zh": word, "en": word} for value, word in listed.items()} if listed else _SWITCH
        elif kind is not RegisterType.STRING and (span := self._range(row, kind)):
            data["range"] = span
        said = (
            f"; {row.get('description')}"
            if row.get("description") and row.get("description") not in (texts.zh, texts.en)
            else ""
        )
        data["note"] = f"line {row.line} of the list: {row.get('address')}{said}"
        return data

    def _scaled(self, row: Row, kind: RegisterType, modbus: dict[str, Any]) -> tuple[float, str]:
        """(scale, unit); scale and offset are written into `modbus` where they are not 1 and 0."""
        comma = self.table.decimal_comma
        unit = "" if is_nothing(row.get("unit")) else row.get("unit").replace("℃", "°C").replace("℉", "°F")
        if kind in (RegisterType.STRING, RegisterType.BOOL):
            return 1.0, ""
        scale, offset = self._linear(row)
        text = row.get("scale")
        if scale is None and text and text.casefold() != "linear":
            scale = self._may(row, "scale", lambda cell: factor(cell, decimal_comma=comma))
        if scale is None and row.get("decimals"):
            places = self._may(row, "decimals", lambda cell: number(cell))
            scale = None if places is None else float(f"1e-{round(places)}") if 0 <= places <= 12 else None
        if scale is None and (both := _UNIT_WITH_SCALE.fullmatch(unit)) is not None:
            scale, unit = float(both[1]), both[2]
        if offset is None and not is_nothing(row.get("offset")):
            offset = self._may(row, "offset", lambda cell: number(cell, decimal_comma=comma))
        modbus |= {"scale": scale} if scale not in (None, 1.0) else {}
        modbus |= {"offset": offset} if offset not in (None, 0.0) else {}
        return (1.0 if scale is None else scale), unit

    def _linear(self, row: Row) -> tuple[float | None, float | None]:
        """Scale and offset of a raw range and the range that it stands for."""
        ends = ("raw_low", "raw_high", "scaled_low", "scaled_high")
        if not all(row.get(end) for end in ends) or row.get("scale").casefold() in ("none", "0", "false"):
            return None, None
        comma = self.table.decimal_comma
        read = [self._may(row, end, lambda cell: number(cell, decimal_comma=comma)) for end in ends]
        raw_low, raw_high, low, high = (float("nan") if value is None else value for value in read)
        if not (raw_high > raw_low and high != low):
            return None, None
        first, last, least, most = (Fraction(repr(end)) for end in (raw_low, raw_high, low, high))
        scale = (most - least) / (last - first)
        return float(scale), float(least - first * scale)

    def _range(self, row: Row, kind: RegisterType) -> dict[str, float]:
        comma = self.table.decimal_comma
        if not is_nothing(row.get("range")):
            pair = self._may(row, "range", lambda cell: value_range(cell, decimal_comma=comma))
            low, high = pair if pair is not None else (None, None)
        else:
            ends = [
                None
                if is_nothing(row.get(end))
                else self._may(row, end, lambda cell: number(cell, decimal_comma=comma))
                for end in ("low", "high")
            ]
            low, high = ends
        if low is not None and high is not None and low >= high:
            self._tell(row, "high", f"more than the low end, {low:g} (drafted without)", f"{high:g}")
            return {}
        bits = kind.registers * 16
        if (low, high) in ((0, 2**bits - 1), (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)):
            return {}
        return {key: end for key, end in (("low", low), ("high", high)) if end is not None}

    def _is_section(self, row: Row) -> bool:
        """A title between the rows; one that names a table says it for the rows below."""
        if len(row.cells) != 1 or (re.match(r"\s*\d", row.get("address")) is not None):
            return False
        (text,) = row.cells.values()
        code = _SECTION.search(text)
        named = table_or_none(code[1] if code is not None else text)
        if named is None:
            return False
        self.section = named
        return True

    def _need(self, row: Row, meaning: str, read: Callable[[str], V]) -> V:
        """A cell that the row cannot be without."""
        try:
            return read(row.get(meaning))
        except ValueError as error:
            self._leave(row, meaning, str(error), row.get(meaning))

    def _may(self, row: Row, meaning: str, read: Callable[[str], V]) -> V | None:
        """A cell that the row can be without; what cannot be read of it is told."""
        text = row.get(meaning)
        if is_nothing(text):
            return None
        try:
            return read(text)
        except ValueError as error:
            self._tell(row, meaning, f"{error} (drafted without)", shown(text))
            return None

    def _leave(self, row: Row, meaning: str, expected: str, found: str) -> NoReturn:
        self._tell(row, meaning, f"{expected} (row left out)", shown(found or None))
        raise _Left

    def _tell(self, row: Row, meaning: str, expected: str, found: str) -> None:
        self.faults.append(Fault(self.file, row.line, self.table.headers.get(meaning, meaning), expected, found))
