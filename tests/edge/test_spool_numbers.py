"""A record goes out under the number that it was journaled with, whatever the disk made of its row."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from edge.spool_numbers import mend_numbers
from tests.edge.spools import NOW_US, S, batch_of, everything, forwarded, journal, ledgers, open_at

EPOCHS = 3
RECORDS = 6


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three openings of a spool, six records each, one of samples of a class of its own among them."""
    path = tmp_path / "spool.sqlite"
    for epoch in range(1, EPOCHS + 1):
        spool = open_at(path, epoch << 40)
        for n in range(RECORDS):
            journal(spool, batch_of("e", 5, time_us=NOW_US + (10 * epoch + n) * S))
        spool.close()
    return path


def numbers(path: Path) -> list[tuple[int, int, int]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT position, epoch, seq FROM record ORDER BY position").fetchall()


def change(path: Path, statement: str, values: Sequence[object] = ()) -> None:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute(statement, values).rowcount
        db.commit()


@pytest.mark.parametrize("position", [2, 5, 8, 11, 15])
@pytest.mark.parametrize(
    "change_to",
    [
        "seq = seq + 1",
        "seq = seq - 1",
        "seq = seq | (1 << 50)",
        "epoch = epoch | 64",
        "epoch = epoch + (1 << 40)",
        "epoch = 'x'",
        "seq = x'07'",
        "epoch = 1.5, seq = 2.5",
    ],
)
def test_a_damaged_number_between_two_sound_ones_is_put_right(path: Path, position: int, change_to: str) -> None:
    before = numbers(path)
    change(path, f"UPDATE record SET {change_to} WHERE position = ?", [position])  # noqa: S608
    assert numbers(path) != before
    spool = open_at(path, 9)
    assert numbers(path) == before
    sent = forwarded(spool)
    assert [(epoch, seq) for epoch, seq, _ in sent] == [one[1:] for one in before]
    spool.publish(force=True)
    told = [one for one in ledgers(forwarded(spool)) if one.epoch != 9]
    assert [(one.epoch, one.through) for one in told] == [(n << 40, RECORDS - 1) for n in range(1, EPOCHS + 1)]
    spool.close()


def test_several_that_were_damaged_alike_are_put_right(path: Path) -> None:
    before = numbers(path)
    change(path, "UPDATE record SET epoch = epoch | 64 WHERE position IN (8, 11)")
    change(path, "UPDATE record SET seq = seq | 64 WHERE position = 9")
    open_at(path, 9).close()
    assert numbers(path) == before


def test_the_more_of_them_are_right(path: Path) -> None:
    before = numbers(path)
    change(path, "UPDATE record SET epoch = epoch | 64 WHERE position IN (7, 9)")
    open_at(path, 9).close()
    assert [one for one in numbers(path) if one not in before] == [(7, 2 << 40 | 64, 0)]


@pytest.mark.parametrize("position", [1, RECORDS, RECORDS + 1, EPOCHS * RECORDS])
def test_the_first_and_the_last_of_an_epoch_are_left_as_they_are(path: Path, position: int) -> None:
    """Nothing on their other side says whose they are."""
    change(path, "UPDATE record SET epoch = epoch | 64 WHERE position = ?", [position])
    before = numbers(path)
    open_at(path, 9).close()
    assert numbers(path) == before


@pytest.mark.parametrize("seed", range(20))
def test_sound_numbers_stay_whatever_was_forwarded_dropped_and_begun_anew(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "spool.sqlite"
    for epoch in rng.sample(range(1, 1 << 62), 6):
        policy = rng.choice(["oldest", "newest"])
        spool = open_at(path, epoch, 6_000, policy=policy, tail_bytes=rng.choice([1, 2_000, 1 << 20]))
        for n in range(rng.randrange(15)):
            journal(spool, batch_of("e", rng.randrange(1, 40), time_us=NOW_US + n * S))
            if rng.random() < 0.3:
                spool.tail.acknowledge(spool.tail.take(max_records=2, max_bytes=1 << 20))
                spool.settle()
            if rng.random() < 0.2:
                spool.publish(force=rng.random() < 0.5)
        spool.close()
        with closing(sqlite3.connect(path)) as db:
            assert mend_numbers(db) == 0


def test_a_spool_whose_numbers_are_sound_is_not_written_for_it(path: Path) -> None:
    spool = open_at(path, 9)
    assert len(spool.tail) + len(everything(spool)) >= EPOCHS * RECORDS
    spool.close()
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        assert mend_numbers(db) == 0
