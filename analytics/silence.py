"""When an edge counts as silent: judged by the world's time, and only while the reader is abreast of the log.

An edge that says nothing cannot advance the log's time itself. Invariant: while there is lag, after the log was away, and
for AFTER_S after a start, nobody is silent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

AFTER_S: Final = 15.0
"""Heartbeats come every second."""
AT_LEAST_S: Final = 5.0
"""Of the world, however fast the clock is scaled."""
ABREAST: Final = 100
"""Records: so few behind is not a lag."""


class Silence:
    """Watches the arrival of heartbeats. Times are seconds of a clock that never steps."""

    def __init__(self, speed: float) -> None:
        """`speed`: seconds of the plant's clock per second of the world."""
        self._after_s = max(AFTER_S / speed, AT_LEAST_S)
        self._heard: dict[str, float] = {}
        self._abreast_since: float | None = None

    def heard(self, edges: Iterable[str], now_s: float) -> None:
        """Heartbeats of these edges have come."""
        self._heard.update(dict.fromkeys(edges, now_s))

    def behind(self) -> None:
        """The log is away, or there is no telling."""
        self._abreast_since = None

    def due(self, edges: Iterable[str], *, lag: int, now_s: float) -> list[str]:
        """Which of the edges are silent."""
        if lag > ABREAST:
            self._abreast_since = None
            return []
        if self._abreast_since is None:
            self._abreast_since = now_s
        since = self._abreast_since
        return [e for e in edges if now_s - max(self._heard.get(e, since), since) > self._after_s]
