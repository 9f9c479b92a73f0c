"""A draft of a profile as the text of its file: comments that say what to check, then YAML in the form of our own profiles.

Invariant: what is written reads back as what was meant. Every text goes through `scalar`, which quotes whatever YAML
(1.2, and 1.1 of other tools) could take for anything but that text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from telemetry.register_map import RegisterType, bytes_in_order, stretch_word_order

WIDTH: Final = 110

_PLAIN: Final = re.compile(r"[A-Za-z\u3400-\u9fff°][\w\u3400-\u9fff°%³²/.+ ()-]*")
_WORDS: Final = re.compile(r"(?i)~|null|true|false|yes|no|on|off|y|n")


@dataclass(frozen=True, slots=True)
class ListedPoint:
    """A row that became a point; its word order waits for what is usual in the list."""

    line: int
    name: str
    data: dict[str, Any]
    modbus: dict[str, Any]
    kind: RegisterType
    order: str | None
    """As the row says it; None where it says nothing."""
    assumed: tuple[str, ...]
    """What the row did not say: table, type, order."""

    def has_order(self, usual: str) -> bool:
        """Whether the row says a word order, and it is this one of 32 bits."""
        return self.order is not None and self.order == stretch_word_order(usual, bytes_in_order(self.kind))

    def as_data(self, usual: str) -> dict[str, Any]:
        """The point as its file has it."""
        width = bytes_in_order(self.kind)
        is_bit = self.modbus.get("table") in ("coil", "discrete")
        own = self.order or (stretch_word_order(usual, width) if self.kind.registers > 1 else "AB")
        modbus = dict(self.modbus)
        if not is_bit and own != stretch_word_order(usual, width):
            modbus["word_order"] = own
        return {key: modbus if key == "modbus" else value for key, value in self.data.items()}


def render(profile: Mapping[str, Any], comments: Sequence[str]) -> str:
    """The file of a profile given as plain data; `comments` stand at its top, one after another."""
    lines = [f"# {line}" for comment in comments for line in _wrapped(comment)]
    for key, value in profile.items():
        if key == "points":
            lines.append("points:")
            lines += [line for name, point in value.items() for line in _point(name, point)]
        else:
            lines.append(f"{key}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def scalar(value: Any) -> str:
    """A value on one line: numbers bare, texts bare where that is safe, quoted else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, int):
        return str(value)
    text = "".join(c if c.isprintable() else " " for c in str(value)).strip()
    if _PLAIN.fullmatch(text) and not _WORDS.fullmatch(text) and not text.endswith(" "):
        return text
    return json.dumps(text, ensure_ascii=False)


def _point(name: str, point: Mapping[str, Any]) -> Iterator[str]:
    yield f"  {scalar(name)}:"
    for key, value in point.items():
        yield f"    {key}: {_flow(value)}"


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return scalar(value)


def _wrapped(text: str) -> Iterator[str]:
    """The text in lines of at most WIDTH, broken at blanks."""
    line = ""
    for word in "".join(c if c.isprintable() else " " for c in text).split():
        if line and len(line) + 1 + len(word) > WIDTH:
            yield line
            line = "  " + word
        else:
            line = f"{line} {word}" if line else word
    if line:
        yield line
