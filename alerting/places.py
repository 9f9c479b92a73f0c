"""Where alerting is in each partition that it was given: the database's word, checked against the log.

Invariant: a partition is started only at the offset that the database has, after the record before it was read again and
found to be the one that was processed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import psycopg

from alerting.store import SERVICE
from telemetry.errors import StoreUnavailable
from telemetry.log.protocol import InRecord, Log, Partition, Reader
from telemetry.position import Mark, load_positions, mark, verify_continuity, verify_unchanged

Connect = Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]

ANSWER_S: Final = 30.0
"""A store that has not answered by then is away. TCP does not see a connection that is half-open behind a proxy."""


class Places:
    """See Assignment. `next` of a partition is what compare-and-set will expect; the reader may be ahead of it."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._reader: Reader | None = None
        self.next: dict[Partition, int] = {}
        self._last: dict[Partition, Mark] = {}

    async def join(self, log: Log, topics: Sequence[str]) -> Reader:
        """A reader whose partitions these are."""
        self.next.clear()
        self._last.clear()
        self._reader = await log.reader(SERVICE, topics, self)
        return self._reader

    async def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """See Assignment. Raises LogDiscontinuity, LogUnavailable, StoreUnavailable."""
        if self._reader is None:
            raise ValueError("assigned: expected to have joined first")
        connection = await self._connect()
        try:
            async with asyncio.timeout(ANSWER_S):
                positions = await load_positions(connection, SERVICE, partitions)
        except (psycopg.Error, TimeoutError) as error:
            raise StoreUnavailable(str(error).strip() or "no answer") from error
        finally:
            await connection.close()
        starts = {p: await verify_continuity(self._reader, p, position) for p, position in positions.items()}
        self.next.update({p: position.next for p, position in positions.items()})
        self._last.update({p: position.last for p, position in positions.items() if position.last is not None})
        return starts

    async def unchanged(self, partitions: Iterable[Partition]) -> None:
        """Before a flush is written: was it fetched from the same log? Raises LogDiscontinuity, LogUnavailable."""
        if self._reader is None:
            raise ValueError("unchanged: expected to have joined first")
        known = {p: (self.next[p], self._last[p]) for p in partitions if p in self._last}
        await verify_unchanged(self._reader, known)

    def moved(self, records: Mapping[Partition, InRecord]) -> None:
        """A flush was committed: these were its last records."""
        self.next.update({p: record.offset + 1 for p, record in records.items()})
        self._last.update({p: mark(record) for p, record in records.items()})

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        """See Assignment."""
        for partition in partitions:
            self.next.pop(partition, None)
            self._last.pop(partition, None)
