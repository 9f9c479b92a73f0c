"""Looks after the lanes that wait for something, a few at a time: a timer for each request costs more than asking.

Invariant: whoever is in `busy` is told within LOOK_S of its `due_s`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

LOOK_S: Final = 0.02
"""Time-outs are noticed within so much."""


class Watched(Protocol):
    """A lane."""

    due_s: float
    """When `tick` has something to do, by the loop's time."""

    def tick(self, now_s: float) -> None:
        """It is due."""
        ...


class Alarm:
    """Calls at a time, the earliest of those that were set."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._timer: asyncio.Handle | None = None
        self._at_s = 0.0

    def set(self, at_s: float, loop: asyncio.AbstractEventLoop) -> None:
        """Calls at this time of the loop, if not before."""
        if self._timer is not None:
            if self._at_s <= at_s:
                return
            self._timer.cancel()
        self._at_s = at_s  # uvloop's handle for a time that is now or past does not know it
        self._timer = loop.call_at(at_s, self._ring)

    def cancel(self) -> None:
        """Calls no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        self._call()


class Watch:
    """See the module."""

    def __init__(self) -> None:
        self.busy: dict[Watched, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, lane: Watched, loop: asyncio.AbstractEventLoop) -> None:
        """The lane waits for an answer, or to be allowed to ask."""
        self.busy[lane] = None
        if self._timer is None:
            self._timer = loop.call_later(LOOK_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(LOOK_S, self._look, loop) if self.busy else None
        now_s = loop.time()
        for lane in [lane for lane in self.busy if lane.due_s <= now_s]:
            lane.tick(now_s)
