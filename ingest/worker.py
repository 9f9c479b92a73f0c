"""One worker: reads its partitions, gathers flushes, has them written, and begins again from the database when anything fails.

Invariants: what is in memory is never the truth: after any error it is dropped, and partitions are sought to the offsets
in the database. One transaction at a time; while it runs, the next flush is sorted and waits, and the one after it is
fetched and decoded: three flushes are in memory at most. A partition whose log does not continue what was processed is
stopped and named, the others go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
import structlog

from ingest import metrics
from ingest.decode import Decoder, Reading
from ingest.events import FromEdge, insert_events, own_event
from ingest.flush import Flush
from ingest.latest import Latest
from ingest.online import Change, heartbeats
from ingest.pace import FIRST_RECORDS, Pace, records_to_fetch
from ingest.transaction import SERVICE, Job
from ingest.writer import Faulty, Writer
from telemetry.errors import LogDiscontinuity
from telemetry.frozen import FrozenWatch
from telemetry.log.protocol import TELEMETRY, Partition, Reader
from telemetry.messages import Event
from telemetry.position import load_positions, verify_continuity
from telemetry.service import Health
from telemetry.settings import Settings
from telemetry.store import INGEST, OWNER, connect

log = structlog.get_logger()

Connection = psycopg.AsyncConnection[Any]

IDLE_WAIT_S: Final = 0.25
"""So often, at least, it is looked whether the flush is due after all, and whether to stop."""
BUSY_WAIT_S: Final = 0.01
"""A flush that is due while another is being written looks so often whether it is its turn."""
COMMIT_EVERY_S: Final = 1.0
RECHECK_S: Final = 5.0
"""How often a stopped partition is looked at again: has an operator decided?"""


class Worker:
    """One session of reading and writing; made anew after every failure. An Assignment of the log."""

    def __init__(
        self, settings: Settings, health: Health, connection: Connection, side: Connection, *, timescale: bool
    ) -> None:
        """`connection` writes flushes; `side` is autocommit, for names and `latest`."""
        self._settings = settings
        self._health = health
        self._clock = settings.the_clock
        self._side = side
        self.watch = _frozen_watch(settings)
        """Over every transaction that takes locks on rows which a worker before this one may still hold."""
        self._writer = Writer(settings, connection, side, self.watch, timescale=timescale)
        self._reader: Reader | None = None
        self._decoder = Decoder()
        self._fetch_records = FIRST_RECORDS
        self._unstored = 0
        self._pending = Flush()
        self._pending_since_s = 0.0
        self._jobs: asyncio.Queue[Job | Faulty] = asyncio.Queue()
        self._taken = asyncio.Event()
        self._taken.set()
        self._unwritten = 0
        """Flushes that are being written or wait for it: two at most."""
        self._decoding: asyncio.Task[list[Reading]] | None = None
        self._stopped: dict[Partition, str] = {}
        self._committed_s = 0.0
        self._rechecked_s = 0.0

    async def load(self) -> None:
        """Reads from the store what is kept in memory."""
        await self._writer.load()

    @property
    def latest(self) -> Latest:
        """What is committed and may not be in `latest` yet."""
        return self._writer.latest

    async def run(self, reader: Reader, stop: asyncio.Event) -> None:
        """Reads and writes until told to stop. Raises a group of whatever failed: nothing of it is in memory afterwards."""
        self._reader = reader
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(self._write(), name="flushes")
            while not stop.is_set():
                await self._read(reader)
                if self._due():
                    await self._hand_over()
                await self._commit()
                if self._stopped and time.monotonic() - self._rechecked_s > RECHECK_S:
                    await self._recheck()
            await self._decoded()
            if self._pending.readings:
                await self._hand_over()
            await self._drain()
            await self._commit(force=True)
            writing.cancel()

    async def lag(self) -> int:
        """Records in the log that are not in the store."""
        if self._reader is None or self._stopped:
            return -1
        return await self._reader.lag() + self._unstored

    async def silent(self, connection: Connection) -> Sequence[Change]:
        """Changes of equipment whose edge fell silent, by the wall clock. For a worker without lag.

        Of several workers each judges the edges that it hears, and those that nobody hears whose partition it has. The
        store's heartbeat decides about the latter: after partitions were added an edge goes on in its old one for minutes.
        """
        online = self._writer.online
        unheard = online.unheard(self._clock.now_us())
        homes = await self._the_reader.homes(TELEMETRY, [edge.encode() for edge in unheard]) if unheard else []
        homes_of = {edge: home for edge, home in zip(unheard, homes, strict=True) if home in self._writer.expected}
        known = await heartbeats(connection, [*homes_of]) if homes_of else {}
        still_mine = {edge: us for edge, us in known.items() if homes_of[edge] in self._writer.expected}
        return online.silent(self._clock.now_us(), also=still_mine)

    # ---- Assignment

    async def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """See Assignment: the database's offsets, after the record before each was compared."""
        await self._drain()
        await self._writer.online.load(self._side)  # somebody else may have gone on with it
        starts = {}
        positions = await load_positions(self._side, SERVICE, partitions)
        for partition in partitions:
            self._writer.stand(partition, positions[partition])
            try:
                starts[partition] = await verify_continuity(self._the_reader, partition, positions[partition])
            except LogDiscontinuity as error:
                starts[partition] = (await self._the_reader.bounds(partition)).end
                await self._stop_partition(partition, str(error))
            else:
                await self._resume_partition(partition)
        log.info("assigned", partitions={f"{p.topic}/{p.number}": offset for p, offset in starts.items()})
        return starts

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        """See Assignment: what is being written is finished, what is only read is forgotten."""
        await self._decoded()
        await self._drain()
        before = len(self._pending.readings)
        self._pending.drop(partitions)
        self._unstored -= before - len(self._pending.readings)
        self._writer.online.forget_heard()
        for partition in partitions:
            self._writer.leave(partition)
            if self._stopped.pop(partition, None) is not None:
                self._health.found(_named(partition))
        metrics.STOPPED.set(len(self._stopped))

    @property
    def _the_reader(self) -> Reader:
        if self._reader is None:
            raise RuntimeError("not running")
        return self._reader

    # ---- from the log to the writer

    async def _read(self, reader: Reader) -> None:
        """Fetches records, while those that were fetched before are decoded."""
        records = await reader.fetch(max_records=self._fetch_records, max_wait_s=self._wait_s())
        await self._decoded()
        if not records:
            return
        kept = [record for record in records if record.partition not in self._stopped]
        self._unstored += len(kept)
        self._decoding = asyncio.create_task(asyncio.to_thread(self._decoder.read, kept), name="decode")

    async def _decoded(self) -> None:
        """What was fetched joins the pending flush."""
        if self._decoding is not None:
            decoding, self._decoding = self._decoding, None
            if not self._pending.readings:
                self._pending_since_s = time.monotonic()
            readings = await decoding
            self._pending.add(readings)
            if readings:
                size = sum(len(reading.record.value) for reading in readings) / len(readings)
                rows = sum(reading.samples for reading in readings) / len(readings)
                self._fetch_records = records_to_fetch(size=size, rows=rows)

    def _wait_s(self) -> float:
        if self._decoding is not None:
            return 0.0
        if not self._pending.readings:
            return IDLE_WAIT_S
        left = self._patience_s() - self._age_s()
        return min(max(left, BUSY_WAIT_S if self._unwritten else 0.001), IDLE_WAIT_S)

    def _age_s(self) -> float:
        return time.monotonic() - self._pending_since_s

    def _patience_s(self) -> float:
        return self._pace().patience_s(self._pending.rows, self._age_s())

    def _pace(self) -> Pace:
        return Pace(self._writer.signals)

    def _due(self) -> bool:
        """Whether the pending flush leaves: when it is full, or when it is old enough and nothing is being written."""
        pending = self._pending
        if not pending.readings:
            return False
        if self._pace().full(pending.rows, pending.bytes):
            return True
        return not self._unwritten and self._age_s() >= self._patience_s()

    async def _hand_over(self) -> None:
        """Has the pending flush written: after the one that waits for it, which must have been taken."""
        await self._taken.wait()
        flush, self._pending = self._pending, Flush()
        job = await self._writer.prepare(flush.readings, self._the_reader)
        self._taken.clear()
        self._unwritten += 1
        self._jobs.put_nowait(job)

    async def _write(self) -> None:
        """Writes what is handed over, one flush after the other."""
        while True:
            job = await self._jobs.get()
            self._taken.set()
            await self._writer.write(job)
            self._unstored -= len(job.readings)
            self._unwritten -= 1
            self._jobs.task_done()

    async def _drain(self) -> None:
        """Waits for what was handed over."""
        await self._jobs.join()

    async def _commit(self, *, force: bool = False) -> None:
        """Tells the log how far the store is: information for operators, and the floor for trimming."""
        if force or time.monotonic() - self._committed_s > COMMIT_EVERY_S:
            self._committed_s = time.monotonic()
            positions = {p: n for p, n in self._writer.expected.items() if p not in self._stopped and n > 0}
            if positions:
                await self._the_reader.commit(positions)

    # ---- partitions that do not continue

    async def _stop_partition(self, partition: Partition, why: str) -> None:
        known = self._stopped.get(partition)
        self._stopped[partition] = why
        metrics.STOPPED.set(len(self._stopped))
        if known != why:
            log.error("partition stopped", partition=_named(partition), why=why)
            await self._tell(partition, on=True, why=why)
        self._health.missing(_named(partition), why)

    async def _resume_partition(self, partition: Partition) -> None:
        was_waiting = _named(partition) in self._health.waiting_for
        self._health.found(_named(partition))
        if self._stopped.pop(partition, None) is not None or was_waiting:
            await self._tell(partition, on=False, why="")
        metrics.STOPPED.set(len(self._stopped))

    async def _tell(self, partition: Partition, *, on: bool, why: str) -> None:
        event = own_event(
            "log-discontinuity", SERVICE, self._clock.now_us(), on=on, partition=_named(partition), why=why
        )
        async with self._side.transaction():
            await insert_events(self._side, [event])

    async def _recheck(self) -> None:
        self._rechecked_s = time.monotonic()
        await self._drain()  # a flush that is halved resolves names on the side connection, too
        stopped = list(self._stopped)
        positions = await load_positions(self._side, SERVICE, stopped)
        for partition in stopped:
            try:
                start = await verify_continuity(self._the_reader, partition, positions[partition])
            except LogDiscontinuity as error:
                await self._stop_partition(partition, str(error))
                continue
            self._writer.stand(partition, positions[partition])
            await self._the_reader.seek(partition, start)
            await self._resume_partition(partition)


def _frozen_watch(settings: Settings) -> FrozenWatch:
    async def as_login() -> Connection:
        return await connect(settings, OWNER, autocommit=True)

    async def tell(event: Event) -> None:
        metrics.TERMINATED.inc()
        async with await connect(settings, INGEST) as writer:
            await insert_events(writer, [FromEdge(event, SERVICE)])

    return FrozenWatch(SERVICE, INGEST, settings.the_clock, as_login, tell)


def _named(partition: Partition) -> str:
    return f"{partition.topic}/{partition.number}"
