"""Forwarding: order while the log keeps up, what is new first after an outage, back-off, records that the log refuses."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from edge import forward
from edge.forward import Forwarder
from edge.spool import Spool
from telemetry.errors import LogFull, LogRefused, LogUnavailable
from telemetry.log.protocol import TELEMETRY, Assignment, OutRecord, Reader
from telemetry.messages import Kind
from telemetry.service import Health
from telemetry.wire import Encoded, decode_dropped, read_envelope
from tests.edge.spools import event, heartbeat, open_at, samples
from tests.fixtures.waiting import until

T = TypeVar("T")


@dataclass
class FakeLog:
    """A log that fails as told; the real ones have their own suite."""

    taken: list[tuple[int, int]] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    fail: Callable[[Sequence[OutRecord]], None] = lambda records: None
    unreachable: bool = False
    producers: int = 0
    closed: int = 0

    async def producer(self) -> FakeLog:
        if self.unreachable:
            raise LogUnavailable("nobody listens")
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
            self.at_s.append(asyncio.get_running_loop().time())

    async def ensure_topics(self, topics: Sequence[str]) -> None: ...

    async def reader(self, group: str, topics: Sequence[str], assignment: Assignment) -> Reader:
        raise NotImplementedError

    async def close(self) -> None:
        self.closed += 1


@dataclass
class OnTheLoop:
    """The journal's part in forwarding, without its thread."""

    spool: Spool
    committed: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, work: Callable[[Spool], T]) -> T:
        await asyncio.sleep(0)
        return work(self.spool)


@dataclass
class Rig:
    path: Path
    keeper: OnTheLoop
    log: FakeLog
    health: Health
    forwarder: Forwarder
    task: asyncio.Task[None] | None = None

    @property
    def spool(self) -> Spool:
        return self.keeper.spool

    def start(self) -> None:
        self.task = asyncio.create_task(self.forwarder.run())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None

    def put(self, *records: Encoded) -> None:
        """Each a commit of its own."""
        for record in records:
            self.spool.journal([record], {})
            self.keeper.committed.set()

    def open_again(self, epoch: int, *, tail_bytes: int, backfill_samples_per_s: float = 1e9) -> None:
        """The next process: what is in the tail's bytes goes first, the rest is back-filled."""
        self.spool.close()
        self.keeper = OnTheLoop(open_at(self.path, epoch, tail_bytes=tail_bytes))
        self.forwarder = Forwarder(self.keeper, self.log, "edge-1", self.health, backfill_samples_per_s)


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(forward, "BACK_OFF_S", 0.01)
    path = tmp_path / "s.sqlite"
    keeper, log, health = OnTheLoop(open_at(path, 1)), FakeLog(), Health("edge")
    made = Rig(path, keeper, log, health, Forwarder(keeper, log, "edge-1", health))
    yield made
    await made.stop()
    made.spool.close()


def away(records: Sequence[OutRecord]) -> None:
    raise LogUnavailable("nobody there")


async def test_records_arrive_in_order_and_leave_the_spool(rig: Rig) -> None:
    rig.start()
    for n in range(20):
        rig.put(event(n))
        await asyncio.sleep(0)
    assert await rig.forwarder.drain(5)
    assert rig.log.taken == [(1, n) for n in range(20)]
    assert rig.spool.waiting() == 0
    assert rig.log.producers == 1


async def test_while_the_log_is_away_records_wait_and_nothing_is_acknowledged(rig: Rig) -> None:
    rig.log.fail = away
    rig.start()
    rig.put(*map(event, range(5)))
    await until(lambda: rig.health.waiting_for.get("log") == "nobody there")
    assert rig.spool.waiting() == 5
    rig.log.fail = lambda records: None
    assert await rig.forwarder.drain(5)
    assert rig.log.taken == [(1, n) for n in range(5)]
    assert rig.health.waiting_for == {}
    assert rig.log.producers >= 2, "connected anew"
    assert rig.log.closed == rig.log.producers - 1, "and let go of before"


async def test_the_log_is_sought_at_the_start_though_there_is_nothing_to_send(rig: Rig) -> None:
    rig.log.unreachable = True
    rig.health.missing("log", "not reached yet")
    rig.start()
    await until(lambda: rig.health.waiting_for.get("log") == "nobody listens")
    rig.log.unreachable = False
    await until(lambda: rig.health.waiting_for == {})
    assert (rig.log.producers, rig.log.taken) == (1, [])


async def test_a_log_at_its_cap_is_waited_for_and_said(rig: Rig) -> None:
    def full(records: Sequence[OutRecord]) -> None:
        raise LogFull("at 4 GB")

    rig.log.fail = full
    rig.start()
    rig.put(event())
    await until(lambda: rig.health.waiting_for.get("log") == "at 4 GB")
    rig.log.fail = lambda records: None
    assert await rig.forwarder.drain(5)


async def test_a_record_that_the_log_refuses_is_set_aside_and_the_others_go_on(rig: Rig) -> None:
    def refuses_the_third(records: Sequence[OutRecord]) -> None:
        if any(r.headers["seq"] == b"2" for r in records):
            raise LogRefused("too large")

    rig.log.fail = refuses_the_third
    rig.put(*(samples(1, n) for n in range(5)))
    rig.start()
    assert await rig.forwarder.drain(5)
    assert rig.log.taken == [(1, 0), (1, 1), (1, 3), (1, 4)]
    assert rig.forwarder.refused_records == 1
    rig.spool.publish()
    rig.keeper.committed.set()
    assert await rig.forwarder.drain(5)
    dropped = [v for k, v in zip(rig.log.kinds, rig.log.values, strict=True) if k is Kind.DROPPED]
    assert [(r.first, r.last, r.samples) for r in decode_dropped(dropped[0])] == [(2, 2, 1)]
    aside = rig.spool._db.execute("SELECT seq, reason FROM aside").fetchall()
    assert aside == [(2, "refused")]
    assert rig.spool.waiting() == 0
    rig.spool.settle()
    assert rig.spool.tail.known == 0, "nobody has it any more"


async def test_after_a_crash_before_the_acknowledgement_the_same_numbers_are_sent_again(rig: Rig) -> None:
    rig.put(*map(event, range(3)))
    rig.start()
    assert await rig.forwarder.drain(5)
    await rig.stop()
    # The acknowledgement is in memory until what the log has is deleted: to lose it is what a crash does.
    rig.open_again(2, tail_bytes=1 << 20)
    rig.start()
    assert await rig.forwarder.drain(5)
    assert rig.log.taken == [(1, 0), (1, 1), (1, 2)] * 2


async def test_draining_ends_at_its_deadline_when_the_log_is_away(rig: Rig) -> None:
    rig.log.fail = away
    rig.start()
    rig.put(event())
    assert not await rig.forwarder.drain(0.1)


async def test_after_an_outage_what_is_new_goes_first_and_events_lead_the_back_fill(rig: Rig) -> None:
    for n in range(10):
        rig.put(samples(5, n), heartbeat(n), event(n))
    rig.open_again(2, tail_bytes=len(event(100).value) * 2)
    rig.put(event(100), event(101))
    assert rig.spool.backlog_records == 30
    rig.start()
    await until(lambda: len(rig.log.taken) == 32 and not rig.spool.has_backlog)
    assert rig.log.taken[:2] == [(2, 0), (2, 1)]
    assert rig.log.kinds[2:12] == [Kind.EVENTS] * 10
    assert rig.log.taken[2:12] == [(1, 3 * n + 2) for n in range(10)]
    assert rig.log.taken[12:] == [(1, 3 * n + k) for n in range(10) for k in range(2)]
    assert await rig.forwarder.drain(5)
    assert rig.spool.backlog_records == 0
    assert rig.spool.waiting() == 0


async def test_an_outage_longer_than_memory_is_back_filled_while_new_records_pass_it(rig: Rig) -> None:
    rig.open_again(2, tail_bytes=len(samples(5).value) * 3)
    rig.log.fail = away
    rig.start()
    rig.put(*(samples(5, n) for n in range(40)))
    await until(lambda: "log" in rig.health.waiting_for)
    rig.log.fail = lambda records: None
    rig.put(event(7))
    await until(lambda: len(rig.log.taken) == 41 and not rig.spool.has_backlog)
    assert sorted(rig.log.taken) == [(2, n) for n in range(41)], "each once"
    assert rig.log.taken.index((2, 40)) < 5, "what came last was not kept waiting by what came first"
    assert rig.log.taken[-1] != (2, 40)
    assert await rig.forwarder.drain(5)
    assert rig.spool.waiting() == 0


async def test_back_fill_keeps_to_its_rate_and_new_records_do_not_wait_for_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "BACKFILL_BYTES", 1)
    rig.put(*(samples(10, n) for n in range(6)))
    rig.open_again(2, tail_bytes=1, backfill_samples_per_s=100.0)
    rig.put(event(0))
    began_s = asyncio.get_running_loop().time()
    rig.start()
    await until(lambda: len(rig.log.taken) >= 3)
    rig.put(event(1))
    put_s = asyncio.get_running_loop().time()
    await until(lambda: (2, 1) in rig.log.taken)
    assert asyncio.get_running_loop().time() - put_s < 0.09, "not even for one record of the back-fill"
    await until(lambda: len(rig.log.taken) == 8)
    assert [key for key in rig.log.taken if key[0] == 1] == [(1, n) for n in range(6)]
    assert rig.log.at_s[-1] - began_s >= 0.5, (
        "five records of ten samples came after the first, a tenth of a second each"
    )


async def test_a_back_fill_cut_off_in_the_middle_loses_nothing(rig: Rig) -> None:
    rig.put(*(samples(10, n) for n in range(30)))
    rig.open_again(2, tail_bytes=1, backfill_samples_per_s=2_000.0)
    rig.start()
    await until(lambda: len(rig.log.taken) >= 4)
    await rig.stop()
    rig.open_again(3, tail_bytes=1)
    rig.start()
    await until(lambda: len(set(rig.log.taken)) == 30 and not rig.spool.has_backlog)
    assert await rig.forwarder.drain(5)
    assert set(rig.log.taken) == {(1, n) for n in range(30)}
    assert rig.spool.waiting() == 0


async def test_a_disk_that_cannot_be_read_is_said_and_tried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.put(*(samples(10, n) for n in range(3)))
    rig.open_again(2, tail_bytes=1)
    backlog = rig.spool.backlog
    failed: list[bool] = []

    def sick(*, max_records: int, max_bytes: int) -> object:
        if not failed:
            failed.append(True)
            raise sqlite3.OperationalError("disk I/O error")
        return backlog(max_records=max_records, max_bytes=max_bytes)

    monkeypatch.setattr(rig.spool, "backlog", sick)
    rig.start()
    await until(lambda: rig.health.waiting_for.get("spool") == "disk I/O error")
    await until(lambda: len(rig.log.taken) == 3)
