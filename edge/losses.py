"""The edge's own losses, told as events of scheme `vigil`, like any equipment's: on when they begin or grow (at most
every REPEAT_S), off when nothing was lost for CLEAR_S; a line in the log says when they begin and end. Time is handed in."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Final

import structlog

from edge.spool_bounds import Counts
from telemetry.messages import VIGIL_SCHEME, Event

log = structlog.get_logger()

REPEAT_S: Final = 10.0
CLEAR_S: Final = 60.0
CODES: Final = {
    "spool-dropped": ("dropped_records", "dropped_samples"),
    "spool-corrupt": ("corrupt_records", "corrupt_samples"),
    "spool-full": ("unjournaled_samples",),
}
"""Code → the counts that it tells of."""


@dataclass(frozen=True, slots=True)
class Losses:
    """What did not reach the log, since the start."""

    dropped_records: int = 0
    dropped_samples: int = 0
    corrupt_records: int = 0
    corrupt_samples: int = 0
    unjournaled_samples: int = 0


def losses_of(counts: Counts, unjournaled_samples: int) -> Losses:
    """As of now, with what the spool lost."""
    return Losses(
        counts.dropped_records,
        counts.dropped_samples,
        counts.corrupt_records,
        counts.corrupt_samples,
        unjournaled_samples,
    )


@dataclass(slots=True)
class _Told:
    counts: tuple[int, ...]
    at_s: float = 0.0
    on: bool = False


@dataclass(slots=True)
class LossReport:
    """What was told of each code."""

    edge: str
    _told: dict[str, _Told] = field(default_factory=dict)
    _changed_s: dict[str, tuple[tuple[int, ...], float]] = field(default_factory=dict)

    def events(self, losses: Losses, now_s: float, now_us: int) -> list[Event]:
        """The events that are due."""
        counts, found = asdict(losses), []
        for code, names in CODES.items():
            now = tuple(counts[name] for name in names)
            told = self._told.setdefault(code, _Told((0,) * len(names)))
            if self._changed_s.get(code, (None, 0.0))[0] != now:
                self._changed_s[code] = (now, now_s)
            lost = dict(zip(names, now, strict=True))
            if now != told.counts and (not told.on or now_s - told.at_s >= REPEAT_S):
                if not told.on:
                    log.warning("readings are lost", code=code, **lost)
                told.counts, told.at_s, told.on = now, now_s, True
                found.append(self._event(code, True, lost, now_us))
            elif told.on and now == told.counts and now_s - self._changed_s[code][1] >= CLEAR_S:
                log.info("no more readings are lost", code=code, **lost)
                told.on = False
                found.append(self._event(code, False, lost, now_us))
        return found

    def _event(self, code: str, on: bool, counts: dict[str, int], now_us: int) -> Event:
        return Event(self.edge, now_us, VIGIL_SCHEME, code, on, counts)
