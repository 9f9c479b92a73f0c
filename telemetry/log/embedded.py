"""The log on one machine: SQLite files that every process opens directly, with no broker between them.

Invariant: `send` returns after the commit that holds its records has been fsynced; sends that come while a commit is in
progress share the next one. Readers look for commits of other processes every few ms. See topic_file.py for the file,
membership.py for who reads what.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from telemetry.errors import LogDiscontinuity, LogError, LogFull, LogUnavailable
from telemetry.log.membership import Membership
from telemetry.log.protocol import FINDINGS, Assignment, Bounds, InRecord, OutRecord, Partition, refuse_oversize
from telemetry.log.topic_file import Retention, TopicFile, open_topic
from telemetry.log.worker import Worker

log = structlog.get_logger()

SHARE_S: Final = 0.3
"""How often a reader looks who else is in its group, and whether its files are still there."""
TRIM_S: Final = 5.0
TRIM_PAUSE_S: Final = 0.05
"""Between chunks, while more is due."""
KEEP_S: Final = 86_400
"""What every reader has read is kept so long, for a database that is restored from a copy …"""
KEEP_SHARE: Final = 0.25
"""… but never more than this share of the cap."""
FINDINGS_SHARE: Final = 0.125
"""Of the cap: set aside, so that a backlog of telemetry never silences findings."""


@dataclass(frozen=True, slots=True)
class EmbeddedLog:
    """The embedded log in a directory. Nothing is open until a producer or reader is made."""

    directory: Path
    max_bytes: int
    partitions: int = 1

    async def producer(self) -> EmbeddedProducer:
        """See Log."""
        return EmbeddedProducer(self)

    async def reader(self, group: str, topics: Sequence[str], assignment: Assignment) -> EmbeddedReader:
        """See Log. Registers the group: from now on nothing is trimmed that it has not committed."""
        reader = EmbeddedReader(self, group, assignment)
        try:
            await reader.open(topics)
        except BaseException:
            await reader.close()
            raise
        return reader

    async def ensure_topics(self, topics: Sequence[str]) -> None:
        """See Log."""
        for topic in topics:
            await asyncio.to_thread(self._with_file, topic, lambda file: None)

    async def forget(self, group: str, topics: Sequence[str]) -> None:
        """Takes a group that will not come back off the register, so that it no longer keeps the log from trimming."""
        for topic in topics:
            await asyncio.to_thread(self._with_file, topic, lambda file: file.forget(group))

    async def close(self) -> None:
        """See Log."""

    def open(self, topic: str, *, durable: bool) -> TopicFile:
        """Opens a topic's file on the calling thread."""
        file = open_topic(self.directory, topic, partitions=self.partitions, durable=durable)
        if file.partitions != self.partitions:
            log.warning("log partitions differ", topic=topic, recorded=file.partitions, settings=self.partitions)
        return file

    def retention(self, topic: str) -> Retention:
        """What a topic may hold."""
        cap = int(self.max_bytes * (FINDINGS_SHARE if topic == FINDINGS else 1 - FINDINGS_SHARE))
        return Retention(cap, int(cap * KEEP_SHARE), KEEP_S * 1_000_000)

    def _with_file(self, topic: str, work: Callable[[TopicFile], None]) -> None:
        file = self.open(topic, durable=True)
        try:
            work(file)
        finally:
            file.close()


_Send = tuple[str, Sequence[OutRecord], "asyncio.Future[None]"]


class EmbeddedProducer:
    """See Producer."""

    def __init__(self, owner: EmbeddedLog) -> None:
        self._log = owner
        self._worker = Worker("log-producer")
        self._pending: deque[_Send] = deque()
        self._files: dict[str, TopicFile] = {}
        self._trim_at: dict[str, float] = {}

    async def send(self, topic: str, records: Sequence[OutRecord]) -> None:
        """See Producer."""
        if not records:
            return
        refuse_oversize(records)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((topic, records, done))
        self._worker.submit(self._flush)
        await self._worker.answer(done)

    async def close(self) -> None:
        """See Producer. What was sent before is still committed."""
        await self._worker.close(self._close_files)

    def _flush(self) -> None:
        """On the thread: one commit per topic for everything that waits; the first of several calls takes it all."""
        sends: dict[str, list[_Send]] = {}
        while self._pending:
            send = self._pending.popleft()
            sends.setdefault(send[0], []).append(send)
        for topic, group in sends.items():
            self._commit(topic, group)
            self._trim(topic)

    def _commit(self, topic: str, sends: Sequence[_Send]) -> None:
        try:
            self._open(topic).append([r for _, records, _ in sends for r in records], self._log.retention(topic))
        except LogFull as error:
            if len(sends) > 1:  # a smaller one may fit
                for send in sends:
                    self._commit(topic, [send])
                return
            self._worker.settle(sends[0][2], None, error)
        except BaseException as error:  # carried over to the senders, whatever it is
            self._drop(topic)
            for _, _, done in sends:
                self._worker.settle(done, None, error)
        else:
            for _, _, done in sends:
                self._worker.settle(done, None, None)

    def _open(self, topic: str) -> TopicFile:
        file = self._files.get(topic)
        if file is not None and not file.present():
            log.warning("log was removed, made anew", topic=topic, path=str(file.path))
            self._drop(topic)
            file = None
        if file is None:
            file = self._files[topic] = self._log.open(topic, durable=True)
        return file

    def _drop(self, topic: str) -> None:
        file = self._files.pop(topic, None)
        if file is not None:
            file.close()

    def _trim(self, topic: str) -> None:
        file = self._files.get(topic)
        if file is None or time.monotonic() < self._trim_at.get(topic, 0.0):
            return
        try:
            removed = file.trim(self._log.retention(topic), time.time_ns() // 1000)
        except LogError as error:
            log.warning("log could not be trimmed", topic=topic, why=str(error))
            removed = 0
        self._trim_at[topic] = time.monotonic() + (TRIM_PAUSE_S if removed else TRIM_S)

    def _close_files(self) -> None:
        for topic in list(self._files):
            self._drop(topic)


class EmbeddedReader:
    """See Reader."""

    def __init__(self, owner: EmbeddedLog, group: str, assignment: Assignment) -> None:
        self._log = owner
        self._group = group
        self._assignment = assignment
        self._worker = Worker(f"log-reader-{group}")
        self._changed = asyncio.Event()
        self._share_at = 0.0
        self._positions: dict[Partition, int] = {}
        # Of the thread:
        self._files: dict[str, TopicFile] = {}
        self._membership: Membership | None = None

    async def open(self, topics: Sequence[str]) -> None:
        """Opens the topics, registers the group in them and joins it."""
        await self._worker.call(partial(self._join, topics))

    async def fetch(self, *, max_records: int, max_wait_s: float) -> Sequence[InRecord]:
        """See Reader."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + max_wait_s
        while True:
            await self._share()
            self._changed.clear()
            records = await self._worker.call(partial(self._read, dict(self._positions), max_records))
            left = give_up - loop.time()
            if records or left <= 0:
                break
            await self._wait(min(left, SHARE_S))
        for record in records:
            self._positions[record.partition] = record.offset + 1
        self._rotate()
        return records

    async def seek(self, partition: Partition, offset: int) -> None:
        """See Reader."""
        if partition not in self._positions:
            raise ValueError(f"{partition.topic}/{partition.number}: not assigned to this reader")
        await self._worker.call(partial(self._check, {partition: offset}))
        self._positions[partition] = offset

    async def read_at(self, partition: Partition, offset: int) -> InRecord | None:
        """See Reader."""
        return await self._worker.call(lambda: self._file(partition).at(partition.number, offset))

    async def bounds(self, partition: Partition) -> Bounds:
        """See Reader."""
        return await self._worker.call(lambda: self._file(partition).bounds(partition.number))

    async def lag(self) -> int:
        """See Reader."""
        return await self._worker.call(partial(self._lag, dict(self._positions)))

    async def commit(self, positions: Mapping[Partition, int]) -> None:
        """See Reader."""
        await self._worker.call(partial(self._commit, dict(positions)))

    async def homes(self, topic: str, keys: Sequence[bytes]) -> Sequence[Partition]:
        """See Reader."""

        def places() -> list[Partition]:
            file = self._file(Partition(topic, 0))
            return [Partition(topic, file.partition_of(key)) for key in keys]

        return await self._worker.call(places)

    async def committed(self, partition: Partition) -> int | None:
        """How far the group said it is."""
        found = await self._worker.call(lambda: self._file(partition).committed(self._group))
        return found.get(partition.number)

    async def close(self) -> None:
        """See Reader."""
        self._positions.clear()
        await self._worker.close(self._leave)

    async def _share(self) -> None:
        """Gives up and takes partitions as the group's members come and go."""
        now = time.monotonic()
        if now < self._share_at:
            return
        kept, lost = await self._worker.call(self._due)
        if lost:
            await self._give_up(lost)
        if gained := [p for p in kept if p not in self._positions]:
            await self._start(gained)
        self._share_at = now + SHARE_S

    async def _give_up(self, lost: Sequence[Partition]) -> None:
        started = [p for p in lost if self._positions.pop(p, None) is not None]
        try:
            if started:
                await self._assignment.revoked(started)
        finally:
            await self._worker.call(partial(self._release, lost))

    async def _start(self, gained: Sequence[Partition]) -> None:
        starts = await self._assignment.assigned(gained)
        if missing := [p for p in gained if p not in starts]:
            raise ValueError(f"assigned: expected an offset for each partition, found none for {missing}")
        await self._worker.call(partial(self._check, {p: starts[p] for p in gained}))
        self._positions.update((p, starts[p]) for p in gained)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _rotate(self) -> None:
        """Another partition comes first next time, so that a busy one starves nobody."""
        if len(self._positions) > 1:
            first = next(iter(self._positions))
            self._positions[first] = self._positions.pop(first)

    # From here on: on the thread.

    def _join(self, topics: Sequence[str]) -> None:
        for topic in topics:
            self._files[topic] = self._log.open(topic, durable=False)
            self._files[topic].register(self._group)
        partitions = [Partition(f.topic, n) for f in self._files.values() for n in range(f.partitions)]
        try:
            self._membership = Membership(self._log.directory, self._group, partitions)
        except OSError as error:
            raise LogUnavailable(f"{self._log.directory}: {error.strerror}") from error
        self._worker.watch(self._looks_changed, self._changed.set)

    def _looks_changed(self) -> bool:
        return any([file.changed() for file in self._files.values()])

    def _due(self) -> tuple[list[Partition], list[Partition]]:
        assert self._membership is not None  # noqa: S101 - open() has returned
        for file in self._files.values():
            if not file.present():
                raise LogDiscontinuity(f"{file.topic}: {file.path} was removed under its reader")
        try:
            return self._membership.due()
        except OSError as error:
            raise LogUnavailable(f"{self._log.directory}: {error.strerror}") from error

    def _release(self, partitions: Sequence[Partition]) -> None:
        assert self._membership is not None  # noqa: S101 - open() has returned
        self._membership.release(partitions)

    def _file(self, partition: Partition) -> TopicFile:
        file = self._files.get(partition.topic)
        if file is None:
            raise ValueError(f"{partition.topic}: not read by this reader")
        return file

    def _read(self, positions: Mapping[Partition, int], max_records: int) -> list[InRecord]:
        self._looks_changed()  # what is committed from here on is noticed by the watch
        records: list[InRecord] = []
        for partition, offset in positions.items():
            left = max_records - len(records)
            if left > 0:
                records += self._file(partition).read(partition.number, offset, max_records=left)
        return records

    def _check(self, positions: Mapping[Partition, int]) -> None:
        for partition, offset in positions.items():
            self._file(partition).check(partition.number, offset)

    def _lag(self, positions: Mapping[Partition, int]) -> int:
        return sum(self._file(p).bounds(p.number).end - offset for p, offset in positions.items())

    def _commit(self, positions: Mapping[Partition, int]) -> None:
        by_topic: dict[str, dict[int, int]] = {}
        for partition, offset in positions.items():
            by_topic.setdefault(partition.topic, {})[partition.number] = offset
        for topic, numbers in by_topic.items():
            self._file(Partition(topic, 0)).commit(self._group, numbers)

    def _leave(self) -> None:
        if self._membership is not None:
            self._membership.leave()
        for file in self._files.values():
            file.close()
