"""The ledger's checksum: the same for the same rows in any order, another for a row lost, doubled or changed."""

from __future__ import annotations

import hashlib
import math
import struct

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from telemetry.batch import concatenate, from_rows
from telemetry.ledger import hash_rows, name_hash, row_hashes

M64 = (1 << 64) - 1
GOLDEN = 0x92CB7FDDB909C458
"""Of the row in the test below; rows in stores out there were counted with it."""
Row = tuple[str, int, float, int]
row = st.tuples(
    st.sampled_from(["lift-1/speed", "lift-1/door", "锅炉/pressure"]),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.integers(0, 255),
)


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & M64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & M64
    return x ^ (x >> 31)


def naive(name: str, time_us: int, value: float, quality: int) -> int:
    """One row at a time, in Python's whole numbers."""
    bits = 0x7FF8000000000000 if math.isnan(value) else struct.unpack("<Q", struct.pack("<d", value + 0.0))[0]
    start = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    mixed = mix((start + 0x9E3779B97F4A7C15) & M64)
    mixed = mix(mixed ^ (time_us & M64))
    mixed = mix(mixed ^ bits)
    return mix(mixed ^ quality)


def total(rows: list[Row]) -> int:
    return sum(map(int, row_hashes(from_rows(rows)))) & M64


@given(st.lists(row, max_size=30))
def test_every_row_hashes_as_the_naive_loop_says(rows: list[Row]) -> None:
    assert row_hashes(from_rows(rows)).tolist() == [naive(*r) for r in rows]


@given(st.lists(row, min_size=1, max_size=20), st.randoms(use_true_random=False), st.integers(0, 20))
def test_neither_order_nor_the_cut_into_batches_matters(rows: list[Row], chance: object, cut: int) -> None:
    shuffled = list(rows)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert total(shuffled) == total(rows)
    joined = concatenate([from_rows(rows[:cut]), from_rows(rows[cut:])])
    assert int(np.add.reduce(row_hashes(joined))) == total(rows)


@given(st.lists(row, min_size=1, max_size=20), st.data())
def test_a_lost_a_doubled_and_a_changed_row_change_the_sum(rows: list[Row], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(rows) - 1))
    assert total(rows[:place] + rows[place + 1 :]) != total(rows)
    assert total([*rows, rows[place]]) != total(rows)
    other = data.draw(row)
    assume(naive(*other) != naive(*rows[place]))
    assert total([*rows[:place], other, *rows[place + 1 :]]) != total(rows)


@given(row, row)
def test_rows_that_differ_hash_differently(one: Row, other: Row) -> None:
    def key(r: Row) -> tuple[object, ...]:
        return (r[0], r[1], None if math.isnan(r[2]) else r[2] + 0.0, r[3])

    assert (naive(*one) == naive(*other)) == (key(one) == key(other))


def test_all_nan_count_as_one_and_minus_zero_as_zero_because_the_store_keeps_them_so() -> None:
    odd_nan = struct.unpack("<d", struct.pack("<Q", 0xFFF8000000000123))[0]
    hashes = row_hashes(from_rows([("a/x", 1, v, 192) for v in (math.nan, odd_nan, 0.0, -0.0, math.inf, -math.inf)]))
    assert hashes[0] == hashes[1]
    assert hashes[2] == hashes[3]
    assert len(set(hashes.tolist())) == 4


def test_the_hash_of_a_name_is_the_same_on_every_machine_and_for_ever() -> None:
    assert name_hash("lift-1/speed") == int.from_bytes(
        hashlib.blake2b(b"lift-1/speed", digest_size=8).digest(), "little"
    )
    assert naive("lift-1/speed", 1_767_225_600_000_000, 1.5, 192) == GOLDEN


def test_columns_that_are_strided_hash_alike() -> None:
    rows = [("a/x", n, float(n), 192) for n in range(10)]
    batch = from_rows(rows)
    table = np.fromiter(map(name_hash, batch.names), np.uint64)
    every_second = hash_rows(table[batch.signal][::2], batch.time_us[::2], batch.value[::2], batch.quality[::2])
    assert every_second.tolist() == [naive(*r) for r in rows[::2]]
