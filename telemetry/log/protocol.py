"""The log: durable, partitioned, ordered, read by offset. Kafka in production, SQLite in the embedded default.

What both promise (the conformance suite in tests/telemetry/test_log_conformance.py runs on each):
- `send` returns only when every record is durable; on an error none, some or all may be (the reader's sets decide).
- Within a partition, records come in the order sent, under offsets that grow; an offset is never used twice.
- The key chooses the partition, the same one for the same key while the number of partitions stays.
- A reader starts where it is told (`assigned`, `seek`), never by itself: an offset that is not there raises
  LogDiscontinuity. The end is there: a reader may wait at it.
- `assigned` and `revoked` are called from within `fetch` only, so an owner that fetches and writes in one task is never
  interrupted. In them, `bounds` and `read_at` may be called. An owner that does not fetch for REBALANCE_S may lose its
  partitions before it is told (Kafka): the compare-and-set in the database decides. `close` calls neither.
- Nothing is trimmed that a registered group has not committed, nor the last record before it (embedded log; on Kafka the
  topic's retention decides).
- `commit` is information for operators and the floor for trimming, not the truth about what was processed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from telemetry.errors import LogRefused

TELEMETRY: Final = "vigil.telemetry"
"""All records of edges, in each edge's own order."""
FINDINGS: Final = "vigil.findings"
"""Findings of analytics."""
TOPICS: Final = (TELEMETRY, FINDINGS)
MAX_RECORD_BYTES: Final = 1_000_000
"""Key, headers and value together. LogRefused beyond it, on both implementations, before anything is appended."""
REBALANCE_S: Final = 30.0
"""A member that does not fetch for so long may lose its partitions to another."""


@dataclass(frozen=True, slots=True)
class OutRecord:
    """A record to be sent."""

    key: bytes
    value: bytes
    headers: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """A partition of a topic."""

    topic: str
    number: int


@dataclass(frozen=True, slots=True)
class InRecord:
    """A record as read."""

    partition: Partition
    offset: int
    appended_us: int
    """When the log took it, µs; information only."""
    key: bytes
    value: bytes
    headers: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a partition holds: offsets first … end − 1."""

    first: int
    end: int


def refuse_oversize(records: Sequence[OutRecord]) -> None:
    """Raises LogRefused if a record is larger than MAX_RECORD_BYTES."""
    for place, record in enumerate(records):
        size = len(record.key) + len(record.value) + sum(len(n) + len(v) for n, v in record.headers.items())
        if size > MAX_RECORD_BYTES:
            raise LogRefused(
                f"record {place} of {len(records)}: expected at most {MAX_RECORD_BYTES} bytes, found {size}"
            )


class Producer(Protocol):
    """Sends records."""

    async def send(self, topic: str, records: Sequence[OutRecord]) -> None:
        """Appends all, in order per key; a missing topic is made. Raises LogUnavailable, LogFull or LogRefused.

        A record of more than MAX_RECORD_BYTES is refused before any of `records` is appended; `LogRefused` says which.
        """
        ...

    async def close(self) -> None:
        """Lets go of connections."""
        ...


class Assignment(Protocol):
    """What a reader's owner does when partitions come and go."""

    async def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """Partitions came. Returns where to start each (the database's offset); one left out is a ValueError.

        What it raises comes out of `fetch`; the next fetch asks anew.
        """
        ...

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        """Partitions went: nothing more may be written for them."""
        ...


class Reader(Protocol):
    """Reads the partitions that its group gives it."""

    async def fetch(self, *, max_records: int, max_wait_s: float) -> Sequence[InRecord]:
        """Up to `max_records`, in order within each partition; empty after `max_wait_s` without any.

        Raises LogUnavailable, LogDiscontinuity.
        """
        ...

    async def seek(self, partition: Partition, offset: int) -> None:
        """The next fetch of this partition starts at `offset`.

        Raises LogDiscontinuity when it is not there, ValueError when the partition is not this reader's.
        """
        ...

    async def read_at(self, partition: Partition, offset: int) -> InRecord | None:
        """The record at `offset` if it is there, without moving. Raises LogUnavailable, LogDiscontinuity (wiped)."""
        ...

    async def bounds(self, partition: Partition) -> Bounds:
        """What the partition holds now."""
        ...

    async def lag(self) -> int:
        """Records that the log holds beyond this reader's place, over its partitions."""
        ...

    async def homes(self, topic: str, keys: Sequence[bytes]) -> Sequence[Partition]:
        """The partition of each key, one for one: where its next record goes. Raises LogUnavailable."""
        ...

    async def commit(self, positions: Mapping[Partition, int]) -> None:
        """Says that everything before these offsets is processed."""
        ...

    async def close(self) -> None:
        """Leaves the group, lets go of connections."""
        ...


class Log(Protocol):
    """A log, by URL (telemetry.log.open_log)."""

    async def producer(self) -> Producer:
        """A new producer. Raises LogUnavailable."""
        ...

    async def reader(self, group: str, topics: Sequence[str], assignment: Assignment) -> Reader:
        """A new member of a group. Raises LogUnavailable."""
        ...

    async def ensure_topics(self, topics: Sequence[str]) -> None:
        """Makes the topics that are missing. Raises LogUnavailable."""
        ...

    async def close(self) -> None:
        """Lets go of what the log itself holds."""
        ...
