"""One worker: reads its partitions, gathers flushes, writes them, and begins again from the database when anything fails.

Invariants: what is in memory is never the truth: after any error it is dropped, and partitions are sought to the offsets
in the database. One transaction at a time; while it runs, the next flush is fetched and decoded, within bounds. A
partition whose log does not continue what was processed is stopped and named, the others go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import psycopg
import structlog

from ingest import metrics
from ingest.decode import Reading, Refused, read
from ingest.events import FromEdge, insert_events, own_event
from ingest.flush import Flush, batches, prepare
from ingest.latest import Latest
from ingest.online import Change, Online
from ingest.signals import SignalTable
from ingest.transaction import SERVICE, Job, Outcome, write
from ingest.validate import bounds_at
from telemetry.batch import SampleBatch
from telemetry.errors import LogDiscontinuity
from telemetry.frozen import FrozenWatch
from telemetry.log.protocol import TELEMETRY, Partition, Reader
from telemetry.messages import Event
from telemetry.position import Mark, Position, load_positions, verify_continuity, verify_unchanged
from telemetry.service import Health
from telemetry.settings import Settings
from telemetry.store import INGEST, OWNER, connect

log = structlog.get_logger()

Connection = psycopg.AsyncConnection[Any]

FETCH_RECORDS: Final = 2_000
FETCH_BYTES: Final = 16 << 20
"""About how much is fetched at once: how many records that is follows from the last ones' size."""
FLUSH_ROWS: Final = 500_000
FLUSH_BYTES: Final = 64 << 20
YOUNG_S: Final = 0.05
"""Age of a flush while the fleet is small: the console is live."""
OLD_S: Final = 1.0
"""Age of a flush under load: more rows of each signal come together."""
BUSY_ROWS_PER_S: Final = 20_000
IDLE_WAIT_S: Final = 0.25
WRITE_DEADLINE_S: Final = 60.0
COMMIT_EVERY_S: Final = 1.0
RECHECK_S: Final = 5.0
"""How often a stopped partition is looked at again: has an operator decided?"""

POISON: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,  # of class 54 and so no DataError: a name longer than an index takes, say
    psycopg.errors.StatementTooComplex,
    RecursionError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    OverflowError,
)
"""What a record with unheard-of content can raise when it is applied; the record is found and set aside."""


def is_poison(error: Exception) -> bool:
    """Whether a record's content is to blame. Of ProgrammingErrors those that the server never saw: a value of a kind
    that cannot be sent to it. What it says itself (a missing table, a missing right) is no record's fault."""
    return isinstance(error, POISON) or (isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None)


class Worker:
    """One session of reading and writing; made anew after every failure. An Assignment of the log."""

    def __init__(
        self, settings: Settings, health: Health, connection: Connection, side: Connection, *, timescale: bool
    ) -> None:
        """`connection` writes flushes; `side` is autocommit, for names and `latest`."""
        self._settings = settings
        self._health = health
        self._clock = settings.the_clock
        self._connection = connection
        self._side = side
        self._timescale = timescale
        self._signals = SignalTable()
        self._online = Online()
        self.latest = Latest()
        self._watch = _frozen_watch(settings)
        self._reader: Reader | None = None
        self._fetch_records = 16
        self._unstored = 0
        self._pending = Flush()
        self._pending_since_s = 0.0
        self._writing: asyncio.Task[None] | None = None
        self._expected: dict[Partition, int] = {}
        self._last: dict[Partition, Mark] = {}
        self._stopped: dict[Partition, str] = {}
        self._days: set[int] = set()
        self._committed_s = 0.0
        self._rechecked_s = 0.0

    async def load(self) -> None:
        """Reads from the store what is kept in memory."""
        await self._signals.load(self._side)
        await self._online.load(self._side)

    async def run(self, reader: Reader, stop: asyncio.Event) -> None:
        """Reads and writes until told to stop. Raises whatever failed: nothing of it is in memory afterwards."""
        self._reader = reader
        try:
            while not stop.is_set():
                records = await reader.fetch(max_records=self._fetch_records, max_wait_s=self._wait_s())
                if records:
                    self._unstored += len(records)
                    size = sum(len(record.value) for record in records) // len(records)
                    self._fetch_records = min(max(FETCH_BYTES // (size + 1), 16), FETCH_RECORDS)
                    await self._gather(await asyncio.to_thread(read, records))
                await self._advance()
            await self._drain(everything=True)
            await self._commit(force=True)
        finally:
            if self._writing is not None:
                self._writing.cancel()
                await asyncio.wait([self._writing], timeout=2.0)

    async def lag(self) -> int:
        """Records in the log that are not in the store."""
        if self._reader is None or self._stopped:
            return -1
        return await self._reader.lag() + self._unstored

    async def silent(self, connection: Connection) -> Sequence[Change]:
        """Changes of equipment whose edge fell silent, by the wall clock. For a worker without lag.

        Of several workers each judges the edges that it hears; only one that has every partition can know of the others.
        """
        mine = [partition for partition in self._expected if partition.topic == TELEMETRY]
        cursor = await connection.execute(
            "SELECT count(*) FROM store.log_position WHERE service = %s AND topic = %s", (SERVICE, TELEMETRY)
        )
        row = await cursor.fetchone()
        alone = bool(mine) and row is not None and row[0] == len(mine)
        return self._online.silent(self._clock.now_us(), alone=alone)

    # ---- Assignment

    async def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """See Assignment: the database's offsets, after the record before each was compared."""
        await self._drain()
        await self._online.load(self._side)  # somebody else may have gone on with it
        starts = {}
        positions = await load_positions(self._side, SERVICE, partitions)
        for partition in partitions:
            self._stand(partition, positions[partition])
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
        await self._drain()
        before = len(self._pending.readings)
        self._pending.drop(partitions)
        self._unstored -= before - len(self._pending.readings)
        self._online.forget_heard()
        for partition in partitions:
            self._expected.pop(partition, None)
            self._last.pop(partition, None)
            if self._stopped.pop(partition, None) is not None:
                self._health.found(_named(partition))
        metrics.STOPPED.set(len(self._stopped))

    def _stand(self, partition: Partition, position: Position) -> None:
        self._expected[partition] = position.next
        self._last.pop(partition, None)
        if position.last is not None:
            self._last[partition] = position.last

    @property
    def _the_reader(self) -> Reader:
        if self._reader is None:
            raise RuntimeError("not running")
        return self._reader

    # ---- gathering

    def _wait_s(self) -> float:
        if not self._pending.readings:
            return IDLE_WAIT_S
        if self._due():
            return 0.01  # the transaction before it is still going on
        return max(self._pending_since_s + YOUNG_S - time.monotonic(), 0.001)

    async def _gather(self, readings: Sequence[Reading]) -> None:
        kept = [reading for reading in readings if reading.record.partition not in self._stopped]
        self._unstored -= len(readings) - len(kept)
        if not kept:
            return
        if not self._pending.readings:
            self._pending_since_s = time.monotonic()
        self._pending.add(kept)

    def _due(self) -> bool:
        pending = self._pending
        if not pending.readings:
            return False
        if self._full():
            return True
        age_s = time.monotonic() - self._pending_since_s
        busy = pending.rows > BUSY_ROWS_PER_S * max(age_s, YOUNG_S)
        return age_s >= (OLD_S if busy else YOUNG_S)

    def _full(self) -> bool:
        return self._pending.rows >= FLUSH_ROWS or self._pending.bytes >= FLUSH_BYTES

    async def _advance(self) -> None:
        """Starts the next transaction when it is due and the last has ended; waits for the last when memory is full."""
        writing = self._writing
        if writing is not None and (writing.done() or self._full()):
            await self._drain()
        if self._writing is None and self._due():
            flush, self._pending = self._pending, Flush()
            self._writing = asyncio.create_task(self._write(flush.readings), name="flush")
        await self._commit()
        if self._stopped and time.monotonic() - self._rechecked_s > RECHECK_S:
            await self._recheck()

    async def _drain(self, *, everything: bool = False) -> None:
        """Waits for the transaction in progress; with `everything`, also writes what is pending."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await writing
        if everything and self._pending.readings:
            flush, self._pending = self._pending, Flush()
            await self._write(flush.readings)

    async def _commit(self, *, force: bool = False) -> None:
        """Tells the log how far the store is: information for operators, and the floor for trimming."""
        if force or time.monotonic() - self._committed_s > COMMIT_EVERY_S:
            self._committed_s = time.monotonic()
            positions = {p: n for p, n in self._expected.items() if p not in self._stopped and n > 0}
            if positions:
                await self._the_reader.commit(positions)

    # ---- writing

    async def _write(self, readings: Sequence[Reading]) -> None:
        """Writes records; finds the one that cannot be applied by halving, and sets it aside."""
        try:
            await self._transact(readings)
        except (*POISON, psycopg.ProgrammingError) as error:
            if not is_poison(error):
                raise
            await self._online.load(self._side)
            if len(readings) > 1:
                half = len(readings) // 2
                await self._write(readings[:half])
                await self._write(readings[half:])
                return
            reading = readings[0]
            if isinstance(reading.content, Refused):
                raise
            log.exception(
                "record cannot be applied", offset=reading.record.offset, key=reading.record.key.decode("latin-1")
            )
            refused = Refused("content", f"{type(error).__name__}: {error}")
            await self._transact([replace(reading, content=refused)])

    async def _transact(self, readings: Sequence[Reading]) -> None:
        dictionaries = [r.content.names for r in readings if isinstance(r.content, SampleBatch)]
        await self._signals.resolve(self._side, dictionaries)
        bounds = bounds_at(self._clock.now_us(), late_bound_days=self._settings.late_bound_days)
        given = batches(readings, self._signals)
        expected = {r.record.partition: self._expected[r.record.partition] for r in readings}
        last = {p: (offset, self._last[p]) for p, offset in expected.items() if p in self._last}
        prepared, _ = await asyncio.gather(
            asyncio.to_thread(prepare, given, bounds), verify_unchanged(self._the_reader, last)
        )
        if prepared.rows:
            await self._ensure_days(prepared.first_us, prepared.last_us)
        job = Job(readings, given, prepared, expected, bounds)
        began = time.monotonic()
        try:
            async with asyncio.timeout(WRITE_DEADLINE_S), self._watch.over(self._connection):
                outcome = await write(
                    self._connection, job, signals=self._signals, online=self._online, timescale=self._timescale
                )
        except TimeoutError as error:
            raise psycopg.OperationalError(f"a transaction took longer than {WRITE_DEADLINE_S:.0f} s") from error
        self._signals.shrink()
        self._written(readings, outcome, time.monotonic() - began)

    def _written(self, readings: Sequence[Reading], outcome: Outcome, seconds: float) -> None:
        self._unstored -= len(readings)
        for reading in readings:
            self._expected[reading.record.partition] = reading.record.offset + 1
            self._last[reading.record.partition] = reading.mark
        self.latest.add(outcome.prepared.latest)
        metrics.count(readings, outcome, seconds=seconds, now_us=time.time_ns() // 1000)
        for letter in outcome.dead:
            log.warning(
                "dead letter",
                reason=letter.refused.reason,
                detail=letter.refused.detail,
                samples=letter.samples,
                equipment=sorted({equipment for equipment, _ in letter.cells})[:5],
                offset=letter.reading.record.offset,
            )

    async def _ensure_days(self, first_us: int, last_us: int) -> None:
        """Partitions of the rows' days, on plain PostgreSQL; in a transaction of its own, so that nobody waits."""
        days = set(range(first_us // 86_400_000_000, last_us // 86_400_000_000 + 1))
        if not self._timescale and days - self._days:
            await self._side.execute(
                "SELECT store.ensure_sample_partitions(to_timestamp(%s), to_timestamp(%s))",
                (min(days) * 86_400, max(days) * 86_400),
            )
            self._days |= days

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
        stopped = list(self._stopped)
        positions = await load_positions(self._side, SERVICE, stopped)
        for partition in stopped:
            try:
                start = await verify_continuity(self._the_reader, partition, positions[partition])
            except LogDiscontinuity as error:
                await self._stop_partition(partition, str(error))
                continue
            self._stand(partition, positions[partition])
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
