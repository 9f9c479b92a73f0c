"""What is taken over of a damaged spool: all that can be read, under its own numbers, once; what cannot is never guessed."""

from __future__ import annotations

import itertools
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge import spool_salvage
from edge.spool import Spool
from edge.spool_file import PAGE_BYTES, move_aside, open_file, salvage_mark
from edge.spool_keys import KEY_BYTES
from edge.spool_ledger import SpoolLedger
from edge.spool_salvage import Scan, trusted
from telemetry.messages import Kind
from telemetry.wire import Encoded, decode_dropped, decode_ledger
from tests.edge.spools import NOW_US, Crash, batch_of, cut_off_after, event, forwarded, increments, journal, open_at

RECORDS = 60
SAMPLES = 300
BIG_RECORD = 5_000
"""Samples of a record that is longer than a page."""

Sent = tuple[int, int, Encoded]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.sqlite"


def fill(path: Path, *, samples: int = SAMPLES) -> list[Sent]:
    """A spool of epoch 1 with so many records of samples that the log does not have."""
    spool = open_at(path, 1)
    for n in range(RECORDS):
        journal(spool, batch_of("e", samples, time_us=NOW_US + n * 1_000_000))
    spool.close()
    return [(1, seq, one) for seq, one in enumerate(records_in(path))]


def records_in(path: Path) -> Iterator[Encoded]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        for kind, count, crc, value in db.execute("SELECT kind, count, crc, value FROM record ORDER BY position"):
            yield Encoded(Kind(kind), count, crc, value)


@pytest.fixture
def in_small_parts(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Sent]:
    """A spool whose next start salvages it in many transactions; what is in it."""
    written = fill(path)
    spoil(path, root_of(path, "aside"), size=8)
    monkeypatch.setattr(spool_salvage, "PART_BYTES", 20_000)
    return written


def pages(path: Path) -> int:
    return path.stat().st_size // PAGE_BYTES


def spoil(path: Path, page: int, *, at: int = 0, size: int = PAGE_BYTES) -> None:
    """`page` counts from 1."""
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE_BYTES + at)
        file.write(b"\xfe" * size)


def root_of(path: Path, table: str) -> int:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        [(root,)] = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
    return int(root)


def leaves(path: Path) -> list[int]:
    """Pages of the table `record` below its root, in the order of their positions: file format of SQLite, 1.6."""
    content = path.read_bytes()
    root = (root_of(path, "record") - 1) * PAGE_BYTES
    assert content[root] == 5, "an interior page"
    cells = int.from_bytes(content[root + 3 : root + 5], "big")
    found = []
    for n in range(cells):
        at = int.from_bytes(content[root + 12 + 2 * n : root + 14 + 2 * n], "big")
        found.append(int.from_bytes(content[root + at : root + at + 4], "big"))
    return [*found, int.from_bytes(content[root + 8 : root + 12], "big")]


def moved_aside(path: Path) -> list[Path]:
    return sorted(one for one in path.parent.glob("*.unreadable-*") if not one.name.endswith(("-wal", "-shm")))


def of_epoch(records: Sequence[Sent], epoch: int, *kinds: Kind) -> list[Sent]:
    return [one for one in records if one[0] == epoch and one[2].kind in kinds]


def published(spool: Spool) -> tuple[list[Any], list[Any]]:
    """What the spool says of its ledger and its drops: (ledgers, dropped ranges)."""
    spool.publish(force=True)
    spool.publish(force=True)
    ledgers: list[Any] = []
    dropped: list[Any] = []
    for _, _, one in forwarded(spool):
        if one.kind is Kind.LEDGER:
            ledgers.append(decode_ledger(one.value))
        elif one.kind is Kind.DROPPED:
            dropped += decode_dropped(one.value)
    return ledgers, dropped


def test_whichever_page_is_damaged_what_can_be_read_comes_once_in_order_and_the_books_agree(path: Path) -> None:
    written = fill(path)
    sound = path.read_bytes()
    taken = []
    for page in range(2, pages(path) + 1):
        path.write_bytes(sound)
        spoil(path, page)
        spool = open_at(path, 1_000 + page)
        assert spool.salvaged is not None
        assert spool.lost_file is not None
        records = of_epoch(forwarded(spool), 1, Kind.SAMPLES)
        assert records == [one for one in written if one in records], "its own number and bytes, once, in order"
        taken.append(len(records))
        ledgers, dropped = published(spool)
        of_it = [one for one in ledgers if one.epoch == 1]
        if spool.salvaged.is_whole:
            assert sum(entry.samples for one in of_it for entry in one.entries) == RECORDS * SAMPLES
            gone = sum(one.samples for one in dropped if one.epoch == 1)
            assert gone + len(records) * SAMPLES == RECORDS * SAMPLES
        else:
            assert not of_it, "half a ledger would call what arrives doubled"
        spool.close()
        assert not salvage_mark(path).exists()
        assert not [*path.parent.glob("*-shm"), *path.parent.glob("*-wal")]
        for old in path.parent.glob("spool*"):
            old.unlink()
    assert taken.count(0) == 1, "the one page that knows where all others are"
    assert min(sorted(taken)[1:]) >= RECORDS * 0.8
    assert taken.count(RECORDS) > 5, "of other tables, or of none"


def test_what_lies_between_two_damaged_pages_is_found(path: Path) -> None:
    written = fill(path)
    of_records = leaves(path)
    assert len(of_records) >= 5
    for page in of_records[1::2]:
        spoil(path, page)
    spool = open_at(path, 2)
    seqs = [seq for _, seq, _ in of_epoch(forwarded(spool), 1, Kind.SAMPLES)]
    spool.close()
    assert {0, RECORDS - 1} & set(seqs)
    islands = sum(1 for before, after in itertools.pairwise(seqs) if after != before + 1)
    assert islands == len(of_records[1::2]) - (len(of_records) % 2 == 0)
    assert len(written) * 0.3 < len(seqs) < len(written)


@pytest.mark.parametrize("which", [slice(0, 1), slice(-1, None), slice(0, None, 3)])
def test_either_end_may_be_gone(path: Path, which: slice) -> None:
    fill(path)
    spool = open_at(path, 1)
    forwarded(spool)  # what is there begins at some position far from 1
    for n in range(RECORDS):
        journal(spool, batch_of("e", SAMPLES, time_us=NOW_US + n * 1_000_000))
    spool.close()
    assert next(iter(positions(path))) > RECORDS
    damaged = leaves(path)[which]
    for page in damaged:
        spoil(path, page)
    spool = open_at(path, 2)
    assert spool.salvaged is not None
    assert spool.salvaged.records >= RECORDS - 10 * len(damaged)
    assert not spool.salvaged.is_whole
    assert len(of_epoch(forwarded(spool), 1, Kind.SAMPLES)) == spool.salvaged.records
    spool.close()


def positions(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as db:
        return [row[0] for row in db.execute("SELECT position FROM record ORDER BY position")]


def test_a_record_whose_bytes_are_gone_is_reported_as_dropped_with_its_samples(path: Path) -> None:
    spool = open_at(path, 1)
    for n in range(4):
        batch = batch_of("e", BIG_RECORD, time_us=NOW_US + n * 1_000_000)
        spool.journal([wide(batch)], increments("e", batch))
    spool.close()
    sound = path.read_bytes()
    whole = [one.value for one in records_in(path)]
    at = sound.index(whole[1][-500:])
    spoil(path, at // PAGE_BYTES + 1)
    spoil(path, root_of(path, "aside"), size=8)  # so that the file as a whole is refused
    spool = open_at(path, 2)
    assert spool.salvaged is not None
    assert (spool.salvaged.records, spool.salvaged.is_whole) == (4, True)
    assert [seq for _, seq, _ in of_epoch(forwarded(spool), 1, Kind.SAMPLES)] == [0, 2, 3]
    _, dropped = published(spool)
    assert [(one.epoch, one.first, one.last, one.samples) for one in dropped] == [(1, 1, 1, BIG_RECORD)]
    assert spool.counts.corrupt_records == 1
    spool.close()


def wide(batch: Any) -> Encoded:
    """A record whose bytes take several pages: values that LZ4 cannot shorten."""
    value = (
        bytes(zlib.crc32(n.to_bytes(4, "big")) & 0xFF for n in range(4 * PAGE_BYTES)) + batch.time_us.tobytes()[:600]
    )
    return Encoded(Kind.SAMPLES, len(batch), zlib.crc32(value), value)


def test_what_was_only_in_the_write_ahead_log_is_taken_over(path: Path) -> None:
    """A power cut leaves it there."""
    fill(path)
    cut_off_after(path, 2, event(7))
    spoil(path, root_of(path, "aside"), size=8)
    spool = open_at(path, 3)
    records = forwarded(spool)
    assert len(of_epoch(records, 1, Kind.SAMPLES)) == RECORDS
    assert of_epoch(records, 2, Kind.EVENTS) == [(2, 0, event(7))]
    spool.close()


def test_a_file_of_which_nothing_can_be_read_is_begun_anew(path: Path) -> None:
    fill(path)
    path.write_bytes(b"\xfe" * path.stat().st_size)
    spool = open_at(path, 2)
    assert spool.salvaged is not None
    assert (spool.salvaged.records, spool.salvaged.is_whole) == (0, False)
    journal(spool, batch_of("e", 3))
    assert [one[:2] for one in forwarded(spool)] == [(2, 0)]
    spool.close()


def test_learned_plans_counters_and_the_keys_of_messages_come_over(path: Path) -> None:
    spool = open_at(path, 1)
    spool.journal([event()], {}, {"counter/a": '{"p": [1, 0]}', "learned/b": "{}"}, bytes(range(KEY_BYTES)))
    spool.close()
    spoil(path, root_of(path, "aside"), size=8)
    spool = open_at(path, 2)
    assert spool.state() == {"counter/a": '{"p": [1, 0]}', "learned/b": "{}"}
    assert spool.delivered() == [bytes(range(KEY_BYTES))]
    spool.close()


def test_where_a_ledger_record_is_damaged_no_ledger_comes_over(path: Path) -> None:
    """The next one would settle what it said, and what arrives of it would count as doubled."""
    spool = open_at(path, 1)
    journal(spool, batch_of("e", SAMPLES))
    spool.publish(force=True)
    journal(spool, batch_of("e", SAMPLES, time_us=NOW_US + 1_000_000))
    spool.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE record SET value = zeroblob(50) WHERE kind = 'ledger'")
        db.execute("DELETE FROM copy")
        db.commit()
    spoil(path, root_of(path, "aside"), size=8)
    spool = open_at(path, 2)
    assert spool.salvaged is not None
    assert (spool.salvaged.records, spool.salvaged.is_whole) == (3, False)
    ledgers, _ = published(spool)
    assert not [one for one in ledgers if one.epoch == 1]
    spool.close()


@pytest.mark.parametrize(
    "name", [b"", b"\xff\xfe", b"../other", b"not there", b"too long" * 1_000, b"a\0b", b"spool.sqlite"]
)
def test_a_mark_that_names_nothing_is_taken_away(path: Path, name: bytes) -> None:
    """A power cut may leave it empty."""
    written = fill(path)
    salvage_mark(path).write_bytes(name)
    (path.parent.parent / "other").write_bytes(b"somebody else's")
    spool = open_at(path, 2)
    assert (spool.lost_file, spool.salvaged) == (None, None)
    assert of_epoch(forwarded(spool), 1, Kind.SAMPLES) == written
    spool.close()
    assert not salvage_mark(path).exists()


def test_a_salvage_that_is_killed_is_done_again_and_nothing_comes_twice(
    in_small_parts: list[Sent], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = spool_salvage._Salvage._insert
    for killed_at in range(1, 40):
        calls = 0

        def dying(self: Any, statement: str, rows: Any, *, last: int = killed_at) -> None:
            nonlocal calls
            calls += 1
            if calls == last:
                raise Crash(statement)
            insert(self, statement, rows)

        with monkeypatch.context() as patched:
            patched.setattr(spool_salvage._Salvage, "_insert", dying)
            try:
                spool = open_at(path, 100 + killed_at)
            except Crash:
                continue
        break
    else:
        raise AssertionError("it never ended")
    assert killed_at > 5
    assert of_epoch(forwarded(spool), 1, Kind.SAMPLES) == in_small_parts
    assert spool.lost_file is not None
    ledgers, _ = published(spool)
    assert sum(e.samples for one in ledgers if one.epoch == 1 for e in one.entries) == RECORDS * SAMPLES
    spool.close()
    assert len(moved_aside(path)) == 1


def test_a_disk_without_room_for_all_of_it_keeps_what_it_can_and_the_edge_goes_on(
    in_small_parts: list[Sent], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = spool_salvage._Salvage._write
    parts = 0

    def filling(self: Any, statement: str, rows: Any) -> None:
        nonlocal parts
        parts += 1
        if parts > 3:
            raise sqlite3.OperationalError("database or disk is full")
        write(self, statement, rows)

    monkeypatch.setattr(spool_salvage._Salvage, "_write", filling)
    spool = open_at(path, 2)
    assert spool.salvaged is not None
    assert 0 < spool.salvaged.records < RECORDS
    assert not spool.salvaged.is_whole
    journal(spool, batch_of("e", 3))
    records = forwarded(spool)
    assert of_epoch(records, 1, Kind.SAMPLES) == in_small_parts[: spool.salvaged.records]
    assert records[-1][:2] == (2, 0)
    spool.close()
    assert not salvage_mark(path).exists(), "not again at each start: the file that was moved aside has the rest"


def test_where_the_salvaged_rows_are_no_better_both_files_are_kept_and_the_edge_begins_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path)
    spoil(path, root_of(path, "aside"), size=8)
    load = SpoolLedger.load

    def choking(self: SpoolLedger) -> None:
        if self.db.execute("SELECT count(*) FROM record").fetchone()[0]:
            raise ValueError("a row of no sense")
        load(self)

    monkeypatch.setattr(SpoolLedger, "load", choking)
    spool = open_at(path, 2)
    journal(spool, batch_of("e", 3))
    assert [one[:2] for one in forwarded(spool)] == [(2, 0)]
    spool.close()
    kept = moved_aside(path)
    assert [one.name.rpartition("unreadable-")[2].count("-") for one in kept] == [0, 1, 1]
    assert all(one.stat().st_size > 0 for one in kept)


ROW = (10, 7, 4, "samples", 3, 12345, 0, 1_000)


@pytest.mark.parametrize(
    "strange",
    [
        (10, 7, 5, *ROW[3:]),
        (10, 8 << 40, -1, *ROW[3:]),
        (*ROW[:3], "simples", *ROW[4:]),
        (*ROW[:3], b"samples", *ROW[4:]),
        (*ROW[:4], -3, *ROW[5:]),
        (*ROW[:4], "3", *ROW[5:]),
        (*ROW[:5], 1 << 32, *ROW[6:]),
        (*ROW[:6], 1, ROW[7]),
        (*ROW[:7], None),
        (10, None, 4, *ROW[3:]),
        (10, 7, 1 << 62, *ROW[3:]),
    ],
)
def test_a_row_whose_number_may_be_anothers_is_left_out(strange: tuple[Any, ...]) -> None:
    others = [(position, 7, position - 6, "samples", 3, 1, 0, 1_000) for position in (8, 9, 11)]
    older = [(position, 6, position - 1, "events", 3, 1, 1, 1_000) for position in (2, 3)]
    assert trusted([*older, *others, ROW]) == [*older, *others, ROW]
    assert trusted([*older, *others, strange]) == [*older, *others]


def test_damage_that_would_take_for_ever_is_given_up_after_so_many_looks(path: Path) -> None:
    fill(path)
    of_records = leaves(path)
    for page in of_records[1::2]:
        spoil(path, page)
    with closing(sqlite3.connect(path)) as db:
        few, many = Scan(db, looks=1), Scan(db)
    assert 0 < len(few.rows) < len(many.rows)
    assert not few.is_whole
    assert not many.is_whole


def test_a_file_that_is_moved_aside_never_takes_the_place_of_another(path: Path) -> None:
    for content in (b"one", b"two", b"three"):
        path.write_bytes(content)
        move_aside(path, "unreadable-1")
    found = {one.read_bytes() for one in path.parent.glob("*.unreadable-1*")}
    assert found == {b"one", b"two", b"three"}
    db, moved = open_file(path, aside="x")
    db.close()
    assert moved is None
