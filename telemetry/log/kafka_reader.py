"""Reading from Kafka in a consumer group.

Invariant: a reader's place comes from its owner alone. Offsets that are committed in Kafka are information; nothing is
ever reset to the earliest or latest record (`auto_offset_reset=none`). aiokafka's rebalances run in a task of its own:
they are handed over to `fetch`, which calls the owner, so the owner is never interrupted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from aiokafka.partitioner import DefaultPartitioner

from telemetry.errors import LogDiscontinuity, LogUnavailable
from telemetry.log.kafka_access import ANSWER_S, Access, connecting, translated
from telemetry.log.kafka_seat import Seat
from telemetry.log.protocol import REBALANCE_S, Assignment, Bounds, InRecord, Partition

log = structlog.get_logger()

T = TypeVar("T")

_PARTITIONER: Final = DefaultPartitioner()
PROBE_S: Final = 5.0
"""A reader that gets nothing asks so often whether the broker is there at all."""


@dataclass(slots=True)
class _Rebalance:
    """What aiokafka's coordinator waits for until fetch has told the owner."""

    came: bool
    partitions: tuple[Partition, ...]
    told: asyncio.Event = field(default_factory=asyncio.Event)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Hands rebalances over to fetch, and waits until the owner knows (for REBALANCE_S at most)."""

    def __init__(self) -> None:
        self.news: deque[_Rebalance] = deque()
        self.arrived = asyncio.Event()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._hand_over(False, revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self._hand_over(True, assigned)

    async def _hand_over(self, came: bool, partitions: Iterable[TopicPartition]) -> None:
        rebalance = _Rebalance(came, tuple(sorted(Partition(p.topic, p.partition) for p in partitions)))
        if not rebalance.partitions:
            return
        self.news.append(rebalance)
        self.arrived.set()
        if not came:  # others wait for these; those that came can wait for the owner
            with suppress(TimeoutError):
                async with asyncio.timeout(REBALANCE_S):
                    await rebalance.told.wait()


class _Lookup:
    """A second connection, for questions: on the reader's own they would queue behind a fetch that waits for records."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._turn = asyncio.Lock()
        self._consumer: AIOKafkaConsumer | None = None
        self._asking: set[asyncio.Future[Any]] = set()

    async def ask(self, question: Callable[[AIOKafkaConsumer], Awaitable[T]]) -> T:
        """The answer of a connected consumer without a group. Raises LogUnavailable.

        A caller that is cancelled leaves the question to end by itself: aiokafka loses sockets in mid-connect.
        """
        asked = asyncio.ensure_future(self._ask(question))
        self._asking.add(asked)
        asked.add_done_callback(self._asking.discard)
        asked.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever asked may have gone
        return await asyncio.shield(asked)

    async def close(self) -> None:
        """Disconnects."""
        if self._asking:
            await asyncio.wait(self._asking)
        await self._disconnect()

    async def _ask(self, question: Callable[[AIOKafkaConsumer], Awaitable[T]]) -> T:
        async with self._turn:
            try:
                async with connecting("lookup", self._access):
                    if self._consumer is None:
                        self._consumer = AIOKafkaConsumer(
                            **self._access.arguments(),
                            auto_offset_reset="none",
                            enable_auto_commit=False,
                            fetch_max_wait_ms=10,
                            max_partition_fetch_bytes=4096,
                        )
                        await self._consumer.start()
                    return await question(self._consumer)
            except BaseException:
                await self._disconnect()
                raise

    async def _disconnect(self) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await _stopped(consumer)


class KafkaReader:
    """See Reader."""

    def __init__(self, access: Access, group: str, assignment: Assignment, seat: Seat) -> None:
        self._access = access
        self._seat = seat
        self._lookup = _Lookup(access)
        self._group = group
        self._assignment = assignment
        self._listener = _Listener()
        self._consumer = AIOKafkaConsumer(
            **access.arguments(),
            group_id=group,
            group_instance_id=seat.instance,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_poll_interval_ms=int(REBALANCE_S * 1000),
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_000,
            max_partition_fetch_bytes=16 << 20,
            fetch_max_bytes=32 << 20,
            fetch_max_wait_ms=250,
        )
        self._positions: dict[Partition, int] = {}
        self._unstarted: list[Partition] = []
        self._heard_at = 0.0
        self._astray = False

    async def open(self, topics: Sequence[str]) -> None:
        """Connects and joins the group."""
        try:
            async with connecting(f"group {self._group}", self._access):
                await self._consumer.start()
            # Not before start, which would wait for the whole group to give this member its share.
            self._consumer.subscribe(list(topics), listener=self._listener)
        except BaseException:
            await self.close()
            raise
        self._heard_at = asyncio.get_running_loop().time()

    async def fetch(self, *, max_records: int, max_wait_s: float) -> Sequence[InRecord]:
        """See Reader."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + max_wait_s
        while True:
            await self._settle()
            left = max(0.0, give_up - loop.time())
            records = await self._poll(max_records, left)
            if records:
                self._heard_at = loop.time()
                return records
            if loop.time() >= give_up and not self._listener.news:
                break
        await self._probe()
        return []

    async def seek(self, partition: Partition, offset: int) -> None:
        """See Reader."""
        if partition not in self._positions:
            raise ValueError(f"{partition.topic}/{partition.number}: not assigned to this reader")
        await self._check({partition: offset})
        self._place(partition, offset)

    async def read_at(self, partition: Partition, offset: int) -> InRecord | None:
        """See Reader."""
        bounds = await self.bounds(partition)
        if not bounds.first <= offset < bounds.end:
            return None
        found = await self._lookup.ask(partial(_read_one, _tp(partition), offset))
        return found if found.offset == offset else None

    async def bounds(self, partition: Partition) -> Bounds:
        """See Reader."""
        return (await self._bounds([partition]))[partition]

    async def lag(self) -> int:
        """See Reader."""
        bounds = await self._bounds(list(self._positions))
        return sum(max(0, bounds[p].end - offset) for p, offset in self._positions.items() if p in bounds)

    async def homes(self, topic: str, keys: Sequence[bytes]) -> Sequence[Partition]:
        """See Reader. Producers are Vigil's: aiokafka's own choice, which is that of Kafka's clients."""
        numbers = sorted(self._consumer.partitions_for_topic(topic) or ())
        if not numbers:
            raise LogUnavailable(f"{topic}: its partitions are not known yet")
        return [Partition(topic, _PARTITIONER(key, numbers, numbers)) for key in keys]

    async def commit(self, positions: Mapping[Partition, int]) -> None:
        """See Reader. A commit that a rebalance overtakes is left out: it is information only."""
        if not positions:
            return  # aiokafka refuses an empty commit; the protocol does not
        async with translated(f"commit of {self._group}"):
            try:
                await self._consumer.commit({_tp(p): offset for p, offset in positions.items()})
            except (CommitFailedError, IllegalStateError) as error:
                log.info("commit overtaken by a rebalance", group=self._group, why=str(error))

    async def committed(self, partition: Partition) -> int | None:
        """How far the group said it is."""
        async with translated(f"group {self._group}"):
            found: int | None = await self._consumer.committed(_tp(partition))
        return found

    async def close(self) -> None:
        """See Reader."""
        self._positions.clear()
        while self._listener.news:
            self._listener.news.popleft().told.set()
        try:
            _take_leave(self._consumer)
            await _stopped(self._consumer)
            await self._lookup.close()
        finally:
            self._seat.leave()

    async def _settle(self) -> None:
        """Tells the owner what came and went, and starts what came."""
        self._listener.arrived.clear()
        while self._listener.news:
            rebalance = self._listener.news.popleft()
            try:
                if rebalance.came:
                    self._unstarted = list(rebalance.partitions)
                else:
                    await self._give_up(rebalance.partitions)
            finally:
                rebalance.told.set()
        if self._unstarted:
            await self._start(self._unstarted)
            self._unstarted = []

    async def _give_up(self, partitions: Sequence[Partition]) -> None:
        self._unstarted = [p for p in self._unstarted if p not in partitions]
        lost = [p for p in partitions if self._positions.pop(p, None) is not None]
        if lost:
            await self._assignment.revoked(lost)

    async def _start(self, gained: Sequence[Partition]) -> None:
        starts = await self._assignment.assigned(gained)
        if missing := [p for p in gained if p not in starts]:
            raise ValueError(f"assigned: expected an offset for each partition, found none for {missing}")
        await self._check({p: starts[p] for p in gained})
        for partition in gained:
            self._place(partition, starts[partition])

    def _place(self, partition: Partition, offset: int) -> None:
        self._positions[partition] = offset
        with suppress(IllegalStateError):  # gone in the meantime: the news of it are on their way
            self._consumer.seek(_tp(partition), offset)

    async def _poll(self, max_records: int, wait_s: float) -> list[InRecord]:
        """Records of started partitions, or none as soon as there is news of a rebalance."""
        if self._astray:  # aiokafka's place may be beyond ours: records were fetched and not handed out
            for partition, offset in self._positions.items():
                self._place(partition, offset)
        self._astray = True
        poll = asyncio.ensure_future(self._consumer.getmany(timeout_ms=int(wait_s * 1000), max_records=max_records))
        news = asyncio.ensure_future(self._listener.arrived.wait())
        try:
            await asyncio.wait({poll, news}, timeout=wait_s + 0.1, return_when=asyncio.FIRST_COMPLETED)
            if not poll.done():
                return []
            found = await self._polled(poll)
        finally:
            await _cancelled(poll, news)
        records = [_record(r) for batch in found.values() for r in batch]
        taken = [r for r in records if self._advance(r)]
        self._astray = False
        return taken

    async def _polled(self, poll: asyncio.Future[dict[TopicPartition, list[Any]]]) -> dict[TopicPartition, list[Any]]:
        async with translated(f"group {self._group}"):
            try:
                return await poll
            except NoOffsetForPartitionError:
                return {}  # assigned, and the owner not told yet
            except OffsetOutOfRangeError as error:
                await self._check({_partition(tp): offset for tp, offset in error.args[0].items()})
                return {}  # it was there after all: aiokafka asks again
            except ConsumerStoppedError as error:
                raise LogUnavailable(f"group {self._group}: the reader is closed") from error

    def _advance(self, record: InRecord) -> bool:
        """Whether the record is the owner's to read; what was fetched before a seek or an assignment is not."""
        position = self._positions.get(record.partition)
        if position is None or record.offset < position:
            return False
        self._positions[record.partition] = record.offset + 1
        return True

    async def _probe(self) -> None:
        """aiokafka waits for a dead broker in silence: asks it something now and then. Raises LogUnavailable."""
        now = asyncio.get_running_loop().time()
        if now - self._heard_at > PROBE_S and self._positions:
            await self._bounds(list(self._positions)[:1])
            self._heard_at = asyncio.get_running_loop().time()

    async def _check(self, positions: Mapping[Partition, int]) -> None:
        bounds = await self._bounds(list(positions))
        for partition, offset in positions.items():
            if not bounds[partition].first <= offset <= bounds[partition].end:
                raise LogDiscontinuity(
                    f"{partition.topic}/{partition.number}: wanted offset {offset},"
                    f" the log holds {bounds[partition].first} to {bounds[partition].end}"
                )

    async def _bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]:
        if not partitions:
            return {}
        first, end = await self._lookup.ask(partial(_ends, [_tp(p) for p in partitions]))
        return {p: Bounds(first[_tp(p)], end[_tp(p)]) for p in partitions}


async def _read_one(tp: TopicPartition, offset: int, consumer: AIOKafkaConsumer) -> InRecord:
    consumer.assign([tp])
    consumer.seek(tp, offset)
    found = _record(await consumer.getone())
    consumer.unsubscribe()
    return found


async def _ends(
    partitions: Sequence[TopicPartition], consumer: AIOKafkaConsumer
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    return await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)


def _take_leave(consumer: AIOKafkaConsumer) -> None:
    """Has `stop` leave the group: of a static member aiokafka keeps the place, and its partitions would stand until its
    session ends. Whoever is killed says nothing, and finds its place kept."""
    if consumer._coordinator is not None:
        consumer._coordinator._group_instance_id = None


async def _stopped(consumer: AIOKafkaConsumer) -> None:
    """Stops it in a task of its own: aiokafka cancels a fetch that waits for its next try, lets that cancellation out of
    `stop`, where it looked like ours and ended the service, and leaves its connections open."""
    stopping = asyncio.ensure_future(consumer.stop())
    try:
        await asyncio.wait({stopping}, timeout=ANSWER_S)
    finally:
        stopping.cancel()
    with suppress(KafkaError, TimeoutError, asyncio.InvalidStateError, asyncio.CancelledError):
        stopping.result()
        return
    with suppress(KafkaError, TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            await consumer._client.close()


async def _cancelled(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()


def _tp(partition: Partition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.number)


def _partition(tp: TopicPartition) -> Partition:
    return Partition(tp.topic, tp.partition)


def _record(raw: Any) -> InRecord:
    partition = Partition(raw.topic, raw.partition)
    return InRecord(partition, raw.offset, raw.timestamp * 1000, raw.key or b"", raw.value or b"", dict(raw.headers))
