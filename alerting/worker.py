"""Findings on the log become alarms in the database: each record once, whatever is killed and whenever.

Invariant (docs/promises.md, 1): accepted seqs, alarms, history, notices, dead letters and the offset of a flush are one
transaction, whose last statement moves the offset by compare-and-set. What cannot be used goes to the dead letters in
the same transaction, so a bad record never stops the line and is never skipped in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import structlog
from psycopg.types.json import Jsonb

from alerting import metrics
from alerting.catalogue import Catalogue
from alerting.findings import Reading, Rejected, read
from alerting.lifecycle import Input, Outcome, Trigger, step
from alerting.places import Connect, Places
from alerting.register import adopt, look_up
from alerting.store import SERVICE, Subject, lock_alarms, report, write
from telemetry.clock import Clock
from telemetry.frozen import FrozenWatch
from telemetry.log.protocol import FINDINGS, InRecord, Log, Reader
from telemetry.messages import VIGIL_SCHEME, Event, Finding
from telemetry.position import accept, advance, mark
from telemetry.service import Health
from telemetry.settings import Settings

log = structlog.get_logger()

Connection = psycopg.AsyncConnection[Any]

FOUND_BY: Final = "analytics"
"""The actor of a raise or clear in an alarm's history."""
MAX_RECORDS: Final = 200
MAX_WAIT_S: Final = 1.0
LAG_EVERY_S: Final = 1.0
FLUSH_S: Final = 30.0
"""A transaction that takes longer is given up: somebody holds its locks."""


@dataclass(slots=True)
class FindingsWorker:
    """Takes findings from the log for as long as it runs."""

    settings: Settings
    clock: Clock
    log: Log
    connect: Connect
    watch: FrozenWatch
    catalogue: Catalogue
    channels: Sequence[str]
    health: Health
    changed: Callable[[], None]
    """Called after every commit that may have made notices."""

    async def run(self) -> None:
        """Works until it is cancelled. Raises StoreError, LogError, psycopg.Error: begin again from the database."""
        places = Places(self.connect)
        connection = await self.connect()
        try:
            reader = await places.join(self.log, [FINDINGS])
            try:
                await self._work(connection, reader, places)
            finally:
                await reader.close()
        finally:
            await connection.close()

    async def _work(self, connection: Connection, reader: Reader, places: Places) -> None:
        loop, measure_at = asyncio.get_running_loop(), 0.0
        while True:
            fetched = await reader.fetch(max_records=MAX_RECORDS, max_wait_s=MAX_WAIT_S)
            self.health.found("log")
            await self._continues(connection)
            self.health.found("findings")
            records = [r for r in fetched if r.partition in places.next]
            if records:
                await self._take(connection, places, records)
                await reader.commit(dict(places.next))
            if loop.time() >= measure_at:
                metrics.LAG.set(await reader.lag())
                measure_at = loop.time() + LAG_EVERY_S

    async def _continues(self, connection: Connection) -> None:
        """After a discontinuity: the operator has decided."""
        if "place on the log" in self.health.waiting_for:
            self.health.found("place on the log")
            event = Event(SERVICE, self.clock.now_us(), VIGIL_SCHEME, "log-discontinuity", False, {})
            async with asyncio.timeout(FLUSH_S):
                await report(connection, event)

    async def _take(self, connection: Connection, places: Places, records: Sequence[InRecord]) -> None:
        """Flushes the records together; where the database refuses the data, one by one, and that one is set aside."""
        readings = [read(r) for r in records]
        try:
            await self._flush(connection, places, readings)
        except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded) as error:
            if len(records) > 1:
                for record in records:
                    await self._take(connection, places, [record])
                return
            refused = Rejected("database", str(error).strip(), records[0].value, len(readings[0].findings))
            await self._flush(connection, places, [Reading(records[0], readings[0].identity, (), (refused,))])

    async def _flush(self, connection: Connection, places: Places, readings: Sequence[Reading]) -> None:
        """One transaction. `places` moves only when it is committed."""
        moved = {r.record.partition: r.record for r in readings}
        await places.unchanged(moved)
        async with (
            asyncio.timeout(FLUSH_S),
            self.watch.over(connection),
            connection.transaction(),
        ):
            new = await self._new(connection, readings)
            decided = await self._apply(connection, [f for r in new for f in r.findings])
            for reading in new:
                for rejected in reading.rejected:
                    await self._set_aside(connection, reading, rejected)
            for partition, record in sorted(moved.items()):
                expected, following = places.next[partition], record.offset + 1
                await advance(connection, SERVICE, partition, expected=expected, next=following, last=mark(record))
        places.moved(moved)
        self._count(readings, new, decided)
        self.changed()

    async def _new(self, connection: Connection, readings: Sequence[Reading]) -> list[Reading]:
        """Those that were not accepted before; what has no identity always counts as new."""
        known = [r for r in readings if r.identity is not None]
        answers = iter(await accept(connection, SERVICE, [r.identity for r in known if r.identity is not None]))
        return [r for r in readings if r.identity is None or next(answers)]

    async def _apply(self, connection: Connection, findings: Sequence[Finding]) -> list[tuple[Finding, Outcome]]:
        if not findings:
            return []
        alarms = await lock_alarms(connection, [f.id for f in findings])
        await self._learn(connection, findings)
        decided = []
        for finding in findings:
            outcome = step(alarms[finding.id], _input(finding))
            alarms[finding.id] = outcome.alarm
            subject = Subject(finding, self.catalogue.describe(finding)) if finding.raised else None
            await write(
                connection,
                finding.id,
                outcome,
                subject=subject,
                channels=self.channels,
                now_us=self.clock.now_us(),
            )
            decided.append((finding, outcome))
        await adopt(connection, [f.id for f, o in decided if f.raised and o.history])
        return decided

    async def _learn(self, connection: Connection, findings: Sequence[Finding]) -> None:
        """Looks equipment of other plant files up in the register."""
        for equipment in {f.equipment for f in findings} - self.catalogue.known.keys():
            known = await look_up(connection, self.settings, equipment)
            if known is not None:
                self.catalogue.known[equipment] = known

    async def _set_aside(self, connection: Connection, reading: Reading, rejected: Rejected) -> None:
        record, identity = reading.record, reading.identity
        await connection.execute(
            'INSERT INTO store.dead_letter (service, topic, partition, "offset", edge, epoch, seq, reason, detail,'
            " key, headers, value) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                SERVICE,
                record.partition.topic,
                record.partition.number,
                record.offset,
                identity.edge if identity else None,
                identity.epoch if identity else None,
                identity.seq if identity else None,
                rejected.reason,
                rejected.detail.replace("\0", "�"),
                record.key,
                Jsonb({k.replace("\0", "�"): _text(v) for k, v in record.headers.items()}),
                rejected.value,
            ),
        )
        attributes = {"reason": rejected.reason, "offset": record.offset, "partition": record.partition.number}
        await report(
            connection,
            Event(SERVICE, self.clock.now_us(), VIGIL_SCHEME, "finding-refused", True, attributes),
        )

    def _count(
        self, readings: Sequence[Reading], new: Sequence[Reading], decided: Sequence[tuple[Finding, Outcome]]
    ) -> None:
        now_us = self.clock.now_us()
        metrics.RECORDS.inc(len(readings))
        metrics.DUPLICATES.inc(len(readings) - len(new))
        for reading in new:
            metrics.FINDING_DELAY.observe(max(0.0, (now_us - reading.record.appended_us) / 1e6))
            for rejected in reading.rejected:
                metrics.DEAD_LETTERS.labels(rejected.reason).inc()
                log.warning("finding set aside", reason=rejected.reason, detail=rejected.detail)
        for finding, outcome in decided:
            metrics.DECISIONS.labels(outcome.reason.value).inc()
            log.info(
                outcome.reason.value,
                equipment=finding.equipment,
                point=finding.point,
                detector=finding.detector,
                alarm=finding.id,
                state=outcome.alarm.state.value,
            )


def _input(finding: Finding) -> Input:
    trigger = Trigger.RAISE if finding.raised else Trigger.CLEAR
    return Input(trigger, finding.time_us, FOUND_BY, late=finding.late)


def _text(header: bytes) -> str:
    return header.decode("utf-8", "replace").replace("\0", "�")
