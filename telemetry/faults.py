"""What pydantic finds wrong, said as faults of a file: line, key, what was expected, what was found.

The models are checked in strict JSON mode: a list is a tuple, but "1" is not a number and `true` is not 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from telemetry.errors import Fault
from telemetry.names import NAME_PATTERN
from telemetry.problems import PROBLEMS, Path, Problem
from telemetry.wording import nearest, shown
from telemetry.yaml_marks import Document

M = TypeVar("M", bound=BaseModel)

_TYPES: Final = {
    "string_type": "text (in quotes, if it looks like a number)",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "tuple_type": "a list",
    "list_type": "a list",
    "finite_number": "a finite number",
}
_PATTERNS: Final = {
    NAME_PATTERN: "a name of a-z, 0-9, _ . -",
    r"^\d{20}$": "20 digits in quotes: type 4, county 6, year and month 6, serial 4",
    r"^(env|file):.+": "a reference, env:NAME or file:PATH (never the secret itself)",
}
_SECRET: Final = ("username", "password")
"""Keys whose value is never shown, not even in the fault that says it must not be there."""
_BOUNDS: Final = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
_BOUND_WORDS: Final = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}


def validate(model: type[M], data: Any, document: Document) -> tuple[M | None, list[Fault]]:
    """The model of `data`, or None and every fault, on the document's lines."""
    try:
        return model.model_validate_json(json.dumps(data), strict=True), []
    except ValidationError as error:
        return None, list(_faults(error, model, document))


def problem_faults(problems: Iterable[Problem], document: Document) -> Iterator[Fault]:
    """Problems that a model found across its keys, as faults."""
    for problem in problems:
        yield document.fault(problem.path, problem.expected, problem.found)


def _faults(error: ValidationError, model: type[BaseModel], document: Document) -> Iterator[Fault]:
    for item in error.errors(include_url=False):
        path = tuple(str(part) for part in item["loc"] if part != "[key]")
        if item["type"] == PROBLEMS:
            own = (Problem((*path, *p.path), p.expected, p.found) for p in item["ctx"]["problems"])
            yield from problem_faults(own, document)
        elif not _is_shadow(dict(item)):
            expected, found = _said(dict(item), model, path)
            yield document.fault(path, expected, found)


def _is_shadow(item: Mapping[str, Any]) -> bool:
    """Whether pydantic calls a list too short only because it left out items that have faults of their own."""
    return item["type"] == "too_short" and len(item["input"]) >= int(item["ctx"]["min_length"])


def _said(item: Mapping[str, Any], model: type[BaseModel], path: Path) -> tuple[str, str]:
    kind, context, given = item["type"], item.get("ctx", {}), item.get("input")
    if kind == "missing":
        return "this key", "nothing"
    if kind == "extra_forbidden":
        return nearest(path[-1], _keys_at(model, path[:-1])), "an unknown key"
    expected = _expected(kind, context, item["msg"])
    if kind == "literal_error" and "'" in str(context["expected"]) and isinstance(given, (int, float)):
        expected += " (in quotes)"
    return expected, "plain text" if path[-1] in _SECRET else shown(given)


def _expected(kind: str, context: Mapping[str, Any], message: str) -> str:
    if kind in _TYPES:
        return _TYPES[kind]
    if kind in ("literal_error", "enum"):
        return "one of " + str(context["expected"]).replace("'", "").replace(" or ", ", ")
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], f"text like {context['pattern']}")
    if kind in _BOUNDS:
        bound = _BOUNDS[kind]
        return f"{_BOUND_WORDS[bound]} {context[bound]:g}"
    if kind == "too_short":
        return f"at least {context['min_length']} in it"
    if kind == "string_too_long":
        return f"at most {context['max_length']} characters"
    return message[:1].lower() + message[1:]


def _keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """Keys that the model knows at `path`."""
    where: Any = model
    for part in path:
        where = _inside(where, part)
    if not (isinstance(where, type) and issubclass(where, BaseModel)):
        return []
    return [field.alias or name for name, field in where.model_fields.items()]


def _inside(where: Any, part: str) -> Any:
    if isinstance(where, type) and issubclass(where, BaseModel):
        fields = where.model_fields.items()
        return _bare(next((f.annotation for name, f in fields if part in (name, f.alias)), None))
    arguments = [a for a in get_args(where) if a is not Ellipsis]
    return _bare(arguments[-1]) if arguments else None


def _bare(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        return next((a for a in get_args(annotation) if a is not type(None)), None)
    return annotation
