"""A draft of a profile from a register list in CSV, for `vigil profile import`.

The list is read by `telemetry.register_table` (which column is what), `telemetry.register_cells` (what a cell means) and
`telemetry.register_rows` (rows as points). Invariants: what the list does not say is said in the draft's comments; a draft
loads as a profile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from telemetry.errors import Fault
from telemetry.register_counting import Addresses, Counting, counting_of
from telemetry.register_draft import ListedPoint, render
from telemetry.register_rows import Reading
from telemetry.register_table import NoTable, RegisterTable, read_table
from telemetry.shelf import make_profile
from telemetry.yaml_marks import read_document


@dataclass(frozen=True, slots=True)
class Draft:
    """What came of a register list."""

    text: str
    """The profile's file; empty where no row could be drafted."""
    points: int
    faults: tuple[Fault, ...]
    """Rows, and cells of rows, that are not in the draft."""
    notes: tuple[str, ...]
    """What the list does not say and the draft assumes."""


def draft_profile(raw: bytes, file: str, *, name: str, equipment_class: str, addresses: Addresses = "auto") -> Draft:
    """A profile drafted from the register list in a CSV file. `name` and `equipment_class` match NAME_PATTERN.

    `addresses` says whether 40008 is an address or holding register 8; auto: as the whole list looks.
    """
    try:
        table = read_table(raw)
    except NoTable as none:
        return Draft("", 0, (Fault(file, none.line, "(header)", none.expected, none.found),), ())
    reading = Reading(table, file, counting_of(table, addresses))
    points = list(_unique(reading.points()))
    order = _usual_order(points)
    head = _head(file, name, equipment_class, order)
    while points:
        profile = {**head, "points": {p.name: p.as_data(order) for p in points}}
        notes = _notes(points, table, reading.counting)
        comments = [
            f"Drafted from {Path(file).name} by vigil profile import: check each point against the device (vigil probe)."
        ]
        text = render(profile, [*comments, *notes])
        wrong = list(_wrong(text, points, file))
        if not wrong:
            return Draft(text, len(points), _in_order(reading.faults), notes)
        reading.faults += [fault for _, fault in wrong]
        names = {point for point, _ in wrong}
        points = [p for p in points if p.name not in names]
    return Draft("", 0, _in_order(reading.faults), ())


_ORDERS: Final = ("ABCD", "CDAB", "BADC", "DCBA")


def _usual_order(points: Sequence[ListedPoint]) -> str:
    """The order that most values of 32 or 64 bits have where the list says one; high word first else."""
    said: Counter[str] = Counter()
    for point in points:
        said.update(order for order in _ORDERS if point.kind.registers > 1 and point.has_order(order))
    return max(_ORDERS, key=lambda order: said[order])


def _unique(points: Iterator[ListedPoint]) -> Iterator[ListedPoint]:
    """The points, those whose name is taken with a number behind it."""
    taken: set[str] = set()
    for point in points:
        name, again = point.name, 1
        while name in taken:
            again += 1
            name = f"{point.name}_{again}"
        taken.add(name)
        yield replace(point, name=name)


def _head(file: str, name: str, equipment_class: str, order: str) -> dict[str, Any]:
    """What the profile says above its points."""
    head: dict[str, Any] = {
        "profile": name,
        "version": 1,
        "class": equipment_class,
        "class_name": {"zh": equipment_class, "en": equipment_class},
        "name": {"zh": name, "en": name},
        "source": Path(file).name,
        "note": "A draft: names in both languages, kinds, ranges, alarms and consequences are its keeper's to write.",
        "poll_s": 1,
    }
    return head | ({"modbus": {"word_order": order}} if order != "ABCD" else {})


def _notes(points: Sequence[ListedPoint], table: RegisterTable, counting: Counting) -> tuple[str, ...]:
    """What the draft assumes, as sentences."""
    unsaid = Counter(what for point in points for what in point.assumed)
    large = ", ".join(p.name for p in points if abs(p.modbus.get("scale", 1)) > 1)
    notes = {
        "Addresses are Modicon numbers counted from 1: 40008 is sent as 7. If they are sent as they stand, import with "
        "--addresses plain.": counting.numbers == "from 1",
        "Addresses are Modicon numbers counted from 0: 40008 is sent as 8.": counting.numbers == "from 0",
        "Addresses are taken as sent in the request, from 0. If the list counts from 1, add to the profile: "
        "modbus: {address_base: 1}.": counting.numbers == "plain",
        "They look like Modicon numbers (40008 for holding register 8). If they are, import with --addresses "
        "modicon.": counting.numbers == "plain" and counting.looks_modicon,
        f"The list names no table for {unsaid['table']} of the points: taken as holding registers.": unsaid["table"],
        f"The list names no type for {unsaid['type']} of the points: taken as u16.": unsaid["type"],
        f"The list names no word order for {unsaid['order']} of the points: taken as the profile's.": unsaid["order"],
        f"Factors above 1, which some lists mean to divide by: {large}.": large,
        f"Columns that are not used: {', '.join(table.unused)}.": table.unused,
    }
    return tuple(note for note, holds in notes.items() if holds)


def _wrong(text: str, points: Sequence[ListedPoint], file: str) -> Iterator[tuple[str, Fault]]:
    """(point, fault on its row) of everything that a check of the draft finds."""
    lines = {point.name: point.line for point in points}
    for fault in make_profile(read_document(text.encode(), file), None).faults:
        _, _, rest = fault.key.partition("points.")
        name = max((name for name in lines if rest == name or rest.startswith(f"{name}.")), key=len, default="")
        if not name:
            raise AssertionError(f"a draft that cannot be read: {fault}")
        yield (
            name,
            Fault(file, lines[name], rest.removeprefix(f"{name}."), f"{fault.expected} (row left out)", fault.found),
        )


def _in_order(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    return tuple(sorted(dict.fromkeys(faults), key=lambda fault: fault.line))
