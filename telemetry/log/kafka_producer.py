"""Sending to Kafka: idempotent, acks=all, bounded in flight.

Invariant: a call that failed leaves nothing behind that could be sent later: its connection is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from telemetry.errors import LogError, LogUnavailable
from telemetry.log.kafka_access import ANSWER_S, Access, connecting, translated
from telemetry.log.protocol import MAX_RECORD_BYTES, OutRecord, refuse_oversize

IN_FLIGHT: Final = 16
"""Calls of `send` that may wait for the broker at once; further ones wait their turn."""
BATCH_BYTES: Final = 512 << 10
_OVERHEAD_BYTES: Final = 40_000
"""Of Kafka's own, beside a record of MAX_RECORD_BYTES, in a request; together within the broker's default limit."""


class KafkaProducer:
    """See Producer. After a failure the connection is made anew, with a new producer id."""

    def __init__(self, access: Access, ensure_topics: Callable[[Sequence[str]], Awaitable[None]]) -> None:
        self._access = access
        self._ensure_topics = ensure_topics
        self._producer: AIOKafkaProducer | None = None
        self._order = asyncio.Lock()
        self._turns = asyncio.Semaphore(IN_FLIGHT)
        self._known: set[str] = set()
        self._closed = False

    async def connect(self) -> None:
        """Connects. Raises LogUnavailable."""
        async with self._order:
            await self._connected()

    async def send(self, topic: str, records: Sequence[OutRecord]) -> None:
        """See Producer."""
        if not records:
            return
        refuse_oversize(records)
        async with self._turns:
            async with self._order:  # calls hand over one after the other, and wait together
                producer = await self._connected()
                if topic not in self._known:
                    await self._ensure_topics([topic])
                    self._known.add(topic)
                async with self._dropped_on_failure(producer, topic):
                    acknowledged = [await _hand_over(producer, topic, record) for record in records]
            async with self._dropped_on_failure(producer, topic):
                await asyncio.wait(acknowledged)
                for future in acknowledged:
                    future.result()

    async def close(self) -> None:
        """See Producer. What `send` still waits for may be lost."""
        self._closed = True
        if self._producer is not None:
            await self._drop(self._producer)

    async def _connected(self) -> AIOKafkaProducer:
        if self._closed:
            raise LogUnavailable("the producer is closed")
        if self._producer is None:
            producer = AIOKafkaProducer(
                **self._access.arguments(),
                enable_idempotence=True,
                acks="all",
                max_batch_size=BATCH_BYTES,
                max_request_size=MAX_RECORD_BYTES + _OVERHEAD_BYTES,
            )
            try:
                async with connecting("producer", self._access):
                    await producer.start()
            except BaseException:
                await _abandon(producer)
                raise
            self._producer = producer
        return self._producer

    @asynccontextmanager
    async def _dropped_on_failure(self, producer: AIOKafkaProducer, topic: str) -> AsyncIterator[None]:
        # An idempotent producer never gives a batch up, and a batch that failed leaves a hole in its sequence.
        try:
            async with translated(topic):
                yield
        except LogError:
            await self._drop(producer)
            raise

    async def _drop(self, producer: AIOKafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
            await _abandon(producer)


async def _hand_over(producer: AIOKafkaProducer, topic: str, record: OutRecord) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = await producer.send(
        topic, record.value, key=record.key, headers=list(record.headers.items())
    )
    future.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever waits may have gone
    return future


async def _abandon(producer: AIOKafkaProducer) -> None:
    """Ends a producer without waiting for what it still holds: `stop` would wait for a dead broker for ever."""
    producer._closed = True
    with suppress(KafkaError, TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            if producer._sender is not None and producer._sender.sender_task is not None:
                await producer._sender.close()
            await producer.client.close()
