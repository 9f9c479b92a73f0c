"""Alerting on a real store and a real log, as tests drive it."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from psycopg.rows import dict_row

from alerting.service import run
from telemetry.log import open_log
from telemetry.log.protocol import FINDINGS, OutRecord, Producer
from telemetry.messages import Finding, Kind
from telemetry.service import Health
from telemetry.settings import Settings
from telemetry.store import COMMAND_CHANNEL, OWNER, connect
from telemetry.wire import Encoded, Identity, encode_findings, headers
from tests.fixtures.serving import serving
from tests.fixtures.waiting import until

WITHIN_S = 10.0
T0 = 1_790_000_000_000_000
S = 1_000_000


def finding(
    equipment: str = "lift-1",
    point: str = "speed",
    detector: str = "limit:high",
    *,
    raised: bool = True,
    onset_us: int = T0,
    time_us: int | None = None,
    evidence: dict[str, Any] | None = None,
    late: bool = False,
) -> Finding:
    """A finding like those of analytics."""
    at = time_us if time_us is not None else onset_us + (2 if raised else 10) * S
    return Finding(equipment, point, detector, raised, onset_us, at, 1.0, evidence or {}, late)


@dataclass(slots=True)
class Analytics:
    """Publishes findings as analytics does: an identity of its own, one (epoch, seq) sequence."""

    producer: Producer
    edge: str = "analyze"
    epoch: int = 0x1234
    seq: int = 0
    sent: list[OutRecord] = field(default_factory=list)

    def record(self, findings: Sequence[Finding]) -> OutRecord:
        encoded = encode_findings(findings)
        identity = Identity(self.edge, self.epoch, self.seq)
        self.seq += 1
        return OutRecord(findings[0].equipment.encode(), encoded.value, headers(identity, encoded))

    async def publish(self, *findings: Finding) -> None:
        """One record."""
        await self.send(self.record(findings))

    async def send(self, *records: OutRecord) -> None:
        await self.producer.send(FINDINGS, records)
        self.sent += records


def raw(value: bytes, seq: int, changed: Mapping[str, bytes] | None = None) -> OutRecord:
    """A record with a value of one's own; `changed` replaces headers."""
    encoded = Encoded(Kind.FINDINGS, 1, zlib.crc32(value), value)
    return OutRecord(b"k", value, {**headers(Identity("analyze", 0x1234, seq), encoded), **(changed or {})})


@asynccontextmanager
async def producing(settings: Settings, **identity: Any) -> AsyncIterator[Analytics]:
    log = open_log(settings)
    await log.ensure_topics([FINDINGS])
    producer = await log.producer()
    try:
        yield Analytics(producer, **identity)
    finally:
        await producer.close()
        await log.close()


def alerting(settings: Settings) -> AbstractAsyncContextManager[Health]:
    """The whole service in this process, stopped at the end."""
    return serving(run, settings, "alert")


async def rows(settings: Settings, query: str, *values: Any) -> list[dict[str, Any]]:
    """Rows of a query, as the schema's owner."""
    connection = await connect(settings, OWNER, autocommit=True)
    try:
        async with connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(query, values or None)
            return await cursor.fetchall() if cursor.description is not None else []
    finally:
        await connection.close()


async def alarm(settings: Settings, alarm_id: str, state: str | None = None) -> dict[str, Any]:
    """The alarm's row of the public view, once it is there (in `state`)."""

    async def found() -> dict[str, Any] | None:
        got = await rows(settings, "SELECT * FROM public.alarms WHERE id = %s", alarm_id)
        return got[0] if got and state in (None, got[0]["state"]) else None

    result: dict[str, Any] = await until(found)
    return result


async def history(settings: Settings, alarm_id: str) -> list[tuple[str, str, str, str]]:
    """(transition, from, to, actor) of an alarm, in order."""
    got = await rows(
        settings,
        "SELECT transition, from_state, to_state, actor FROM public.alarm_history WHERE alarm_id = %s ORDER BY history_id",
        alarm_id,
    )
    return [(r["transition"], r["from_state"], r["to_state"], r["actor"]) for r in got]


async def acknowledge(settings: Settings, alarm_id: str, key: str, *, by: str = "Li", notify: bool = True) -> None:
    """A command row, as the console writes it."""
    await rows(
        settings,
        "INSERT INTO alarm.command (command_id, alarm_id, command, by, note) VALUES (%s, %s, 'acknowledge', %s, 'on my way')",
        key,
        alarm_id,
        by,
    )
    if notify:
        await rows(settings, "SELECT pg_notify(%s, %s)", COMMAND_CHANNEL, key)


async def outcome(settings: Settings, key: str) -> str:
    """What alerting made of a command."""

    async def found() -> str | None:
        got = await rows(settings, "SELECT outcome FROM alarm.command WHERE command_id = %s", key)
        answer: str | None = got[0]["outcome"]
        return answer

    result: str = await until(found)
    return result
