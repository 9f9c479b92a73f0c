"""A line around the service `analyze`: an edge's records on a real log, and the findings that come out."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from analytics.service import run
from telemetry.batch import from_rows
from telemetry.log import open_log
from telemetry.log.protocol import FINDINGS, TELEMETRY, TOPICS, InRecord, OutRecord, Partition
from telemetry.messages import Event, Finding, Heartbeat
from telemetry.service import Health
from telemetry.settings import Settings
from telemetry.wire import (
    Encoded,
    Identity,
    decode_findings,
    encode_events,
    encode_heartbeat,
    encode_samples,
    headers,
    read_envelope,
)
from tests.analytics.plants import T0, S, profile
from tests.fixtures.serving import serving

WITHIN_S = 10.0


def plant_file(directory: Path, *equipment: str, **changes: Any) -> Settings:
    """Settings (state, plant, profiles) of a plant of the test profile, written as files."""
    profiles = directory / "profiles"
    profiles.mkdir(parents=True, exist_ok=True)
    content = json.loads(profile(**changes).model_dump_json(by_alias=True, exclude_unset=True))
    (profiles / "test-rig.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    entries = [{"id": e, "profile": "test-rig", "address": f"mqtt://127.0.0.1/{e}"} for e in equipment or ("a", "b")]
    plant = directory / "plant.yaml"
    plant.write_text(yaml.safe_dump({"site": {"id": "s", "name": {"zh": "s", "en": "s"}}, "equipment": entries}))
    return Settings(plant=plant, profiles_dir=profiles, state_dir=directory / "state")


@dataclass
class Edge:
    """Makes an edge's records, one (epoch, seq) after the other."""

    name: str = "edge-1"
    epoch: int = 7
    seq: int = 0

    def record(self, encoded: Encoded) -> OutRecord:
        identity = Identity(self.name, self.epoch, self.seq)
        self.seq += 1
        return OutRecord(self.name.encode(), encoded.value, headers(identity, encoded))

    def samples(self, *rows: tuple[str, float, float] | tuple[str, float, float, int]) -> OutRecord:
        """Rows (signal, seconds, value[, quality])."""
        full = [(r[0], T0 + round(r[1] * S), r[2], r[3] if len(r) > 3 else 192) for r in rows]
        return self.record(encode_samples(from_rows(full)))

    def beat(self, second: float, *equipment: str, unreachable: Mapping[str, float] | None = None) -> OutRecord:
        lost = {name: T0 + round(since * S) for name, since in (unreachable or {}).items()}
        return self.record(
            encode_heartbeat(Heartbeat(self.name, T0 + round(second * S), equipment or ("a", "b"), lost))
        )

    def event(self, second: float, code: str, on: bool, *, equipment: str = "a", scheme: str = "rig") -> OutRecord:
        return self.record(encode_events([Event(equipment, T0 + round(second * S), scheme, code, on)]))


def in_records(records: Sequence[OutRecord], *, first: int = 0) -> list[InRecord]:
    """As a log would hand them out."""
    return [InRecord(Partition(TELEMETRY, 0), first + i, 0, r.key, r.value, r.headers) for i, r in enumerate(records)]


class _Everything:
    """An assignment that starts at the beginning."""

    async def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        return dict.fromkeys(partitions, 0)

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        pass


@dataclass
class Line:
    """The log, and a reader of what comes out of it."""

    settings: Settings
    edge: Edge = field(default_factory=Edge)
    findings: list[Finding] = field(default_factory=list)
    identities: list[Identity] = field(default_factory=list)

    async def send(self, *records: OutRecord) -> None:
        await self._producer.send(TELEMETRY, records)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Reads findings until it holds."""
        async with asyncio.timeout(WITHIN_S):
            while not holds():
                for record in await self._reader.fetch(max_records=100, max_wait_s=0.05):
                    self.identities.append(read_envelope(record.headers).identity)
                    self.findings += decode_findings(record.value)

    async def told(self) -> int:
        """How many records of findings are on the log, read or not."""
        return (await self._reader.bounds(Partition(FINDINGS, 0))).end

    async def open(self) -> None:
        self._log = open_log(self.settings)
        await self._log.ensure_topics(TOPICS)
        self._producer = await self._log.producer()
        self._reader = await self._log.reader(f"test-{uuid.uuid4().hex}", [FINDINGS], _Everything())

    async def close(self) -> None:
        await self._reader.close()
        await self._producer.close()
        await self._log.close()

    def brief(self) -> list[tuple[str, str, str, bool]]:
        return [(f.equipment, f.point, f.detector, f.raised) for f in self.findings]


@asynccontextmanager
async def line(settings: Settings) -> AsyncIterator[Line]:
    """An open line."""
    made = Line(settings)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


def analyzing(settings: Settings) -> AbstractAsyncContextManager[Health]:
    """The service at work; stopped, and seen to stop within 3 s, at the end."""
    return serving(run, settings, "analyze")
