"""The spool's ledger: through folding, publication, crashes and back-fill it counts exactly what was journaled."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edge.spool_ledger import ENTRIES_MAX
from telemetry.messages import Kind
from tests.edge.spools import BIG, NOW_US, batch_of, event, everything, forwarded, journal, ledgers, open_at


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.sqlite"


def told(records: list) -> list[tuple[int, int, list[tuple[str, int]]]]:  # type: ignore[type-arg]
    return [(g.epoch, g.through, [(e.equipment, e.samples) for e in g.entries]) for g in ledgers(records)]


def test_the_ledger_of_an_epoch_that_was_killed_is_published_when_its_records_are_with_the_log(path: Path) -> None:
    spool = open_at(path, 1)
    journal(spool, batch_of("e", 5))
    journal(spool, batch_of("f", 2), "f")
    spool.close()
    spool = open_at(path, 2)
    journal(spool, batch_of("e", 1))
    spool.publish()
    assert told(everything(spool)) == [(2, 0, [("e", 1)])], "else the audit would call them lost while they wait here"
    forwarded(spool)
    spool.publish()
    assert told(forwarded(spool)) == [(1, 1, [("e", 5), ("f", 2)])]
    assert spool.publish() == 0
    spool.close()


def test_a_large_ledger_is_split_and_only_its_last_part_says_that_all_is_covered(path: Path) -> None:
    spool = open_at(path, 1)
    increments = {(f"e{n}", 0): (1, n) for n in range(ENTRIES_MAX + 1)}
    spool.journal([event()], increments)
    spool.publish()
    parts = ledgers(everything(spool))
    assert [(len(p.entries), p.through) for p in parts] == [(ENTRIES_MAX, -1), (1, 0)]
    checksums = {entry.equipment: entry.checksum for p in parts for entry in p.entries}
    assert checksums == {f"e{n}": n for n in range(ENTRIES_MAX + 1)}
    spool.close()


def test_a_ledger_that_just_fits_into_one_record_says_that_all_is_covered(path: Path) -> None:
    spool = open_at(path, 1)
    spool.journal([event()], {(f"e{n}", 0): (1, n) for n in range(ENTRIES_MAX)})
    spool.publish()
    assert [(len(p.entries), p.through) for p in ledgers(everything(spool))] == [(ENTRIES_MAX, 0)]
    spool.close()


def test_while_one_ledger_record_waits_for_the_log_no_second_is_made(path: Path) -> None:
    spool = open_at(path, 1)
    journal(spool, batch_of("e", 1))
    assert spool.publish() == 1
    journal(spool, batch_of("e", 1))
    assert spool.publish() == 0
    assert spool.publish(force=True) == 1
    journal(spool, batch_of("e", 1))
    spool.tail.acknowledge(spool.tail.take(max_records=10, max_bytes=BIG))
    assert spool.publish() == 1, "acknowledged is as good as deleted"
    spool.close()


def test_nor_after_a_restart(path: Path) -> None:
    spool = open_at(path, 1)
    journal(spool, batch_of("e", 1))
    spool.publish()
    spool.close()
    spool = open_at(path, 2)
    journal(spool, batch_of("e", 1))
    assert spool.publish() == 0
    forwarded(spool)
    assert spool.publish() == 1
    spool.close()


def test_checksums_of_all_64_bits_survive_folding_and_a_crash(path: Path) -> None:
    spool = open_at(path, 1)
    journal(spool, batch_of("x", 1), "x")
    spool.publish()
    spool.journal([event()], {("e", 0): (1, 2**64 - 1)})
    spool.journal([event()], {("e", 0): (1, 2**63)})
    assert spool.publish() == 0, "folded: one still waits"
    spool.journal([event()], {("e", 0): (1, 5)})
    spool._db.close()
    spool.close()
    spool = open_at(path, 2)
    forwarded(spool)
    spool.publish()
    (ledger,) = ledgers(forwarded(spool))
    assert (ledger.entries[0].samples, ledger.entries[0].checksum) == (3, (2**64 - 1 + 2**63 + 5) % 2**64)
    spool.close()


def test_an_outage_leaves_one_row_a_cell_and_not_one_a_commit(path: Path) -> None:
    spool = open_at(path, 1)
    journal(spool, batch_of("e", 1))
    spool.publish()
    for n in range(50):
        journal(spool, batch_of("e", 1, time_us=NOW_US + n))
    spool.publish()
    assert spool._db.execute("SELECT count(*) FROM tally").fetchone()[0] == 0
    assert spool._db.execute("SELECT samples FROM ledger").fetchall() == [(50,)]
    forwarded(spool)
    spool.publish()
    assert told(forwarded(spool)) == [(1, 51, [("e", 50)])]
    assert spool._db.execute("SELECT count(*) FROM ledger").fetchone()[0] == 0
    spool.close()


def test_after_a_fold_and_a_crash_the_ledger_covers_what_it_covered_before(path: Path) -> None:
    """Were the row of the present epoch deleted when the ledger is folded or published, `through` would be lost."""
    spool = open_at(path, 1)
    journal(spool, batch_of("e", 1))
    spool.publish()
    for n in range(3):
        journal(spool, batch_of("e", 2, time_us=NOW_US + n))
    spool.publish()
    spool._db.close()
    spool.close()
    for epoch in (2, 3):
        spool = open_at(path, epoch)
        if epoch == 2:
            spool._db.close()  # and once more before anything is said
        else:
            forwarded(spool)
            spool.publish()
            assert told(forwarded(spool)) == [(1, 4, [("e", 6)])]
        spool.close()


def test_a_ledger_that_could_not_be_written_is_not_lost(path: Path) -> None:
    spool = open_at(path, 1)
    journal(spool, batch_of("e", 3))
    spool._at = _full
    with pytest.raises(sqlite3.OperationalError):
        spool.publish()
    spool._at = lambda point: None
    journal(spool, batch_of("e", 4))
    spool.publish()
    sent = forwarded(spool)
    assert told(sent) == [(1, 1, [("e", 7)])]
    assert [record.kind for _, _, record in sent].count(Kind.LEDGER) == 1
    spool.close()


def _full(point: str) -> None:
    if point == "before commit":
        raise sqlite3.OperationalError("database or disk is full")
