"""What the spool says of itself survives damage of its record: else the audit would be wrong about what others hold."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from telemetry.messages import Kind
from tests.edge.spools import batch_of, drops, event, forwarded, increments, journal, ledgers, open_at


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A spool of epoch 1 that the log has nothing of: 5 samples, of 3 of which it says that they were dropped."""
    path = tmp_path / "spool.sqlite"
    spool = open_at(path, 1)
    for n in (5, 3):
        journal(spool, batch_of("e", n))
    spool.set_aside([2], "refused")
    spool.publish(force=True)
    spool.close()
    return path


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            assert db.execute(statement).rowcount, "something is there to be changed"
        db.commit()


SPOILED = "UPDATE record SET value = zeroblob(length(value)) WHERE kind = 'ledger'"


@pytest.mark.parametrize("into", ["zeroblob(length(value))", "x''", "'text'", "7"])
@pytest.mark.parametrize("kind", [Kind.LEDGER, Kind.DROPPED])
@pytest.mark.parametrize("tail_bytes", [1, 8 << 20])
def test_a_damaged_record_of_the_ledger_or_of_drops_goes_out_as_it_was(
    path: Path, kind: Kind, into: str, tail_bytes: int
) -> None:
    change(path, f"UPDATE record SET value = {into} WHERE kind = '{kind}'")  # noqa: S608
    spool = open_at(path, 2, tail_bytes=tail_bytes)
    sent = forwarded(spool)
    assert spool.counts.corrupt_records == 0
    assert sorted(seq for _, seq, _ in sent) == [0, 2, 3]
    [told] = ledgers(sent)
    assert (told.epoch, told.entries[0].samples, told.through) == (1, 8, 2)
    [gone] = drops(sent)
    assert (gone.epoch, gone.first, gone.last, gone.samples) == (1, 1, 1, 3)
    spool.close()


def test_a_copy_that_does_not_answer_to_the_crc_is_not_taken(path: Path) -> None:
    change(path, SPOILED, "UPDATE copy SET value = x'7b7d'")
    spool = open_at(path, 2)
    assert not ledgers(forwarded(spool))
    assert spool.counts.corrupt_records == 1
    spool.close()


def test_copies_go_with_what_they_are_of(path: Path) -> None:
    spool = open_at(path, 2)
    forwarded(spool)
    journal(spool, batch_of("e", 2))
    spool.publish(force=True)
    with closing(sqlite3.connect(path)) as db:
        controls = db.execute("SELECT position, value FROM record WHERE class = 2").fetchall()
        assert controls
        assert db.execute("SELECT * FROM copy").fetchall() == controls
    spool.close()


def test_a_spool_of_a_release_without_copies_opens_as_it_is_and_makes_them_from_then_on(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE copy")
        [version] = db.execute("PRAGMA user_version").fetchone()
    spool = open_at(path, 2)
    assert len(forwarded(spool)) == 3
    spool.journal([event()], increments("e", batch_of("e", 1)))
    spool.publish(force=True)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM copy").fetchone() > (0,)
        assert db.execute("PRAGMA user_version").fetchone() == (version,), "the earlier release still opens it"
    spool.close()
