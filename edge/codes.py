"""Events that come of values: a code point that changes ends the old code's event and begins the new one's; a string
point that changes is an event of scheme `text`.

Invariant: what was last seen is part of the reading's state, journaled in one transaction with its events, so a restart
neither repeats an event nor leaves one without its end. A bad reading changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.driver import Reading
from telemetry.messages import TEXT_SCHEME, Event
from telemetry.names import signal_name
from telemetry.profile import CodePoint, Profile
from telemetry.quality import MAJOR_MASK

NONE = ""
"""State of a code point while no code is active."""


@dataclass(slots=True)
class Changes:
    """What one equipment's code and string points last said."""

    equipment: str
    code_points: Sequence[CodePoint]
    last: dict[str, str] = field(default_factory=dict)
    """Key of the state → code or text."""
    _places: dict[int, tuple[tuple[str, ...], list[tuple[int, CodePoint]]]] = field(default_factory=dict)

    def events(self, reading: Reading) -> tuple[list[Event], dict[str, str]]:
        """The events of a reading, and the state that changed with them."""
        events: list[Event] = []
        changed: dict[str, str] = {}
        for point, text, time_us in reading.texts:
            if self._moves(f"text/{self.equipment}/{point}", text, changed) is not None:
                events.append(Event(self.equipment, time_us, TEXT_SCHEME, point, True, {"value": text}))
        if self.code_points and len(reading.batch):
            self._codes(reading, events, changed)
        return events, changed

    def _codes(self, reading: Reading, events: list[Event], changed: dict[str, str]) -> None:
        batch = reading.batch
        for place, code_point in self._in(batch.names):
            for row in np.flatnonzero(batch.signal == place):
                if not int(batch.quality[row]) & MAJOR_MASK:
                    continue
                time_us = int(batch.time_us[row])
                code = _code(float(batch.value[row]), code_point)
                old = self._moves(f"code/{self.equipment}/{code_point.scheme}/{code_point.point}", code, changed)
                if old is None:
                    continue
                attributes = {"point": code_point.point}
                if old != NONE:
                    events.append(Event(self.equipment, time_us, code_point.scheme, old, False, attributes))
                if code != NONE:
                    events.append(Event(self.equipment, time_us, code_point.scheme, code, True, attributes))

    def _in(self, names: tuple[str, ...]) -> list[tuple[int, CodePoint]]:
        """Where in a names tuple the code points are; found once for each tuple."""
        known = self._places.get(id(names))
        if known is None:
            index = {name: place for place, name in enumerate(names)}
            signals = [(signal_name(self.equipment, c.point), c) for c in self.code_points]
            known = (names, [(index[name], c) for name, c in signals if name in index])
            self._places[id(names)] = known
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


def watch(equipment: str, profile: Profile, state: Mapping[str, str]) -> Changes:
    """The changes of one equipment, going on from the state that was journaled."""
    mine = (f"text/{equipment}/", f"code/{equipment}/")
    return Changes(equipment, profile.code_points, {k: v for k, v in state.items() if k.startswith(mine)})
