"""Cells of register lists: each spelling that manuals use, and what is refused rather than guessed."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.register_cells import (
    CellAddress,
    cell_address,
    cell_type,
    factor,
    meanings,
    modicon,
    number,
    registers_of,
    table_of,
    value_range,
    widened,
    word_order,
)
from telemetry.register_map import RegisterType

TYPES = {
    "bool": "BOOL|Boolean|bit|Digital|Coil|布尔型|开关量|1bit",
    "u16": "uint16|UINT16|WORD|unsigned 16-bit|16 bit unsigned integer|U16|无符号16位|uint16_t|U_WORD|enum16|16BIT_FLAGS|字",
    "i16": "int16|Signed16|SINT16|Short|16位有符号整数|S16|int16_t|S_WORD|Int16",
    "u32": "UINT32|DWORD|UDINT|U32|32-bit unsigned|双字|U_DWORD|无符号32位整型",
    "i32": "DINT|int32|Long|Signed 32 bit|长整型|S_DWORD|32位整数",
    "u64": "UINT64|QWORD|ULINT|unsigned64",
    "i64": "INT64|LINT|LLong|64位整型",
    "f32": "REAL|float|Float32|FLOAT32-IEEE|IEEE754|单精度浮点数|浮点|32-bit float|Single|IEEE-754 32 bit floating point",
    "f64": "LREAL|Double|float64|双精度浮点|64 bit float",
    "bcd16": "BCD16|16-bit BCD|4位BCD|BCD 4 digits",
    "bcd32": "LBCD|BCD32|8位BCD码",
}


@pytest.mark.parametrize(("said", "kind"), [(word, kind) for kind, words in TYPES.items() for word in words.split("|")])
def test_a_type_is_known_by_the_words_of_manuals(said: str, kind: str) -> None:
    assert cell_type(said).kind == RegisterType(kind)


@pytest.mark.parametrize(
    ("said", "registers", "kind"),
    [
        ("INT", None, "i16"),
        ("int", 2, "i32"),
        ("无符号整数", 1, "u16"),
        ("unsigned", 4, "u64"),
        ("BCD", 2, "bcd32"),
        ("float", 2, "f32"),
    ],
)
def test_a_type_without_a_width_is_as_wide_as_its_length(said: str, registers: int | None, kind: str) -> None:
    assert widened(cell_type(said), registers) == RegisterType(kind)


def test_a_length_says_what_it_counts_or_counts_as_its_list_does() -> None:
    assert [registers_of(said, each=1) for said in ("2", "2 words", "4byte", "4字节", "32 bit", "1个", "1")] == [
        2,
        2,
        2,
        2,
        2,
        1,
        1,
    ]
    assert [registers_of(said, each=2) for said in ("4", "3", "2 registers")] == [2, 2, 2]
    with pytest.raises(ValueError, match="a number of registers"):
        registers_of("some", each=1)


def test_a_length_that_contradicts_its_type_or_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="2 registers"):
        widened(cell_type("REAL"), 1)
    with pytest.raises(ValueError, match="1, 2 or 4 registers"):
        widened(cell_type("INT"), 3)


@pytest.mark.parametrize("said", ["", "VERSION", "int8", "int24", "FIXED", "date", "?", "时间", "float 48"])
def test_what_is_no_type_of_ours_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match="type"):
        cell_type(said)


@pytest.mark.parametrize(
    ("said", "characters"), [("string[20]", 20), ("STRING(8)", 8), ("char16", 16), ("ASCII", None), ("字符串", None)]
)
def test_a_string_says_how_many_characters(said: str, characters: int | None) -> None:
    assert (cell_type(said).kind, cell_type(said).characters) == (RegisterType.STRING, characters)


@pytest.mark.parametrize(
    ("said", "bit"), [("UINT8L", 0), ("uint8h", 8), ("byte", None), ("8bit", None), ("uint8", None)]
)
def test_half_a_register_is_a_field_of_eight_bits(said: str, bit: int | None) -> None:
    found = cell_type(said)
    assert (found.kind, found.bit, found.bits) == (RegisterType.U16, bit, 8)


@pytest.mark.parametrize(
    ("said", "order"),
    [
        ("float CDAB", "CDAB"),
        ("FLOAT (ABCD)", "ABCD"),
        ("Swapped float", "CDAB"),
        ("32bit Float (3412)", "CDAB"),
        ("uint32 BADC", "BADC"),
    ],
)
def test_a_word_order_may_stand_in_the_type(said: str, order: str) -> None:
    assert cell_type(said).order == order


@pytest.mark.parametrize(
    ("said", "kind", "order"),
    [
        ("ABCD", "f32", "ABCD"),
        ("cd-ab", "f32", "CDAB"),
        ("Big Endian", "u32", "ABCD"),
        ("little-endian", "u64", "HGFEDCBA"),
        ("word swap", "f64", "GHEFCDAB"),
        ("低字在前", "i32", "CDAB"),
        ("大端", "u16", "AB"),
        ("BA", "u16", "BA"),
        ("2143", "f32", "BADC"),
        ("BE_LE", "f32", "CDAB"),
    ],
)
def test_a_word_order_is_spelled_for_its_type(said: str, kind: str, order: str) -> None:
    assert word_order(said, RegisterType(kind)) == order


@pytest.mark.parametrize("said", ["", "sometimes", "AABB", "ABCDE"])
def test_what_is_no_word_order_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match="word order"):
        word_order(said, RegisterType.F32)


@pytest.mark.parametrize(
    ("said", "table"),
    [
        ("01", "coil"),
        ("2", "discrete"),
        ("03", "holding"),
        ("0x04", "input"),
        ("03H", "holding"),
        ("FC4", "input"),
        ("h", "holding"),
        ("input_register", "input"),
        ("3/6", "holding"),
        ("03,06,16", "holding"),
        ("1 / 5 / 15", "coil"),
        ("03/10H", "holding"),
        ("功能码03", "holding"),
        ("Holding Register", "holding"),
        ("holding_register", "holding"),
        ("Input Register", "input"),
        ("input", "input"),
        ("Discrete Input", "discrete"),
        ("Input Status", "discrete"),
        ("Coil", "coil"),
        ("4x", "holding"),
        ("3X", "input"),
        ("保持寄存器", "holding"),
        ("输入寄存器", "input"),
        ("线圈", "coil"),
        ("离散输入", "discrete"),
        ("03读", "holding"),
    ],
)
def test_a_table_is_known_by_its_function_or_its_name(said: str, table: str) -> None:
    assert table_of(said) == table


@pytest.mark.parametrize("said", ["", "06", "16", "5/15", "7", "read", "0x10", "33"])
def test_what_reads_no_table_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match="function"):
        table_of(said)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("7", CellAddress(7, "7")),
        ("0007", CellAddress(7, "0007")),
        ("0x1F", CellAddress(31, "")),
        ("001FH", CellAddress(31, "")),
        ("16#10", CellAddress(16, "")),
        ("40008", CellAddress(40008, "40008")),
        ("x1F", CellAddress(31, "")),
        ("0x1F.b8", CellAddress(31, "", bit=8)),
        ("40008.3", CellAddress(40008, "40008", bit=3)),
        ("40001:15", CellAddress(40001, "40001", bit=15)),
        ("40 001", CellAddress(40001, "40001")),
        ("40001,40002", CellAddress(40001, "40001", 2)),
        ("40001-40002", CellAddress(40001, "40001", 2)),
        ("0x10~0x13", CellAddress(16, "", 4)),
        ("4x0008", CellAddress(7, "", table="holding")),
        ("3x1", CellAddress(0, "", table="input")),
        ("%MW7", CellAddress(7, "", table="holding")),
        ("HR7", CellAddress(7, "", table="holding")),
        ("400010.20H", CellAddress(400010, "400010", characters=20)),
        ("７", CellAddress(7, "7")),
        ("'00001", CellAddress(1, "00001")),
    ],
)
def test_an_address_is_read_as_it_is_written(said: str, found: CellAddress) -> None:
    assert cell_address(said, hexadecimal=False) == found


def test_an_address_in_a_hexadecimal_column_is_hexadecimal() -> None:
    assert cell_address("10", hexadecimal=True).number == 16
    assert cell_address("00FF", hexadecimal=True).number == 255


@pytest.mark.parametrize(
    "said", ["", "zz", "D100", "-1", "1.5.2", "4x0", "40002-40001", "1-500", "1,5", "12345678", "10FF"]
)
def test_what_is_no_address_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match="an address"):
        cell_address(said, hexadecimal=False)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("40008", ("holding", 8)),
        ("30001", ("input", 1)),
        ("10001", ("discrete", 1)),
        ("00001", ("coil", 1)),
        ("400001", ("holding", 1)),
        ("465536", ("holding", 65536)),
        ("465537", None),
        ("20001", None),
        ("4008", None),
    ],
)
def test_a_modicon_number_names_its_table(said: str, found: tuple[str, int] | None) -> None:
    assert modicon(cell_address(said, hexadecimal=False)) == found


@pytest.mark.parametrize(
    ("said", "scale"),
    [
        ("0.1", 0.1),
        ("×0.1", 0.1),
        ("x 0.01", 0.01),
        ("*10", 10),
        ("/10", 0.1),
        ("÷100", 0.01),
        ("1/10", 0.1),
        ("1:1000", 0.001),
        ("10^-2", 0.01),
        ("10**3", 1000),
        ("1e-3", 0.001),
        ("0.1 kW", 0.1),
        ("0,1", 0.1),
        ("-", 1),
        ("", 1),
        ("-0.5", -0.5),
        ("０.１", 0.1),
    ],
)
def test_a_factor_is_known_however_it_is_written(said: str, scale: float) -> None:
    assert factor(said) == scale


@pytest.mark.parametrize("said", ["-3", "0", "about ten", "/0", "Square Root", "1,000"])
def test_what_is_no_factor_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match=r"a (number|factor)"):
        factor(said)


@pytest.mark.parametrize(
    ("said", "span"),
    [
        ("0-100", (0, 100)),
        ("0~2.5MPa", (0, 2.5)),
        ("-40…85", (-40, 85)),
        ("-40..85 °C", (-40, 85)),
        ("0 to 10", (0, 10)),
        ("-10--5", (-10, -5)),
        ("[0, 50]", (0, 50)),
        ("0至100", (0, 100)),
    ],
)
def test_a_range_has_two_ends(said: str, span: tuple[float, float]) -> None:
    assert value_range(said) == span


@pytest.mark.parametrize("said", ["", "80~20", "0", "low-high", "5-5"])
def test_what_is_no_range_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match="LOW-HIGH"):
        value_range(said)


def test_a_decimal_comma_is_one_where_the_list_uses_it() -> None:
    assert number("1,250", decimal_comma=True) == 1.25
    with pytest.raises(ValueError, match="a number"):
        number("1,250")


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("0=Off; 1=On", {0: "Off", 1: "On"}),
        ("0：停止 1：运行 2：故障", {0: "停止", 1: "运行", 2: "故障"}),
        ("0: idle, 1: heating (burner), 16: lockout", {0: "idle", 1: "heating", 16: "lockout"}),
        ('{"0":"Open","1":"Closed"}', {0: "Open", 1: "Closed"}),
        ("0-100", {}),
        ("1=on", {}),
        ("4-20 mA", {}),
    ],
)
def test_what_values_mean_is_taken_from_a_text_that_lists_at_least_two(said: str, found: dict[int, str]) -> None:
    assert meanings(said) == found


@settings(max_examples=400, deadline=None)
@given(text=st.text(max_size=20) | st.text("0123456789xXhH.,:/-~^*%#ABCD年 浮点", max_size=12))
def test_any_cell_has_a_meaning_or_a_value_error(text: str) -> None:
    for read in (
        factor,
        number,
        value_range,
        table_of,
        cell_type,
        meanings,
        lambda cell: word_order(cell, RegisterType.F32),
        lambda cell: cell_address(cell, hexadecimal=True),
        lambda cell: cell_address(cell, hexadecimal=False),
    ):
        with contextlib.suppress(ValueError):
            read(text)
