"""Exactly once on a real Kafka: workers share the partitions, one comes, one goes in mid-flow, the broker is killed."""

from __future__ import annotations

import asyncio
import secrets

from ingest.audit import audit
from telemetry.log.protocol import TELEMETRY
from telemetry.settings import Settings
from tests.fixtures.kafka import KafkaBroker
from tests.fixtures.store import execute
from tests.ingest.line import Edge, batch, ingesting, producing, until_stored


def stored(store: Settings, equipment: str) -> int:
    return int(execute(store.store, "SELECT count(*) FROM samples WHERE equipment = %s", (equipment,))[0][0])


async def test_workers_that_come_and_go_and_a_killed_broker_lose_and_double_nothing(
    plain_store: Settings, kafka_broker: KafkaBroker
) -> None:
    store = plain_store.model_copy(update={"log": kafka_broker.url, "log_partitions": 4})
    names = [f"edge-{secrets.token_hex(4)}" for _ in range(3)]
    async with producing(store) as producer:
        edges = [Edge(producer, name) for name in names]

        async def publish(records: int) -> None:
            for edge in edges:
                await edge.send_samples(*(batch([f"{edge.name}/x"], samples=20) for _ in range(records)))

        async with ingesting(store):
            await publish(10)
            async with ingesting(store):  # a second member: the partitions are shared out anew
                await publish(10)
                for edge in edges:
                    await until_stored(store, edge, within_s=60)
                await publish(10)
            await asyncio.to_thread(kafka_broker.kill)
            await asyncio.to_thread(kafka_broker.start)
            await publish(10)
            await producer.send(TELEMETRY, edges[0].sent)  # what a producer's retry may do
            for edge in edges:
                await edge.send_ledger()
                await until_stored(store, edge, within_s=60)
    assert [stored(store, name) for name in names] == [800, 800, 800]
    report = await audit(store)
    assert (report.lost, report.doubled) == (0, 0)
