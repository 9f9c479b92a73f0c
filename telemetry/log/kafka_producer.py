"""Sending to Kafka: idempotent, acks=all, bounded in flight.

Invariant: a call that failed or was given up leaves nothing behind that could be sent later: its connection is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from telemetry.log.kafka_access import ANSWER_S, Access, translated
from telemetry.log.protocol import MAX_RECORD_BYTES, OutRecord, refuse_oversize

IN_FLIGHT: Final = 16
"""Calls of `send` that may wait for the broker at once; further ones wait their turn."""
BATCH_BYTES: Final = 512 << 10
_OVERHEAD_BYTES: Final = 40_000
"""Of Kafka's own, beside a record of MAX_RECORD_BYTES, in a request; together within the broker's default limit."""


class KafkaProducer:
    """See Producer. After any failure the connection is made anew, with a new producer id."""

    def __init__(self, access: Access, ensure_topics: Callable[[Sequence[str]], Awaitable[None]]) -> None:
        self._access = access
        self._ensure_topics = ensure_topics
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()
        self._turns = asyncio.Semaphore(IN_FLIGHT)
        self._known: set[str] = set()

    async def connect(self) -> AIOKafkaProducer:
        """The connected producer. Raises LogUnavailable."""
        async with self._connecting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self._access.arguments(),
                    enable_idempotence=True,
                    acks="all",
                    max_batch_size=BATCH_BYTES,
                    max_request_size=MAX_RECORD_BYTES + _OVERHEAD_BYTES,
                )
                try:
                    async with translated("producer"):
                        await producer.start()
                except BaseException:
                    await _abandon(producer)
                    raise
                self._producer = producer
            return self._producer

    async def send(self, topic: str, records: Sequence[OutRecord]) -> None:
        """See Producer."""
        refuse_oversize(records)
        async with self._turns:
            if topic not in self._known:
                await self._ensure_topics([topic])
                self._known.add(topic)
            producer = await self.connect()
            try:
                async with translated(topic):
                    await _send(producer, topic, records)
            except BaseException:
                await self._reset(producer)
                raise

    async def close(self) -> None:
        """See Producer."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await _abandon(producer)

    async def _reset(self, producer: AIOKafkaProducer) -> None:
        # An idempotent producer never gives a batch up, and a batch that failed leaves a hole in its sequence.
        if self._producer is producer:
            self._producer = None
            await _abandon(producer)


async def _send(producer: AIOKafkaProducer, topic: str, records: Sequence[OutRecord]) -> None:
    acknowledged: list[asyncio.Future[Any]] = []
    try:
        for record in records:
            headers = list(record.headers.items())
            acknowledged.append(await producer.send(topic, record.value, key=record.key, headers=headers))
        for future in acknowledged:
            await asyncio.shield(future)
    finally:
        for future in acknowledged:
            future.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _abandon(producer: AIOKafkaProducer) -> None:
    """Ends a producer without waiting for what it still holds: `stop` would wait for a dead broker for ever."""
    producer._closed = True
    with suppress(KafkaError, TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            if producer._sender is not None and producer._sender.sender_task is not None:
                await producer._sender.close()
            await producer.client.close()
