"""The window of message keys: the newest are all there, what is older goes in a few large deletions, whatever commits hold."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator

import pytest

from edge.spool_keys import KEY_BYTES, KEYS_MAX, Keys

MOST_A_COMMIT = 600


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE delivered (position INTEGER PRIMARY KEY, value BLOB NOT NULL)")
    yield connection
    connection.close()


def key(number: int) -> bytes:
    return number.to_bytes(KEY_BYTES, "little")


def kept(db: sqlite3.Connection) -> int:
    return int(db.execute(f"SELECT sum(length(value)) / {KEY_BYTES} FROM delivered").fetchone()[0])  # noqa: S608


def fill(keys: Keys, upto: int, *, seed: int = 1) -> int:
    """Commits of 1 to MOST_A_COMMIT keys, numbered from 0, until there are `upto`. Returns how many there are."""
    chance, made = random.Random(seed), 0
    while made < upto:
        more = chance.randint(1, MOST_A_COMMIT)
        keys.add(b"".join(map(key, range(made, made + more))))
        made += more
    return made


def test_the_newest_keys_are_known_after_every_deletion_and_no_row_more_than_holds_them(db: sqlite3.Connection) -> None:
    keys, deletions = Keys(db), list[int]()
    keys.load()

    def traced(statement: str) -> None:
        if statement.startswith("DELETE"):
            deletions.append(made)

    db.set_trace_callback(traced)
    chance, made = random.Random(2), 0
    while made < 2 * KEYS_MAX:
        more = chance.randint(1, MOST_A_COMMIT)
        keys.add(b"".join(map(key, range(made, made + more))))
        made += more
        assert min(made, KEYS_MAX) <= kept(db) <= KEYS_MAX * 1.1 + MOST_A_COMMIT
        if deletions and deletions[-1] == made - more:
            oldest = (
                db.execute("SELECT length(value) FROM delivered ORDER BY position LIMIT 1").fetchone()[0] // KEY_BYTES
            )
            assert kept(db) - oldest < KEYS_MAX, "the oldest row that is left is needed"
    db.set_trace_callback(None)
    assert keys.all() == [key(number) for number in range(made - KEYS_MAX, made)]
    assert 8 <= len(deletions) <= 11, "a tenth of the window goes at a time"


def test_counting_them_again_changes_nothing(db: sqlite3.Connection) -> None:
    """As after a transaction that failed."""
    keys = Keys(db)
    made = fill(keys, KEYS_MAX - MOST_A_COMMIT)
    keys.load()
    keys.load()
    keys.add(key(made))
    assert kept(db) == made + 1, "nothing is deleted before its time"


def test_keys_that_are_none_are_refused(db: sqlite3.Connection) -> None:
    with pytest.raises(ValueError, match="expected keys of 16 bytes, found 17"):
        Keys(db).add(bytes(17))
