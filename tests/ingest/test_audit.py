"""The audit is told of every row that is missing or too many, by the edges' ledger and the rows themselves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from ingest import audit as auditing
from ingest.audit import audit
from ingest.audit_report import AuditReport
from ingest.audit_rows import counted_rows
from telemetry import wire
from telemetry.batch import SampleBatch, from_rows
from telemetry.ledger import HOUR_US
from telemetry.log.protocol import OutRecord
from telemetry.messages import DroppedCell, DroppedRange, Ledger
from telemetry.settings import Settings
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, count, ingesting, ledger_entries, now_us, producing, until_stored

HOUR = (now_us() // HOUR_US - 2) * HOUR_US
"""An hour that is past, so that all samples of a test lie in it."""


def sums(report: AuditReport) -> dict[str, int]:
    names = ("journaled", "stored", "dropped", "dead", "in_flight", "lost", "doubled")
    return {name: getattr(report, name) for name in names}


async def stored(store: Settings, *batches: SampleBatch) -> None:
    """Samples journaled, stored and in the ledger."""
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(*batches)
        await edge.send_ledger()
        await until_stored(store, edge)


async def test_what_was_journaled_and_stored_is_clean(store: Settings) -> None:
    odd = from_rows(
        [
            ("a/x", HOUR + 1, float("nan"), 24),
            ("a/x", HOUR + 2, -0.0, 192),
            ("a/x", HOUR + 3, float("inf"), 192),
            ("a/x", HOUR + 3, float("inf"), 192),
            ("b/y", HOUR - 1, 1e-300, 64),
        ]
    )
    await stored(store, batch(["a/x", "b/x"], start_us=HOUR), odd)
    report = await audit(store)
    assert sums(report) == dict(journaled=25, stored=25, dropped=0, dead=0, in_flight=0, lost=0, doubled=0)
    assert [line.checksum for line in report.equipment] == ["same"] * 3
    assert report.clean


async def test_samples_that_the_ledger_does_not_cover_yet_are_not_doubled(store: Settings) -> None:
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x"], start_us=HOUR))
        await edge.send_ledger()
        await edge.send_samples(batch(["a/x"], start_us=HOUR, value=3.0))
        await until_stored(store, edge)
        report = await audit(store)
        assert report.clean
        assert (report.journaled, report.stored) == (20, 20)
        assert report.equipment[0].checksum == "pending"
        await edge.send_ledger()
        await until_stored(store, edge)
        report = await audit(store)
        assert report.clean
        assert report.equipment[0].checksum == "same"


async def test_a_deleted_row_is_lost(store: Settings) -> None:
    await stored(store, batch(["a/x", "b/x"], start_us=HOUR))
    execute(
        store.store,
        "DELETE FROM store.sample WHERE value = 3.5 AND signal_id = (SELECT min(signal_id) FROM store.signal)",
    )
    report = await audit(store)
    assert (report.lost, report.doubled, report.clean) == (1, 0, False)
    faulty = [line for line in report.equipment if line.lost]
    assert [(line.equipment, line.hour_us, line.journaled, line.counted) for line in faulty] == [("a", HOUR, 10, 9)]


async def test_a_doubled_row_is_doubled(store: Settings) -> None:
    await stored(store, batch(["a/x", "b/x"], start_us=HOUR))
    execute(store.store, "INSERT INTO store.sample SELECT * FROM store.sample WHERE value = 2.5")
    report = await audit(store)
    assert (report.lost, report.doubled, report.clean) == (0, 2, False)


async def test_one_lost_and_one_doubled_in_the_same_hour_are_both_named(store: Settings) -> None:
    await stored(store, batch(["a/x"], start_us=HOUR))
    execute(store.store, "DELETE FROM store.sample WHERE value = 2.5")
    execute(store.store, "INSERT INTO store.sample SELECT * FROM store.sample WHERE value = 3.5")
    report = await audit(store)
    assert (report.lost, report.doubled) == (1, 1)
    assert report.equipment[0].checksum == "differs"
    assert "lost 1, doubled 1" in str(report)


@pytest.mark.parametrize("change", ["value = value + 1e-9", "time = time + interval '1 microsecond'", "quality = 193"])
async def test_a_changed_row_is_named(plain_store: Settings, change: str) -> None:
    await stored(plain_store, batch(["a/x"], start_us=HOUR))
    execute(plain_store.store, f"UPDATE store.sample SET {change} WHERE value = 2.5")  # noqa: S608
    assert not (await audit(plain_store)).clean


async def test_drops_explain_what_is_missing_and_only_so_much(store: Settings) -> None:
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        edge.samples(batch(["a/x"], start_us=HOUR))  # journaled as seq 0, then dropped by the spool
        await edge.send_samples(batch(["a/x"], start_us=HOUR, value=20.0))
        await edge.send_dropped(DroppedRange(edge.epoch, 0, 0, 10))
        await edge.send_ledger()
        await edge.send_samples(batch(["a/x"], samples=1, start_us=HOUR))
        await edge.send_ledger()

        def accepted() -> bool:
            rows = execute(store.store, "SELECT missing::text, upper(accepted) FROM ingest_progress")
            return rows == [("{}", edge.seq)]

        await until(accepted)
    report = await audit(store)
    assert sums(report) == dict(journaled=21, stored=11, dropped=10, dead=0, in_flight=0, lost=0, doubled=0)
    assert execute(store.store, "SELECT code FROM events") == [("range-dropped",)]
    execute(store.store, "DELETE FROM store.sample WHERE value = 21")
    assert (await audit(store)).lost == 1


async def test_what_is_committed_while_the_audit_reads_is_not_half_seen(
    plain_store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ledger, rows and sets are of one moment."""
    await stored(plain_store, batch(["a/x"], start_us=HOUR))

    async def counted_later(connection: Any) -> Any:
        execute(plain_store.store, "INSERT INTO store.sample SELECT * FROM store.sample")
        return await counted_rows(connection)

    monkeypatch.setattr(auditing, "counted_rows", counted_later)
    assert (await audit(plain_store)).clean
    monkeypatch.undo()
    assert (await audit(plain_store)).doubled == 10


@pytest.mark.parametrize(("began", "doubled"), [("now()", 4), ("now() - interval '200 days'", 0)])
async def test_a_drop_that_nothing_lacks_was_stored_all_the_same(store: Settings, began: str, doubled: int) -> None:
    """Unless its epoch began before what retention keeps: then its rows may have been there, and be gone."""
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x"], start_us=HOUR))
        edge.seq += 1
        await edge.send_dropped(DroppedRange(edge.epoch, 1, 1, 4))
        await edge.send_ledger()
        await until(lambda: execute(store.store, "SELECT upper(accepted) FROM ingest_progress") == [(edge.seq,)])
    execute(store.store, f"UPDATE store.progress SET first_at = {began}")  # noqa: S608
    report = await audit(store)
    assert (count(store), report.lost, report.doubled) == (10, 0, doubled)


async def test_a_drop_that_says_of_what_explains_only_that(store: Settings) -> None:
    """Of the two equipments that lack rows, one lost them: the drop of the other is not spent on it."""
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        edge.samples(batch(["z/x"], start_us=HOUR))  # journaled as seq 0, then dropped by the spool
        await edge.send_samples(batch(["a/x"], start_us=HOUR))
        await edge.send_dropped(DroppedRange(edge.epoch, 0, 0, 10, (DroppedCell("z", HOUR, 10),)))

        def accepted() -> bool:
            rows = execute(store.store, "SELECT missing::text, upper(accepted) FROM ingest_progress")
            return rows == [("{}", edge.seq)]

        await until(accepted)
        early = await audit(store)
        assert sums(early) == dict(journaled=20, stored=10, dropped=10, dead=0, in_flight=0, lost=0, doubled=0)
        await edge.send_ledger()
        await until(accepted)
    report = await audit(store)
    assert sums(report) == sums(early), "whether or not the ledger covers it yet"
    assert [(e.equipment, e.counted, e.explained) for e in report.equipment] == [("a", 10, 0), ("z", 0, 10)]
    assert report.clean
    execute(store.store, "DELETE FROM store.sample WHERE value = 2.5")
    report = await audit(store)
    assert [(e.equipment, e.lost, e.doubled) for e in report.equipment] == [("a", 1, 0), ("z", 0, 0)]


async def test_drops_of_which_only_a_part_is_known_add_up(plain_store: Settings) -> None:
    """Twice ten samples, six of them known; before the ledger covers them, and afterwards."""
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge = Edge(producer)
        edge.samples(batch(["z/x"], start_us=HOUR))
        edge.samples(batch(["a/x"], start_us=HOUR))
        await edge.send_dropped(DroppedRange(edge.epoch, 0, 0, 10, (DroppedCell("z", HOUR, 6),)))
        await edge.send_dropped(DroppedRange(edge.epoch, 1, 1, 10))
        read = "SELECT upper(accepted) FROM ingest_progress"
        await until(lambda: execute(plain_store.store, read) == [(edge.seq,)], what="both are read")
        early = await audit(plain_store)
        await edge.send_ledger()
        await until(lambda: execute(plain_store.store, read) == [(edge.seq,)], what="the ledger is read")
        covered = await audit(plain_store)
    for report in (early, covered):
        assert sums(report) == dict(journaled=20, stored=0, dropped=20, dead=0, in_flight=0, lost=0, doubled=0)


async def test_what_was_dropped_of_one_and_is_missing_of_another_is_lost_and_doubled(store: Settings) -> None:
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        edge.samples(batch(["a/x"], start_us=HOUR))
        await edge.send_samples(batch(["b/x"], start_us=HOUR))
        await edge.send_dropped(DroppedRange(edge.epoch, 0, 0, 10, (DroppedCell("b", HOUR, 10),)))
        await edge.send_ledger()
        await until(lambda: execute(store.store, "SELECT upper(accepted) FROM ingest_progress") == [(edge.seq,)])
    report = await audit(store)
    assert [(e.equipment, e.lost, e.doubled) for e in report.equipment] == [("a", 10, 0), ("b", 0, 10)]


async def test_a_drop_of_an_hour_that_retention_has_ended_is_not_judged(plain_store: Settings) -> None:
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge = Edge(producer)
        edge.samples(batch(["a/x"], start_us=HOUR))
        await edge.send_dropped(DroppedRange(edge.epoch, 0, 0, 10, (DroppedCell("a", HOUR, 10),)))
        await edge.send_ledger()
        await until(lambda: execute(plain_store.store, "SELECT upper(accepted) FROM ingest_progress") == [(edge.seq,)])
    execute(plain_store.store, "DELETE FROM store.ledger")  # as retention does with old hours
    assert (await audit(plain_store)).doubled == 10
    later = plain_store.model_copy(update={"retention_days": 1 / 48, "late_bound_days": 1 / 96})
    report = await audit(later)
    assert (report.lost, report.doubled) == (0, 0)


@pytest.mark.parametrize(
    "cells",
    [
        (DroppedCell("a", HOUR, 11),),
        (DroppedCell("a", HOUR, 20), DroppedCell("b", HOUR, -10)),
        (DroppedCell("", HOUR, 10),),
    ],
)
async def test_cells_of_a_drop_that_cannot_be_right_count_as_none(
    plain_store: Settings, cells: tuple[DroppedCell, ...]
) -> None:
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge = Edge(producer)
        edge.samples(batch(["a/x"], start_us=HOUR))
        await edge.send_dropped(DroppedRange(edge.epoch, 0, 0, 10, cells))
        await edge.send_ledger()
        await until(lambda: execute(plain_store.store, "SELECT upper(accepted) FROM ingest_progress") == [(edge.seq,)])
    report = await audit(plain_store)
    assert sums(report) == dict(journaled=10, stored=0, dropped=10, dead=0, in_flight=0, lost=0, doubled=0)


async def test_dead_rows_and_unreadable_records_are_accounted_for(store: Settings) -> None:
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        mixed = from_rows(
            [("a/x", HOUR, 1.0, 192), ("a/x", now_us() + 3_600_000_000, 2.0, 192), ("A b", HOUR, 3.0, 192)]
        )
        await edge.send_samples(mixed)
        whole = edge.samples(batch(["a/x"], start_us=HOUR))
        await edge.send(OutRecord(whole.key, whole.value[:-40] + b"corrupt!" + whole.value[-32:], whole.headers))
        await until_stored(store, edge)
        before = await audit(store)
        assert sums(before) == dict(journaled=13, stored=1, dropped=0, dead=12, in_flight=0, lost=0, doubled=0)
        await edge.send_ledger()
        await until_stored(store, edge)
    report = await audit(store)
    assert sums(report) == dict(journaled=13, stored=1, dropped=0, dead=12, in_flight=0, lost=0, doubled=0)
    assert report.clean


async def test_a_hole_is_in_flight_while_young_and_loss_afterwards(store: Settings) -> None:
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        edge.samples(batch(["a/x"], start_us=HOUR))
        await edge.send_ledger()

        def ledger_is_in() -> bool:
            return bool(execute(store.store, "SELECT 1 FROM store.ledger"))

        await until(ledger_is_in)
    report = await audit(store)
    assert (report.in_flight, report.lost, report.clean) == (10, 0, True)
    execute(store.store, "UPDATE store.progress SET last_at = now() - interval '10 minutes'")
    report = await audit(store)
    assert (report.in_flight, report.lost, report.clean) == (0, 10, False)
    assert report.edges[0].missing == "{[0,1)}"


async def test_a_ledger_split_over_records_counts_when_its_last_part_is_here(store: Settings) -> None:
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(batch(["a/x", "b/x"], start_us=HOUR))
        first, second = ledger_entries(edge.counted)
        edge.counted = []
        await edge.send(edge.record(wire.encode_ledger(Ledger(edge.name, edge.epoch, -1, (first,)))))
        await until_stored(store, edge)
        assert (await audit(store)).clean
        await edge.send(edge.record(wire.encode_ledger(Ledger(edge.name, edge.epoch, 0, (second,)))))
        await until_stored(store, edge)
    report = await audit(store)
    assert report.clean
    assert (report.journaled, {line.checksum for line in report.equipment}) == (20, {"same"})


async def test_an_old_epoch_is_covered_by_the_ledger_that_the_next_one_publishes(store: Settings) -> None:
    async with producing(store) as producer, ingesting(store):
        killed, opened = Edge(producer), Edge(producer)
        await killed.send_samples(batch(["a/x"], start_us=HOUR))
        entries = ledger_entries(killed.counted)
        await until_stored(store, killed)
        await opened.send(opened.record(wire.encode_ledger(Ledger(killed.name, killed.epoch, 0, entries))))
        await until_stored(store, opened)
    report = await audit(store)
    assert report.clean
    assert report.equipment[0].checksum == "same"
    assert [edge.as_json()["journaled"] for edge in report.edges] == [10, 0]


async def test_hours_that_retention_may_have_taken_are_not_called_lost(store: Settings) -> None:
    await stored(store, batch(["a/x"], start_us=HOUR))
    execute(store.store, "DELETE FROM store.sample WHERE value > 3")
    later = store.model_copy(update={"retention_days": 1 / 48, "late_bound_days": 1 / 96})
    report = await audit(later)
    assert (report.lost, report.journaled) == (0, 0)


async def test_the_json_has_what_was_promised(store: Settings) -> None:
    await stored(store, batch(["a/x"], start_us=HOUR))
    answer = (await audit(store)).as_json()
    assert list(answer) == [
        "journaled",
        "stored",
        "dropped",
        "dead",
        "in_flight",
        "lost",
        "doubled",
        "edges",
        "equipment",
    ]
    hour = datetime.fromtimestamp(HOUR / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = answer["equipment"][0]
    assert {key: line[key] for key in ("equipment", "hour", "journaled", "counted")} == {
        "equipment": "a",
        "hour": hour,
        "journaled": 10,
        "counted": 10,
    }
    assert len(answer["edges"][0]["epoch"]) == 16


async def test_the_rows_are_hashed_from_the_table_whatever_their_number(store: Settings) -> None:
    random = np.random.default_rng(7)
    names = tuple(f"e{n % 7}/p{n}" for n in range(40))
    n = 30_000
    many = SampleBatch(
        names,
        random.integers(0, 40, n).astype(np.int32),
        HOUR + random.integers(0, HOUR_US, n).astype(np.int64),
        random.normal(size=n),
        np.full(n, 192, np.uint8),
    )
    await stored(store, many)
    report = await audit(store)
    assert report.clean
    assert (report.stored, count(store)) == (n, n)
    assert {line.checksum for line in report.equipment} == {"same"}
