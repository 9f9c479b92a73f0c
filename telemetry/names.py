"""The spelling of the names that travel: equipment, points, signals, edges.

A signal is `equipment/point`; both parts match [a-z0-9_.-]+ so that a name can stand in a topic, a URL and a label.
"""

from __future__ import annotations

import re
from typing import Final

NAME_PATTERN: Final = r"^[a-z0-9_.-]+$"
_NAME = re.compile(NAME_PATTERN)


def is_name(text: str) -> bool:
    """Whether `text` may name an equipment, a point or an edge."""
    return _NAME.fullmatch(text) is not None  # `$` alone lets a line feed through


def signal_name(equipment: str, point: str) -> str:
    """The signal's name of a point of an equipment."""
    return f"{equipment}/{point}"


def split_signal(signal: str) -> tuple[str, str]:
    """(equipment, point) of a signal's name. Raises ValueError when it is not one."""
    equipment, slash, point = signal.partition("/")
    if not slash or not is_name(equipment) or not is_name(point):
        raise ValueError(f"signal: expected equipment/point of [a-z0-9_.-]+, found {signal!r}")
    return equipment, point
