"""A register list as people have it, taken apart: encoding, separator, header row, and which column is what.

Spreadsheets and vendors' manuals exported to CSV begin with titles, repeat their header, name their columns in English,
Chinese or both. What a column means is decided by its header alone (`HEADERS`); what a cell means is the business of
`telemetry.register_cells`. Invariant: every filled row after the header comes out once, with its line in the file.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

SEPARATORS: Final = (",", ";", "\t", "|")
HEADER_WITHIN: Final = 40
"""Rows of titles that may stand before the header."""

HEADERS: Final[Mapping[str, str]] = {
    "name": "name regname tag tagname point pointname signal signalname variable variablename var parameter parametername "
    "paramname param item label field fieldname symbol measurement datapoint registername metric quantity "
    "名称 名字 点名 点名称 测点 测点名 测点名称 点位 点位名称 变量 变量名 变量名称 参数 参数名 参数名称 信号 信号名 信号名称 "
    "标签 标签名 标签名称 数据名称 数据项 寄存器名称 项目 内容 监测项 监测量",
    "name_zh": "namezh namecn chinesename chinese 中文名 中文名称 中文",
    "name_en": "nameen englishname english 英文名 英文名称 英文 变量英文名",
    "address": "address addr modbusaddress plcaddress startaddress startingaddress dataaddress registeraddress regaddress "
    "regaddr addressdec addresshex protocoladdress pduaddress 地址 寄存器地址 起始地址 首地址 数据地址 变量地址 参数地址 "
    "点位地址 modbus地址 plc地址 通信地址 相对地址",
    "register": "register reg registerno regno registernumber regnumber modbusregister startregister startingregister "
    "寄存器 寄存器号 寄存器编号 起始寄存器",
    "type": "type datatype dtype dataformat format valuetype vartype variabletype regformat encoding 数据类型 类型 数据格式 "
    "格式 变量类型 值类型 参数类型",
    "function": "function functioncode fc func fcode readfunction readfunctioncode table registertype regtype modbustype "
    "modbusfunction modbusobject objecttype registertable area registerarea space 功能码 功能号 读功能码 寄存器类型 寄存器区 "
    "存储区 数据区 区域 modbus功能码",
    "scale": "scale scaling scalingfactor scalefactor factor multiplier mult gain coefficient ratio resolution slope 倍率 "
    "比例 系数 比例系数 比例因子 缩放 缩放系数 缩放因子 缩放比例 换算系数 分辨率 精度 因子 乘数",
    "decimals": "decimals decimal decimalplaces decimalpoint decimaldigits 小数位 小数位数 小数点 小数点位数",
    "offset": "offset bias valueoffset intercept 偏移 偏移量 偏置 偏移值",
    "unit": "unit units uom eu engineeringunit engineeringunits engunit engunits measurementunit 单位 工程单位 计量单位 量纲",
    "description": "description desc regdesc registerdescription comment comments remark remarks note notes details meaning "
    "definition explanation 说明 描述 备注 注释 注解 含义 定义 参数说明 功能描述 功能说明 数据说明",
    "values": "values enum enumeration valuedescription valuetable states 枚举 枚举值 取值 取值说明 状态说明 值说明",
    "bit": "bit bitno bitnumber bitposition bitpos bitoffset bitindex bitaddress 位 位号 位地址 位偏移 位序号 比特 比特位",
    "bits": "bits bitcount bitlength bitwidth 位数 位长 位宽",
    "order": "wordorder byteorder order endian endianness byteswap wordswap swap bytewordorder 字节序 字序 字节顺序 字顺序 "
    "数据顺序 高低字 高低字节 大小端 解码顺序",
    "length": "length datalength len size count registers words wordcount registercount regcount noofregisters "
    "numberofregisters numregisters nbofregisters noofwords 长度 数据长度 数量 寄存器数量 寄存器个数 寄存器数 "
    "寄存器长度 字数 个数",
    "bytes": "bytes bytecount bytelength 字节数 字节长度 字节",
    "low": "min minimum minvalue low lowlimit rangelow rangemin lowerlimit eulow 最小值 最小 下限 量程下限 低限 范围下限",
    "high": "max maximum maxvalue high highlimit rangehigh rangemax upperlimit euhigh 最大值 最大 上限 量程上限 高限 范围上限",
    "range": "range valuerange measuringrange measurementrange validrange 范围 量程 取值范围 数值范围 测量范围 数据范围 "
    "有效范围",
    "access": "access rw readwrite accessmode accessright accessrights accesstype mode permission attribute clientaccess 读写 "
    "访问 访问权限 权限 属性 读写属性 读写类型 读写权限 操作 读写方式",
    "group": "group category section block groupname 分组 组 分类 类别 组别",
    "raw_low": "rawlow rawmin 原始下限 原始最小值",
    "raw_high": "rawhigh rawmax 原始上限 原始最大值",
    "scaled_low": "scaledlow scaledmin 工程下限 工程量下限",
    "scaled_high": "scaledhigh scaledmax 工程上限 工程量上限",
}
"""Headers of each column, in small letters without blanks and signs; the first column of a meaning counts."""

_MEANINGS: Final = {word: meaning for meaning, words in HEADERS.items() for word in words.split()}
_HEX: Final = re.compile(r"hex|0x|16\s*进制|十六进制", re.IGNORECASE)
_FORMULA: Final = re.compile(r'^\s*="(.*)"\s*$')
"""How spreadsheets keep 00001 from becoming 1."""
_DATA_TYPES: Final = frozenset({"datatype", "dataformat", "valuetype", "数据类型", "数据格式", "值类型"})
_HAN: Final = r"\u3400-\u9fff"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the list: its cells by meaning, without blanks around them; empty cells are left out."""

    line: int
    cells: Mapping[str, str]

    def get(self, meaning: str) -> str:
        """A cell's text; empty where there is none."""
        return self.cells.get(meaning, "")


@dataclass(frozen=True, slots=True)
class RegisterTable:
    """A register list with its columns known."""

    rows: tuple[Row, ...]
    headers: Mapping[str, str]
    """Meaning → the header as it is written."""
    unused: tuple[str, ...]
    """Headers of columns whose meaning is unknown."""
    hex_columns: frozenset[str]
    """Meanings of columns whose header says that their numbers are hexadecimal."""
    decimal_comma: bool
    """Whether a comma in a number is a decimal comma: the columns are parted by something else."""


class NoTable(ValueError):
    """The file is no register list. `line`, `expected`, `found` say why."""

    def __init__(self, line: int, expected: str, found: str) -> None:
        self.line, self.expected, self.found = line, expected, found
        super().__init__(f"expected {expected}, found {found}")


def read_table(raw: bytes) -> RegisterTable:
    """The register list in a CSV file. Raises NoTable."""
    text = decode(raw)
    first, _, rest = text.partition("\n")
    if (told := re.fullmatch(r"sep=(.)\s*", first)) is not None:
        return _table(_rows(rest, told[1], 2), told[1])
    tried = [(separator, _rows(text, separator, 1)) for separator in SEPARATORS]
    if {"poll", "ref"} <= {cells[0] for _, cells in tried[0][1]}:
        return _polled(tried[0][1])
    separator, rows = max(tried, key=lambda one: _header(one[1])[1])
    return _table(rows, separator)


def decode(raw: bytes) -> str:
    """Text of UTF-8 or UTF-16 (by its mark), else of GB18030, else of Windows-1252. Raises NoTable.

    Chinese text of GB18030 stands in pairs of high bytes; where no two stand together it is a Western degree sign or
    accent, which GB18030 would read as some rare character.
    """
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif re.search(rb"[\x80-\xff]{2}", raw):
        encodings = ["utf-8-sig", "gb18030"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError as error:
            at = error.start
    raise NoTable(raw.count(b"\n", 0, at) + 1, "UTF-8 or GB18030", f"byte 0x{raw[at]:02x}")


def plain(text: str) -> str:
    """A header or word in small letters without blanks and signs, full-width letters as usual ones."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(rf"[^a-z0-9{_HAN}]", "", folded)


def meaning_of(header: str) -> str | None:
    """What a column's header says that it is; None for a header that is not known.

    What stands in brackets is left aside first ("Address (hex)"), then the parts of a header in two languages are
    tried ("名称 Name").
    """
    bare = re.sub(r"[(（\[【].*?[)）\]】]", " ", header)
    parts = [header, bare, *re.split(r"[/|\n\r]", bare), *re.findall(rf"[{_HAN}]+|[A-Za-z][A-Za-z _.-]*", bare)]
    return next((_MEANINGS[word] for part in parts if (word := plain(part)) in _MEANINGS), None)


def _rows(text: str, separator: str, first_line: int) -> list[tuple[int, list[str]]]:
    """(line, cells) of every row with something in it."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=False)
    rows, line = [], first_line
    try:
        for cells in reader:
            stripped = [" ".join(_FORMULA.sub(r"\1", cell).split()) for cell in cells]
            if any(stripped):
                rows.append((line, stripped))
            line = first_line + reader.line_num
    except csv.Error as error:
        raise NoTable(line, "rows of CSV", str(error)) from error
    return rows


def _header(rows: Sequence[tuple[int, list[str]]]) -> tuple[int, int]:
    """(place, score) of the row that reads most like a header; the score is 0 where none has an address."""
    best = (0, 0)
    for place, (_, cells) in enumerate(rows[:HEADER_WITHIN]):
        known = {meaning for cell in cells if (meaning := meaning_of(cell))}
        if known & {"address", "register"} and len(known) > max(best[1], 1):
            best = (place, len(known))
    return best


def _table(rows: Sequence[tuple[int, list[str]]], separator: str) -> RegisterTable:
    place, score = _header(rows)
    if not score:
        line, cells = rows[0] if rows else (1, [])
        expected = "a row of headers with an address (address, register, 地址 …) and a name, a type or more"
        raise NoTable(line, expected, repr(separator.join(cells)[:60]) if cells else "an empty file")
    header = rows[place][1]
    columns, unused = _columns(header)
    filled = [
        Row(line, {meaning: cells[at] for meaning, at in columns.items() if at < len(cells) and cells[at]})
        for line, cells in rows[place + 1 :]
        if [cell for cell in cells if cell] != [cell for cell in header if cell] and not _is_comment(cells, columns)
    ]
    hexadecimal = frozenset(meaning for meaning, at in columns.items() if _HEX.search(header[at]))
    headers = {meaning: header[at] for meaning, at in columns.items()}
    return RegisterTable(tuple(filled), headers, tuple(unused), hexadecimal, separator != ",")


def _is_comment(cells: Sequence[str], columns: Mapping[str, int]) -> bool:
    """Whether a row begins as a comment does, and has no number where addresses stand."""
    at = columns["address"]
    return cells[0].startswith("#") and not (at and at < len(cells) and re.search(r"\d", cells[at]))


def _polled(rows: Sequence[tuple[int, list[str]]]) -> RegisterTable:
    """A configuration of modpoll, which has no header: requests (poll, table, first, count, order) and what they read
    (ref, name, address, type, access, unit, scale).
    """
    meanings = ("name", "address", "type", "access", "unit", "scale")
    found, request = [], {}
    for line, (what, *rest) in rows:
        if what == "poll":
            request = {meaning: rest[at] for meaning, at in (("function", 0), ("order", 3)) if at < len(rest)}
        elif what == "ref":
            cells = {meaning: cell for meaning, cell in zip(meanings, rest, strict=False) if cell}
            found.append(Row(line, {**request, **cells}))
    headers = {meaning: meaning for meaning in (*meanings, "function", "order")}
    return RegisterTable(tuple(found), headers, (), frozenset(), decimal_comma=False)


def _columns(header: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Where each meaning stands, and the headers of no meaning or of one that stands already.

    Of several addresses the decimal one counts, and beside a data type a type is the table. A register is the address
    where there is no other, and so is a description the name.
    """
    columns: dict[str, int] = {}
    unused = []
    for at, cell in enumerate(header):
        meaning = meaning_of(cell)
        if meaning == "type" and "type" in columns and "function" not in columns:
            is_data = plain(cell) in _DATA_TYPES
            columns["function"], columns["type"] = (columns["type"], at) if is_data else (at, columns["type"])
        elif meaning is None or (
            meaning in columns and not (meaning == "address" and _HEX.search(header[columns[meaning]]))
        ):
            unused += [cell] if cell else []
        else:
            columns[meaning] = at
    for missing, instead in (
        ("address", "register"),
        ("name", "description"),
        ("name", "name_en"),
        ("name", "name_zh"),
    ):
        if missing not in columns and instead in columns:
            columns[missing] = columns.pop(instead)
    return columns, unused


def filled_cells(table: RegisterTable, meaning: str) -> Iterator[str]:
    """The cells of a column that have something in them."""
    return (cell for row in table.rows if (cell := row.get(meaning)))
