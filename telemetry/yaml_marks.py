"""YAML to plain data with the line of every key, and every mistake of its own named. YAML 1.2 core, nothing looser.

The traps of YAML 1.1 are closed here, so that a file means to us what it means to its author and to the editor's schema:
`on`, `off`, `yes` and `no` are words; `12:30` and `2024-01-01` are words; `010` and `09` stay words (never octal, and a
code's leading zero is not lost); keys are always words as written. Tags, merge keys, numbers that are not finite and
aliases that contain themselves are faults.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import yaml

from telemetry.errors import Fault

Path = tuple[str, ...]

MAX_DEPTH: Final = 64
"""Levels of nesting; the C composer recurses on the C stack, so this is checked before it runs."""
MIN_NODES: Final = 100_000
"""Nodes that any file may have once its aliases are expanded; a longer text, one a character."""
_TOO_DEEP_FOR_LIBYAML: Final = "exceeded maximum nesting depth"
"""What libyaml 0.2.6 and later say. It reads ahead, so it may meet its own bound, which is higher, before ours is counted."""

_PREFIX: Final = "tag:yaml.org,2002:"
_PLAIN: Final = (
    (f"{_PREFIX}null", re.compile(r"~|null|Null|NULL|")),
    (f"{_PREFIX}bool", re.compile(r"true|True|TRUE|false|False|FALSE")),
    (f"{_PREFIX}int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+")),
    (
        f"{_PREFIX}float",
        re.compile(
            r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
        ),
    ),
)
_DIGITS: Final = re.compile(r"[-+]?[0-9]{1,400}")
_Base: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class _CoreLoader(_Base):  # type: ignore[misc]
    """Composes nodes whose plain scalars are tagged by the YAML 1.2 core schema."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """The tag of a node that has none written."""
        if kind is yaml.ScalarNode:
            plain = implicit[0]
            return next((tag for tag, regex in _PLAIN if plain and regex.fullmatch(value)), f"{_PREFIX}str")
        return f"{_PREFIX}seq" if kind is yaml.SequenceNode else f"{_PREFIX}map"


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file as plain data, with where everything stood."""

    file: str
    data: Any
    lines: Mapping[Path, int]
    """Path of keys and indices (as text) → line, from 1."""
    faults: tuple[Fault, ...]
    """What is wrong with the YAML itself; `data` holds what could be read all the same."""

    prefix: Path = ()
    """Where the paths that this document is asked about begin."""

    def below(self, prefix: Path) -> Document:
        """The same file, asked about what lies below `prefix`."""
        return replace(self, prefix=(*self.prefix, *prefix))

    def fault(self, path: Path, expected: str, found: str) -> Fault:
        """A fault at `path`, on its line or on that of the nearest thing around it."""
        whole = (*self.prefix, *path)
        lines = (self.lines[whole[:end]] for end in range(len(whole), -1, -1) if whole[:end] in self.lines)
        return Fault(self.file, next(lines, 1), ".".join(whole) or "(file)", expected, found)


@dataclass(slots=True)
class _Reader:
    file: str
    most_nodes: int
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    open: set[int] = field(default_factory=set)
    nodes: int = 0

    def fault(self, node: yaml.Node, path: Path, expected: str, found: str) -> None:
        self.faults.append(Fault(self.file, _line(node), ".".join(path) or "(file)", expected, found))

    def read(self, node: yaml.Node, path: Path) -> Any:
        self.lines.setdefault(path, _line(node))
        self.nodes += 1
        if id(node) in self.open or self.nodes > self.most_nodes:
            if self.nodes <= self.most_nodes + 1:
                self.fault(node, path, "data of a finite size", "an alias that repeats without end")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if not node.tag.startswith(_PREFIX):
            self.fault(node, path, "no YAML tag", node.tag)
        self.open.add(id(node))
        items = self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._sequence(node, path)
        self.open.discard(id(node))
        return items

    def _sequence(self, node: yaml.Node, path: Path) -> list[Any]:
        return [self.read(item, (*path, str(i))) for i, item in enumerate(node.value)]

    def _mapping(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.fault(key_node, path, "keys that are words", "a mapping or list as a key")
                continue
            key = key_node.value
            if key == "<<" and key_node.style not in ("'", '"'):
                self.fault(
                    key_node,
                    (*path, key),
                    "the keys written out, or a plain alias",
                    "a merge key, which YAML 1.2 lacks",
                )
            elif key in first:
                self.fault(key_node, (*path, key), "each key once", f"it on line {first[key]} already")
            else:
                first[key] = self.lines[(*path, key)] = _line(key_node)
                result[key] = self.read(value_node, (*path, key))
        return result

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        kind, text = node.tag.removeprefix(_PREFIX), str(node.value)
        if any("\ud800" <= c <= "\udfff" for c in text):
            self.fault(node, path, "Unicode text", "half of a surrogate pair")
            return None
        match kind:
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int" | "float":
                return self._number(node, path, text)
        self.fault(node, path, "no YAML tag", node.tag)
        return None

    def _number(self, node: yaml.ScalarNode, path: Path, text: str) -> int | float | None:
        if text.startswith(("0x", "0o")):
            return int(text, 0)
        if _DIGITS.fullmatch(text):
            return int(text)
        number = math.nan if text[-1] in "fFnN" else float(text)
        if math.isfinite(number):
            return number
        self.fault(node, path, "a finite number (for no limit, leave the key out)", text)
        return None


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def read_document(raw: bytes, file: str) -> Document:
    """Reads a YAML file. Never raises: what is wrong is in `faults`, and what could be read is in `data`."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        return _broken(file, line, "UTF-8", f"byte 0x{raw[error.start]:02x}")
    try:
        roots = list(_compose_all(text))
    except yaml.MarkedYAMLError as error:
        return _broken(file, *_syntax(error, text))
    except yaml.YAMLError as error:
        line = text[: getattr(error, "position", 0)].count("\n") + 1
        return _broken(file, line, "YAML", str(error).splitlines()[0])
    if len(roots) > 1:
        return _broken(file, _line(roots[1]), "one YAML document", "a second one")
    if not roots or (isinstance(roots[0], yaml.ScalarNode) and roots[0].value == ""):
        return _broken(file, 1, "a mapping", "an empty file")
    reader = _Reader(file, max(MIN_NODES, len(text)))
    data = reader.read(roots[0], ())
    return Document(file, data, reader.lines, tuple(reader.faults))


def _syntax(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str, str]:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    written = "".join(text.splitlines()[line : line + 1])
    if written[: column + 1].endswith("\t"):
        return line + 1, "spaces to indent", "a tab"
    return line + 1, "YAML", f"{error.problem} ({error.context})" if error.context else str(error.problem)


def _broken(file: str, line: int, expected: str, found: str) -> Document:
    return Document(file, None, {}, (Fault(file, line, "(file)", expected, found),))


def _compose_all(text: str) -> Iterator[yaml.Node]:
    _check_depth(text)
    loader = _CoreLoader(text)
    try:
        while loader.check_node():
            yield loader.get_node()
    finally:
        loader.dispose()


def _check_depth(text: str) -> None:
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_CoreLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise _too_deep(event.start_mark)
    except yaml.MarkedYAMLError as error:
        if error.problem == _TOO_DEEP_FOR_LIBYAML:
            raise _too_deep(error.problem_mark) from None
        raise


def _too_deep(mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, f"more than {MAX_DEPTH} levels of nesting", mark)
