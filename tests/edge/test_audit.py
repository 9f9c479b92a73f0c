"""What an audit of the edge found between drivers and the spool: each test is a rule that was broken once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest

from edge.columns import RECORD_BYTES, Columns, encode, join
from edge.driver import Decoded
from edge.intake import RECORD_EVENTS
from edge.journal import QUEUED_THINGS, Journal
from edge.ledger import count
from edge.spool import Spool
from telemetry.arrow_read import decode_samples
from telemetry.batch import concatenate
from telemetry.ledger import HOUR_US
from telemetry.log.protocol import MAX_RECORD_BYTES
from telemetry.messages import Event, Kind
from telemetry.name_block import name_block
from telemetry.wire import decode_events
from tests.edge.build import NOW_US, columns_of_points, make_equipment, make_profile
from tests.edge.readings import block_of, columns_of, rows_of
from tests.edge.sources import Given, Thing, intake_of
from tests.edge.test_journal import empty_disk, fill_disk, journal, put, records
from tests.fixtures.waiting import until

__all__ = ["journal"]

BIG = 1 << 30
DOOR = make_profile({"x": {"modbus": {"address": 0}, "report": {"swinging_door": 1.0, "heartbeat_s": 8}}})
POLLED = Given()
FILLING = 4_000


async def samples(journal: Journal) -> list[float]:
    stored = await journal.call(lambda spool: spool.read(0, max_records=10_000, max_bytes=BIG))
    batches = [decode_samples(s.encoded.value) for s in stored if s.encoded.kind is Kind.SAMPLES]
    return [float(v) for v in concatenate(batches).value] if batches else []


async def full(journal: Journal) -> None:
    """The disk is full, and a commit of FILLING samples was refused."""
    await fill_disk(journal)
    put(journal, FILLING)
    await until(lambda: journal._prepared is not None)


async def test_at_a_clean_stop_what_was_just_read_is_held_back_by_no_swinging_door(journal: Journal) -> None:
    journal.intake.mind([], [make_equipment("e", DOOR, "modbus+tcp://127.0.0.1:502/1")])
    block = block_of("e", "x")
    for n in range(3):
        journal.put(POLLED, Thing(columns_of([(block, 0, NOW_US + n * 1_000_000, float(n), 192)])), 1)
    await journal.flush(last=True)
    assert await samples(journal) == [0.0, 2.0], "the last one ends the line"


async def test_what_was_read_by_the_old_file_of_a_point_that_is_gone_is_journaled(journal: Journal) -> None:
    """It may wait in the queue while a new file is switched to: while the disk is full, for long."""
    old = make_equipment("e", DOOR, "modbus+tcp://127.0.0.1:502/1")
    new = make_equipment("e", make_profile({"y": DOOR.points["x"].model_dump(exclude_unset=True)}), "modbus+tcp://h/1")
    journal.intake.mind([], [old])
    await journal.call(lambda _: journal.intake.mind([old], [new]))
    journal.put(POLLED, Thing(columns_of([(block_of("e", "x"), 0, NOW_US, 7.0, 192)])), 1)
    await journal.flush()
    assert await samples(journal) == [7.0]


async def test_whoever_asks_the_spool_something_is_told_that_its_thread_fails(journal: Journal) -> None:
    def fails(spool: Spool) -> None:
        raise RuntimeError("broken")

    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError, match="broken"):
            await journal.call(fails)
        with pytest.raises(RuntimeError, match="broken"):
            await journal.call(lambda spool: spool.state())


async def test_memory_stays_bounded_when_small_readings_wait_before_large_ones(journal: Journal) -> None:
    await full(journal)
    journal.queued_rows = 5_000
    for n in range(2_000):
        put(journal, 1, time_us=NOW_US + n)
    for n in range(40):
        put(journal, 500, time_us=NOW_US + n)
        assert journal._rows <= journal.queued_rows
    lost = journal.losses.unjournaled_samples
    assert lost > 0
    await empty_disk(journal)
    await journal.flush()
    taken = sum(n for kind, n in await records(journal) if kind is Kind.SAMPLES)
    assert taken + lost == FILLING + 2_000 + 500 * 40


async def test_readings_of_texts_alone_do_not_fill_memory_either(journal: Journal) -> None:
    await full(journal)
    began = time.monotonic()
    for _ in range(QUEUED_THINGS + 5_000):
        journal.put(POLLED, Thing(), 0)
    assert len(journal._queue) <= QUEUED_THINGS
    assert time.monotonic() - began < 5, "giving up costs no look at everything each time"
    await empty_disk(journal)


async def test_beside_messages_that_stay_a_polled_reading_without_room_is_given_up_at_little_cost(
    journal: Journal,
) -> None:
    await full(journal)
    keeps = Given(sender_keeps=True)
    while put(journal, 1, source=keeps):
        pass
    began, before = time.monotonic(), journal.losses.unjournaled_samples
    assert not any([journal.put(POLLED, Thing(columns_of_points("e", 1)), 1) for _ in range(1_000)])
    assert journal.losses.unjournaled_samples - before == 1_000
    assert time.monotonic() - began < 1
    journal.put_events([Event("e", NOW_US, "s", "4", True)])
    await empty_disk(journal)
    await until(lambda: not journal._queue and journal._prepared is None)
    assert sum(n for kind, n in await records(journal) if kind is Kind.EVENTS) == 1, "events are never given up"


def test_an_equipment_of_tens_of_thousands_of_points_makes_no_record_above_the_logs_bound() -> None:
    several = [columns_of_points("a", 3), columns_of_points("e" * 60, 30_000), columns_of_points("b", 3)]
    made = encode(join(several))
    assert max(len(record.value) for record in made) < MAX_RECORD_BYTES
    batch = concatenate([decode_samples(record.value) for record in made])
    told = [(batch.names[s], (t, v, q)) for s, t, v, q in
            zip(batch.signal, batch.time_us.tolist(), batch.value.tolist(), batch.quality.tolist(), strict=True)]  # fmt: skip
    assert told == rows_of(join(several))


def test_long_events_are_divided_between_records() -> None:
    class Learning:
        sender_keeps = False

        def decode(self, received: Sequence[Event]) -> Decoded:
            return Decoded(events=received)

        def kept(self, received: Event) -> Decoded:
            return Decoded(events=[received])

        def journaled(self, received: Sequence[Event]) -> None: ...

    points = [f"a-point-of-this-device-{n}" for n in range(1_000)]
    events = [Event(f"e{n}", NOW_US, "vigil", "plan-learned", True, {"refused": points}) for n in range(RECORD_EVENTS)]
    source = Learning()
    prepared = intake_of().prepare([(source, event) for event in events])
    assert max(len(record.value) for record in prepared.records) <= RECORD_BYTES
    assert [e for record in prepared.records for e in decode_events(record.value)] == events


def test_counting_over_the_turn_of_an_hour_costs_no_more_with_many_small_parts() -> None:
    """Messages of devices that send what they kept: each a part, of any hour."""
    parts = 20_000
    blocks = [name_block([f"e{n}/x"]) for n in range(100)]
    columns = Columns(
        [f"e{n % 100}" for n in range(parts)],
        [blocks[n % 100] for n in range(parts)],
        np.ones(parts, np.int64),
        np.zeros(parts, np.int32),
        NOW_US + np.arange(parts) % 3 * HOUR_US,
        np.ones(parts),
        np.full(parts, 192, np.uint8),
    )
    began = time.process_time()
    found = count(columns)
    assert time.process_time() - began < 0.3
    assert sum(n for n, _ in found.values()) == parts
    assert len(found) == 300
