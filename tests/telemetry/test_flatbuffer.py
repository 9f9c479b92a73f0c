"""Flatbuffers, by bytes laid out by hand from "FlatBuffer Internals" of flatbuffers.dev."""

from __future__ import annotations

from telemetry.flatbuffer import OPEN, Scalar, Structs, Table, Tables, Text, flatbuffer


def laid_out(*lines: str) -> bytes:
    return b"".join(bytes.fromhex(line.partition("#")[0]) for line in lines)


def test_a_table_is_laid_out_as_the_format_says() -> None:
    made = flatbuffer(Table({0: Scalar("h", -2), 1: Text("hé"), 3: Scalar("b", 7)}))
    assert made.content == laid_out(
        "10000000          # 0: the root table is 16 bytes on",
        "0c00 0b00         # 4: vtable: 12 bytes, of a table of 11",
        "0800 0400 0000 0a00  # field 0 at 8, field 1 at 4, field 2 absent, field 3 at 10",
        "0c000000          # 16: the table: its vtable is 12 bytes back",
        "08000000          # 20: field 1, 8 bytes on",
        "feff 07 00        # 24: fields 0 and 3",
        "03000000 68c3a9 00  # 28: the text: its length, its UTF-8, a zero",
        "00000000          # up to a multiple of 8",
    )
    assert made.open == ()


def test_open_numbers_stand_at_multiples_of_eight_and_in_order() -> None:
    made = flatbuffer(Table({1: Structs(((OPEN, 5), (6, OPEN))), 0: Scalar("q", OPEN)}))
    assert made.content == laid_out(
        "0c000000          # 0: the root table is 12 bytes on",
        "0800 1000         # 4: vtable: 8 bytes, of a table of 16",
        "0400 0c00         # field 0 at 4, field 1 at 12",
        "08000000          # 12: the table",
        "0000000000000000  # 16: field 0, open",
        "04000000          # 24: field 1, 4 bytes on",
        "02000000          # 28: a vector of two",
        "0000000000000000 0500000000000000  # 32: open, 5",
        "0600000000000000 0000000000000000  # 48: 6, open",
    )
    assert made.open == (16, 32, 56)


def test_tables_of_one_shape_share_their_vtable() -> None:
    made = flatbuffer(Table({0: Tables((Table({0: Scalar("i", 1)}), Table({0: Scalar("i", 2)}), Table({})))}))
    assert made.content == laid_out(
        "0c000000          # 0: the root table is 12 bytes on",
        "0600 0800 0400 0000  # 4: vtable: 6 bytes, of a table of 8, field 0 at 4; two bytes of padding",
        "08000000          # 12: the root table",
        "04000000          # 16: its field, 4 bytes on",
        "03000000          # 20: a vector of three",
        "0c000000 10000000 18000000  # 24: they are at 36, 44 and 56",
        "20000000 01000000  # 36: the vtable, the root's too, is 32 bytes back; 1",
        "28000000 02000000  # 44: 40 bytes back; 2",
        "0400 0400         # 52: vtable of a table without fields",
        "04000000          # 56: the third",
        "00000000          # 60: up to a multiple of 8",
    )
