"""The spool: a model of it beside the real one, with crashes at every point; its bound, its CRC, its opening."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import zlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge.ledger import Tally
from edge.spool import ENTRIES_MAX, OVERHEAD, Spool
from telemetry.batch import SampleBatch, from_rows
from telemetry.errors import StateLocked
from telemetry.messages import DroppedRange, Event, Kind, Ledger
from telemetry.wire import Encoded, decode_dropped, decode_ledger, encode_events, encode_samples
from tests.edge.build import NOW_US, batch_of

BIG = 1 << 30
MEMORY = Path("/dev/shm")  # noqa: S108 (a model needs no real fsync: test_spool_kill.py has it)


class Crash(Exception):
    """The process dies here."""


class Crashing:
    """Dies at the named point, once."""

    def __init__(self) -> None:
        self.point: str | None = None

    def __call__(self, point: str) -> None:
        if point == self.point:
            self.point = None
            raise Crash(point)


def open_at(path: Path, epoch: int, max_bytes: int = BIG, at: Crashing | None = None) -> Spool:
    return Spool(path, edge="edge-1", epoch=epoch, max_bytes=max_bytes, at=at or Crashing())


def journal(spool: Spool, batch: SampleBatch, equipment: str = "e") -> None:
    spool.journal([encode_samples(batch)], Tally().count([(equipment, batch)]))


def event(n: int = 0) -> Encoded:
    return encode_events([Event("e", NOW_US + n, "s", str(n), True)])


def everything(spool: Spool) -> list[tuple[int, int, Encoded]]:
    stored = spool.read(0, max_records=1_000_000, max_bytes=BIG)
    return [(s.identity.epoch, s.identity.seq, s.encoded) for s in stored]


class SpoolModel(RuleBasedStateMachine):
    """What was journaled is there or with the log or reported as dropped, whatever crashes; the ledger counts just that."""

    @initialize(max_bytes=st.sampled_from([4_000, 20_000, BIG]))
    def start(self, max_bytes: int) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.max_bytes = max_bytes
        self.crashing = Crashing()
        self.epochs = 0
        self.made = 0
        self.journaled: dict[tuple[int, int], Encoded] = {}
        self.with_log: dict[tuple[int, int], Encoded] = {}
        self.position = 0
        self.ledger_samples: Counter[str] = Counter()
        self.state: dict[str, str] = {}
        self._open()

    def _open(self) -> None:
        self.epochs += 1
        self.spool = open_at(self.folder / "spool.sqlite", self.epochs, self.max_bytes, self.crashing)
        self.position = 0

    def _journal(self, samples: int, with_event: bool) -> None:
        self.made += 1
        batch = batch_of("e", samples, time_us=NOW_US + self.made)
        records = [encode_samples(batch), *([event(self.made)] if with_event else [])]
        before = self.spool.seq
        state = {"last": str(self.made)}
        try:
            self.spool.journal(records, Tally().count([("e", batch)]), state)
        except Crash as crash:
            if crash.args[0] == "after commit":
                self._remember(before, records, samples, state)
            self._die()
        else:
            self._remember(before, records, samples, state)

    def _remember(self, seq: int, records: list[Encoded], samples: int, state: dict[str, str]) -> None:
        for record in records:
            self.journaled[self.epochs, seq] = record
            seq += 1
        self.ledger_samples["e"] += samples
        self.state = state

    def _die(self) -> None:
        """As SIGKILL leaves it: nothing is closed in order, only what was committed is there."""
        self.spool._db.close()
        self.spool.close()
        self._open()

    @rule(samples=st.integers(1, 40), with_event=st.booleans())
    def journals(self, samples: int, with_event: bool) -> None:
        self._journal(samples, with_event)

    @rule(point=st.sampled_from(["inserted", "before commit", "after commit"]), samples=st.integers(1, 10))
    def crashes_while_journaling(self, point: str, samples: int) -> None:
        self.crashing.point = point
        self._journal(samples, True)

    @rule(n=st.integers(1, 8), acknowledged=st.booleans())
    def forwards(self, n: int, acknowledged: bool) -> None:
        """Sends some; a crash may come before the acknowledgement, then they are sent again."""
        stored = self.spool.read(self.position, max_records=n, max_bytes=BIG)
        for record in stored:
            key = (record.identity.epoch, record.identity.seq)
            assert self.with_log.get(key, record.encoded) == record.encoded, "a number means one record for ever"
            self.with_log[key] = record.encoded
        if stored and acknowledged:
            self.position = stored[-1].position
            self.spool.acknowledge(self.position)

    @rule(point=st.sampled_from([None, "before commit", "after commit"]), force=st.booleans())
    def publishes(self, point: str | None, force: bool) -> None:
        self.crashing.point = point
        try:
            self.spool.publish(force=force)
        except Crash:
            self._die()
        self.crashing.point = None

    @rule()
    def restarts(self) -> None:
        self.spool.close()
        self._open()

    @invariant()
    def bounded(self) -> None:
        """Beyond the bound only what was handed to the forwarder, and control records, are kept."""
        droppable = self.spool._db.execute(
            "SELECT count(*) FROM record WHERE position > ? AND class < 2", (self.spool.handed,)
        ).fetchone()[0]
        assert self.spool.bytes <= self.max_bytes or droppable == 0

    @invariant()
    def byte_count_is_true(self) -> None:
        real = self.spool._db.execute("SELECT coalesce(sum(length(value) + ?), 0) FROM record", (OVERHEAD,)).fetchone()[
            0
        ]
        assert self.spool.bytes == real

    @invariant()
    def state_is_that_of_the_last_commit(self) -> None:
        assert self.spool.state() == self.state

    def teardown(self) -> None:
        """The audit's equation: journaled = with the log + dropped, by number and by samples."""
        self.crashing.point = None
        for _ in range(4):
            self.spool.publish(force=True)
            for stored in self.spool.read(self.position, max_records=1_000_000, max_bytes=BIG):
                self.with_log[stored.identity.epoch, stored.identity.seq] = stored.encoded
                self.position = stored.position
        self.spool.close()
        ranges = [r for e in self.with_log.values() if e.kind is Kind.DROPPED for r in decode_dropped(e.value)]
        dropped = {(r.epoch, seq) for r in ranges for seq in range(r.first, r.last + 1)}
        assert set(self.journaled) <= set(self.with_log) | dropped
        for key, record in self.journaled.items():
            assert self.with_log.get(key, record) == record
        self.holes(dropped)
        self.counted()
        shutil.rmtree(self.folder)

    def holes(self, dropped: set[tuple[int, int]]) -> None:
        for epoch in range(1, self.epochs + 1):
            seqs = {seq for e, seq in {*self.with_log, *dropped} if e == epoch}
            assert seqs == set(range(len(seqs))), "no hole within an epoch"

    def counted(self) -> None:
        ledgers = [decode_ledger(e.value) for e in self.with_log.values() if e.kind is Kind.LEDGER]
        total = sum(entry.samples for ledger in ledgers for entry in ledger.entries)
        assert total == self.ledger_samples["e"], "neither lost nor doubled in the ledger"


SpoolModel.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestSpoolAgainstItsModel = SpoolModel.TestCase


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.sqlite"


def test_records_come_out_as_they_went_in_with_the_numbers_they_were_given(path: Path) -> None:
    spool = open_at(path, 7)
    batch = batch_of("e", 3)
    identities = spool.journal([encode_samples(batch), event()], {})
    assert [(i.edge, i.epoch, i.seq) for i in identities] == [("edge-1", 7, 0), ("edge-1", 7, 1)]
    assert everything(spool) == [(7, 0, encode_samples(batch)), (7, 1, event())]
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
    spool.acknowledge(spool.last_position())
    spool.settle()
    assert spool.journal([event()], {})[0].seq == 1
    spool.close()


def test_a_spool_with_a_smaller_bound_than_before_drops_at_opening_and_says_so(path: Path) -> None:
    spool = open_at(path, 1)
    for _ in range(10):
        journal(spool, batch_of("e", 100))
    spool.close()
    spool = open_at(path, 2, max_bytes=10_000)
    assert spool.bytes <= 10_000
    assert spool.counts.dropped_records > 0
    spool.publish()
    kept = everything(spool)
    (dropped,) = [decode_dropped(e.value) for _, _, e in kept if e.kind is Kind.DROPPED]
    assert [(r.epoch, r.first, r.last) for r in dropped] == [(1, 0, spool.counts.dropped_records - 1)]
    spool.close()


def test_a_second_agent_on_the_same_spool_is_refused(path: Path) -> None:
    spool = open_at(path, 1)
    with pytest.raises(StateLocked, match="another edge agent"):
        open_at(path, 2)
    spool.close()
    open_at(path, 3).close()


def test_at_its_bound_the_oldest_samples_go_first_and_events_stay(path: Path) -> None:
    size = len(encode_samples(batch_of("e", 10)).value) + OVERHEAD
    spool = open_at(path, 1, max_bytes=size * 10)
    spool.journal([event(0)], {})
    for n in range(30):
        journal(spool, batch_of("e", 10, time_us=NOW_US + n))
    assert spool.bytes <= size * 10
    kept = everything(spool)
    assert [e.kind for _, _, e in kept].count(Kind.EVENTS) == 1
    seqs = [seq for _, seq, e in kept if e.kind is Kind.SAMPLES]
    assert seqs == list(range(31 - len(seqs), 31)), "the newest samples, without a gap"
    assert spool.counts.dropped_samples == 10 * (30 - len(seqs))
    spool.publish()
    ranges = [r for _, _, e in everything(spool) if e.kind is Kind.DROPPED for r in decode_dropped(e.value)]
    assert ranges == [DroppedRange(1, 1, 30 - len(seqs), 10 * (30 - len(seqs)))]
    spool.close()


def test_events_go_last_and_the_ledger_never(path: Path) -> None:
    spool = open_at(path, 1, max_bytes=3_000)
    journal(spool, batch_of("e", 5))
    spool.publish()
    for n in range(40):
        spool.journal([event(n)], {})
    kinds = [e.kind for _, _, e in everything(spool)]
    assert Kind.SAMPLES not in kinds
    assert kinds[0] is Kind.LEDGER
    assert kinds.count(Kind.EVENTS) < 40
    spool.close()


def test_what_the_forwarder_holds_is_not_dropped_under_its_hands(path: Path) -> None:
    spool = open_at(path, 1, max_bytes=3_000)
    journal(spool, batch_of("e", 10))
    held = spool.read(0, max_records=1, max_bytes=BIG)
    for n in range(20):
        journal(spool, batch_of("e", 10, time_us=NOW_US + n))
    assert everything(spool)[0] == (1, 0, held[0].encoded)
    spool.close()


def test_a_corrupt_record_is_set_aside_counted_and_reported_as_dropped(path: Path) -> None:
    spool = open_at(path, 1)
    for n in range(3):
        journal(spool, batch_of("e", 4, time_us=NOW_US + n))
    spool.close()
    with sqlite3.connect(path) as db:
        value = bytearray(db.execute("SELECT value FROM record WHERE seq = 1").fetchone()[0])
        value[40] ^= 1
        db.execute("UPDATE record SET value = ? WHERE seq = 1", (bytes(value),))
    db.close()
    spool = open_at(path, 2)
    assert [(epoch, seq) for epoch, seq, _ in everything(spool)] == [(1, 0), (1, 2)]
    assert (spool.counts.corrupt_records, spool.counts.corrupt_samples) == (1, 4)
    spool.publish()
    published = [decode_dropped(e.value) for _, _, e in everything(spool) if e.kind is Kind.DROPPED]
    assert published == [(DroppedRange(1, 1, 1, 4),)]
    kept = spool._db.execute("SELECT seq, reason, value FROM aside").fetchall()
    assert kept == [(1, "corrupt", bytes(value))]
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
    middle = len(whole) // 2 // 4096 * 4096
    whole[middle : middle + 8192] = b"\xa5" * 8192
    path.write_bytes(whole)
    spool = open_at(path, 2)
    assert spool.lost_file is not None
    spool.close()


def test_a_full_disk_journals_nothing_and_leaves_everything_as_it_was(path: Path) -> None:
    spool = open_at(path, 1)
    journal(spool, batch_of("e", 5))
    pages = spool._db.execute("PRAGMA page_count").fetchone()[0]
    spool._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        journal(spool, batch_of("e", 5_000))
    spool._db.execute("PRAGMA max_page_count = 100000")
    journal(spool, batch_of("e", 6))
    assert [(seq, e.count) for _, seq, e in everything(spool)] == [(0, 5), (1, 6)]
    spool.publish()
    ledger = decode_ledger(everything(spool)[-1][2].value)
    assert [entry.samples for entry in ledger.entries] == [11]
    spool.close()


def test_a_commit_that_fails_gives_its_numbers_its_bytes_and_its_ledger_back(path: Path) -> None:
    crashing = Crashing()
    spool = open_at(path, 1, BIG, crashing)
    crashing.point = "before commit"
    with pytest.raises(Crash):
        journal(spool, batch_of("e", 5))
    crashing.point = None
    journal(spool, batch_of("e", 6))
    ((_, seq, record),) = everything(spool)
    assert (seq, record.count) == (0, 6), "no hole in the sequence"
    assert spool.bytes == len(record.value) + OVERHEAD
    spool.publish()
    ledger = decode_ledger(everything(spool)[-1][2].value)
    assert [entry.samples for entry in ledger.entries] == [6]
    spool.close()


def test_the_ledger_of_an_epoch_that_was_killed_is_published_by_the_next(path: Path) -> None:
    spool = open_at(path, 1)
    journal(spool, batch_of("e", 5))
    journal(spool, batch_of("f", 2), "f")
    spool.close()
    spool = open_at(path, 2)
    journal(spool, batch_of("e", 1))
    spool.publish()
    ledgers: list[Ledger] = [decode_ledger(e.value) for _, _, e in everything(spool) if e.kind is Kind.LEDGER]
    assert [(g.epoch, g.through, [(e.equipment, e.samples) for e in g.entries]) for g in ledgers] == [
        (1, 1, [("e", 5), ("f", 2)]),
        (2, 0, [("e", 1)]),
    ]
    spool.close()


def test_a_large_ledger_is_split_and_only_its_last_part_says_that_all_is_covered(path: Path) -> None:
    spool = open_at(path, 1)
    increments = {(f"e{n}", 0): (1, n) for n in range(ENTRIES_MAX + 1)}
    spool.journal([event()], increments)
    spool.publish()
    parts = [decode_ledger(e.value) for _, _, e in everything(spool) if e.kind is Kind.LEDGER]
    assert [(len(p.entries), p.through) for p in parts] == [(ENTRIES_MAX, -1), (1, 0)]
    checksums = {entry.equipment: entry.checksum for p in parts for entry in p.entries}
    assert checksums == {f"e{n}": n for n in range(ENTRIES_MAX + 1)}
    spool.close()


def test_while_one_ledger_record_waits_for_the_log_no_second_is_made(path: Path) -> None:
    spool = open_at(path, 1)
    journal(spool, batch_of("e", 1))
    assert spool.publish() == 1
    journal(spool, batch_of("e", 1))
    assert spool.publish() == 0
    last = spool.read(0, max_records=10, max_bytes=BIG)[-1].position
    spool.acknowledge(last)
    assert spool.publish() == 1
    spool.close()


def test_checksums_of_all_64_bits_survive(path: Path) -> None:
    spool = open_at(path, 1)
    spool.journal([], {("e", 0): (1, 2**64 - 1)})
    spool.journal([event()], {("e", 0): (1, 2**63)})
    spool.publish()
    ledger = decode_ledger(everything(spool)[-1][2].value)
    assert ledger.entries[0].checksum == (2**64 - 1 + 2**63) % 2**64
    spool.close()


def test_the_crc_that_is_kept_is_that_of_the_value(path: Path) -> None:
    spool = open_at(path, 1)
    spool.journal([encode_samples(from_rows([("e/x", NOW_US, 1.0, 192)]))], {})
    value, crc = spool._db.execute("SELECT value, crc FROM record").fetchone()
    assert zlib.crc32(value) == crc
    spool.close()


def test_an_hour_of_outage_and_its_return_keeps_order_over_restarts(path: Path) -> None:
    expected = []
    for epoch in (5, 3, 9):
        spool = open_at(path, epoch)
        for n in range(4):
            spool.journal([event(n)], {})
            expected.append((epoch, n))
        spool.close()
    spool = open_at(path, 4)
    assert [(e, s) for e, s, _ in everything(spool)] == expected
    spool.acknowledge(6)
    spool.settle()
    assert [(e, s) for e, s, _ in everything(spool)] == expected[6:]
    spool.close()
