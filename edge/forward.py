"""From the spool to the log: in order, a prefix acknowledged at a time, with back-off while the log cannot be reached.

Invariant: a record is acknowledged to the spool only after the log has it. One that the log will never take is set
aside, counted and reported; everything else waits for as long as it must. What is sent twice is known by (epoch, seq).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from edge import metrics
from edge.journal import Journal
from edge.spool import Stored
from telemetry.errors import LogError, LogRefused, LogUnavailable
from telemetry.log.protocol import TELEMETRY, TOPICS, Log, OutRecord, Producer
from telemetry.service import Health
from telemetry.wire import headers

log = structlog.get_logger()

BATCH_RECORDS: Final = 500
BATCH_BYTES: Final = 4 << 20
BACK_OFF_S: Final = 0.1
BACK_OFF_MAX_S: Final = 5.0
SEND_TIMEOUT_S: Final = 60.0
IDLE_S: Final = 0.5
"""Without word of a commit, the spool is looked into this often all the same."""


@dataclass(slots=True)
class Forwarder:
    """Sends what the spool holds."""

    journal: Journal
    log: Log
    edge: str
    health: Health
    refused_records: int = 0
    position: int = 0
    """Everything up to here is with the log."""
    _producer: Producer | None = None
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Works until cancelled."""
        wait_s = BACK_OFF_S
        try:
            while True:
                self.journal.committed.clear()
                try:
                    records = await self.journal.read(self.position, max_records=BATCH_RECORDS, max_bytes=BATCH_BYTES)
                    if records:
                        await self._send(records)
                        wait_s = BACK_OFF_S
                    else:
                        await self._wait_for_more()
                except (LogError, sqlite3.OperationalError) as error:
                    self.health.missing("log" if isinstance(error, LogError) else "spool", str(error))
                    await asyncio.sleep(wait_s)
                    wait_s = min(wait_s * 2, BACK_OFF_MAX_S)
        finally:
            await self._let_go()

    async def drain(self, timeout_s: float) -> bool:
        """Waits until everything journaled so far is with the log. False if it is not after `timeout_s`."""
        last = await self.journal.call(lambda spool: spool.last_position())
        try:
            async with asyncio.timeout(timeout_s):
                while self.position < last:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    async def _wait_for_more(self) -> None:
        try:
            async with asyncio.timeout(IDLE_S):
                await self.journal.committed.wait()
        except TimeoutError:
            pass

    async def _send(self, records: Sequence[Stored]) -> None:
        try:
            await self._deliver(records)
        except LogRefused as error:
            if len(records) > 1:
                for record in records:
                    await self._send([record])
                return
            await self._set_aside(records[0], str(error))
        else:
            metrics.FORWARDED.inc(len(records))
        self.health.found("log")
        self.position = records[-1].position
        through = self.position
        await self.journal.call(lambda spool: spool.acknowledge(through))
        self._moved.set()

    async def _deliver(self, records: Sequence[Stored]) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                if self._producer is None:
                    await self.log.ensure_topics(TOPICS)
                    self._producer = await self.log.producer()
                await self._producer.send(
                    TELEMETRY,
                    [OutRecord(self.edge.encode(), r.encoded.value, headers(r.identity, r.encoded)) for r in records],
                )
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
