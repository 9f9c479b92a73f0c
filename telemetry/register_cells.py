"""What the cells of a register list mean: addresses, types, tables, factors, ranges, word orders.

Each reader takes one cell's text and gives its value, or raises ValueError "expected …" for what it cannot mean: nothing
is guessed. Register lists are written by hand, so each reader knows the spellings met in English and Chinese manuals.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from telemetry.register_map import RegisterType, Table, bytes_in_order, stretch_word_order, word_order_fits
from telemetry.register_table import plain

NOTHING: Final = frozenset({"", "-", "--", "—", "/", "\\", "n/a", "na", "none", "nil", "无", "null", "."})
"""What people write where there is nothing to say."""

MODICON: Final[dict[str, Table]] = {"0": "coil", "1": "discrete", "3": "input", "4": "holding"}
"""Tables by the first digit of a Modicon number: 40008 is holding register 8, whose address is 7."""

_NUMBER: Final = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_READS: Final[dict[int, Table]] = {1: "coil", 2: "discrete", 3: "holding", 4: "input"}
_WRITES: Final = frozenset({5, 6, 15, 16, 22, 23})
_TABLES: Final[tuple[tuple[str, Table], ...]] = (
    (r"^d$|discrete|input\s*(status|coil|bit)|status\s*input|离散|输入状态|开关量输入|^1x|^di$|%i", "discrete"),
    (r"^c$|coil|output\s*(status|bit)|线圈|开关量输出|^0x$|^do$|%m$", "coil"),
    (r"^h$|holding|保持|hold\s*reg|^4x|^hr$|^ao$|%mw|analog\w*\s*output|模拟量输出", "holding"),
    (r"^i$|input[\s_]*reg|输入寄存器|^input$|^inputs$|^3x|^ir$|^ai$|%iw|analog\w*\s*input|模拟量输入", "input"),
)
_PREFIXES: Final[tuple[tuple[str, Table, int], ...]] = (
    (r"4x|4:(?=\d{4})", "holding", 1), (r"3x|3:(?=\d{4})", "input", 1), (r"1x|1:(?=\d{4})", "discrete", 1),
    (r"%mw|hr|holding", "holding", 0), (r"%iw|ir|input", "input", 0), (r"%m|coil", "coil", 0), (r"discrete", "discrete", 0),
)  # fmt: skip
_WORD_ORDERS: Final = {
    "bigendian": "ABCD", "big": "ABCD", "be": "ABCD", "bebe": "ABCD", "highwordfirst": "ABCD", "mswfirst": "ABCD",
    "msbfirst": "ABCD", "1234": "ABCD", "大端": "ABCD", "大端模式": "ABCD", "高字在前": "ABCD", "高位在前": "ABCD",
    "高字节在前": "ABCD", "12": "ABCD", "normal": "ABCD", "ab": "ABCD",
    "littleendian": "DCBA", "little": "DCBA", "le": "DCBA", "lele": "DCBA", "4321": "DCBA", "小端": "DCBA",
    "小端模式": "DCBA",
    "wordswap": "CDAB", "wordswapped": "CDAB", "swapped": "CDAB", "swap": "CDAB", "lowwordfirst": "CDAB",
    "lswfirst": "CDAB", "3412": "CDAB", "bele": "CDAB", "midlittleendian": "CDAB", "midlittle": "CDAB",
    "littleendianbyteswap": "CDAB", "低字在前": "CDAB", "低位在前": "CDAB", "inverse": "CDAB",
    "byteswap": "BADC", "byteswapped": "BADC", "2143": "BADC", "lebe": "BADC", "midbigendian": "BADC",
    "midbig": "BADC", "bigendianbyteswap": "BADC", "21": "BADC", "ba": "BADC", "低字节在前": "BADC",
}  # fmt: skip
_NAMED_TYPES: Final = {
    "word": "u16", "ushort": "u16", "字": "u16", "short": "i16", "dword": "u32", "双字": "u32", "udint": "u32",
    "ulong": "u32", "dint": "i32", "long": "i32", "长整型": "i32", "双整型": "i32", "双整数": "i32", "qword": "u64",
    "ulint": "u64", "lword": "u64", "lint": "i64", "llong": "i64", "longlong": "i64", "real": "f32", "single": "f32",
    "单精度": "f32", "lreal": "f64", "double": "f64", "双精度": "f64", "lbcd": "bcd32", "短整型": "i16", "usint": "byte",
    "byte": "byte", "字节": "byte", "char": "char",
}  # fmt: skip

_BOOLS: Final = frozenset({
    "bool", "boolean", "bit", "1bit", "digital", "coil", "di",
    "do", "status", "布尔", "布尔型", "布尔量", "开关量", "数字量", "位",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class CellType:
    """A type as a cell says it."""

    kind: RegisterType | None = None
    """None where it says a family whose width the length must say (int, unsigned, float)."""
    family: str = ""
    """u, i, f or bcd, where kind is None."""
    characters: int | None = None
    """Of a string, where it says so."""
    bit: int | None = None
    bits: int = 1
    order: str | None = None


def number(text: str, *, decimal_comma: bool = False) -> float:
    """A number, with a decimal comma where the list uses them. Raises ValueError."""
    said = unicodedata.normalize("NFKC", text).replace("−", "-").replace(" ", "")
    if decimal_comma or re.fullmatch(r"[-+]?\d+,\d{1,2}", said):
        said = said.replace(",", ".")
    if re.fullmatch(_NUMBER, said) is None or abs(value := float(said)) > 1e300:
        raise ValueError("a number")
    return value


def factor(text: str, *, decimal_comma: bool = False) -> float:
    """A scale: 0.1, ×0.1, /10, 1/10, 10^-1; a unit behind it is left aside. Raises ValueError."""
    said = unicodedata.normalize("NFKC", text).casefold().replace("−", "-").replace(" ", "")
    if said in NOTHING:
        return 1.0
    if (power := re.fullmatch(r"[x×*]?10(?:\^|\*\*)\(?([-+]?\d{1,2})\)?", said)) is not None:
        return float(f"1e{int(power[1])}")
    over = re.fullmatch(rf"(?:([x×*]?)({_NUMBER}))?[/÷:]({_NUMBER})", said)
    if over is not None and float(over[3]):
        return float(over[2] or 1) / float(over[3])
    led = re.fullmatch(r"(?:[x×*=]|乘以?)?([-+]?[\d.,]+(?:e[-+]?\d+)?)([^\d].*)?", said)
    value = number(led[1], decimal_comma=decimal_comma) if led is not None else 0.0
    if value == 0 or re.fullmatch(r"[-+]\d+", said):
        raise ValueError("a factor other than 0 (0.1, ×0.1, /10, 10^-1; for an exponent, 10^-1 and not -1)")
    return value


def value_range(text: str, *, decimal_comma: bool = False) -> tuple[float, float]:
    """A range: 0-100, -40…85, 0 to 10, 0~1.6MPa. Raises ValueError."""
    said = unicodedata.normalize("NFKC", text).replace("−", "-").strip("[]() ")
    if decimal_comma:
        said = said.replace(",", ".")
    number_here = r"([-+]?\d+(?:\.\d+)?)\s*[^\d\s.~-]{0,4}\s*"
    found = re.fullmatch(rf"{number_here}(?:\.\.\.?|~|–|—|-|to|至|到|,|/)\s*{number_here}", said, re.IGNORECASE)
    if found is None or float(found[1]) >= float(found[2]):
        raise ValueError("LOW-HIGH, the low end first")
    return float(found[1]), float(found[2])


def table_of(text: str) -> Table:
    """A table by its function code or its name. Raises ValueError; also for functions that only write."""
    said = unicodedata.normalize("NFKC", text).casefold().strip()
    codes = [int(code, 16 if base == "0x" and code.isdigit() else 10) for base, code in _codes(said)]
    reading = [_READS[code] for code in codes if code in _READS]
    if reading:
        return reading[0]
    if codes and all(code in _WRITES or code in (10,) for code in codes):
        raise ValueError("a function that reads (1, 2, 3 or 4); nothing here writes")
    for pattern, table in _TABLES:
        if re.search(pattern, said):
            return table
    raise ValueError("a function code (1, 2, 3, 4) or a table (coil, discrete, input, holding)")


def _codes(said: str) -> list[tuple[str, str]]:
    """The function codes in a cell that has nothing else: 03, 3/6, 0x03, FC4, 03H, 01&05."""
    bare = re.sub(r"function|code|功能码|fc|读|写|read|write|[()（）]", " ", said)
    if re.fullmatch(r"(?:\s*(?:0x)?\d{1,2}h?\s*[/,&、;+和.-]?)+", bare) is None:
        return []
    return re.findall(r"(0x)?(\d{1,2})", bare)


def cell_type(text: str) -> CellType:
    """A type. Raises ValueError for words that are none."""
    said = unicodedata.normalize("NFKC", text).casefold()
    order = _order_inside(said)
    word = plain(re.sub(r"(?<![a-z0-9])([abcd]{4}|[1234]{4})(?![a-z0-9])", "", said) if order else said)
    word = re.sub(r"(swapped|swap|inverse|reverse)", "", word)
    if word in _BOOLS:
        return CellType(RegisterType.BOOL)
    if (
        text_type := re.fullmatch(
            r"(?:string|str|ascii|char|text|字符串|字符)(?:型)?(\d{1,3})?(?:bytes?|chars?|字节)?", word
        )
    ) is not None:
        return CellType(RegisterType.STRING, characters=int(text_type[1]) if text_type[1] else None)
    if (part := re.fullmatch(r"(?:u|unsigned)int8(l|h)?", word)) is not None or _NAMED_TYPES.get(word) == "byte":
        half = {"l": 0, "h": 8}.get(part[1] or "") if part is not None else None
        return CellType(RegisterType.U16, bit=half, bits=8, order=order)
    if (lettered := re.fullmatch(r"([us])(d|q)?word", word)) is not None:
        width = {"d": 32, "q": 64}.get(lettered[2], 16)
        return CellType(RegisterType(f"{'u' if lettered[1] == 'u' else 'i'}{width}"), order=order)
    if (field := re.fullmatch(r"(?:u|uint|unsigned)?([2-9]|1[0-5])bits?(?:flags|unsigned)?", word)) is not None:
        return CellType(RegisterType.U16, bits=int(field[1]), order=order)
    named = _NAMED_TYPES.get(word)
    if named is not None:
        return CellType(RegisterType(named), order=order)
    return _by_parts(word, order)


def _by_parts(word: str, order: str | None) -> CellType:
    """A type by the family and the width that its words say: uint16, 16-bit unsigned, 无符号32位, float32-ieee."""
    widths = re.findall(r"\d+", re.sub(r"ieee(754)?", "", word))
    width = int(widths[0]) if widths else None
    if "bcd" in word:
        digits = re.search(r"([48]|16)(?:位|digits?)", word)
        width = int(digits[1]) * 4 if digits is not None else width
        family = "bcd"
    elif re.search(r"float|real|浮点|ieee|double|^f(32|64)$|^fp$|single|单精度|双精度", word):
        family = "f"
        width = 64 if re.search(r"double|双精度|lreal", word) else 32 if width == 16 or width is None else width
    elif re.search(r"unsigned|uint|无符号|^u(16|32|64)|bitfield|bitmap|bitmask|flags|enum|word|hex|枚举|位域", word):
        family = "u"
    elif re.search(r"signed|int|整|有符号|^[si](16|32|64)$", word):
        family = "i"
    else:
        raise ValueError("a type (bool, int16, uint16, int32, uint32, float, double, BCD, string[N] …)")
    if width is None:
        return CellType(family=family, order=order)
    if width == 8 and family == "u":
        return CellType(RegisterType.U16, bits=8, order=order)
    if width not in (16, 32, 64):
        raise ValueError("a type of 16, 32 or 64 bits")
    return CellType(RegisterType(f"{family}{width}"), order=order)


def widened(found: CellType, registers: int | None) -> RegisterType:
    """The type of a cell whose width the length says; one register where nothing does. Raises ValueError."""
    width = 16 * (registers or 1)
    if found.kind is not None:
        if registers is not None and found.kind.registers not in (0, registers):
            raise ValueError(f"{found.kind.registers} registers, as {found.kind} takes")
        return found.kind
    if found.family == "f":
        width = 16 * (registers or 2)
    try:
        return RegisterType(f"{found.family}{width}")
    except ValueError:
        raise ValueError("1, 2 or 4 registers for a number") from None


def word_order(text: str, kind: RegisterType) -> str:
    """The order of a type's bytes: ABCD, big endian, word swap, 低字在前, 3412. Raises ValueError."""
    said = unicodedata.normalize("NFKC", text).upper().replace(" ", "").replace("-", "")
    width = bytes_in_order(kind)
    if word_order_fits(said, kind):
        return said
    known = said if said in ("ABCD", "CDAB", "BADC", "DCBA") else _WORD_ORDERS.get(plain(text))
    if known is None:
        raise ValueError("a word order (ABCD, CDAB, BADC, DCBA, big endian, word swap, 低字在前 …)")
    return stretch_word_order(known, width)


def _order_inside(said: str) -> str | None:
    """A word order said within a type: "float abcd", "swapped float", "long inverse"."""
    letters = re.search(r"(?<![a-z0-9])(abcd|cdab|badc|dcba|1234|3412|2143|4321)(?![a-z0-9])", said)
    if letters is not None:
        return _WORD_ORDERS.get(letters[1], letters[1].upper())
    return "CDAB" if re.search(r"swap|inverse|reverse", said) and not re.search(r"byte", said) else None


@dataclass(frozen=True, slots=True)
class CellAddress:
    """An address as a cell says it, before the list as a whole says how it counts."""

    number: int
    digits: str
    """The digits as written, of a decimal number; empty where it cannot be a Modicon number."""
    registers: int | None = None
    """How many the cell names, where it names a first and a last."""
    bit: int | None = None
    table: Table | None = None
    """Where the cell says it by a prefix."""
    characters: int | None = None
    """Of a string, where the cell says it: 400010.20H."""


def cell_address(text: str, *, hexadecimal: bool) -> CellAddress:
    """An address: 7, 0x0007, 0007H, 40008, 4x0008, 40008.3, 40008-40009, %MW7. Raises ValueError."""
    expected = ValueError("an address (7, 0x0007, 0007H, 40008, 4x0008)")
    said = re.sub(r"\s", "", unicodedata.normalize("NFKC", text).casefold()).strip("'\"")
    pair = re.fullmatch(r"(.+?)(~|–|—|\.\.\.?|-|to|至|到|[,/&、])(.+)", said)
    if pair is not None:
        first, last = (cell_address(end, hexadecimal=hexadecimal) for end in (pair[1], pair[3]))
        most = 1 if pair[2] in ",/&、" else 124
        if first.bit is None and last.bit is None and 0 <= last.number - first.number <= most:
            return CellAddress(first.number, first.digits, last.number - first.number + 1, None, first.table)
        raise expected
    table: Table | None = None
    base = 0
    for prefix, named, counted_from in _PREFIXES:
        if (led := re.fullmatch(rf"(?:{prefix})(\d.*)", said)) is not None:
            table, base, said = named, counted_from, led[1]
            break
    lettered = re.fullmatch(r"(\d+)\.(\d{1,3})[hl]", said)
    said = lettered[1] if lettered is not None else said
    bit = re.fullmatch(r"(\d+)[.:](?:b(?:it)?)?(\d{1,2})|(0x[0-9a-f]+)[.:]b(?:it)?(\d{1,2})", said)
    place = int(bit[2] or bit[4]) if bit is not None else None
    if bit is not None and place is not None and place <= 15:
        said = bit[1] or bit[3]
    sixteen = re.fullmatch(r"(?:0?x|16#|\$|h)([0-9a-f]{1,5})|([0-9a-f]{1,5})h", said)
    if sixteen is not None:
        value, digits = int(sixteen[1] or sixteen[2], 16), ""
    elif hexadecimal and re.fullmatch(r"[0-9a-f]{1,4}", said):
        value, digits = int(said, 16), ""
    elif re.fullmatch(r"\d{1,6}(\.0+)?", said) and not hexadecimal:
        digits = said.partition(".")[0]
        value = int(digits)
    else:
        raise expected
    if value < base:
        raise ValueError("an address from 1 on, behind this prefix")
    return CellAddress(
        value - base, "" if table else digits, None, place, table, int(lettered[2]) if lettered else None
    )


def modicon(address: CellAddress) -> tuple[Table, int] | None:
    """(table, number) of digits that read as a Modicon number: 5 or 6 of them, 0, 1, 3 or 4 first; None else.

    The number is counted as the list counts, usually from 1.
    """
    if len(address.digits) not in (5, 6) or address.digits[0] not in MODICON or int(address.digits[1:]) > 65536:
        return None
    return MODICON[address.digits[0]], int(address.digits[1:])


def registers_of(text: str, *, each: int) -> int:
    """How many registers a length is: "2", "2 words", "4byte", "2个字". `each`: what a bare number counts, in registers'
    own terms (1 registers, 2 bytes, 16 bits). Raises ValueError.
    """
    said = unicodedata.normalize("NFKC", text).casefold().replace(" ", "")
    found = re.fullmatch(
        r"(\d{1,5})(?:\.0+)?(?:(bytes?|字节)|(bits?|位)|(?:words?|reg(?:ister)?s?|个|个字|字|个寄存器))?", said
    )
    if found is None:
        raise ValueError("a number of registers, bytes or bits")
    unit = 2 if found[2] else 16 if found[3] else each if said.isdecimal() else 1
    return max(1, -(-int(found[1]) // unit))


def is_nothing(text: str) -> bool:
    """Whether a cell says that there is nothing to say."""
    return unicodedata.normalize("NFKC", text).casefold().strip() in NOTHING


def meanings(text: str) -> dict[int, str]:
    """What values mean, where a text lists at least two: "0=Off; 1=On", "0：停止 1：运行". Empty else."""
    said = re.sub(r"[\"'{}]", " ", unicodedata.normalize("NFKC", text))
    found = re.findall(
        r"(?<![\d.])(\d{1,5})\s*(?:=|:|->)\s*([^\d=:;,、|()][^=:;,、|()]*?)\s*(?=[;,、|()]|\s+\d{1,5}\s*(?:=|:|->)|$)",
        said,
    )
    return {int(value): word.strip(" .。") for value, word in found} if len(found) >= 2 else {}
