"""Forwarding: order, acknowledgement of a prefix, back-off, records that the log refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge import forward
from edge.driver import Reading
from edge.forward import Forwarder
from edge.journal import Journal
from edge.spool import Spool
from telemetry.errors import LogFull, LogRefused, LogUnavailable
from telemetry.log.protocol import TELEMETRY, Assignment, OutRecord, Reader
from telemetry.messages import Kind
from telemetry.service import Health
from telemetry.wire import decode_dropped, read_envelope
from tests.edge.build import NOW_US, batch_of
from tests.fixtures.waiting import until

BIG = 1 << 30


@dataclass
class FakeLog:
    """A log that fails as told; the real ones have their own suite."""

    taken: list[tuple[int, int]] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    fail: Callable[[Sequence[OutRecord]], None] = lambda records: None
    producers: int = 0

    async def producer(self) -> FakeLog:
        self.producers += 1
        return self

    async def send(self, topic: str, records: Sequence[OutRecord]) -> None:
        await asyncio.sleep(0)
        assert topic == TELEMETRY
        self.fail(records)
        for record in records:
            envelope = read_envelope(record.headers)
            assert record.key == b"edge-1"
            self.taken.append((envelope.identity.epoch, envelope.identity.seq))
            self.kinds.append(envelope.kind)
            self.values.append(record.value)

    async def ensure_topics(self, topics: Sequence[str]) -> None: ...

    async def reader(self, group: str, topics: Sequence[str], assignment: Assignment) -> Reader:
        raise NotImplementedError

    async def close(self) -> None: ...


@dataclass
class Rig:
    journal: Journal
    log: FakeLog
    health: Health
    forwarder: Forwarder
    task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.forwarder.run())

    async def put(self, n: int) -> None:
        for i in range(n):
            self.journal.put(Reading("e", batch_of("e", 1, time_us=NOW_US + i)))
            await self.journal.flush()


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(forward, "BACK_OFF_S", 0.01)
    journal = Journal(Spool(tmp_path / "s.sqlite", edge="edge-1", epoch=1, max_bytes=BIG))
    journal.start()
    log, health = FakeLog(), Health("edge")
    made = Rig(journal, log, health, Forwarder(journal, log, "edge-1", health))
    yield made
    if made.task is not None:
        made.task.cancel()
        await asyncio.gather(made.task, return_exceptions=True)
    await journal.close()


async def test_records_arrive_in_order_and_leave_the_spool(rig: Rig) -> None:
    rig.start()
    await rig.put(20)
    assert await rig.forwarder.drain(5)
    assert rig.log.taken == [(1, n) for n in range(20)]
    assert await rig.journal.call(lambda spool: spool.waiting()) == 0
    assert rig.log.producers == 1


async def test_while_the_log_is_away_records_wait_and_nothing_is_acknowledged(rig: Rig) -> None:
    def away(records: Sequence[OutRecord]) -> None:
        raise LogUnavailable("nobody there")

    rig.log.fail = away
    rig.start()
    await rig.put(5)
    await until(lambda: rig.health.waiting_for.get("log") == "nobody there")
    assert await rig.journal.call(lambda spool: spool.waiting()) == 5
    rig.log.fail = lambda records: None
    assert await rig.forwarder.drain(5)
    assert rig.log.taken == [(1, n) for n in range(5)]
    assert rig.health.waiting_for == {}


async def test_a_log_at_its_cap_is_waited_for_and_said(rig: Rig) -> None:
    def full(records: Sequence[OutRecord]) -> None:
        raise LogFull("at 4 GB")

    rig.log.fail = full
    rig.start()
    await rig.put(1)
    await until(lambda: rig.health.waiting_for.get("log") == "at 4 GB")
    rig.log.fail = lambda records: None
    assert await rig.forwarder.drain(5)


async def test_a_record_that_the_log_refuses_is_set_aside_and_the_others_go_on(rig: Rig) -> None:
    def refuses_the_third(records: Sequence[OutRecord]) -> None:
        if any(r.headers["seq"] == b"2" for r in records):
            raise LogRefused("too large")

    rig.log.fail = refuses_the_third
    await rig.put(5)
    rig.start()
    assert await rig.forwarder.drain(5)
    assert rig.log.taken == [(1, 0), (1, 1), (1, 3), (1, 4)]
    assert rig.forwarder.refused_records == 1
    await rig.journal.publish()
    assert await rig.forwarder.drain(5)
    dropped = [v for k, v in zip(rig.log.kinds, rig.log.values, strict=True) if k is Kind.DROPPED]
    assert [(r.first, r.last, r.samples) for r in decode_dropped(dropped[0])] == [(2, 2, 1)]
    aside = await rig.journal.call(lambda spool: spool._db.execute("SELECT seq, reason FROM aside").fetchall())
    assert aside == [(2, "refused")]


async def test_after_a_crash_before_the_acknowledgement_the_same_numbers_are_sent_again(
    rig: Rig, tmp_path: Path
) -> None:
    await rig.put(3)
    rig.start()
    assert await rig.forwarder.drain(5)
    # The acknowledgement is in memory until the next commit: to lose it is what a crash does.
    rig.journal.spool._acknowledged = 0
    again = Forwarder(rig.journal, rig.log, "edge-1", rig.health)
    task = asyncio.create_task(again.run())
    assert await again.drain(5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert rig.log.taken == [(1, 0), (1, 1), (1, 2)] * 2


async def test_draining_ends_at_its_deadline_when_the_log_is_away(rig: Rig) -> None:
    def away(records: Sequence[OutRecord]) -> None:
        raise LogUnavailable("nobody there")

    rig.log.fail = away
    rig.start()
    await rig.put(1)
    assert not await rig.forwarder.drain(0.1)
