"""Whether equipment that speaks by itself is there: by what it says, by its silence, by its last will.

Invariant: silence is measured by a clock that never steps; since when somebody is away is told as wall time, once found
out, and does not change while they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge.stamps import SET_US


@dataclass(slots=True)
class Listening:
    """What is known of each equipment's presence. Times are monotonic seconds."""

    silent_after_s: Mapping[str, float]
    heard_s: dict[str, float]
    """Written by the connection's thread: a message that waits to be decoded was heard."""
    off_s: dict[str, float] = field(default_factory=dict)
    """Written where messages are decoded, in their order."""
    _since_us: dict[str, int] = field(default_factory=dict)

    def word(self, equipment: str, now_s: float, online: bool | None, *, retained: bool) -> None:
        """A message was read. A retained one says nothing about now, except that a last will holds until the next word."""
        if online is False:
            self.off_s.setdefault(equipment, now_s)
        elif online or not retained:
            self.off_s.pop(equipment, None)

    def unreachable(self, now_us: int, now_s: float) -> dict[str, int]:
        """Equipment that said it is off, or nothing for too long → since when (µs of the wall clock)."""
        away = {one: heard for one, heard in self.heard_s.items() if now_s - heard > self.silent_after_s[one]}
        away.update(dict(self.off_s))
        told = {
            one: since for one, since in self._since_us.items() if one in away and (since >= SET_US or now_us < SET_US)
        }
        self._since_us = {one: told.get(one, now_us - int((now_s - at) * 1e6)) for one, at in away.items()}
        return dict(self._since_us)
