"""What went from the spool, by equipment and hour: counted from the records themselves, told once, bounded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import spool_dropped
from edge.spool_dropped import cells_of
from telemetry.arrow_read import decode_samples
from telemetry.batch import SampleBatch, from_rows
from telemetry.ledger import HOUR_US
from telemetry.messages import DroppedRange, Kind
from telemetry.wire import encode_samples
from tests.edge.spools import NOW_US, Crash, Crashing, batch_of, drops, forwarded, increments, journal, open_at

NAMES = st.sampled_from(["a/x", "a/y", "ab/x", "b/x", "b/a", "long-name.of_one/p", "c/with-a-long-point"])
ROWS = st.lists(st.tuples(NAMES, st.integers(-3 * HOUR_US, 3 * HOUR_US)), max_size=40)


def naive(batch: SampleBatch) -> Counter[tuple[str, int]]:
    """Row by row."""
    found: Counter[tuple[str, int]] = Counter()
    for place, time_us in zip(batch.signal.tolist(), batch.time_us.tolist(), strict=True):
        found[batch.names[place].partition("/")[0], time_us // HOUR_US * HOUR_US] += 1
    return found


@given(ROWS)
def test_a_record_is_counted_by_equipment_and_hour_as_one_would_row_by_row(rows: list[tuple[str, int]]) -> None:
    batch = from_rows([(name, NOW_US + later_us, 1.0, 192) for name, later_us in rows])
    assert cells_of(encode_samples(batch).value) == naive(batch)


def test_of_a_record_that_another_program_wrote_nothing_is_said() -> None:
    value = encode_samples(batch_of("e", 3)).value
    with pa.ipc.open_stream(value) as stream:
        table = stream.read_all()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert cells_of(sink.getvalue().to_pybytes()) == {}


@pytest.mark.parametrize("size", range(0, 900, 7))
def test_of_half_a_record_nothing_is_said(size: int) -> None:
    value = encode_samples(batch_of("e", 3)).value
    assert cells_of(value[: min(size, len(value) - 12)]) in ({}, {("e", NOW_US // HOUR_US * HOUR_US): 3})


@pytest.mark.parametrize("policy", ["oldest", "newest"])
def test_what_was_dropped_and_what_arrives_are_what_was_journaled_of_each_equipment(
    tmp_path: Path, policy: str
) -> None:
    spool = open_at(tmp_path / "s.sqlite", 1, max_bytes=20_000, policy=policy)
    made: Counter[tuple[str, int]] = Counter()
    for n in range(60):
        batch = from_rows(
            [(f"e{k % 3}/p{k}", NOW_US + n * HOUR_US // 20 + k, 1.0, 192) for k in range(n % 7, n % 7 + 10)]
        )
        made += naive(batch)
        spool.journal([encode_samples(batch)], {})
    kept, told, lost = Counter[tuple[str, int]](), Counter[tuple[str, int]](), 0
    for _ in range(2):
        sent = forwarded(spool)
        for _, _, record in sent:
            if record.kind is Kind.SAMPLES:
                kept += naive(decode_samples(record.value))
        for one in drops(sent):
            assert sum(cell.samples for cell in one.cells) == one.samples
            lost += one.samples
            told.update({(cell.equipment, cell.hour_us): cell.samples for cell in one.cells})
        spool.publish()
    assert told == made - kept
    assert lost == spool.counts.dropped_samples > 0
    assert {equipment for equipment, _ in told} == {"e0", "e1", "e2"}
    spool.close()


def test_what_a_crash_undoes_was_not_dropped_and_what_it_does_not_is_told_once(tmp_path: Path) -> None:
    crashing = Crashing()
    path = tmp_path / "s.sqlite"
    spool = open_at(path, 1, at=crashing)
    for n in range(8):
        journal(spool, batch_of(f"e{n}", 50))
    spool.close()
    spool = open_at(path, 2, at=crashing, max_bytes=10_000)
    dropped = spool.counts.dropped_samples
    crashing.point = "before commit"
    with pytest.raises(Crash):
        spool.publish()
    spool.close()
    spool = open_at(path, 3, max_bytes=10_000)
    spool.publish()
    [one] = drops(forwarded(spool))
    assert one.samples == dropped > 0
    assert [(cell.equipment, cell.samples) for cell in one.cells] == [(f"e{n}", 50) for n in range(dropped // 50)]
    spool.publish()
    assert drops(forwarded(spool)) == []
    spool.close()


def test_however_many_equipments_a_record_of_drops_stays_small_and_none_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_dropped, "CELLS_MAX", 5)
    path = tmp_path / "s.sqlite"
    spool = open_at(path, 1)
    for n in range(20):
        journal(spool, batch_of(f"e{n}", 30))
    spool.close()
    spool = open_at(path, 2, max_bytes=3_000)
    dropped = spool.counts.dropped_records
    found: list[DroppedRange] = []
    while spool.publish():
        told = drops(forwarded(spool))
        assert sum(len(one.cells) for one in told) <= 5
        found += told
    assert [(one.first, one.last) for one in found] == [(n, min(n + 4, dropped - 1)) for n in range(0, dropped, 5)]
    assert [cell.equipment for one in found for cell in one.cells] == sorted(
        (f"e{n}" for n in range(dropped)), key=lambda name: (int(name[1:]) // 5, name)
    )
    spool.close()


def test_of_a_damaged_record_only_the_number_of_samples_is_told(tmp_path: Path) -> None:
    spool = open_at(tmp_path / "s.sqlite", 1, tail_bytes=0)
    batch = batch_of("e", 4)
    spool.journal([encode_samples(batch)], increments("e", batch))
    spool._db.execute("UPDATE record SET crc = crc + 1")
    spool.set_aside([1], "corrupt")
    spool.publish()
    assert drops(forwarded(spool)) == [DroppedRange(1, 0, 0, 4)]
    spool.close()
