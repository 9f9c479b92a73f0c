"""A record under two offsets, in two partitions, or late behind its successors is stored once, and the books agree."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from ingest.audit import audit
from telemetry import wire
from telemetry.log.protocol import TELEMETRY, OutRecord
from telemetry.messages import Ledger
from telemetry.settings import Settings
from tests.fixtures.places import forget_topic, grow, rows_of, send_to
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, count, ingesting, ledger_entries, producing, until_stored


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients look at the topics every second."""
    monkeypatch.setattr("telemetry.log.kafka_access.METADATA_S", 1.0)


async def test_of_the_same_records_in_two_partitions_under_two_workers_each_is_stored_once(on_kafka: Settings) -> None:
    store = on_kafka.model_copy(update={"log_partitions": 2})
    await forget_topic(store, TELEMETRY)
    async with producing(store) as producer:
        edge = Edge(producer, f"edge-{secrets.token_hex(4)}")
        records = [edge.samples(batch([f"{edge.name}/x"], samples=20)) for _ in range(40)]
        records.append(edge.ledger())
        await asyncio.gather(send_to(store, TELEMETRY, 0, records), send_to(store, TELEMETRY, 1, records))
        async with AsyncExitStack() as workers:
            for _ in range(2):
                await workers.enter_async_context(ingesting(store))
            await until_stored(store, edge)
            await until(
                lambda: (
                    execute(store.store, "SELECT sum(next) FROM store.log_position WHERE topic = %s", (TELEMETRY,))
                    == [(82,)]
                ),
                what="both partitions read to their ends",
            )
    assert rows_of(store, edge.name) == 800
    report = await audit(store)
    assert (report.lost, report.doubled, report.in_flight) == (0, 0, 0)


async def test_a_partition_overtaken_by_another_after_their_number_changed_loses_and_doubles_nothing(
    on_kafka: Settings,
) -> None:
    """Seqs 0–9 and the ledger of them wait in partition 0; 10–20 were sent to partition 1 and are stored before them."""
    await forget_topic(on_kafka, TELEMETRY)
    async with producing(on_kafka) as producer:
        edge = Edge(producer, f"edge-{secrets.token_hex(4)}")

        def journaled() -> list[OutRecord]:
            return [*(edge.samples(batch([f"{edge.name}/x"])) for _ in range(9)), edge.ledger()]

        earlier, later = journaled(), journaled()
        async with ingesting(on_kafka):
            await grow(on_kafka, TELEMETRY, 2)
            await send_to(on_kafka, TELEMETRY, 1, later)
            await until(lambda: rows_of(on_kafka, edge.name) == 90, what="the new partition is read")
            early = await audit(on_kafka)
            assert (early.lost, early.doubled) == (0, 0)
            await send_to(on_kafka, TELEMETRY, 0, earlier)
            await until_stored(on_kafka, edge)
    assert rows_of(on_kafka, edge.name) == 180
    report = await audit(on_kafka)
    assert (report.journaled, report.stored, report.lost, report.doubled) == (180, 180, 0, 0)
    assert report.clean


async def test_a_ledger_that_a_later_one_overtook_is_counted(plain_store: Settings) -> None:
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge = Edge(producer)
        first, second = batch(["a/x"], samples=3), batch(["a/x"], samples=5)
        await edge.send_samples(first, second)
        earlier = edge.record(wire.encode_ledger(Ledger(edge.name, edge.epoch, 0, ledger_entries([first]))))
        later = edge.record(wire.encode_ledger(Ledger(edge.name, edge.epoch, 2, ledger_entries([second]))))
        await edge.send(later)
        await edge.send(earlier)
        await until_stored(plain_store, edge)
    report = await audit(plain_store)
    assert (report.journaled, report.stored, report.lost, report.doubled) == (8, 8, 0, 0)


@asynccontextmanager
async def losing_an_answer(settings: Settings) -> AsyncIterator[tuple[Settings, asyncio.Event]]:
    """The same store through a line that is cut, once, after a COMMIT of rows got through and before it is answered."""
    address = execute(settings.store, "SHOW unix_socket_directories")[0][0].split(",")[0]
    lost = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up = await asyncio.open_unix_connection(f"{address}/.s.PGSQL.5432")
        copied = committed = False

        async def upward() -> None:
            nonlocal copied, committed
            while data := await reader.read(1 << 16):
                copied |= b"COPY store.sample" in data
                committed |= copied and b"COMMIT" in data and not lost.is_set()
                up.write(data)

        async def downward() -> None:
            while data := await up_reader.read(1 << 16):
                if committed and b"COMMIT" in data:
                    lost.set()
                    break
                writer.write(data)

        try:
            done, rest = await asyncio.wait(
                [asyncio.ensure_future(upward()), asyncio.ensure_future(downward())],
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in rest:
                task.cancel()
            await asyncio.wait([*done, *rest])
        finally:
            up.close()
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(carry(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    with tempfile.TemporaryDirectory(prefix="vigil-line-", dir="/tmp") as folder:
        async with await asyncio.start_unix_server(connected, Path(folder) / ".s.PGSQL.5432"):
            through = settings.store.replace(quote(address, safe=""), quote(folder, safe=""))
            assert through != settings.store
            yield settings.model_copy(update={"store": through}), lost
            for task in tasks:
                task.cancel()


async def test_a_commit_whose_answer_was_lost_is_neither_repeated_nor_forgotten(store: Settings) -> None:
    async with producing(store) as producer, losing_an_answer(store) as (through, lost):
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x"], samples=60))
        async with ingesting(through):
            await until(lost.is_set, what="the answer is lost")
            await edge.send_samples(batch(["a/x"], samples=1))
            await edge.send_ledger()
            await until_stored(store, edge)
    assert count(store) == 61
    assert (await audit(store)).clean
