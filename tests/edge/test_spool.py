"""The spool: what goes in comes out under its number; opening, damage, a commit that fails."""

from __future__ import annotations

import shutil
import sqlite3
import zlib
from pathlib import Path

import pytest

from edge.delivered import WINDOW, Delivered
from edge.spool import DELETE_BYTES
from edge.spool_file import PAGE_BYTES
from edge.spool_keys import KEYS_MAX
from telemetry.batch import from_rows
from telemetry.errors import StateLocked
from telemetry.messages import DroppedRange, Kind
from telemetry.wire import decode_ledger, encode_samples
from tests.edge.spools import (
    BIG,
    NOW_US,
    Crash,
    Crashing,
    FakeTime,
    batch_of,
    drops,
    event,
    everything,
    forwarded,
    journal,
    ledgers,
    open_at,
    samples,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.sqlite"


def test_records_come_out_as_they_went_in_with_the_numbers_they_were_given(path: Path) -> None:
    spool = open_at(path, 7)
    identities = spool.journal([samples(3), event()], {})
    assert [(i.edge, i.epoch, i.seq) for i in identities] == [("edge-1", 7, 0), ("edge-1", 7, 1)]
    assert everything(spool) == [(7, 0, samples(3)), (7, 1, event())]
    assert forwarded(spool) == [(7, 0, samples(3)), (7, 1, event())]
    assert everything(spool) == []
    spool.close()


def test_a_spool_restored_from_a_copy_never_reuses_a_number(path: Path, tmp_path: Path) -> None:
    spool = open_at(path, 1)
    spool.journal([event(0)], {})
    spool.close()
    copy = tmp_path / "copy.sqlite"
    shutil.copy(path, copy)
    original, restored = open_at(path, 2), open_at(copy, 3)
    original.journal([event(1)], {})
    restored.journal([event(2)], {})
    numbers = [(epoch, seq) for epoch, seq, _ in (*everything(original)[1:], *everything(restored)[1:])]
    assert numbers == [(2, 0), (3, 0)]
    assert everything(restored)[0][:2] == (1, 0), "old records keep theirs"
    original.close()
    restored.close()


def test_numbers_go_on_after_the_log_has_everything(path: Path) -> None:
    spool = open_at(path, 1)
    journal(spool, batch_of("e", 5))
    assert len(forwarded(spool)) == 1
    assert spool.waiting() == 0
    assert spool.journal([event()], {})[0].seq == 1
    spool.close()


def test_a_second_agent_on_the_same_spool_is_refused(path: Path) -> None:
    spool = open_at(path, 1)
    with pytest.raises(StateLocked, match="another edge agent"):
        open_at(path, 2)
    spool.close()
    open_at(path, 3).close()


@pytest.mark.parametrize("tail_bytes", [0, BIG])
def test_a_corrupt_record_is_set_aside_counted_and_reported_as_dropped(path: Path, tail_bytes: int) -> None:
    spool = open_at(path, 1)
    for n in range(3):
        journal(spool, batch_of("e", 4, time_us=NOW_US + n))
    spool.close()
    with sqlite3.connect(path) as db:
        value = bytearray(db.execute("SELECT value FROM record WHERE seq = 1").fetchone()[0])
        value[40] ^= 1
        db.execute("UPDATE record SET value = ? WHERE seq = 1", (bytes(value),))
    db.close()
    spool = open_at(path, 2, tail_bytes=tail_bytes)
    sent = forwarded(spool)
    assert sorted(key[:2] for key in sent) == [(1, 0), (1, 2)]
    assert (spool.counts.corrupt_records, spool.counts.corrupt_samples) == (1, 4)
    spool.publish()
    assert drops(forwarded(spool)) == [DroppedRange(1, 1, 1, 4)]
    kept = spool._db.execute("SELECT seq, reason, value FROM aside").fetchall()
    assert kept == [(1, "corrupt", bytes(value))]
    assert spool.bytes == 0
    spool.close()


@pytest.mark.parametrize(
    "wreck", [b"not a database at all, but long enough to be looked at", b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_file_that_is_no_spool_is_moved_aside_and_a_new_one_begun(path: Path, wreck: bytes) -> None:
    path.write_bytes(wreck)
    spool = open_at(path, 0xABC)
    assert spool.lost_file is not None
    assert spool.lost_file.read_bytes() == wreck
    spool.journal([event()], {})
    assert len(everything(spool)) == 1
    spool.close()


def test_a_page_torn_out_of_the_middle_is_noticed_at_opening(path: Path) -> None:
    spool = open_at(path, 1)
    for n in range(200):
        journal(spool, batch_of("e", 40, time_us=NOW_US + n))
    spool._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spool.close()
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2 // PAGE_BYTES * PAGE_BYTES
    whole[middle : middle + 2 * PAGE_BYTES] = b"\xa5" * (2 * PAGE_BYTES)
    path.write_bytes(whole)
    spool = open_at(path, 2)
    assert spool.lost_file is not None
    spool.close()


def test_a_file_of_a_later_version_is_refused_and_left_as_it_is(path: Path) -> None:
    open_at(path, 1).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(sqlite3.OperationalError, match="version 2 or before, found 99"):
        open_at(path, 2)


def test_a_full_disk_journals_nothing_and_leaves_everything_as_it_was(path: Path) -> None:
    spool = open_at(path, 1)
    journal(spool, batch_of("e", 5))
    pages = spool._db.execute("PRAGMA page_count").fetchone()[0]
    spool._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        spool.journal([samples(5_000)], {("e", 0): (5_000, 1)}, {"a": "b"}, b"k" * 16)
    assert (spool.state(), spool.delivered()) == ({}, [])
    spool._db.execute("PRAGMA max_page_count = 100000")
    journal(spool, batch_of("e", 6))
    spool.publish()
    sent = forwarded(spool)
    assert [(seq, e.count) for _, seq, e in sent[:2]] == [(0, 5), (1, 6)]
    assert [entry.samples for entry in ledgers(sent)[0].entries] == [11]
    spool.close()


def test_a_commit_that_fails_gives_its_numbers_its_bytes_and_its_ledger_back(path: Path) -> None:
    crashing = Crashing()
    spool = open_at(path, 1, BIG, crashing)
    crashing.point = "before commit"
    with pytest.raises(Crash):
        journal(spool, batch_of("e", 5))
    journal(spool, batch_of("e", 6))
    spool.publish()
    sent = forwarded(spool)
    assert [(seq, e.kind, e.count) for _, seq, e in sent] == [(0, Kind.SAMPLES, 6), (1, Kind.LEDGER, 1)], "no hole"
    assert [entry.samples for entry in ledgers(sent)[0].entries] == [6]
    assert spool.bytes == 0
    spool.close()


def test_the_crc_that_is_kept_is_that_of_the_value(path: Path) -> None:
    spool = open_at(path, 1)
    spool.journal([encode_samples(from_rows([("e/x", NOW_US, 1.0, 192)]))], {})
    value, crc = spool._db.execute("SELECT value, crc FROM record").fetchone()
    assert zlib.crc32(value) == crc
    spool.close()


def test_what_earlier_processes_left_goes_out_in_order(path: Path) -> None:
    expected = []
    for epoch in (5, 3, 9):
        spool = open_at(path, epoch)
        for n in range(4):
            spool.journal([event(n)], {})
            expected.append((epoch, n))
        spool.close()
    spool = open_at(path, 4)
    taken = spool.tail.take(max_records=6, max_bytes=BIG)
    spool.tail.acknowledge(taken)
    spool.settle()
    assert [(s.identity.epoch, s.identity.seq) for s in taken] == expected[:6]
    spool.close()
    spool = open_at(path, 6)
    assert [(e, s) for e, s, _ in forwarded(spool)] == expected[6:], "what was deleted does not come again"
    spool.close()


def test_what_the_log_has_is_deleted_after_a_second_or_when_it_is_much(path: Path) -> None:
    time = FakeTime()
    spool = open_at(path, 1, stamps=time.stamps())

    def rows_after_a_commit() -> int:
        journal(spool, batch_of("e", 5))
        return int(spool._db.execute("SELECT count(*) FROM record").fetchone()[0])

    time.pass_s(10)
    assert rows_after_a_commit() == 1
    spool.tail.acknowledge(spool.tail.take(max_records=1, max_bytes=BIG))
    assert rows_after_a_commit() == 1
    spool.tail.acknowledge(spool.tail.take(max_records=1, max_bytes=BIG))
    assert rows_after_a_commit() == 2, "within the second a commit deletes nothing"
    time.pass_s(1)
    assert rows_after_a_commit() == 2
    journal(spool, batch_of("e", DELETE_BYTES // 20))
    spool.tail.acknowledge(spool.tail.take(max_records=9, max_bytes=BIG))
    assert rows_after_a_commit() == 1
    spool.close()


def test_keys_of_messages_are_kept_with_their_readings_and_the_oldest_forgotten(path: Path) -> None:
    spool = open_at(path, 1)
    keys = [n.to_bytes(16, "little") for n in range(KEYS_MAX + 5_000)]
    for start in range(0, len(keys), 1_000):
        spool.journal([], {}, None, b"".join(keys[start : start + 1_000]))
    assert spool.delivered() == keys[-KEYS_MAX:]
    assert spool._db.execute("SELECT sum(length(value)) FROM delivered").fetchone()[0] <= 16 * KEYS_MAX * 1.2
    with pytest.raises(ValueError, match="16 bytes"):
        spool.journal([event()], {}, None, b"short")
    assert everything(spool) == [], "nothing of that commit is there"
    spool.close()
    spool = open_at(path, 2)
    assert spool.delivered() == keys[-KEYS_MAX:]
    more = [n.to_bytes(16, "big") for n in range(1, KEYS_MAX)]
    for start in range(0, len(more), 1_000):
        spool.journal([], {}, None, b"".join(more[start : start + 1_000]))
    assert spool.delivered() == [keys[-1], *more]
    assert spool._db.execute("SELECT sum(length(value)) FROM delivered").fetchone()[0] <= 16 * KEYS_MAX * 1.2
    spool.close()


def test_after_a_restart_every_message_is_known_that_a_broker_can_have_on_its_way(path: Path) -> None:
    """Packet ids are 16 bits; what a running edge remembers is as much."""
    assert KEYS_MAX >= WINDOW >= 65_535
    spool = open_at(path, 1)
    keys = [n.to_bytes(16, "little") for n in range(65_535)]
    for start in range(0, len(keys), 500):
        spool.journal([], {}, None, b"".join(keys[start : start + 500]))
    spool.close()
    again = open_at(path, 2)
    delivered = Delivered()
    delivered.remember(again.delivered())
    assert not any(delivered.is_new(key) for key in keys)
    again.close()


def test_a_spool_of_version_0_opens_with_its_records_its_ledger_and_its_drops(path: Path) -> None:
    made = samples(4)
    with sqlite3.connect(path) as db:
        db.executescript(VERSION_0)
        row = "INSERT INTO record (epoch, seq, kind, count, crc, class, value) VALUES (5, ?, ?, ?, ?, ?, ?)"
        db.execute(row, (0, "samples", 4, made.crc, 0, made.value))
        db.execute(row, (1, "events", 1, event().crc, 1, event().value))
        db.execute("INSERT INTO epoch VALUES (5, 1, -1)")
        db.execute("INSERT INTO ledger VALUES (5, 'e', 0, 4, ?)", (7 - 2**63,))
        db.execute("INSERT INTO dropped VALUES (5, 9, 10, 3)")
        db.execute("INSERT INTO state VALUES ('a', 'b')")
    db.close()
    spool = open_at(path, 6)
    assert spool.lost_file is None
    assert spool.state() == {"a": "b"}
    spool.journal([event(1)], {("e", 0): (1, 1)})
    sent = forwarded(spool)
    assert sent == [(5, 0, made), (5, 1, event()), (6, 0, event(1))]
    spool.publish()
    sent = forwarded(spool)
    assert drops(sent) == [DroppedRange(5, 9, 10, 3)]
    told = [decode_ledger(e.value) for _, _, e in sent if e.kind is Kind.LEDGER]
    assert [(g.epoch, g.through, g.entries[0].samples, g.entries[0].checksum) for g in told] == [
        (5, 1, 4, 7),
        (6, 1, 1, 1),
    ]
    spool.close()
    open_at(path, 7).close()


def test_a_spool_of_version_1_tells_of_the_drops_that_it_has(path: Path) -> None:
    open_at(path, 5).close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE dropped_cell")
        db.execute("INSERT INTO dropped VALUES (5, 9, 10, 3)")
        db.execute("PRAGMA user_version = 1")
    db.close()
    spool = open_at(path, 6)
    spool.publish()
    assert drops(forwarded(spool)) == [DroppedRange(5, 9, 10, 3)]
    spool.close()


VERSION_0 = """
CREATE TABLE record (
    position INTEGER PRIMARY KEY AUTOINCREMENT, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL,
    count INTEGER NOT NULL, crc INTEGER NOT NULL, class INTEGER NOT NULL, value BLOB NOT NULL);
CREATE INDEX record_class ON record (class, position);
CREATE TABLE epoch (epoch INTEGER PRIMARY KEY, last INTEGER NOT NULL, published INTEGER NOT NULL);
CREATE TABLE ledger (
    epoch INTEGER NOT NULL, equipment TEXT NOT NULL, hour_us INTEGER NOT NULL, samples INTEGER NOT NULL,
    checksum INTEGER NOT NULL, PRIMARY KEY (epoch, equipment, hour_us)) WITHOUT ROWID;
CREATE TABLE dropped (
    epoch INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, samples INTEGER NOT NULL,
    PRIMARY KEY (epoch, first)) WITHOUT ROWID;
CREATE TABLE aside (
    position INTEGER PRIMARY KEY, epoch INTEGER, seq INTEGER, kind TEXT, count INTEGER, crc INTEGER, value BLOB,
    reason TEXT NOT NULL);
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
"""As 0.1 made it, written out: what is in the field does not change with the code."""
