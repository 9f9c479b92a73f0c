"""The arithmetic of benchmarks.ingest: its figures are only worth what these rules are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ingest import raw
from benchmarks.ingest.edges import journal
from benchmarks.ingest.fleet import Fleet, Readings
from benchmarks.ingest.lines import lines
from benchmarks.ingest.sending import Phase, Seen
from benchmarks.ingest.throughput import medians
from benchmarks.ingest.topic import Filled
from benchmarks.ingest.watch import Look, Run
from ingest.copy import HEADER, ROW, TRAILER
from telemetry import wire
from telemetry.arrow_read import decode_samples
from telemetry.batch import SampleBatch, concatenate
from telemetry.ledger import HOUR_US, row_hashes
from telemetry.messages import Kind
from telemetry.pg_array import EPOCH_2000_US

HOUR_BEGINS_US = 1_795_000_000_000_000 // HOUR_US * HOUR_US
START_US = HOUR_BEGINS_US - 4_000_000
"""Four seconds before an hour ends."""
FLEETS = (
    Fleet(200, 2, 400),
    Fleet(200, 2, 60),
    Fleet(200, 1, 60, rate_hz=3),
    Fleet(200, 2, 40, jitter_us=0),
)


def sent_batches(fleet: Fleet, seconds: int) -> list[tuple[int, SampleBatch]]:
    """(edge, batch) of every record of samples."""
    found = []
    for sent in journal(fleet, START_US, seconds):
        envelope = wire.read_envelope(sent.record.headers)
        wire.check_crc(envelope, sent.record.value)
        if envelope.kind == Kind.SAMPLES:
            batch = decode_samples(sent.record.value)
            assert len(batch) == sent.samples == envelope.count
            found.append((sent.edge, batch))
        else:
            assert sent.samples == 0
    return found


def rows_of(batch: SampleBatch) -> list[tuple[str, int, float, int]]:
    names = [batch.names[place] for place in batch.signal.tolist()]
    return list(zip(names, batch.time_us.tolist(), batch.value.tolist(), batch.quality.tolist(), strict=True))


@pytest.mark.parametrize("fleet", FLEETS, ids=str)
def test_every_signal_is_sent_so_often_as_the_fleet_says_and_no_record_is_larger_than_asked(fleet: Fleet) -> None:
    batches = [batch for _, batch in sent_batches(fleet, 3)]
    often = Counter(name for batch in batches for name, *_ in rows_of(batch))
    assert len(often) == fleet.signals
    assert set(often.values()) == {3 * fleet.steps}
    assert max(map(len, batches)) <= max(fleet.record_samples, 1)


@pytest.mark.parametrize("fleet", FLEETS, ids=str)
def test_the_ledger_counts_every_row_by_equipment_and_hour_with_its_checksum(fleet: Fleet) -> None:
    told: dict[tuple[str, int], list[int]] = {}
    through: dict[str, int] = {}
    for sent in journal(fleet, START_US, 8):
        envelope = wire.read_envelope(sent.record.headers)
        if envelope.kind == Kind.LEDGER:
            ledger = wire.decode_ledger(sent.record.value)
            assert ledger.through == envelope.identity.seq - 1
            through[ledger.edge] = ledger.through
            for entry in ledger.entries:
                cell = told.setdefault((entry.equipment, entry.hour_us), [0, 0])
                cell[0] += entry.samples
                cell[1] = (cell[1] + entry.checksum) % (1 << 64)
    batch = concatenate([batch for _, batch in sent_batches(fleet, 8)])
    expected: dict[tuple[str, int], list[int]] = {}
    hashes = row_hashes(batch).tolist()
    for (name, time_us, _, _), row_hash in zip(rows_of(batch), hashes, strict=True):
        cell = expected.setdefault((name.partition("/")[0], time_us // HOUR_US * HOUR_US), [0, 0])
        cell[0] += 1
        cell[1] = (cell[1] + row_hash) % (1 << 64)
    assert told == expected
    assert {hour for _, hour in told} == {HOUR_BEGINS_US - HOUR_US, HOUR_BEGINS_US}
    assert len(through) == fleet.edges


@pytest.mark.parametrize("fleet", FLEETS, ids=str)
def test_the_raw_side_copies_the_rows_of_the_log_sorted_within_each_flush(fleet: Fleet, tmp_path: Path) -> None:
    flushes = raw.prepare(fleet, START_US, 3, 500, tmp_path)
    content = flushes.path.read_bytes()
    copied: list[tuple[int, int, float, int]] = []
    for first, end in flushes.spans:
        stream = content[first:end]
        assert stream.startswith(HEADER)
        assert stream.endswith(TRAILER)
        table = np.frombuffer(stream[len(HEADER) : -len(TRAILER)], ROW)
        keys = list(zip(table["id"].tolist(), table["time"].tolist(), strict=True))
        assert keys == sorted(keys)
        times = (table["time"].astype(np.int64) + EPOCH_2000_US).tolist()
        copied += zip(table["id"].tolist(), times, table["value"].tolist(), table["quality"].tolist(), strict=True)
    number = {
        name: place + 1
        for place, name in enumerate(sorted({name for _, batch in sent_batches(fleet, 1) for name in batch.names}))
    }
    sent = [(number[n], t, v, q) for _, batch in sent_batches(fleet, 3) for n, t, v, q in rows_of(batch)]
    assert sorted(copied) == sorted(sent)
    assert len(copied) == flushes.rows


def test_the_lines_say_the_same_rows() -> None:
    fleet = FLEETS[0]
    told = []
    for sent in lines(fleet, START_US, 2):
        text = sent.record.value.decode().split("\n")
        assert len(text) == sent.samples
        for line in text:
            head, fields, stamp = line.split(" ")
            value, quality = (field.partition("=")[2] for field in fields.split(","))
            told.append((head.partition("signal=")[2], int(stamp) // 1000, float(value), int(quality.rstrip("i"))))
    assert sorted(told) == sorted(row for _, batch in sent_batches(fleet, 2) for row in rows_of(batch))


def test_values_have_two_decimals_and_are_not_constant() -> None:
    slab = Readings(FLEETS[0], 0, START_US).second()
    assert np.allclose(slab.value, np.round(slab.value, 2), atol=1e-9)
    assert len(np.unique(slab.value)) > len(slab.value) / 10


def test_an_offset_says_how_many_samples_lie_before_it_and_one_beyond_the_end_says_all() -> None:
    filled = Filled(2)
    for partition, samples in ((0, 0), (0, 10), (1, 7), (0, 5)):
        filled.took(partition, samples, 100)
    assert [filled.before({0: n}) for n in range(5)] == [0, 0, 10, 15, 15]
    assert filled.before({0: 3, 1: 1}) == filled.total == 22
    filled.took(1, 3, 100)
    assert filled.before({1: 2}) == 10


def a_run(*stored: tuple[float, int], idle: int = 0) -> Run:
    run = Run(stored=list(stored), idle=idle)
    for at, samples in stored:
        run.looks.append(Look(at, samples, {"ingest": at / 2, "postgres": at}, 100.0 + at))
    return run


def test_a_rate_counts_from_the_first_commit_seen_so_the_way_to_it_is_not_in_it() -> None:
    run = a_run((10.0, 500), (11.0, 1_500), (12.0, 2_500))
    assert run.per_s == 1_000
    assert run.at(11.5) == 1_500
    assert run.at(9.0) == 0


def test_the_last_flush_of_each_writer_waits_for_company_so_it_is_not_load() -> None:
    commits = ((0.0, 100), (1.0, 1_100), (2.0, 2_100), (6.0, 2_200))
    run = a_run(*commits, idle=1)
    assert (run.per_s, run.seconds) == (1_000, 2.0)
    assert run.whole_per_s == 350
    assert a_run(*commits, idle=2).per_s == a_run(*commits).per_s == 350, "too few commits to leave any out"


def test_the_slowest_stretch_is_found_wherever_it_lies() -> None:
    fast = [(float(s), s * 1_000) for s in range(15)]
    slow = [(15.0 + s, 14_000 + (s + 1) * 100) for s in range(12)]
    assert a_run(*fast, *slow).slowest(10.0) == 100
    assert a_run(*fast).slowest(10.0) == 1_000


def test_costs_are_by_million_between_the_first_look_and_the_last() -> None:
    run = a_run((0.0, 1_000_000), (8.0, 3_000_000))
    assert run.cpu_per_million() == {"ingest": 2.0, "postgres": 4.0}


def test_the_slope_of_memory_is_that_of_the_second_half_in_mib_a_minute() -> None:
    run = a_run(*((float(s), s) for s in range(1, 11)))
    assert run.memory_slope() == pytest.approx(60.0)
    assert np.isnan(a_run((0.0, 1), (1.0, 2)).memory_slope())


def test_a_delay_is_from_the_stamp_to_the_first_look_that_saw_the_offset_passed() -> None:
    seen = Seen(samples=[1, 1, 1, 1], appended_s=[100.0, 100.1, 100.2, 100.3], looks=[(100.5, 2), (101.0, 3)])
    assert seen.delays_s(0, 4).tolist() == pytest.approx([0.5, 0.4, 0.8])
    assert seen.delays_s(1, 2).tolist() == pytest.approx([0.4])


def test_the_rate_of_a_phase_counts_what_waited_when_it_began_until_its_last_record_is_stored() -> None:
    looks = [(100.0, 1), (102.0, 2), (104.0, 4), (109.0, 5)]
    seen = Seen(samples=[10, 20, 30, 40, 1000], looks=looks)
    assert seen.stored_per_s(Phase(first=2, end=4, reached=1, began_s=101.0)) == pytest.approx(90 / 3)


def test_medians_go_figure_by_figure_also_inside_and_leave_text_and_audits_as_they_are() -> None:
    runs = [
        {"per_s": 1.0, "cpu": {"ingest": 3.0}},
        {"per_s": 9.0, "cpu": {"ingest": 1.0}},
        {"per_s": 2.0, "cpu": {"ingest": 2.0}, "audit": {"lost": 0, "clean": True}},
    ]
    assert medians(runs) == {"per_s": 2.0, "cpu": {"ingest": 2.0}, "audit": {"lost": 0, "clean": True}}
