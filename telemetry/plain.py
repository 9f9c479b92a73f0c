"""Plain JSON values as typed dataclasses: what a record on the log says is not believed before it is checked.

Nothing passes that PostgreSQL could not keep: no NUL in a text, no integer beyond 64 bits, no number that is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from functools import lru_cache
from types import NoneType
from typing import Any, Final, TypeVar, cast, get_args, get_origin, get_type_hints

import orjson

from telemetry.errors import RecordError

T = TypeVar("T")

_FIRST, _LAST = -(1 << 63), (1 << 63) - 1
"""The whole numbers that PostgreSQL's bigint holds."""
_NUL: Final = b"\\u0000"
"""How JSON spells it: a text without these bytes holds none."""


def parse(value: bytes) -> Any:
    """The JSON value. Raises RecordError `json`."""
    try:
        content = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise RecordError("json", str(error)) from error
    _check_storable(content, _NUL in value)
    return content


def rows(value: bytes) -> list[dict[str, Any]]:
    """A JSON list of objects. Raises RecordError `json`."""
    content = parse(value)
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise RecordError("json", f"expected a list of objects, found {_kind(content)}")
    return content


def row(value: bytes) -> dict[str, Any]:
    """A JSON object. Raises RecordError `json`."""
    content = parse(value)
    if not isinstance(content, dict):
        raise RecordError("json", f"expected an object, found {_kind(content)}")
    return content


def read(kind: type[T], row: Mapping[str, Any]) -> T:
    """A dataclass from a row, every field of its type; keys of a later minor version are ignored.

    Raises RecordError `json` that names the field.
    """
    values: dict[str, Any] = {}
    for name, (hint, needed) in _fields(cast("Any", kind)).items():
        if name in row:
            values[name] = _fit(f"{kind.__name__}.{name}", hint, row[name])
        elif needed:
            raise RecordError("json", f"{kind.__name__}.{name}: expected {_spell(hint)}, found nothing")
    return kind(**values)


def column(where: str, kind: type[T], rows: Sequence[Mapping[str, Any]]) -> list[T]:
    """One field of many rows, as cheap as a list of them. `where` is its class and name; `kind` is int or str.

    Raises RecordError `json` that names the field.
    """
    name = where.rpartition(".")[2]
    try:
        found = [row[name] for row in rows]
    except KeyError:
        raise RecordError("json", f"{where}: expected {_spell(kind)}, found nothing") from None
    if not _all_are(kind, found):
        wrong = next(item for item in found if type(item) is not kind)
        raise RecordError("json", f"{where}: expected {_spell(kind)}, found {_kind(wrong)}")
    return found


@lru_cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    hints = get_type_hints(kind)
    return {f.name: (hints[f.name], f.default is MISSING and f.default_factory is MISSING) for f in fields(kind)}


def _fit(where: str, hint: Any, item: Any) -> Any:
    """`item` as `hint` has it: lists become tuples, whole numbers floats where a float is asked for."""
    if hint is Any or (type(item) is hint and hint in _PLAIN):
        return item
    if hint is float and type(item) is int:
        return float(item)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple and type(item) is list:
        if _all_are(arguments[0], item):
            return tuple(item)
        return tuple(_fit(where, arguments[0], part) for part in item)
    if origin is Mapping and type(item) is dict:
        return {key: _fit(f"{where}.{key}", arguments[1], part) for key, part in item.items()}
    raise RecordError("json", f"{where}: expected {_spell(hint)}, found {_kind(item)}")


def _all_are(kind: Any, items: Sequence[Any]) -> bool:
    """Whether every item is exactly of this plain kind."""
    return kind in _PLAIN and set(map(type, items)) <= {kind}


def _check_storable(content: Any, may_hold_nul: bool) -> None:
    """Walks the value without recursion: its depth is the sender's choice. Texts are looked at only where it is worth it."""
    left = [content]
    while left:
        item = left.pop()
        kind = type(item)
        if kind is dict:
            left += item.values()
            if may_hold_nul:
                left += item
        elif kind is list:
            if may_hold_nul or not _all_are(str, item):
                left += item
        elif kind is int:
            if not _FIRST <= item <= _LAST:
                raise RecordError("json", f"expected whole numbers of 64 bits, found {item}")
        elif kind is float:
            if not math.isfinite(item):
                raise RecordError("json", "expected finite numbers, found one beyond float64")
        elif may_hold_nul and kind is str and "\0" in item:
            raise RecordError("json", "a text contains NUL")


_PLAIN: Final = (bool, int, float, str)


def _spell(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint))


def _kind(item: Any) -> str:
    return "null" if isinstance(item, NoneType) else type(item).__name__
