"""From records to committed rows: prepares flushes, writes one at a time, and finds a record that cannot be applied.

Invariant: what is in memory is never the truth: whoever sees an error here drops this object and begins again from the
offsets in the database.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import psycopg
import structlog

from ingest import metrics
from ingest.decode import Reading, Refused
from ingest.flush import batches, names_of, prepare
from ingest.latest import Latest
from ingest.online import Online
from ingest.signals import SignalTable
from ingest.transaction import Job, Outcome, write
from ingest.validate import DAY_US, bounds_at
from telemetry.frozen import FrozenWatch
from telemetry.log.protocol import Partition, Reader
from telemetry.position import Mark, Position, verify_unchanged
from telemetry.settings import Settings

log = structlog.get_logger()

Connection = psycopg.AsyncConnection[Any]

WRITE_DEADLINE_S: Final = 15.0
WRITE_ROWS_PER_S: Final = 10_000
"""A transaction gets WRITE_DEADLINE_S, and a second for so many rows: a connection that is dead in silence ends by this."""

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


@dataclass(frozen=True, slots=True)
class Faulty:
    """A flush that could not even be prepared: one of its records is to blame."""

    readings: Sequence[Reading]
    error: Exception


def is_poison(error: Exception) -> bool:
    """Whether a record's content is to blame. Of ProgrammingErrors those that the server never saw: a value of a kind
    that cannot be sent to it. What it says itself (a missing table, a missing right) is no record's fault."""
    return isinstance(error, POISON) or (isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None)


class Writer:
    """Of one worker. `connection` writes flushes; `side` is autocommit, for names and days."""

    def __init__(
        self, settings: Settings, connection: Connection, side: Connection, watch: FrozenWatch, *, timescale: bool
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._side = side
        self._watch = watch
        self._timescale = timescale
        self._signals = SignalTable()
        self._days: set[int] = set()
        self.online = Online()
        self.latest = Latest()
        self.expected: dict[Partition, int] = {}
        """The next offset of each partition that is ours."""
        self._handed: dict[Partition, tuple[int, Mark]] = {}
        """Of each partition, the offset after the last record that was prepared (at first: stored), and that record."""
        self.signals = 0
        """How many signals the last flush with rows had that was prepared: the one after it is being gathered by then."""

    async def load(self) -> None:
        """Reads from the store what is kept in memory."""
        await self._signals.load(self._side)
        await self.online.load(self._side)

    def stand(self, partition: Partition, position: Position) -> None:
        """A partition is ours, and the store is at this position of it."""
        self.expected[partition] = position.next
        self._handed.pop(partition, None)
        if position.last is not None:
            self._handed[partition] = (position.next, position.last)

    def leave(self, partition: Partition) -> None:
        """A partition is not ours any more."""
        self.expected.pop(partition, None)
        self._handed.pop(partition, None)

    async def prepare(self, readings: Sequence[Reading], reader: Reader) -> Job | Faulty:
        """Everything about a flush that needs no transaction; goes on while the one before it is written.

        Raises a group, with LogDiscontinuity in it where the log was replaced under the reader since the flush before.
        """
        touched = {reading.record.partition for reading in readings}
        before = {partition: self._handed[partition] for partition in touched if partition in self._handed}
        async with asyncio.TaskGroup() as group:
            attempt = group.create_task(self._attempt(readings), name="prepare")
            group.create_task(verify_unchanged(reader, before), name="same log")
        self._handed.update({r.record.partition: (r.record.offset + 1, r.mark) for r in readings})
        return attempt.result()

    async def _attempt(self, readings: Sequence[Reading]) -> Job | Faulty:
        try:
            return await self._prepared(readings)
        except (*POISON, psycopg.ProgrammingError) as error:
            if not is_poison(error):
                raise
            return Faulty(readings, error)

    async def _prepared(self, readings: Sequence[Reading]) -> Job:
        dictionaries = await self._signals.resolve(self._side, names_of(readings))
        bounds = bounds_at(self._settings.the_clock.now_us(), late_bound_days=self._settings.late_bound_days)
        given = batches(readings, dictionaries)
        prepared = await asyncio.to_thread(prepare, given, bounds)
        if len(prepared.rows):  # one of dead samples alone says nothing of the fleet
            self.signals = len(prepared.latest)
            await self._ensure_days(prepared.first_us, prepared.last_us)
        return Job(readings, given, prepared, bounds)

    async def write(self, job: Job | Faulty) -> None:
        """Commits a flush; finds the record that cannot be applied by halving, and sets it aside."""
        try:
            if isinstance(job, Faulty):
                raise job.error
            await self._transact(job)
        except (*POISON, psycopg.ProgrammingError) as error:
            if not is_poison(error):
                raise
            await self.online.load(self._side)
            readings = job.readings
            if len(readings) > 1:
                half = len(readings) // 2
                await self.write(await self._attempt(readings[:half]))
                await self.write(await self._attempt(readings[half:]))
                return
            await self._set_aside(readings[0], error)

    async def _set_aside(self, reading: Reading, error: Exception) -> None:
        if isinstance(reading.content, Refused):
            raise error
        refused = Refused("content", f"{type(error).__name__}: {error}")
        log.error(
            "record cannot be applied",
            offset=reading.record.offset,
            key=reading.record.key.decode("latin-1"),
            why=refused.detail,
        )
        await self._transact(await self._prepared([replace(reading, content=refused)]))

    async def _transact(self, job: Job) -> None:
        expected = {r.record.partition: self.expected[r.record.partition] for r in job.readings}
        began = time.monotonic()
        within_s = WRITE_DEADLINE_S + len(job.prepared.rows) / WRITE_ROWS_PER_S
        try:
            async with asyncio.timeout(within_s), self._watch.over(self._connection):
                outcome = await write(self._connection, job, expected, online=self.online, timescale=self._timescale)
        except TimeoutError as error:
            raise psycopg.OperationalError(f"a transaction took longer than {within_s:.0f} s") from error
        self._written(job.readings, outcome, time.monotonic() - began)

    def _written(self, readings: Sequence[Reading], outcome: Outcome, seconds: float) -> None:
        for reading in readings:
            self.expected[reading.record.partition] = reading.record.offset + 1
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
        days = set(range(first_us // DAY_US, last_us // DAY_US + 1))
        if not self._timescale and days - self._days:
            await self._side.execute(
                "SELECT store.ensure_sample_partitions(to_timestamp(%s), to_timestamp(%s))",
                (min(days) * 86_400, max(days) * 86_400),
            )
            self._days |= days
