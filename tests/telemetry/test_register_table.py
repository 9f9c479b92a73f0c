"""Register lists taken apart: encodings, separators, headers in two languages."""

from __future__ import annotations

import csv
import io
import re

import pytest

from telemetry.register_table import HEADERS, decode, meaning_of, read_table


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_encodings_and_separators_make_no_difference(encoding: str, separator: str) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=separator).writerows(
        [["名称", "地址", "数据类型", "单位"], ["出水, 温度; 一", "7", "int16", "°C"]]
    )
    (row,) = read_table(out.getvalue().encode(encoding)).rows
    assert dict(row.cells) == {"name": "出水, 温度; 一", "address": "7", "type": "int16", "unit": "°C"}


def test_a_western_degree_sign_is_no_chinese_character() -> None:
    assert decode("a,°C\né".encode("cp1252")) == "a,°C\né"
    assert decode("温度,°C".encode("gb18030")) == "温度,°C"


def test_the_separator_that_a_spreadsheet_wrote_first_is_believed_and_lines_are_counted_on() -> None:
    table = read_table(b'sep=;\r\n"Na\r\nme";Address\r\na;1\r\n\r\nb;2\r\n')
    assert [row.line for row in table.rows] == [4, 6]


def test_a_header_is_known_in_two_languages_with_its_unit_in_brackets() -> None:
    assert [
        meaning_of(h)
        for h in ("名称 Name", "Address (hex)", "Modbus地址", "Reg.Type", "Scale_Factor", "单位(Unit)", "colour")
    ] == [
        "name",
        "address",
        "address",
        "function",
        "scale",
        "unit",
        None,
    ]


def test_no_header_means_two_things() -> None:
    words = [word for listed in HEADERS.values() for word in listed.split()]
    assert sorted(words) == sorted(set(words))
    assert all(re.fullmatch(r"[a-z0-9\u3400-\u9fff]+", word) for word in words)
