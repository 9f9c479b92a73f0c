"""From the spool to the log: the newest first and in order, what an outage left behind beside it at a set rate.

Invariants
- A record is acknowledged to the spool only after the log has it. One that the log will never take is set aside, counted
  and reported; everything else waits for as long as it must. What is sent twice is known by (epoch, seq).
- What is in the spool's tail goes before what only the disk has, and in its order: so while the log keeps up, everything
  goes in order. Back-fill (events first, then the oldest) never takes more than `backfill_samples_per_s` of the log, and
  delays what is new by no more than one of its own batches.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

import structlog

from edge import metrics
from edge.spool import Spool
from edge.spool_tail import Stored
from telemetry.errors import LogError, LogRefused, LogUnavailable
from telemetry.log.protocol import TELEMETRY, TOPICS, Log, OutRecord, Producer
from telemetry.service import Health
from telemetry.wire import headers

T = TypeVar("T")
log = structlog.get_logger()

BATCH_RECORDS: Final = 500
BATCH_BYTES: Final = 4 << 20
BACKFILL_BYTES: Final = 512 << 10
"""Of a batch of back-fill: about 25,000 samples."""
BACKFILL_SAMPLES_PER_S: Final = 50_000.0
BACK_OFF_S: Final = 0.1
BACK_OFF_MAX_S: Final = 5.0
SEND_TIMEOUT_S: Final = 60.0
IDLE_S: Final = 0.5
"""Without word of a commit, the spool is looked into this often all the same."""


class Keeper(Protocol):
    """Who owns the spool's thread (edge.journal.Journal)."""

    @property
    def spool(self) -> Spool:
        """Its `tail` is used from here; everything else by `call`."""
        ...

    @property
    def committed(self) -> asyncio.Event:
        """Set after every commit."""
        ...

    async def call(self, work: Callable[[Spool], T]) -> T:
        """Runs `work` on the spool's thread. Raises what it raises."""
        ...


@dataclass(slots=True)
class Forwarder:
    """Sends what the spool holds."""

    journal: Keeper
    log: Log
    edge: str
    health: Health
    backfill_samples_per_s: float = BACKFILL_SAMPLES_PER_S
    refused_records: int = 0
    _new: list[Stored] = field(default_factory=list)
    _old: list[Stored] = field(default_factory=list)
    """Taken from the spool, not yet with the log; oldest first."""
    _old_due_s: float = 0.0
    """When back-fill may go on, by the loop's time."""
    _producer: Producer | None = None
    _reached: bool = False
    """Whether the log was reached since the start."""
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Works until cancelled."""
        wait_s = BACK_OFF_S
        try:
            while True:
                self.journal.committed.clear()
                try:
                    if not await self._turn():
                        await self._wait_for_more()
                    wait_s = BACK_OFF_S
                except (LogError, sqlite3.OperationalError) as error:
                    self.health.missing("log" if isinstance(error, LogError) else "spool", str(error))
                    await asyncio.sleep(wait_s)
                    wait_s = min(wait_s * 2, BACK_OFF_MAX_S)
        finally:
            await self._let_go()

    async def drain(self, timeout_s: float) -> bool:
        """Waits until what is new is with the log. False if it is not after `timeout_s`, or older records are left."""
        last = await self.journal.call(lambda spool: spool.last_position())
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._moved.clear()
                    if self.journal.spool.tail.is_through(last):
                        return not self.journal.spool.has_backlog
                    await self._moved.wait()
        except TimeoutError:
            return False

    async def _turn(self) -> bool:
        """Sends a batch of what is new or, where nothing new waits, one of back-fill. False where there was neither."""
        self._measure()
        if not self._reached:  # whether or not there is anything to send: until then nobody knows that it can be
            async with self._in_time():
                await self._open()
            self._reached = True
            self.health.found("log")
        if not self._new:
            self._new = self.journal.spool.tail.take(max_records=BATCH_RECORDS, max_bytes=BATCH_BYTES)
        if self._new:
            await self._send(self._new)
            return True
        if not self._old and self._backfill_in() <= 0:
            self._old = await self._older()
            self._old_due_s = asyncio.get_running_loop().time() + self._cost_s(self._old)
            metrics.BACKFILLED.inc(len(self._old))
        sent = bool(self._old)
        await self._send(self._old)
        return sent

    def _measure(self) -> None:
        spool = self.journal.spool
        metrics.BACKLOG.set(spool.backlog_records)
        metrics.HELD.set(spool.held)
        metrics.DROPPED_EVENTS.set(spool.counts.dropped_events)

    async def _older(self) -> list[Stored]:
        if not self.journal.spool.has_backlog:
            return []
        return await self.journal.call(lambda spool: spool.backlog(max_records=BATCH_RECORDS, max_bytes=BACKFILL_BYTES))

    def _backfill_in(self) -> float:
        return self._old_due_s - asyncio.get_running_loop().time()

    def _cost_s(self, records: Sequence[Stored]) -> float:
        return sum(max(record.encoded.count, 1) for record in records) / self.backfill_samples_per_s

    async def _wait_for_more(self) -> None:
        wait_s = min(IDLE_S, max(self._backfill_in(), 0.0)) if self.journal.spool.has_backlog else IDLE_S
        try:
            async with asyncio.timeout(wait_s):
                await self.journal.committed.wait()
        except TimeoutError:
            pass

    async def _send(self, batch: list[Stored]) -> None:
        """Takes out of `batch` what the log has or will never take."""
        size = len(batch)
        while batch:
            part = batch[:size]
            try:
                await self._deliver(part)
            except LogRefused as error:
                if len(part) > 1:
                    size = 1
                    continue
                await self._set_aside(part[0], str(error))
            else:
                self.journal.spool.tail.acknowledge(part)
                metrics.FORWARDED.inc(len(part))
            del batch[: len(part)]
            self.health.found("log")
            self._moved.set()

    async def _deliver(self, records: Sequence[Stored]) -> None:
        async with self._in_time():
            producer = await self._open()
            await producer.send(
                TELEMETRY,
                [OutRecord(self.edge.encode(), r.encoded.value, headers(r.identity, r.encoded)) for r in records],
            )

    async def _open(self) -> Producer:
        if self._producer is None:
            await self.log.ensure_topics(TOPICS)
            self._producer = await self.log.producer()
        return self._producer

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """What takes longer than SEND_TIMEOUT_S is given up, and the producer with it, as where the log is away."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                yield
        except TimeoutError:
            await self._let_go()
            raise LogUnavailable(f"no answer within {SEND_TIMEOUT_S:g} s") from None
        except LogUnavailable:
            await self._let_go()
            raise

    async def _set_aside(self, record: Stored, why: str) -> None:
        log.error("record set aside: the log refused it", kind=record.encoded.kind, seq=record.identity.seq, why=why)
        await self.journal.call(lambda spool: spool.set_aside([record.position], "refused"))
        self.refused_records += 1
        metrics.LOG_REFUSED.inc()

    async def _let_go(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            async with asyncio.timeout(2.0):
                await producer.close()
        except (LogError, TimeoutError) as error:
            log.info("producer not closed cleanly", why=str(error))
