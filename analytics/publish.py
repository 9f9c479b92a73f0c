"""Findings to the log: durable before anything that rests on them is committed.

A finding that is sent twice has the same id, so its readers take it once; a record that is sent twice after an error has
the same (epoch, seq), so their sets take it once as well.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from typing import Final

import structlog

from analytics import metrics
from analytics.lane import Found
from telemetry.errors import LogError, LogRefused
from telemetry.log.protocol import FINDINGS, Log, OutRecord, Producer
from telemetry.messages import Finding
from telemetry.service import Health, wait_until
from telemetry.wire import Identity, encode_findings, headers

log = structlog.get_logger()

EDGE: Final = "analyze"
"""Who findings are from, in their headers."""
PER_RECORD: Final = 500
RETRY_S: Final = 0.5
SEND_S: Final = 30.0


class Publisher:
    """Sends findings until they are durable."""

    def __init__(self, log_: Log, stop: asyncio.Event, health: Health) -> None:
        self._log, self._stop, self._health = log_, stop, health
        self._producer: Producer | None = None
        self._epoch = secrets.randbits(63)
        self._seq = 0

    async def publish(self, found: Iterable[Found]) -> bool:
        """Returns when all are durable; False if told to stop before that."""
        records: list[OutRecord] = []
        findings: list[Finding] = []
        for group in found:
            for i in range(0, len(group.findings), PER_RECORD):
                part = group.findings[i : i + PER_RECORD]
                encoded = encode_findings(part)
                records.append(
                    OutRecord(
                        group.edge.encode(), encoded.value, headers(Identity(EDGE, self._epoch, self._seq), encoded)
                    )
                )
                self._seq += 1
                findings += part
        if records and not await self._send(records):
            return False
        for finding in findings:
            note(finding)
        return True

    async def close(self) -> None:
        """Lets go of the producer."""
        if self._producer is not None:
            await self._producer.close()
            self._producer = None

    async def _send(self, records: list[OutRecord]) -> bool:
        while True:
            try:
                async with asyncio.timeout(SEND_S):
                    if self._producer is None:
                        self._producer = await self._log.producer()
                    await self._producer.send(FINDINGS, records)
            except LogRefused as error:
                log.error("findings refused by the log", records=len(records), why=str(error))
                metrics.REFUSED.labels("findings").inc(len(records))
                return True
            except (LogError, TimeoutError) as error:
                self._health.missing("log", str(error) or "no answer to a send")
                if await wait_until(self._stop, RETRY_S):
                    return False
            else:
                self._health.found("log")
                return True


def note(finding: Finding) -> None:
    """Counts and logs a transition."""
    transition = "raised" if finding.raised else "cleared"
    metrics.FINDINGS.labels(finding.detector.partition(":")[0], transition).inc()
    log.info(
        transition,
        equipment=finding.equipment,
        point=finding.point,
        detector=finding.detector,
        onset_us=finding.onset_us,
        late=finding.late,
        id=finding.id,
    )
