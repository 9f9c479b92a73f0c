"""The log on Kafka, by aiokafka: see kafka_access.py for the URL, kafka_producer.py and kafka_reader.py for the promises.

Topics that Vigil makes take the broker's time as theirs (LogAppendTime) and, with R replicas, need R − 1 in sync.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from telemetry.errors import LogUnavailable
from telemetry.log.kafka_access import Access, connecting
from telemetry.log.kafka_producer import KafkaProducer
from telemetry.log.kafka_reader import KafkaReader
from telemetry.log.kafka_seat import take_seat
from telemetry.log.protocol import Assignment


@dataclass(frozen=True, slots=True)
class KafkaLog:
    """A Kafka cluster. Nothing is connected until a producer or reader is made."""

    access: Access
    directory: Path
    """Where the seats of this machine's readers are kept."""
    partitions: int = 1
    replication: int = 1

    async def producer(self) -> KafkaProducer:
        """See Log."""
        producer = KafkaProducer(self.access, self.ensure_topics)
        await producer.connect()
        return producer

    async def reader(self, group: str, topics: Sequence[str], assignment: Assignment) -> KafkaReader:
        """See Log. Topics that are missing are made."""
        await self.ensure_topics(topics)
        seat = take_seat(self.directory, group, topics)
        try:
            reader = KafkaReader(self.access, group, assignment, seat)
        except BaseException:
            seat.leave()
            raise
        await reader.open(topics)
        return reader

    async def ensure_topics(self, topics: Sequence[str]) -> None:
        """See Log."""
        admin = AIOKafkaAdminClient(**self.access.arguments())
        async with connecting("topics", self.access):
            try:
                await admin.start()
                answer = await admin.create_topics([self._topic(name) for name in topics])
            finally:
                await admin.close()
            for name, code, *_ in answer.topic_errors:
                if (error := for_code(code)) not in (NoError, TopicAlreadyExistsError):
                    raise LogUnavailable(f"{name}: the topic cannot be made: {error.__name__}")

    async def close(self) -> None:
        """See Log."""

    def _topic(self, name: str) -> NewTopic:
        configs = {
            "message.timestamp.type": "LogAppendTime",
            "min.insync.replicas": str(max(1, self.replication - 1)),
        }
        return NewTopic(name, self.partitions, self.replication, topic_configs=configs)
