"""Every error that Vigil raises on purpose, split by what the caller can do about it.

VigilError
├── ConfigError          a file or setting is wrong: show every fault, exit 2; the old configuration stays in force
├── RecordError          a record on the log cannot be read: set it aside whole (dead letter), go on with the next
├── LogError
│   ├── LogUnavailable   the log cannot be reached now: keep what is journaled, try again with back-off
│   ├── LogFull          the log refuses at its byte cap: as LogUnavailable, and say so
│   ├── LogRefused       the log will never take this record (too large, say): set it aside, go on
│   └── LogDiscontinuity the log was wiped, trimmed or restored under its reader: stop and name it; an operator decides
├── StoreError
│   ├── StoreUnavailable the database cannot be reached now: wait and try again
│   └── OffsetMoved      somebody else moved the offset (compare-and-set failed): roll back, start again from the database
├── ListenError          an address that a setting names cannot be listened on: exit 1
└── StateLocked          the state directory belongs to another process: exit 1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake in a file, said so that its author can mend it without reading the code."""

    file: str
    line: int
    key: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.key}: expected {self.expected}, found {self.found}"


class VigilError(Exception):
    """Root of all errors raised on purpose."""


class ConfigError(VigilError):
    """A file or a setting is wrong. Carries every fault found, not only the first."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


class RecordError(VigilError):
    """A record from the log that cannot be read. `reason` is a stable slug for metrics and dead letters."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class LogError(VigilError):
    """Something about the log."""


class LogUnavailable(LogError):
    """The log cannot be reached at the moment."""


class LogFull(LogError):
    """The log is at its byte cap and refuses new records until readers move on."""


class LogRefused(LogError):
    """The log will never accept this record."""


class LogDiscontinuity(LogError):
    """What the log holds does not continue what was read before (wiped, trimmed, restored)."""


class StoreError(VigilError):
    """Something about the database."""


class StoreUnavailable(StoreError):
    """The database cannot be reached at the moment."""


class OffsetMoved(StoreError):
    """Another worker moved this offset; the transaction was rolled back."""


class ListenError(VigilError):
    """An address cannot be listened on; another process has it, say. The message names its setting."""


class StateLocked(VigilError):
    """The state directory is in use by another process."""


def first_of(group: BaseException) -> BaseException:
    """The first error in a group that is no group itself; an error that is none, as it is."""
    error = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
