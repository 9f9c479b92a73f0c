"""Events that come of values: a code point that changes ends the old code's event and begins the new one's; a string
point that changes is an event of scheme `text`.

Invariant: what was last seen is part of the state that is journaled in one transaction with its events, so a restart
neither repeats an event nor leaves one without its end. A bad reading changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.columns import Columns
from telemetry.messages import TEXT_SCHEME, Event
from telemetry.name_block import NameBlock
from telemetry.names import signal_name
from telemetry.profile import CodePoint, Profile
from telemetry.quality import MAJOR_MASK

NONE = ""
"""State of a code point while no code is active."""


@dataclass(slots=True, eq=False)
class Changes:
    """What the code and string points of all equipment last said."""

    last: dict[str, str]
    """Key of the state → code or text."""
    _code_points: dict[str, Sequence[CodePoint]] = field(default_factory=dict)
    _places: dict[str, dict[int, tuple[NameBlock, tuple[tuple[int, CodePoint], ...]]]] = field(default_factory=dict)
    """By equipment and id of the block."""

    def watch(self, equipment: str, profile: Profile) -> None:
        """Minds an equipment's code points from now on; string points are minded of any equipment."""
        if profile.code_points:
            self._code_points[equipment] = profile.code_points

    def forget(self, equipment: str) -> None:
        """The equipment is read no more. Its state stays, for when it comes back."""
        self._code_points.pop(equipment, None)
        self._places.pop(equipment, None)

    def of_texts(self, texts: Sequence[tuple[str, str, str, int]]) -> tuple[list[Event], dict[str, str]]:
        """The events of (equipment, point, text, time_us) rows, and the state that changed with them."""
        events: list[Event] = []
        changed: dict[str, str] = {}
        for equipment, point, text, time_us in texts:
            if self._moves(f"text/{equipment}/{point}", text, changed) is not None:
                events.append(Event(equipment, time_us, TEXT_SCHEME, point, True, {"value": text}))
        return events, changed

    def of_values(self, columns: Columns) -> tuple[list[Event], dict[str, str]]:
        """The events of the code points among these readings, and the state that changed with them."""
        events: list[Event] = []
        changed: dict[str, str] = {}
        if not self._code_points:
            return events, changed
        start = 0
        for equipment, block, count in zip(columns.equipment, columns.blocks, columns.counts.tolist(), strict=True):
            for place, code_point in self._in(equipment, block) if equipment in self._code_points else ():
                for row in np.flatnonzero(columns.place[start : start + count] == place) + start:
                    if int(columns.quality[row]) & MAJOR_MASK:
                        value, time_us = float(columns.value[row]), int(columns.time_us[row])
                        self._code(equipment, code_point, value, time_us, events, changed)
            start += count
        return events, changed

    def _code(
        self,
        equipment: str,
        code_point: CodePoint,
        value: float,
        time_us: int,
        events: list[Event],
        changed: dict[str, str],
    ) -> None:
        code = _code(value, code_point)
        old = self._moves(f"code/{equipment}/{code_point.scheme}/{code_point.point}", code, changed)
        if old is None:
            return
        attributes = {"point": code_point.point}
        if old != NONE:
            events.append(Event(equipment, time_us, code_point.scheme, old, False, attributes))
        if code != NONE:
            events.append(Event(equipment, time_us, code_point.scheme, code, True, attributes))

    def _in(self, equipment: str, block: NameBlock) -> tuple[tuple[int, CodePoint], ...]:
        """Where in a block the code points are; found once for each block."""
        blocks = self._places.setdefault(equipment, {})
        known = blocks.get(id(block))
        if known is None:
            index = {name: place for place, name in enumerate(block.names)}
            for old in [key for key, (one, _) in blocks.items() if index.keys() == set(one.names)]:
                del blocks[old]  # read by another plan now
            signals = [(signal_name(equipment, c.point), c) for c in self._code_points.get(equipment, ())]
            known = blocks[id(block)] = (block, tuple((index[name], c) for name, c in signals if name in index))
        return known[1]

    def _moves(self, key: str, new: str, changed: dict[str, str]) -> str | None:
        """The old state if `new` differs from it, which is then the state; else None."""
        old = self.last.get(key, NONE)
        if new == old:
            return None
        self.last[key] = changed[key] = new
        return old


def _code(value: float, code_point: CodePoint) -> str:
    """The code that a value spells: whole numbers without a point."""
    if value.is_integer():
        return NONE if int(value) in code_point.none else str(int(value))
    return repr(value)


def make_changes(state: Mapping[str, str]) -> Changes:
    """Goes on from the state that was journaled."""
    return Changes({key: value for key, value in state.items() if key.startswith(("text/", "code/"))})
