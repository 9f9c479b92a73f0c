"""What a lane asks of whoever owns it, where that is more than a lane by itself: the bus of an endpoint.

The defaults are those of a lane that is alone: nobody takes over, and a new connection is always worth a try.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from edge.asking import Asker
from edge.frames import Query


class Asked(Protocol):
    """A lane."""

    def ask(self, asker: Asker, query: Query, timeout_s: float, suspicion: int = 0) -> None:
        """See edge.lane.Lane."""
        ...


@dataclass(frozen=True, slots=True)
class Ties:
    """See the module."""

    heir: Callable[[], Asked | None] = lambda: None
    """Asked when the connection ended otherwise than by our wish, or cannot be made: the lane that takes over what was
    asked; None: it fails."""
    shelter: Callable[[], Asked | None] = lambda: None
    """The lane that asks again those of whom one cost the connection; None: this one."""
    doubted: Callable[[], object] = lambda: None
    """Told when the connection is given up because too much on it was not answered."""
    renewable: Callable[[], bool] = lambda: True
    """Whether a new connection is served while the other side is still busy with a request of the old one."""
    last_heard_s: Callable[[], float] = lambda: 0.0
    """When anything was answered last on other connections to the endpoint, by the loop's time."""
    came_late: Callable[[int, float], object] = lambda unit, took_s: None
    """Told of a unit whose answer came after its time-out, on a line, and how long it took."""
    tolerance: Callable[[], int] = lambda: 1
    """So many connections in a row may be closed before anything is answered; then there is a rest before the next."""


ALONE: Final = Ties()
