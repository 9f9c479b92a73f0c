"""An edge that writes real records to a real log, and the ingest service run beside it."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import numpy as np

from ingest.service import run
from telemetry import wire
from telemetry.batch import SampleBatch, concatenate
from telemetry.ledger import HOUR_US, row_hashes
from telemetry.log import open_log
from telemetry.log.protocol import TELEMETRY, TOPICS, OutRecord, Producer
from telemetry.messages import DroppedRange, Event, Heartbeat, Ledger, LedgerEntry, Registry
from telemetry.service import Health
from telemetry.settings import Settings
from tests.fixtures.serving import serving
from tests.fixtures.store import execute
from tests.fixtures.waiting import until

WITHIN_S = 30.0


def now_us() -> int:
    return time.time_ns() // 1000


def batch(
    signals: Sequence[str],
    *,
    samples: int = 10,
    start_us: int | None = None,
    step_us: int = 1_000_000,
    value: float = 1.5,
) -> SampleBatch:
    """`samples` good readings of each signal, one every step, values counting up from `value`."""
    start = now_us() - samples * step_us if start_us is None else start_us
    n = len(signals)
    return SampleBatch(
        tuple(signals),
        np.tile(np.arange(n, dtype=np.int32), samples),
        np.repeat(start + np.arange(samples, dtype=np.int64) * step_us, n),
        np.repeat(value + np.arange(samples), n).astype(np.float64),
        np.full(n * samples, 192, np.uint8),
    )


class Edge:
    """Numbers its records and keeps its ledger like an edge agent's spool; sends at once."""

    def __init__(self, producer: Producer, name: str = "edge-1", *, epoch: int | None = None) -> None:
        self.producer = producer
        self.name = name
        self.epoch = secrets.randbits(62) if epoch is None else epoch
        self.seq = 0
        self.counted: list[SampleBatch] = []
        self.sent: list[OutRecord] = []

    def record(self, encoded: wire.Encoded, *, seq: int | None = None) -> OutRecord:
        number = self.seq if seq is None else seq
        self.seq = max(self.seq, number + 1)
        identity = wire.Identity(self.name, self.epoch, number)
        return OutRecord(self.name.encode(), encoded.value, wire.headers(identity, encoded))

    def samples(self, what: SampleBatch) -> OutRecord:
        """A record of samples, counted in the ledger, not yet sent."""
        self.counted.append(what)
        return self.record(wire.encode_samples(what))

    def ledger(self) -> OutRecord:
        """A record of the ledger of what was made since the last one."""
        through, entries = self.seq - 1, ledger_entries(self.counted)
        self.counted = []
        return self.record(wire.encode_ledger(Ledger(self.name, self.epoch, through, entries)))

    async def send(self, *records: OutRecord) -> None:
        self.sent += records
        await self.producer.send(TELEMETRY, records)

    async def send_samples(self, *batches: SampleBatch) -> None:
        await self.send(*(self.samples(b) for b in batches))

    async def send_ledger(self) -> None:
        await self.send(self.ledger())

    async def send_events(self, *events: Event) -> None:
        await self.send(self.record(wire.encode_events(events)))

    async def send_heartbeat(
        self, equipments: Iterable[str], unreachable: dict[str, int] | None = None, *, time_us: int | None = None
    ) -> None:
        moment = now_us() if time_us is None else time_us
        await self.send(
            self.record(wire.encode_heartbeat(Heartbeat(self.name, moment, tuple(equipments), unreachable or {})))
        )

    async def send_registry(self, plant: dict[str, Any], *, time_us: int | None = None) -> None:
        moment = now_us() if time_us is None else time_us
        await self.send(self.record(wire.encode_registry(Registry(self.name, moment, plant))))

    async def send_dropped(self, *ranges: DroppedRange) -> None:
        await self.send(self.record(wire.encode_dropped(ranges)))


def ledger_entries(batches: Sequence[SampleBatch]) -> tuple[LedgerEntry, ...]:
    """By plain counting: sample by sample."""
    whole = concatenate(batches)
    found: dict[tuple[str, int], list[int]] = {}
    hashes = row_hashes(whole).tolist()
    for row in range(len(whole)):
        equipment = whole.names[whole.signal[row]].partition("/")[0]
        hour = int(whole.time_us[row]) // HOUR_US * HOUR_US
        entry = found.setdefault((equipment, hour), [0, 0])
        entry[0] += 1
        entry[1] = (entry[1] + hashes[row]) % 2**64
    return tuple(LedgerEntry(e, h, n, c) for (e, h), (n, c) in found.items())


@asynccontextmanager
async def producing(settings: Settings) -> AsyncIterator[Producer]:
    log = open_log(settings)
    await log.ensure_topics(TOPICS)
    producer = await log.producer()
    try:
        yield producer
    finally:
        await producer.close()
        await log.close()


def ingesting(settings: Settings) -> AbstractAsyncContextManager[Health]:
    """The service, stopped cleanly at the end."""
    return serving(run, settings, "ingest", stops_within_s=10.0)


def count(settings: Settings) -> int:
    return int(execute(settings.store, "SELECT count(*) FROM store.sample")[0][0])


async def until_stored(settings: Settings, edge: Edge, *, within_s: float = WITHIN_S) -> None:
    """Until everything that the edge numbered is accepted."""

    def all_accepted() -> bool:
        rows = execute(
            settings.store,
            "SELECT accepted = int8multirange(int8range(0, %s)) FROM store.progress"
            " WHERE service = 'ingest' AND edge = %s AND epoch = %s",
            (edge.seq, edge.name, edge.epoch),
        )
        return bool(rows and rows[0][0])

    await until(all_accepted, within_s=within_s, what=f"{edge.name} stored through {edge.seq - 1}")
