"""A device's own time, as its messages spell it, in µs since 1970-01-01 UTC; and when it is not believed.

Understood: ISO 8601 with an offset; without one where the profile says `time_zone`; a number, or its digits as text, of
seconds, ms or µs since 1970 (told apart by their size); the profile's own `time_format`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

AHEAD_US: Final = 300_000_000
"""A device's time further ahead than this is not believed."""
EARLIEST_US: Final = 946_684_800_000_000
"""2000-01-01: a clock before it was never set."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_DIGITS: Final = range(10, 17)
"""Lengths of texts of digits that are a number since 1970 rather than a calendar date."""


@dataclass(frozen=True, slots=True)
class TimeReader:
    """How a profile's devices spell time."""

    zone: tzinfo | None = None
    """Of times without an offset. An hour that comes twice, when clocks go back, is its first."""
    format: str | None = None
    """A pattern of datetime.strptime, tried before the rest."""

    def to_us(self, found: Any) -> int | None:
        """µs since 1970 UTC, or None where it is no time. Never raises."""
        if found.__class__ is str:
            return self._text(found)
        if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) < 1e18:
            return None
        return _number(found)

    def _text(self, found: str) -> int | None:
        try:
            moment = self._moment(found)
            if moment.tzinfo is None:
                if self.zone is None:
                    return None
                moment = moment.replace(tzinfo=self.zone)
            return (moment - _EPOCH) // _MICROSECOND
        except (ValueError, OverflowError):
            return _number(int(found)) if len(found) in _DIGITS and found.isascii() and found.isdigit() else None

    def _moment(self, found: str) -> datetime:
        if self.format is not None:
            try:
                return datetime.strptime(found, self.format)
            except ValueError:
                pass
        return datetime.fromisoformat(found)

    def read(self, found: Any, received_us: int) -> tuple[int | None, int | None, str]:
        """(the time if it is believed, the time as it was said, why it is not believed).

        While this machine's own clock is not set (edge.stamps), no time can be judged: none is believed, for no reason.
        """
        time_us = self.to_us(found)
        if time_us is None:
            zoned = "" if self.zone else " with an offset"
            return None, None, f"expected ISO 8601{zoned} or a number since 1970, found {shown(found)}"
        if time_us < EARLIEST_US:
            return None, None, f"expected a clock that was set, found {shown(found)}"
        if received_us < EARLIEST_US:
            return None, None, ""
        if time_us > received_us + AHEAD_US:
            return None, time_us, f"expected no more than 5 minutes ahead of the receipt, found {shown(found)}"
        return time_us, time_us, ""


def make_time_reader(zone: str | None, time_format: str | None) -> TimeReader:
    """From an IANA name and a strptime pattern. Raises zoneinfo.ZoneInfoNotFoundError (profiles are checked before)."""
    return TimeReader(ZoneInfo(zone) if zone is not None else None, time_format)


def shown(found: Any) -> str:
    """What was found, short enough for a log line."""
    text = repr(found)
    return text if len(text) <= 60 else text[:60] + "…"


def _number(found: float) -> int:
    for limit, to_us in ((1e11, 1_000_000), (1e14, 1_000)):
        if abs(found) < limit:
            return round(found * to_us)
    return round(found)
