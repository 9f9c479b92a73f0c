"""What really arrived: the readings in a Kafka topic, by device and time, whoever wrote them.

Counted after the run from the topic itself, so that neither agent is believed about itself. A reading is one answer of
one device with all its points; a cycle is missed where two readings of a device are further apart than one and a half
intervals.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

INTERVAL_US: Final = 1_000_000
FETCH_BYTES: Final = 8 << 20
BAD_BELOW: Final = 64
"""OPC qualities below are bad."""
TIME_BITS: Final = 42
"""Of a time within one record, in µs: 50 days."""


@dataclass(slots=True)
class Arrivals:
    """Readings of a topic; bad samples are not counted."""

    times_us: dict[str, list[int]] = field(default_factory=dict)
    """Device → times of its readings, as they came."""
    tags: list[tuple[Any, Any]] = field(default_factory=list)
    """((n,) times in µs, (n,) tags of each)."""
    seen: set[tuple[bytes, bytes]] = field(default_factory=set)
    """(epoch, seq) of records: one that was sent again is known by it, as every reader of the edge's records does."""
    lags_us: list[tuple[int, int]] = field(default_factory=list)
    """(time of the oldest reading, when its record was appended) of each record."""

    def tags_in(self, begin_us: int, end_us: int) -> int:
        """Tags whose time is in [begin, end)."""
        return int(sum(counts[(times >= begin_us) & (times < end_us)].sum() for times, counts in self.tags))

    def missed_in(self, begin_us: int, end_us: int, devices: int) -> int:
        """Cycles that no reading came of, in [begin, end), over all devices; those never heard of missed all."""
        missed = (devices - len(self.times_us)) * ((end_us - begin_us) // INTERVAL_US)
        for given in self.times_us.values():
            times = np.unique(np.array(given, np.int64))
            first, last = begin_us - INTERVAL_US, end_us + INTERVAL_US
            times = np.concatenate(([first], times[(times >= first) & (times < last)], [last]))
            gaps = np.diff(times) / INTERVAL_US
            missed += int(np.rint(gaps[gaps > 1.5] - 1).sum())
        return missed

    @property
    def doubled(self) -> int:
        """Readings that came more than once."""
        return sum(len(times) - len(set(times)) for times in self.times_us.values())

    def behind_s(self, begin_us: int, end_us: int) -> float:
        """The longest time from the oldest reading of a record to the record's arrival, of those in [begin, end)."""
        lags = [appended - oldest for oldest, appended in self.lags_us if begin_us <= oldest < end_us]
        return max(lags, default=0) / 1e6


def count(servers: str, topic: str, start: int, take: Callable[[Arrivals, Any], None]) -> Arrivals:
    """Everything in the topic from offset `start` on, read by `take` (`vigil_record`, `telegraf_record`)."""

    async def run() -> Arrivals:
        arrivals = Arrivals()
        async for record in _records(servers, topic, start):
            take(arrivals, record)
        return arrivals

    return asyncio.run(run())


def end_offset(servers: str, topic: str) -> int:
    """The offset that the next record of a topic will have; 0 for a topic that is not there."""

    async def run() -> int:
        consumer = AIOKafkaConsumer(bootstrap_servers=servers)
        await consumer.start()
        try:
            if topic not in await consumer.topics():
                return 0
            partition = TopicPartition(topic, 0)
            return int((await consumer.end_offsets([partition]))[partition])
        finally:
            await consumer.stop()

    return asyncio.run(run())


def make_topic(servers: str, topic: str) -> None:
    """A topic of one partition that takes the broker's time, as the edge's own."""

    async def run() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        try:
            await admin.create_topics(
                [NewTopic(topic, 1, 1, topic_configs={"message.timestamp.type": "LogAppendTime"})]
            )
        finally:
            await admin.close()

    asyncio.run(run())


async def _records(servers: str, topic: str, start: int) -> AsyncIterator[Any]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers, enable_auto_commit=False, max_partition_fetch_bytes=FETCH_BYTES
    )
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        consumer.seek(partition, start)
        while await consumer.position(partition) < end:
            async with asyncio.timeout(30):
                fetched = await consumer.getmany(timeout_ms=1000)
            for records in fetched.values():
                for record in records:
                    yield record
    finally:
        await consumer.stop()


def vigil_record(arrivals: Arrivals, record: Any) -> None:
    """A record of the edge, read with pyarrow and not with Vigil's own reader. Bad samples do not count."""
    headers = dict(record.headers)
    identity = headers["epoch"], headers["seq"]
    if headers["kind"] != b"samples" or identity in arrivals.seen:
        return
    arrivals.seen.add(identity)
    with pa.ipc.open_stream(record.value) as reader:
        table = reader.read_all().combine_chunks().unify_dictionaries()
    if not table.num_rows:
        return
    signal = table["signal"].combine_chunks()
    devices = [name.partition("/")[0] for name in signal.dictionary.to_pylist()]
    known = {device: number for number, device in enumerate(dict.fromkeys(devices))}
    device_of = np.array([known[device] for device in devices], np.int64)
    stamps = table["time"].cast(pa.int64()).to_numpy()
    good = table["quality"].to_numpy() >= BAD_BELOW
    since = int(stamps.min())
    keys = device_of[signal.indices.to_numpy()][good] << TIME_BITS | (stamps[good] - since)
    readings, tags = np.unique(keys, return_counts=True)
    times = (readings & ((1 << TIME_BITS) - 1)) + since
    names = list(known)
    who = (names[place] for place in readings >> TIME_BITS)
    _add(arrivals, zip(who, times.tolist(), strict=True), times, tags, record.timestamp)


def telegraf_record(arrivals: Arrivals, record: Any) -> None:
    """A record of Telegraf: a metric in line protocol, `measurement,tag=…,name=DEVICE field=…,… nanoseconds`."""
    head, fields, stamp = record.value.split(b"\n", 1)[0].split(b" ")
    time_us = int(stamp) // 1000
    tags = dict(part.split(b"=", 1) for part in head.split(b",")[1:])
    device = (tags.get(b"name") or tags[b"topic"]).decode()
    _add(arrivals, ((device, time_us),), np.array([time_us]), np.array([fields.count(b",") + 1]), record.timestamp)


def _add(arrivals: Arrivals, readings: Iterable[tuple[str, int]], times: Any, tags: Any, appended_ms: int) -> None:
    if not len(times):
        return
    for device, time_us in readings:
        arrivals.times_us.setdefault(device, []).append(time_us)
    arrivals.tags.append((times, tags))
    arrivals.lags_us.append((int(times.min()), appended_ms * 1000))
