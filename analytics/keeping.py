"""Snapshots in the store, each with the offset that it stands for, in one transaction whose last statement moves the
offset by compare-and-set: a zombie saves nothing.

A snapshot is captured in memory at once and packed and written beside the detection, which does not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy.typing as npt
import psycopg
import structlog

from analytics import snapshot
from telemetry.errors import StoreUnavailable
from telemetry.log.protocol import Partition
from telemetry.position import Mark, Position, advance, load_positions
from telemetry.settings import Settings
from telemetry.store import ANALYZE, connect

log = structlog.get_logger()

SERVICE: Final = "analyze"
ANSWER_S: Final = 20.0


class Keeper:
    """The store, as far as analytics has to do with it. One connection, used by one task at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._lock = asyncio.Lock()

    async def load(self, partitions: Sequence[Partition]) -> dict[Partition, tuple[Position, bytes | None]]:
        """Place and snapshot of each partition. A snapshot of another offset does not count. Raises StoreUnavailable."""
        async with self._lock:
            try:
                async with asyncio.timeout(ANSWER_S):
                    connection = await self._connected()
                    async with connection.transaction():
                        places = await load_positions(connection, SERVICE, partitions)
                        states = {p: await self._state(connection, p, places[p].next) for p in partitions}
            except (psycopg.Error, TimeoutError) as error:
                await self._drop()
                raise StoreUnavailable(str(error).strip() or "no answer") from error
        return {p: (places[p], states[p]) for p in partitions}

    async def save(
        self,
        partition: Partition,
        captured: tuple[Mapping[str, npt.NDArray[Any]], Mapping[str, Any]],
        *,
        expected: int,
        next: int,
        last: Mark | None,
    ) -> int:
        """Packs and writes a snapshot, moves the offset. Returns its size, bytes. Raises StoreUnavailable, OffsetMoved."""
        state = await asyncio.to_thread(snapshot.pack, *captured)
        async with self._lock:
            try:
                async with asyncio.timeout(ANSWER_S):
                    connection = await self._connected()
                    async with connection.transaction():
                        await connection.execute(_SAVE, (SERVICE, partition.topic, partition.number, next, state))
                        await advance(connection, SERVICE, partition, expected=expected, next=next, last=last)
            except (psycopg.Error, TimeoutError) as error:
                await self._drop()
                raise StoreUnavailable(str(error).strip() or "no answer") from error
        return len(state)

    async def close(self) -> None:
        """Lets go of the connection."""
        async with self._lock:
            await self._drop()

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await connect(self._settings, ANALYZE, autocommit=True)
        return self._connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _state(self, connection: psycopg.AsyncConnection[Any], partition: Partition, next_: int) -> bytes | None:
        cursor = await connection.execute(
            "SELECT next, state FROM store.snapshot WHERE service = %s AND topic = %s AND partition = %s",
            (SERVICE, partition.topic, partition.number),
        )
        row = await cursor.fetchone()
        if row is None:
            return None
        if row[0] != next_:
            log.warning(
                "snapshot of another offset set aside: the position was changed by hand",
                topic=partition.topic,
                partition=partition.number,
                snapshot=row[0],
                position=next_,
            )
            return None
        return bytes(row[1])


_SAVE: Final = """
INSERT INTO store.snapshot (service, topic, partition, next, state) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (service, topic, partition) DO UPDATE SET next = EXCLUDED.next, state = EXCLUDED.state, taken_at = now()
"""
