"""Who asks a lane, what it is told, and what a Modbus exception means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from edge.frames import EXCEPTION, Answer, Query
from telemetry.quality import BAD_COMMS, BAD_CONFIG, BAD_DEVICE

# Modbus Application Protocol 1.1b3, section 7: exception code → (its meaning, quality of the points asked for).
EXCEPTIONS: Final[dict[int, tuple[str, int]]] = {
    1: ("illegal function", BAD_CONFIG),
    2: ("illegal data address", BAD_CONFIG),
    3: ("illegal data value", BAD_CONFIG),
    4: ("server device failure", BAD_DEVICE),
    5: ("acknowledge", BAD_DEVICE),
    6: ("server device busy", BAD_DEVICE),
    8: ("memory parity error", BAD_DEVICE),
    10: ("gateway path unavailable", BAD_COMMS),
    11: ("gateway target failed to respond", BAD_COMMS),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without usable data."""

    outcome: str
    """A fixed word, for metrics."""
    why: str
    quality: int = BAD_COMMS
    answered: bool = False
    """The device itself answered, with an exception."""
    exception: int = 0
    """The exception's code."""


def exception_failure(code: int) -> Failure:
    """What an exception says. A gateway that reports its unit silent is no answer of the unit."""
    meaning, quality = EXCEPTIONS.get(code, ("unknown exception", BAD_DEVICE))
    return Failure("exception", f"exception {code}, {meaning}", quality, quality != BAD_COMMS, code)


def judge(answer: Answer, asked: Query) -> bytes | Failure:
    """The data of an answer to a request, or why it is none: the unit's exception, or not an answer to it at all."""
    payload = answer.body
    if answer.unit != asked.unit:
        return Failure("unit", f"answer of unit {answer.unit}, expected {asked.unit}")
    if answer.function == asked.function and len(payload) == asked.payload_bytes + 1 == payload[0] + 1:
        return payload[1:]
    if answer.function == asked.function | EXCEPTION and payload:
        return exception_failure(payload[0])
    if answer.function != asked.function:
        return Failure("function", f"answer of function {answer.function}, expected {asked.function}")
    found = max(len(payload) - 1, 0)
    return Failure("length", f"answer with {found} bytes of data, expected {asked.payload_bytes}")


class Asker(Protocol):
    """Who asks: told exactly once how each request went."""

    def sent(self) -> None:
        """The request has its turn, and leaves."""
        ...

    def answered(self, payload: bytes, time_us: int, took_s: float) -> None:
        """The data of the answer, and when it came."""
        ...

    def failed(self, failure: Failure, time_us: int) -> None:
        """There is no data."""
        ...

    def overdue(self) -> None:
        """The answer takes so long that others go first; it is still waited for."""
        ...


class _Gone:
    """Who asked has left."""

    def sent(self) -> None:
        """Nobody listens."""

    def answered(self, payload: bytes, time_us: int, took_s: float) -> None:
        """Nobody listens."""

    def failed(self, failure: Failure, time_us: int) -> None:
        """Nobody listens."""

    def overdue(self) -> None:
        """Nobody listens."""


GONE: Final[Asker] = _Gone()
