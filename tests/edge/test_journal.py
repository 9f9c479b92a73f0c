"""The journal's thread: group commit, acknowledgement after the disk, a full disk that harms nobody."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.columns import Columns
from edge.journal import IDLE_S, LINGER_S, QUIET_S, Journal
from edge.spool import Spool
from telemetry.arrow_read import decode_samples
from telemetry.messages import Event, Heartbeat, Kind
from telemetry.wire import decode_events, encode_heartbeat
from tests.edge.build import NOW_US, columns_of_points
from tests.edge.sources import Given, Thing, journal_in
from tests.fixtures.waiting import until

BIG = 1 << 30


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    troubles: list[str | None] = []
    made = journal_in(tmp_path, trouble=troubles.append)
    made.start()
    try:
        yield made
    finally:
        await made.close()


POLLED, MESSAGES = Given(), Given(sender_keeps=True)


def put(journal: Journal, n: int, *, equipment: str = "e", source: Given = POLLED, **more: Any) -> bool:
    """Puts n samples."""
    time_us = more.pop("time_us", NOW_US)
    return journal.put(source, Thing(columns_of_points(equipment, n, time_us=time_us), **more), n)


async def records(journal: Journal) -> list[tuple[Kind, int]]:
    stored = await journal.call(lambda spool: spool.read(0, max_records=10_000, max_bytes=BIG))
    return [(s.encoded.kind, s.encoded.count) for s in stored]


def troubles_of(journal: Journal) -> list[str | None]:
    found = journal.trouble.__self__  # type: ignore[attr-defined]
    assert isinstance(found, list)
    return found


async def durable_after(journal: Journal, columns: Columns, source: Given = POLLED) -> float:
    """Seconds until a reading was durable."""
    done, loop, began = asyncio.Event(), asyncio.get_running_loop(), time.monotonic()

    def finished() -> None:
        loop.call_soon_threadsafe(done.set)

    journal.put(source, Thing(columns, done=finished), len(columns))
    async with asyncio.timeout(5):
        await done.wait()
    return time.monotonic() - began


async def fill_disk(journal: Journal) -> None:
    """No commit goes through, as on a full disk (test_spool_disk.py has a real one): pages of 16 kB have room of their own."""

    def full(point: str) -> None:
        if point == "before commit":
            raise sqlite3.OperationalError("database or disk is full")

    await journal.call(lambda spool: setattr(spool, "_at", full))


async def empty_disk(journal: Journal) -> None:
    await journal.call(lambda spool: setattr(spool, "_at", lambda point: None))


async def test_readings_of_many_devices_leave_in_one_record(journal: Journal) -> None:
    for n in range(10):
        put(journal, 15, equipment=f"e{n}")
    await journal.flush()
    assert await records(journal) == [(Kind.SAMPLES, 150)]


async def test_a_lone_reading_is_durable_without_company_which_it_waits_for(journal: Journal) -> None:
    took = [await durable_after(journal, columns_of_points("e", 1)) for _ in range(5)]
    assert min(took) >= LINGER_S * 0.9


async def test_what_its_sender_waits_for_word_of_is_durable_after_a_moment_of_quiet(journal: Journal) -> None:
    took = [await durable_after(journal, columns_of_points("m", 1), MESSAGES) for _ in range(5)]
    assert min(took) >= QUIET_S * 0.9


@pytest.fixture
def turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Journal, list[float]]]:
    """A journal whose thread does not run, and the time, which the test turns."""
    now_s = [1000.0]
    journal = journal_in(tmp_path)
    monkeypatch.setattr("edge.journal.time", SimpleNamespace(monotonic=lambda: now_s[-1]))
    yield journal, now_s
    journal.spool.close()


def test_a_reading_leaves_when_the_first_of_its_batch_has_lingered(turned: tuple[Journal, list[float]]) -> None:
    journal, now_s = turned
    assert journal._due_in() == IDLE_S
    put(journal, 1)
    assert journal._due_in() == pytest.approx(LINGER_S)
    now_s.append(now_s[-1] + 0.03)
    put(journal, 1)
    assert journal._due_in() == pytest.approx(LINGER_S - 0.03), "whatever came since"
    now_s.append(now_s[-1] + 0.011)
    assert journal._due_in() < 0


def test_what_a_sender_waits_for_leaves_after_quiet_and_takes_the_others_along(
    turned: tuple[Journal, list[float]],
) -> None:
    journal, now_s = turned
    put(journal, 1)
    put(journal, 1, source=MESSAGES)
    assert journal._due_in() == pytest.approx(QUIET_S)
    for _ in range(11):
        now_s.append(now_s[-1] + 0.003)
        put(journal, 1, source=MESSAGES)
        assert journal._due_in() == pytest.approx(QUIET_S)
    now_s.append(now_s[-1] + 0.005)
    put(journal, 1, source=MESSAGES)
    assert journal._due_in() == pytest.approx(LINGER_S - 0.038), "but does not linger longer than the first may"


async def test_a_sender_that_never_pauses_is_answered_all_the_same(journal: Journal) -> None:
    """Each message puts off the quiet; what waits longest is not put off for ever."""
    done, loop, began = asyncio.Event(), asyncio.get_running_loop(), time.monotonic()
    put(journal, 1, source=MESSAGES, done=lambda: loop.call_soon_threadsafe(done.set))
    while not done.is_set():
        put(journal, 1, source=MESSAGES)
        await asyncio.sleep(QUIET_S / 4)
        assert time.monotonic() - began < 5
    assert time.monotonic() - began < 0.5


async def test_done_is_called_after_the_commit_in_the_order_of_putting(tmp_path: Path) -> None:
    committed, order = threading.Event(), []

    def at(point: str) -> None:
        if point == "after commit":
            committed.set()

    journal = journal_in(tmp_path, at=at)
    journal.start()
    committed.clear()  # of opening
    for n in range(50):
        put(journal, 1, done=lambda n=n: order.append((n, committed.is_set())))
    await until(lambda: len(order) == 50)
    assert order == [(n, True) for n in range(50)]
    await journal.close()


async def test_samples_events_and_records_come_out_in_that_order_and_whole(journal: Journal) -> None:
    beat = encode_heartbeat(Heartbeat("edge-1", NOW_US, ("e",), {}))
    journal.put_record(beat)
    event = Event("e", NOW_US, "s", "4", True)
    put(journal, 3, events=(event,), state={"k": "v"})
    await journal.flush()
    stored = await journal.call(lambda spool: spool.read(0, max_records=10, max_bytes=BIG))
    assert [s.encoded.kind for s in stored] == [Kind.SAMPLES, Kind.EVENTS, Kind.HEARTBEAT]
    assert decode_samples(stored[0].encoded.value).value.tolist() == [1.0, 2.0, 3.0]
    assert decode_events(stored[1].encoded.value) == (event,)
    assert await journal.call(lambda spool: spool.state()) == {"k": "v"}


async def test_a_message_that_said_nothing_is_acknowledged_without_a_record(journal: Journal) -> None:
    done = threading.Event()
    journal.put(MESSAGES, Thing(done=done.set), 0)
    await until(done.is_set)
    assert await records(journal) == []


async def test_a_full_disk_keeps_readings_in_memory_acknowledges_nothing_and_recovers(journal: Journal) -> None:
    await fill_disk(journal)
    acknowledged = threading.Event()
    for n in range(20):
        put(journal, 500, time_us=NOW_US + n * 1000)
    put(journal, 500, equipment="m", source=MESSAGES, done=acknowledged.set)
    await until(lambda: any(why and "full" in why for why in troubles_of(journal)))
    assert not acknowledged.is_set()
    began = time.monotonic()
    await asyncio.sleep(0)
    assert time.monotonic() - began < 0.1, "the loop goes on"
    await empty_disk(journal)
    await until(acknowledged.is_set)
    await journal.flush()
    assert sum(n for kind, n in await records(journal) if kind is Kind.SAMPLES) == 21 * 500
    await until(lambda: troubles_of(journal)[-1] is None)
    assert journal.losses.unjournaled_samples == 0


async def test_beyond_its_memory_the_oldest_polled_samples_go_and_messages_are_refused(journal: Journal) -> None:
    await fill_disk(journal)
    journal.queued_rows = 5_000
    event = Event("e", NOW_US, "s", "4", True)
    first = threading.Event()
    assert put(journal, 500, equipment="m", source=MESSAGES, done=first.set)
    await until(lambda: journal._prepared is not None)  # the rest waits behind it, and may be given up
    for n in range(30):
        assert put(journal, 500, time_us=NOW_US + n * 1000)
        journal.put_events([event])
    await until(lambda: not journal.has_room)
    assert put(journal, 500, equipment="m", source=MESSAGES) is False
    lost = journal.losses.unjournaled_samples
    assert lost > 0
    await empty_disk(journal)
    await until(first.is_set)
    await journal.flush()
    got = await records(journal)
    assert sum(n for kind, n in got if kind is Kind.SAMPLES) == 500 + 30 * 500 - lost
    assert sum(n for kind, n in got if kind is Kind.EVENTS) == 30, "events stay"
    assert journal.has_room


async def test_readings_that_are_given_up_leave_behind_what_their_device_had_just_taught(journal: Journal) -> None:
    """Samples are read again in a second; what a device refuses would have to be found out again."""
    await fill_disk(journal)
    journal.queued_rows = 2_000
    learned = Event("e0", NOW_US, "vigil", "plan-learned", True)
    await until(lambda: put(journal, 500, equipment="first") and journal._prepared is not None)
    put(journal, 500, equipment="e0", events=[learned], state={"plan/e0": "old", "plan/e1": "kept"})
    put(journal, 500, equipment="e0", state={"plan/e0": "new"})
    for n in range(20):
        put(journal, 500, time_us=NOW_US + n * 1000)
    put(journal, 5_000, equipment="e2", state={"plan/e2": "of one that there is no room for"})
    assert journal.losses.unjournaled_samples >= 5_000 + 19 * 500
    await empty_disk(journal)
    await until(lambda: not journal._queue and journal._prepared is None)
    kept = await journal.call(lambda spool: spool.state())
    assert kept == {"plan/e0": "new", "plan/e1": "kept", "plan/e2": "of one that there is no room for"}
    assert sum(n for kind, n in await records(journal) if kind is Kind.EVENTS) == 1


async def test_a_spool_that_breaks_fails_the_service_instead_of_going_on(tmp_path: Path) -> None:
    burning = threading.Event()

    def at(point: str) -> None:
        if burning.is_set():
            raise RuntimeError("the disk is on fire")

    journal = journal_in(tmp_path, at=at)
    journal.start()
    burning.set()
    put(journal, 1)
    with pytest.raises(RuntimeError, match="on fire"):
        async with asyncio.timeout(5):
            await journal.failed()
    await journal.close()


async def test_closing_commits_what_waits(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.start()
    for n in range(100):
        put(journal, 3, time_us=NOW_US + n)
    await journal.close()
    spool = Spool(tmp_path / "s.sqlite", edge="edge-1", epoch=2, max_bytes=BIG)
    assert sum(s.encoded.count for s in spool.read(0, max_records=1000, max_bytes=BIG)) == 300
    spool.close()
