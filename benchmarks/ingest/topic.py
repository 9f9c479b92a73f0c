"""The log under measurement: Kafka with a topic that is filled beforehand, and what lies at which of its offsets.

Records go out as an edge sends them: idempotent, acks=all, not compressed, a partition for each edge. Invariant: the i-th
record of a partition has offset i (that is checked), so an offset in the database says exactly how many samples are stored.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks.ingest.edges import Sent
from telemetry.log import open_log
from telemetry.log.protocol import MAX_RECORD_BYTES, TELEMETRY
from telemetry.settings import Settings
from tests.fixtures.kafka import KafkaBroker, kafka_jars

BATCH_BYTES: Final = 512 << 10
IN_FLIGHT: Final = 64
ANSWER_S: Final = 60.0
EMBEDDED_GROUP: Final = 50


@dataclass(slots=True)
class Filled:
    """What is in each partition."""

    partitions: int
    samples: dict[int, list[int]] = field(default_factory=dict)
    """Partition → samples of each of its records."""
    bytes: int = 0
    seconds: float = 0.0
    _sums: dict[int, Any] = field(default_factory=dict)

    def took(self, partition: int, samples: int, size: int) -> None:
        """One record more."""
        self.samples.setdefault(partition, []).append(samples)
        self.bytes += size
        self._sums.clear()

    @property
    def total(self) -> int:
        """Samples in all partitions."""
        return sum(map(sum, self.samples.values()))

    @property
    def records(self) -> int:
        """In all partitions."""
        return sum(map(len, self.samples.values()))

    def before(self, positions: Mapping[int, int]) -> int:
        """Samples before these offsets, the next ones of their partitions."""
        if not self._sums:
            self._sums = {p: np.concatenate([[0], np.cumsum(of)]) for p, of in self.samples.items()}
        return sum(int(self._sums[p][min(n, len(self._sums[p]) - 1)]) for p, n in positions.items() if p in self._sums)


@contextmanager
def kafka(partitions: int = 1) -> Iterator[KafkaBroker]:
    """A broker of this run's own, with the topic of telemetry. All of it is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="vigil-bench-kafka-") as name:
        broker = KafkaBroker(Path(name) / "kafka", kafka_jars())
        broker.start()
        try:
            asyncio.run(make_topic(servers_of(broker), TELEMETRY, partitions))
            yield broker
        finally:
            broker.stop()


def servers_of(broker: KafkaBroker) -> str:
    """host:port."""
    return f"{broker.host}:{broker.port}"


async def make_topic(servers: str, topic: str, partitions: int) -> None:
    """A topic that takes the broker's time, as Vigil makes its own."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        configs = {"message.timestamp.type": "LogAppendTime"}
        await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])
    finally:
        await admin.close()


def new_producer(servers: str) -> AIOKafkaProducer:
    """As the edge's."""
    return AIOKafkaProducer(
        bootstrap_servers=servers,
        enable_idempotence=True,
        acks="all",
        max_batch_size=BATCH_BYTES,
        max_request_size=MAX_RECORD_BYTES + 40_000,
    )


def fill(servers: str, records: Iterable[Sent], partitions: int, *, topic: str = TELEMETRY) -> Filled:
    """Sends all records, and returns when the broker has them. Raises RuntimeError where offsets are not as expected."""

    async def run() -> Filled:
        filled, began = Filled(partitions), time.monotonic()
        producer = new_producer(servers)
        await producer.start()
        waiting: deque[asyncio.Future[Any]] = deque()
        try:
            for sent in records:
                partition, record = sent.edge % partitions, sent.record
                headers = list(record.headers.items())
                waiting.append(
                    await producer.send(topic, record.value, key=record.key, headers=headers, partition=partition)
                )
                filled.took(partition, sent.samples, len(record.value))
                while len(waiting) > IN_FLIGHT:
                    await asyncio.wait_for(waiting.popleft(), ANSWER_S)
            await asyncio.wait_for(asyncio.gather(*waiting), ANSWER_S)
        finally:
            await producer.stop()
        filled.seconds = time.monotonic() - began
        await _check(servers, topic, filled)
        return filled

    return asyncio.run(run())


def fill_embedded(state: Path, records: Iterable[Sent]) -> Filled:
    """The same into the embedded log of a state directory, one partition; sent and committed in groups."""

    async def run() -> Filled:
        filled, began = Filled(1), time.monotonic()
        producer = await open_log(Settings(log="embedded:", state_dir=state)).producer()
        try:
            left = iter(records)
            while group := list(itertools.islice(left, EMBEDDED_GROUP)):
                await producer.send(TELEMETRY, [sent.record for sent in group])
                for sent in group:
                    filled.took(0, sent.samples, len(sent.record.value))
        finally:
            await producer.close()
        filled.seconds = time.monotonic() - began
        return filled

    return asyncio.run(run())


async def _check(servers: str, topic: str, filled: Filled) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=servers)
    await consumer.start()
    try:
        wanted = {TopicPartition(topic, p): len(of) for p, of in filled.samples.items()}
        found = await consumer.end_offsets(list(wanted))
    finally:
        await consumer.stop()
    if found != wanted:
        raise RuntimeError(f"{topic}: expected one offset a record, {wanted}, found {found}")
