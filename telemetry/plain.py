"""Plain JSON values as typed dataclasses: what a record on the log says is not believed before it is checked.

Nothing passes that PostgreSQL could not keep: no NUL in a text, no integer beyond 64 bits, no number that is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from types import NoneType
from typing import Any, Final, TypeVar, cast, get_args, get_origin, get_type_hints

import orjson

from telemetry.errors import RecordError

T = TypeVar("T")

INT64: Final = range(-(1 << 63), 1 << 63)


def parse(value: bytes) -> Any:
    """The JSON value. Raises RecordError `json`."""
    try:
        content = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise RecordError("json", str(error)) from error
    _check_storable(content)
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


@lru_cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    hints = get_type_hints(kind)
    return {f.name: (hints[f.name], f.default is MISSING and f.default_factory is MISSING) for f in fields(kind)}


def _fit(where: str, hint: Any, item: Any) -> Any:
    """`item` as `hint` has it: lists become tuples, whole numbers floats where a float is asked for."""
    origin, arguments = get_origin(hint), get_args(hint)
    match item:
        case _ if hint is Any:
            return item
        case int() if hint is float and not isinstance(item, bool):
            return float(item)
        case bool() | int() | float() | str() if type(item) is hint:
            return item
        case list() if origin is tuple:
            return tuple(_fit(where, arguments[0], part) for part in item)
        case dict() if origin is Mapping:
            return {key: _fit(f"{where}.{key}", arguments[1], part) for key, part in item.items()}
    raise RecordError("json", f"{where}: expected {_spell(hint)}, found {_kind(item)}")


def _check_storable(content: Any) -> None:
    """Walks the value without recursion: its depth is the sender's choice."""
    left = [content]
    while left:
        match left.pop():
            case str(text):
                if "\0" in text:
                    raise RecordError("json", "a text contains NUL")
            case bool() | None:
                pass
            case int(number):
                if number not in INT64:
                    raise RecordError("json", f"expected whole numbers of 64 bits, found {number}")
            case float(number):
                if not math.isfinite(number):
                    raise RecordError("json", "expected finite numbers, found one beyond float64")
            case list(items):
                left += items
            case dict(items):
                left += items
                left += items.values()


def _spell(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint))


def _kind(item: Any) -> str:
    return "null" if isinstance(item, NoneType) else type(item).__name__
