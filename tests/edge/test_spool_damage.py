"""A spool's file that the disk has damaged: it never keeps the edge from starting, and nothing of it is destroyed."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge import spool_file
from edge.intake import make_intake
from edge.journal import Journal
from edge.spool_file import PAGE_BYTES
from edge.spool_ledger import SpoolLedger
from telemetry.messages import Kind
from tests.edge.spools import NOW_US, batch_of, cut_off_after, event, everything, forwarded, journal, open_at

RECORDS = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.sqlite"


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is too large to be checked whole at each start."""
    monkeypatch.setattr(spool_file, "CHECKED_BYTES", 0)


def fill(path: Path) -> None:
    spool = open_at(path, 1)
    for n in range(RECORDS):
        journal(spool, batch_of("e", 300, time_us=NOW_US + n * 1_000))
    spool.close()


def spoil(path: Path, rng: random.Random) -> bytes:
    """Overwrites the beginning of some page: of a table, of its index, or of a record's continuation. The file then."""
    with path.open("r+b") as file:
        file.seek(rng.randrange(1, path.stat().st_size // PAGE_BYTES) * PAGE_BYTES + rng.choice([0, 3, 8]))
        file.write(rng.randbytes(300))
    return path.read_bytes()


def spoil_aside(path: Path) -> None:
    """Damages the table `aside`, which a start does not look into."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        [(root,)] = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'aside'")
    with path.open("r+b") as file:
        file.seek((root - 1) * PAGE_BYTES)
        file.write(b"\xff" * 8)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.usefixtures("large")
def test_whatever_page_is_damaged_the_next_start_journals_and_the_file_is_kept(path: Path, seed: int) -> None:
    fill(path)
    spoiled = spoil(path, random.Random(seed))
    spool = open_at(path, 2)
    journal(spool, batch_of("e", 3))
    records = forwarded(spool)
    assert records[-1][:2] == (2, 0)
    if spool.lost_file is None:
        assert len(records) + spool.counts.corrupt_records == RECORDS + 1, "each is sent, or set aside and counted"
    else:
        assert spool.lost_file.read_bytes() == spoiled
        assert spool.salvaged is not None
        assert len(records) == spool.salvaged.records - spool.salvaged.without_bytes + 1
        assert len(records) >= RECORDS // 2
    spool.close()
    again = open_at(path, 3)
    assert again.lost_file is None
    again.close()


def test_what_was_committed_last_is_in_what_is_moved_aside(path: Path) -> None:
    """A power cut leaves it in the write-ahead log."""
    fill(path)
    cut_off_after(path, 2, event(0))
    spoil_aside(path)
    spool = open_at(path, 3)
    assert spool.lost_file is not None
    spool.close()
    with closing(sqlite3.connect(spool.lost_file)) as db:
        assert db.execute("SELECT kind FROM record ORDER BY position DESC LIMIT 1").fetchone() == (Kind.EVENTS,)


@pytest.mark.usefixtures("large")
async def test_damage_that_is_found_at_work_ends_the_edge_once_and_the_next_start_checks_the_file(path: Path) -> None:
    fill(path)
    spool = open_at(path, 1)
    journal_of = Journal(spool, make_intake({}))
    journal_of.start()

    def damaged(_: object) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        await journal_of.call(damaged)
    await journal_of.close()
    mark = path.with_suffix(".damaged")
    assert mark.exists()
    sound = open_at(path, 2)
    assert sound.lost_file is None
    assert len(everything(sound)) + len(sound.tail) >= RECORDS, "a sound file goes on as it is"
    sound.close()
    assert not mark.exists(), "it was checked"


@pytest.mark.usefixtures("large")
def test_only_a_large_file_that_is_suspect_is_checked_whole_and_what_is_damaged_is_moved_aside(path: Path) -> None:
    fill(path)
    spoil_aside(path)
    trusting = open_at(path, 2)
    assert trusting.lost_file is None
    trusting.suspect("database disk image is malformed")
    trusting.close()
    checking = open_at(path, 3)
    assert checking.lost_file is not None
    checking.close()
    assert not path.with_suffix(".damaged").exists()


def test_a_disk_that_fails_while_the_spool_is_loaded_leaves_it_to_be_opened_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path)

    def full(self: SpoolLedger) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(SpoolLedger, "load", full)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            open_at(path, 2)
    spool = open_at(path, 3)
    assert spool.lost_file is None
    spool.close()
