"""What ledger records change, against a plain simulation record by record: in parts, overtaken, however cut into flushes."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.accounts import Cells, _bridge, cells, together
from ingest.ledgers import MODULUS, Row, bookings, clamped, impossible, write_ledgers
from ingest.signals import Dictionary
from telemetry.batch import from_rows
from telemetry.ledger import HOUR_US
from telemetry.messages import Ledger, LedgerEntry
from telemetry.settings import Settings
from telemetry.store import INGEST, connect
from telemetry.wire import Identity
from tests.fixtures.store import execute

Key = tuple[str, int]
Sums = dict[Row, tuple[int, int]]
KEYS: list[Key] = [("edge-1", 7), ("edge-1", 8), ("edge-2", 7)]
ENTRY = st.builds(
    LedgerEntry,
    st.sampled_from(["a", "b"]),
    st.sampled_from([0, -HOUR_US, 10 * HOUR_US, 2**62, 2**63 - 1, -(2**63)]),
    st.integers(0, 2**40),
    st.integers(0, MODULUS - 1),
)
LEDGER = st.builds(
    lambda key, through, entries: Ledger(key[0], key[1], through, tuple(entries)),
    st.sampled_from(KEYS),
    st.integers(0, 4),
    st.lists(ENTRY, max_size=3),
)
FLUSHES = st.lists(st.lists(LEDGER, max_size=4), max_size=5)


class Store:
    """The ledger's tables, as plainly as can be."""

    def __init__(self) -> None:
        self.through: dict[Key, int] = {}
        self.counted: Sums = {}
        self.waiting: Sums = {}

    def one(self, ledger: Ledger) -> None:
        """By the rule: a record that covers no more than is known is a part, unless it was overtaken."""
        key = (ledger.edge, ledger.epoch)
        known = self.through.get(key, -1)
        into = self.waiting if ledger.through == known else self.counted
        for entry in ledger.entries:
            row = (*key, entry.equipment, min(max(entry.hour_us, -62_135_596_800_000_000), 253_370_764_800_000_000))
            samples, checksum = into.get(row, (0, 0))
            into[row] = (samples + entry.samples, (checksum + entry.checksum) % 2**64)
        if ledger.through > known:
            self.through[key] = ledger.through
            self.settle(key)

    def settle(self, key: Key) -> None:
        for row in [row for row in self.waiting if row[:2] == key]:
            self.add(self.counted, {row: self.waiting.pop(row)})

    def add(self, into: Sums, rows: Sums) -> None:
        for row, (samples, checksum) in rows.items():
            known = into.get(row, (0, 0))
            into[row] = (known[0] + samples, (known[1] + checksum) % 2**64)

    def flush(self, ledgers: Sequence[Ledger]) -> None:
        """As ingest does it: what a whole flush changes, at once."""
        made = bookings(ledgers, {key: self.through.get(key, -1) for key in KEYS})
        for key, through in made.through.items():
            self.settle(key)
            self.through[key] = max(through, self.through.get(key, -1))
        self.add(self.counted, made.counted)
        self.add(self.waiting, made.waiting)

    def content(self) -> dict[Row, tuple[int, int, int, int]]:
        rows = {*self.counted, *self.waiting}
        found = {row: (*self.counted.get(row, (0, 0)), *self.waiting.get(row, (0, 0))) for row in rows}
        return {row: numbers for row, numbers in found.items() if any(numbers)}


@given(FLUSHES)
def test_flushes_change_what_their_records_change_one_by_one(flushes: list[list[Ledger]]) -> None:
    plain, ours = Store(), Store()
    for flush in flushes:
        ours.flush(flush)
        for ledger in flush:
            plain.one(ledger)
    assert ours.content() == plain.content()
    assert ours.through == plain.through


@given(st.lists(LEDGER, max_size=8))
def test_every_record_counts_exactly_once_whatever_the_order(ledgers: list[Ledger]) -> None:
    made = bookings(ledgers, dict.fromkeys(KEYS, -1))
    total = sum(entry.samples for ledger in ledgers for entry in ledger.entries)
    checksum = sum(entry.checksum for ledger in ledgers for entry in ledger.entries) % MODULUS
    booked = [*made.counted.values(), *made.waiting.values()]
    assert sum(samples for samples, _ in booked) == total
    assert sum(value for _, value in booked) % MODULUS == checksum


def entry(samples: int) -> LedgerEntry:
    return LedgerEntry("a", 0, samples, samples)


@pytest.mark.parametrize(
    ("rule", "through", "counted", "waiting"),
    [
        ("a ledger counts when it comes", [0], 1, 0),
        ("one that covers more counts with the parts before it", [0, 0, 5], 1 + 10 + 100, 0),
        ("a part waits for the last part", [0, 0], 1, 10),
        ("one that was overtaken counts at once", [5, 3], 1 + 10, 0),
        ("and takes no part with it", [5, 5, 3], 1 + 100, 10),
    ],
)
def test_a_ledger_in_parts_counts_as_a_whole(rule: str, through: list[int], counted: int, waiting: int) -> None:
    ledgers = [Ledger("edge-1", 7, seq, (entry(10**n),)) for n, seq in enumerate(through)]
    made = bookings(ledgers, {("edge-1", 7): -1})
    row = ("edge-1", 7, "a", 0)
    assert (made.counted.get(row, (0, 0))[0], made.waiting.get(row, (0, 0))[0]) == (counted, waiting), rule


@pytest.mark.parametrize(
    ("ledger", "sent_as", "why"),
    [
        (Ledger("edge-1", 7, 41, ()), Identity("edge-1", 7, 42), None),
        (Ledger("edge-1", 7, -1, ()), Identity("edge-1", 7, 0), None),
        (Ledger("edge-1", 6, 2**62 - 1, ()), Identity("edge-1", 7, 0), None),
        (Ledger("edge-1", 6, 2**62 - 1, ()), None, None),
        (Ledger("edge-1", 7, 42, ()), Identity("edge-1", 7, 42), "through: .* less than 42 .its own seq., found 42"),
        (Ledger("edge-1", 7, -2, ()), Identity("edge-1", 7, 42), "through: expected -1 or more .*, found -2"),
        (Ledger("edge-1", 6, 2**62, ()), Identity("edge-1", 7, 42), r"through: .*2\^62.*, found 4611686018427387904"),
        (Ledger("edge-1", 6, 2**63 - 1, ()), None, "through: .*, found 9223372036854775807"),
        (Ledger("edge-2", 7, 41, ()), Identity("edge-1", 7, 42), "edge: expected edge-1, which sent it, found edge-2"),
    ],
)
def test_a_ledger_covers_records_before_itself_and_of_its_own_edge(
    ledger: Ledger, sent_as: Identity | None, why: str | None
) -> None:
    found = impossible(ledger, sent_as)
    assert found is None if why is None else found is not None and re.fullmatch(why, found) is not None, found


async def test_the_store_holds_what_the_simulation_holds(plain_store: Settings) -> None:
    drawn = np.random.default_rng(20261123)

    def some_ledger(step: int) -> Ledger:
        edge, epoch = KEYS[drawn.integers(3)]
        entries = [
            LedgerEntry(
                f"e{drawn.integers(3)}",
                int(drawn.choice([-(2**63), -HOUR_US, 0, 7 * HOUR_US, 2**63 - 1])),
                int(drawn.choice([0, 5, 1 << 40])),
                int(drawn.integers(MODULUS, dtype=np.uint64, endpoint=False)) if step else MODULUS - 1,
            )
            for _ in range(drawn.integers(4))
        ]
        return Ledger(edge, epoch, int(drawn.integers(step // 4, step // 4 + 3)), tuple(entries))

    plain = Store()
    async with await connect(plain_store, INGEST, autocommit=True) as connection:
        for step in range(40):
            flush = [some_ledger(step) for _ in range(drawn.integers(1, 4))]
            for ledger in flush:
                plain.one(ledger)
            known = execute(plain_store.store, "SELECT edge, epoch, through FROM store.ledger_through")
            through = {**dict.fromkeys(KEYS, -1), **{(edge, epoch): seq for edge, epoch, seq in known}}
            async with connection.transaction():
                await write_ledgers(connection, bookings(flush, through))
            assert ledger_rows(plain_store) == plain.content(), step


def ledger_rows(settings: Settings) -> dict[Row, tuple[int, ...]]:
    rows = execute(
        settings.store,
        "SELECT edge, epoch, equipment, (extract(epoch FROM hour) * 1000000)::bigint,"
        " samples, checksum::text, pending_samples, pending_checksum::text FROM store.ledger",
    )
    found = {row[:4]: (row[4], int(row[5]), row[6], int(row[7])) for row in rows}
    return {row: numbers for row, numbers in found.items() if any(numbers)}


# ---- cells: what the rows themselves say of equipment and hours

TIMES = st.integers(-(2**63), 2**63 - 1) | st.integers(-3 * HOUR_US, 3 * HOUR_US)
SAMPLES = st.lists(st.tuples(st.sampled_from(["a/x", "b/x", "c/y"]), TIMES), min_size=1, max_size=12)


def counted(samples: Sequence[tuple[str, int]], *, places: int = 3) -> Cells:
    batch = from_rows([(name, time, 1.0, 192) for name, time in samples])
    equipments = ["a", "b", "c", *(f"more{n}" for n in range(places - 3))]
    where = np.array([equipments.index(name[0]) for name in batch.names], np.int32)
    return cells(batch, Dictionary(np.zeros(len(batch.names), np.int32), where, equipments))


@given(st.lists(SAMPLES, min_size=1, max_size=4))
def test_a_bridge_says_of_each_equipment_and_hour_how_many_samples_several_records_hold(
    records: list[list[tuple[str, int]]],
) -> None:
    """Before 1970, and at the ends of what 64 bits and a calendar hold."""
    *key, first, last, equipments, hours, samples = _bridge(
        ("edge-1", 7), [(seq, counted(record)) for seq, record in enumerate(records)]
    )
    assert (key, first, last) == (["edge-1", 7], 0, len(records) - 1)
    expected: dict[tuple[str, int], int] = {}
    for record in records:
        for name, time in record:
            cell = (name[0], clamped(time // HOUR_US * HOUR_US))
            expected[cell] = expected.get(cell, 0) + 1
    found: dict[tuple[str, int], int] = {}
    for equipment, hour, n in zip(equipments, hours.values.tolist(), samples.values.tolist(), strict=True):
        found[equipment, hour] = found.get((equipment, hour), 0) + n
    assert found == expected


@given(st.lists(SAMPLES, min_size=1, max_size=4))
def test_records_counted_together_are_as_one_record_that_is_counted(records: list[list[tuple[str, int]]]) -> None:
    whole, parts = counted([sample for record in records for sample in record]), together([*map(counted, records)])

    def sums(found: Cells) -> list[Any]:
        columns = (found.place.tolist(), found.hour.tolist(), found.samples.tolist())
        return sorted(zip(*columns, strict=True))

    assert sums(parts) == sums(whole)


def test_cells_are_the_same_whether_they_are_counted_or_the_rows_are_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = np.random.default_rng(20261124)
    hours = drawn.integers(-40, 40, 3_000).tolist()
    samples = [(f"{'abc'[n % 3]}/x", hour * HOUR_US + n) for n, hour in enumerate(hours)]

    def columns(found: Cells) -> list[list[int]]:
        return [found.place.tolist(), found.hour.tolist(), found.samples.tolist()]

    both = [columns(counted(samples)), columns(together([counted(samples[:99]), counted(samples[99:])]))]
    monkeypatch.setattr("ingest.accounts.COUNTED_AT_ONCE", 0)
    assert both == [columns(counted(samples)), columns(together([counted(samples[:99]), counted(samples[99:])]))]
    assert sum(both[0][2]) == 3_000


def test_a_short_record_of_a_large_fleet_is_counted_without_a_place_for_each_equipment() -> None:
    batch = from_rows([("z/x", 5, 1.0, 192), ("y/x", 6, 1.0, 192), ("z/x", 7, 1.0, 192)])
    dictionary = Dictionary(np.zeros(2, np.int32), np.array([5_000_000, 4_999_999], np.int32), [])
    tracemalloc.start()
    try:
        found = cells(batch, dictionary)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found.place.tolist(), found.hour.tolist(), found.samples.tolist()) == (
        [4_999_999, 5_000_000],
        [0, 0],
        [1, 2],
    )
    assert peak < 1_000_000
