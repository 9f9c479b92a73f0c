"""How a register list counts, which no cell says alone: Modicon numbers or addresses, lengths in registers, bytes or bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from telemetry.register_cells import cell_address, cell_type, is_nothing, modicon, number, table_of
from telemetry.register_map import RegisterType, Table
from telemetry.register_table import RegisterTable, Row

Addresses = Literal["auto", "plain", "modicon"]
"""What the numbers of a list are; auto: as they look."""


@dataclass(frozen=True, slots=True)
class Counting:
    """How a list counts."""

    numbers: Literal["plain", "from 1", "from 0"]
    """Addresses as they are sent, or Modicon numbers (40008) counted from 1 or 0 behind the table's digit."""
    looks_modicon: bool
    """Whether all numbers look like Modicon numbers, whatever they were taken for."""
    length_in: int
    """What the length column counts: 1 registers, 2 bytes, 16 bits."""
    access_tells: bool
    """Whether some points may be written and others not; where all may, it says nothing of a point."""


def counting_of(table: RegisterTable, addresses: Addresses) -> Counting:
    """How the list counts, by all of its rows together; its numbers as `addresses` says, where that is not auto.

    A list with a number 40000 counts its Modicon numbers from 0, or has plain addresses: both are met, and left to
    itself it is taken at its word.
    """
    written = {bool({"w", "写"} & set(access.casefold())) for row in table.rows if (access := row.get("access"))}
    seen, agree = _modicon_numbers(table)
    looks = agree and bool(seen)
    numbers: Literal["plain", "from 1", "from 0"] = "plain"
    if addresses == "modicon" or (addresses == "auto" and looks and min(seen) > 0):
        numbers = "from 1" if min(seen, default=1) > 0 else "from 0"
    return Counting(numbers, looks, _length_in(table), len(written) == 2)


def table_or_none(text: str) -> Table | None:
    """The table that a cell names, where it names one."""
    try:
        return table_of(text)
    except ValueError:
        return None


def _modicon_numbers(table: RegisterTable) -> tuple[list[int], bool]:
    """The Modicon numbers of the list, and whether all its numbers are and none contradicts its function or type."""
    seen, agree = [], True
    for row in table.rows:
        try:
            address = cell_address(row.get("address"), hexadecimal="address" in table.hex_columns)
        except ValueError:
            continue
        function = table_or_none(row.get("function"))
        if not address.digits or (function == "coil" and address.number < 10000):
            continue
        numbered = modicon(address)
        if numbered is None or function not in (None, numbered[0]) or not _bits_agree(numbered[0], row):
            agree = False
        else:
            seen.append(numbered[1])
    return seen, agree


def _bits_agree(table: Table, row: Row) -> bool:
    """Whether a row's type can lie in the table that its number names."""
    if table in ("holding", "input") or is_nothing(row.get("type")):
        return True
    try:
        return cell_type(row.get("type")).kind is RegisterType.BOOL
    except ValueError:
        return True


def _length_in(table: RegisterTable) -> int:
    """The unit in which most rows agree whose type says how long they are; registers where none does."""
    pairs = []
    for row in table.rows:
        try:
            kind = cell_type(row.get("type")).kind
            pairs.append((number(row.get("length")), kind.registers if kind is not None else 0))
        except ValueError:
            continue
    known = [(length, registers) for length, registers in pairs if registers]
    return max((1, 2, 16), key=lambda unit: sum(n == size * unit for n, size in known))
