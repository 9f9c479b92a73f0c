"""When the journal's thread has something to do, how much of it, and what a commit holds: turn by turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.journal import LINGER_S, QUIET_S, RETRY_S, TAKE, Journal
from edge.spool import Spool
from telemetry.arrow_read import decode_samples
from telemetry.plant import Equipment
from tests.edge.build import NOW_US, columns_of_points, make_equipment, make_profile
from tests.edge.readings import block_of, columns_of
from tests.edge.sources import Given, Thing, intake_of, journal_in
from tests.edge.test_journal import empty_disk, fill_disk
from tests.fixtures.waiting import until

POLLED, MESSAGES = Given(), Given(sender_keeps=True)
BLOCK = block_of("e", "p0")


@pytest.fixture
def still(tmp_path: Path) -> Iterator[Journal]:
    """A journal whose thread does not run."""
    made = journal_in(tmp_path)
    yield made
    made.spool.close()


def test_a_full_commit_waits_for_no_company(still: Journal) -> None:
    still.put(POLLED, Thing(), TAKE - 1)
    assert 0 < still._due_in() <= LINGER_S
    still.put(POLLED, Thing(), 1)
    assert still._due_in() <= 0


def test_a_commit_takes_so_much_and_the_rest_is_due_at_once(still: Journal) -> None:
    for _ in range(5):
        still.put(POLLED, Thing(), TAKE // 2)
    taken, rows = still._take()
    assert (len(taken), rows) == (2, TAKE)
    assert still._due_in() <= 0


def test_after_a_message_polled_readings_wait_for_company_again(still: Journal) -> None:
    still.put(MESSAGES, Thing(), 1)
    assert still._due_in() <= QUIET_S
    still._take()
    still.put(POLLED, Thing(), 1)
    assert still._due_in() > QUIET_S


async def test_state_and_message_keys_are_kept_even_with_nothing_else(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.start()
    journal.put(POLLED, Thing(state={"k": "v"}), 0)
    await journal.flush()
    assert await journal.call(lambda spool: spool.state()) == {"k": "v"}
    await journal.close()


async def test_the_forwarder_is_told_of_each_commit(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.start()
    for n in range(2):
        journal.committed.clear()
        journal.put(POLLED, Thing(columns_of_points("e", 1, time_us=NOW_US + n)), 1)
        async with asyncio.timeout(5):
            await journal.committed.wait()
    await journal.close()


async def test_a_full_disk_is_not_tried_each_time_that_the_spool_is_asked_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []
    journalled = Spool.journal

    def counted(self: Spool, *arguments: Any, **more: Any) -> Any:
        tries.append(time.monotonic())
        return journalled(self, *arguments, **more)

    monkeypatch.setattr(Spool, "journal", counted)
    journal = journal_in(tmp_path)
    journal.start()
    await fill_disk(journal)
    journal.put(POLLED, Thing(columns_of_points("e", 4_000)), 4_000)
    await until(lambda: len(tries) > 0)
    began = tries[0]
    for _ in range(50):
        await journal.call(lambda spool: spool.state())
    assert len(tries) <= 2 + (time.monotonic() - began) / RETRY_S
    await empty_disk(journal)
    await until(lambda: journal._prepared is None)
    await journal.close()


def counted(equipment: str, **point: Any) -> Equipment:
    profile = make_profile({"p0": {"modbus": {"address": 0}, **point}})
    return make_equipment(equipment, profile, "modbus+tcp://127.0.0.1:502/1")


def test_what_a_counter_remembers_is_journaled_with_its_readings() -> None:
    intake = intake_of()
    intake.mind([], [counted("e", kind="counter", modbus={"address": 0, "wrap": 1000})])
    prepared = intake.prepare([(POLLED, Thing(columns_of_points("e", 1, value=7.0)))])
    assert prepared.state == {"counter/e": '{"p0":[7.0,0.0]}'}


def test_the_ledger_counts_exactly_what_is_journaled() -> None:
    """Not what report by exception leaves out, nor what waits for the clock to be set."""
    intake = intake_of()
    intake.mind([], [counted("e", report={"deadband": 1.0, "heartbeat_s": 8})])
    for n in range(4):
        early = Thing(columns_of_points("m", 2, time_us=60_000_000 + n))
        one = columns_of([(BLOCK, 0, NOW_US + n, 5.0, 192)])
        prepared = intake.prepare([(POLLED, Thing(one)), (POLLED, early)])
        assert sum(samples for samples, _ in prepared.increments.values()) == (1 if n == 0 else 0)
        assert sum(record.count for record in prepared.records) == (1 if n == 0 else 0)
        assert sum(one.count for one in prepared.provisional) == 2


def test_what_a_door_holds_of_equipment_that_is_gone_is_journaled_with_the_next_commit() -> None:
    intake, one = intake_of(), counted("e", report={"swinging_door": 1.0, "heartbeat_s": 8})
    intake.mind([], [one])
    for n in range(3):
        intake.prepare([(POLLED, Thing(columns_of([(BLOCK, 0, NOW_US + n * 1_000_000, float(n), 192)])))])
    intake.mind([one], [])
    prepared = intake.prepare([(POLLED, Thing(columns_of_points("m", 1, time_us=NOW_US)))])
    [batch] = [decode_samples(record.value) for record in prepared.records]
    told = list(zip([batch.names[s] for s in batch.signal], batch.value.tolist(), strict=True))
    assert told == [("e/p0", 2.0), ("m/p0", 1.0)]
