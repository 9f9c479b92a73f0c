"""What an audit of the edge found of memory that grows, and of one reading that harms the others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edge import metrics
from edge.codes import make_changes
from edge.columns import Columns
from edge.counters import Counters
from edge.driver import Decoded
from edge.intake import Intake, Prepared
from telemetry.arrow_read import decode_samples
from telemetry.batch import concatenate
from telemetry.messages import Kind
from telemetry.name_block import NameBlock
from telemetry.wire import decode_events
from tests.edge.build import NOW_US, columns_of_points, make_equipment, make_profile
from tests.edge.profiles import TEXT
from tests.edge.readings import block_of, columns_of
from tests.edge.sources import Given, Thing, journal_in
from tests.fixtures.waiting import until

PROFILE = make_profile(
    {
        "total": {"kind": "counter", "modbus": {"address": 0, "wrap": 1000, "max_step": 200}},
        "code": {"modbus": {"address": 1}},
        "x": {"modbus": {"address": 2}, "report": {"deadband": 1.0, "heartbeat_s": 8}},
    },
    schemes={"local": {"name": TEXT, "codes": {"67": {"name": TEXT}}}},
    code_points=[{"point": "code", "scheme": "local"}],
)
SOURCE = Given()


def special() -> Intake:
    intake = Intake(make_changes({}), Counters({}))
    intake.mind([], [make_equipment("e", PROFILE, "modbus+tcp://127.0.0.1:502/1")])
    return intake


def reading(block: NameBlock, n: int, total: float) -> Columns:
    values = {"e/total": total, "e/code": float(n % 2 * 67), "e/x": 5.0}
    return columns_of([(block, p, NOW_US + n * 1_000_000, values[name], 192) for p, name in enumerate(block.names)])


def values_of(prepared: Prepared) -> dict[str, float]:
    batch = concatenate([decode_samples(r.value) for r in prepared.records if r.kind is Kind.SAMPLES])
    return {batch.names[s]: float(v) for s, v in zip(batch.signal, batch.value, strict=True)}


def test_a_device_whose_plan_changes_every_minute_leaves_nothing_of_its_old_plans_in_memory() -> None:
    intake = special()
    for n in range(60):
        block = block_of("e", *(["total", "code", "x"], ["x", "total", "code"])[n % 2])
        prepared = intake.prepare([(SOURCE, Thing(reading(block, n, float(n * 100 % 1000))))])
        assert values_of(prepared)["e/total"] == n * 100, "its counter goes on"
        assert ("e/x" in values_of(prepared)) == (n % 8 == 0), "as does its deadband"
        events = [e for r in prepared.records if r.kind is Kind.EVENTS for e in decode_events(r.value)]
        assert [e.on for e in events] == ([n % 2 == 1] if n else [])
    assert len(intake._blocks["e"]) == 1
    assert len(intake.changes._places["e"]) == 1
    assert intake.reporter._band_slots.room < 10


def test_readings_of_an_old_and_a_new_plan_in_one_commit_are_counted_alike() -> None:
    intake = special()
    old, new = block_of("e", "total", "code", "x"), block_of("e", "x", "code", "total")
    intake.prepare([(SOURCE, Thing(reading(old, 0, 900.0)))])
    mixed = [reading(old, 1, 990.0), reading(new, 2, 10.0), reading(old, 3, 20.0)]
    prepared = intake.prepare([(SOURCE, Thing(columns)) for columns in mixed])
    assert values_of(prepared)["e/total"] == 1020.0
    again = intake.prepare([(SOURCE, Thing(reading(new, 4, 30.0)))])
    assert values_of(again)["e/total"] == 1030.0
    intake.mind([make_equipment("e", PROFILE, "modbus+tcp://127.0.0.1:502/1")], [])
    assert not intake._blocks
    assert not intake.changes._places


async def test_one_reading_that_cannot_be_decoded_costs_only_itself(tmp_path: Path) -> None:
    """And not the agent, which would read it again after each restart."""

    class Poisonous(Given):
        def decode(self, received: Sequence[Thing]) -> Decoded:
            if any(np.isinf(thing.columns.value).any() for thing in received):
                raise ZeroDivisionError
            return super().decode(received)

    journal, source, done = journal_in(tmp_path), Poisonous(), list[int]()
    journal.start()
    before = metrics.UNREADABLE._value.get()
    for n, value in enumerate((1.0, float("inf"), 3.0)):
        columns = columns_of_points("e", 1, time_us=NOW_US + n, value=value)
        journal.put(source, Thing(columns, done=partial(done.append, n)), 1)
    await until(lambda: len(done) == 3, what="nobody waits for any of them")
    stored = await journal.call(lambda spool: spool.read(0, max_records=10, max_bytes=1 << 30))
    batch = concatenate([decode_samples(s.encoded.value) for s in stored])
    assert batch.value.tolist() == [1.0, 3.0]
    assert metrics.UNREADABLE._value.get() - before == 1
    assert done == [0, 1, 2]
    await journal.close()
