"""What a salvage may come upon: spools of earlier versions, a mark that must not come back, a ledger that has its copy."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge import spool_salvage
from edge.spool_file import PAGE_BYTES, salvage_mark
from tests.edge.spools import (
    FakeTime,
    S,
    batch_of,
    forwarded,
    journal,
    ledgers,
    open_at,
    samples,
)
from tests.edge.test_spool import VERSION_0
from tests.edge.test_spool_salvage import root_of, spoil


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.sqlite"


def test_a_damaged_spool_of_version_0_is_salvaged_and_its_records_are_as_young_as_the_start(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(VERSION_0)
        row = "INSERT INTO record (epoch, seq, kind, count, crc, class, value) VALUES (5, ?, 'samples', 4, ?, 0, ?)"
        made = [samples(4, n) for n in range(3)]
        db.executemany(row, [(seq, one.crc, one.value) for seq, one in enumerate(made)])
        db.commit()
    spoil(path, root_of(path, "aside"), size=8)
    old = path.read_bytes()
    time = FakeTime()
    spool = open_at(path, 6, max_age_s=3_600, stamps=time.stamps())
    assert spool.salvaged is not None
    assert spool.salvaged.records == 3
    assert spool.salvaged.moved_to.read_bytes() == old
    time.pass_s(1_800)
    journal(spool, batch_of("e", 1))
    assert forwarded(spool)[:3] == [(5, seq, one) for seq, one in enumerate(made)]
    spool.close()


def test_a_damaged_ledger_record_that_has_its_copy_lets_the_ledger_come_over(path: Path) -> None:
    spool = open_at(path, 1)
    journal(spool, batch_of("e", 5))
    spool.publish(force=True)
    journal(spool, batch_of("e", 7, time_us=batch_of("e", 1).time_us.item() + S))
    spool.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE record SET value = zeroblob(length(value)) WHERE kind = 'ledger'")
        db.commit()
    spoil(path, root_of(path, "aside"), size=8)
    spool = open_at(path, 2)
    assert spool.salvaged is not None
    assert spool.salvaged.is_whole
    sent = forwarded(spool)
    spool.publish(force=True)
    of_it = [told for told in ledgers([*sent, *forwarded(spool)]) if told.epoch == 1]
    assert sum(entry.samples for told in of_it for entry in told.entries) == 12
    spool.close()


def test_that_the_mark_is_gone_is_durable_before_anything_is_sent(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that came back with the power would take the ledger over twice, and the audit would call as much lost."""
    seen: list[bool] = []

    def watched(folder: Path) -> None:
        assert folder == path.parent
        seen.append(salvage_mark(path).exists())

    open_at(path, 1).close()
    spoil(path, root_of(path, "aside"), size=8)
    monkeypatch.setattr(spool_salvage, "to_disk", watched)
    open_at(path, 2).close()
    assert seen == [False]
