"""What the forwarder is given, from memory and from the disk: within its bounds, and out until it is with the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.spool_bounds import OVERHEAD
from edge.spool_tail import Stored, Tail
from telemetry.wire import Identity
from tests.edge.spools import BIG, batch_of, drops, event, everything, forwarded, increments, open_at, samples

RECORD = samples(10)
SIZE = len(RECORD.value)
ALL = {"max_records": 1_000, "max_bytes": BIG}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.sqlite"


def stored(*positions: int) -> list[Stored]:
    return [Stored(at, Identity("edge-1", 1, at), RECORD) for at in positions]


def positions(records: list[Stored]) -> list[int]:
    return [record.position for record in records]


def test_memory_holds_exactly_its_bytes_and_leaves_the_oldest_beyond_them_to_the_disk() -> None:
    tail = Tail(3 * SIZE)
    tail.push(stored(1, 2, 3))
    assert (len(tail), tail.spilled) == (3, 0)
    tail.push(stored(4))
    assert (positions(tail.take(**ALL)), tail.spilled) == ([2, 3, 4], 1)


def test_a_record_larger_than_the_memory_is_held_alone() -> None:
    tail = Tail(SIZE // 2)
    tail.push(stored(1))
    tail.push(stored(2))
    assert (positions(tail.take(**ALL)), tail.spilled) == ([2], 1)


def test_what_was_taken_makes_room_for_as_much() -> None:
    tail = Tail(3 * SIZE)
    for first in range(1, 30, 3):
        tail.push(stored(first, first + 1, first + 2))
        tail.acknowledge(tail.take(**ALL))
    assert tail.spilled == 0


def test_what_was_dropped_makes_room_for_as_much() -> None:
    tail = Tail(3 * SIZE)
    tail.push(stored(1, 2, 3))
    assert tail.withdraw([1, 2]) == {1, 2}
    assert tail.take(**ALL) == [], "what is being dropped goes to nobody, nor what is behind it"
    tail.forget()
    tail.push(stored(4, 5))
    assert (positions(tail.take(**ALL)), tail.spilled) == ([3, 4, 5], 0)


def test_a_drop_that_did_not_happen_leaves_its_records_to_be_taken() -> None:
    tail = Tail()
    tail.push(stored(1, 2))
    tail.withdraw([1])
    tail.restore()
    tail.forget()
    assert positions(tail.take(**ALL)) == [1, 2]
    assert tail.known == 2, "they are out"
    tail.push(stored(3))
    assert tail.known == 3
    assert tail.withdraw([1, 3]) == {3}, "what is out cannot be dropped"


def test_a_restart_holds_no_more_in_memory_than_it_may_and_back_fills_the_rest_within_bounds(path: Path) -> None:
    spool = open_at(path, 1)
    for _ in range(20):
        spool.journal([RECORD], {})
    spool.close()
    spool = open_at(path, 2, tail_bytes=5 * SIZE)
    assert len(spool.tail) == 5
    assert spool.backlog_records == 15
    assert positions(spool.backlog(max_records=1_000, max_bytes=4 * SIZE)) == [1, 2, 3, 4]
    assert positions(spool.backlog(max_records=3, max_bytes=BIG)) == [5, 6, 7]
    assert positions(spool.backlog(max_records=1_000, max_bytes=SIZE // 2)) == [8], "at least one"
    assert spool.backlog_records == 7
    assert positions(spool.backlog(**ALL)) == [*range(9, 16)]
    assert spool.backlog(**ALL) == []
    assert not spool.has_backlog
    spool.close()


def test_what_was_given_out_from_the_disk_is_not_dropped_and_everything_is_either_sent_or_told_as_dropped(
    path: Path,
) -> None:
    spool = open_at(path, 1, max_bytes=20 * (SIZE + OVERHEAD), tail_bytes=3 * SIZE)
    batch = batch_of("e", 10)
    for _ in range(15):
        spool.journal([RECORD], increments("e", batch))
    out = spool.backlog(max_records=4, max_bytes=BIG)
    assert positions(out) == [1, 2, 3, 4]
    assert all(seq > 3 for _, seq, _ in everything(spool)), "they are given to nobody else"
    for _ in range(15):
        spool.journal([RECORD], increments("e", batch))
    spool.tail.acknowledge(out)
    sent = {record.identity.seq for record in out} | {seq for _, seq, _ in forwarded(spool)}
    spool.publish()
    gone = {seq for r in drops(forwarded(spool)) for seq in range(r.first, r.last + 1)}
    assert gone
    assert sent | gone == set(range(30))
    assert not sent & gone
    spool.close()


def test_events_that_only_the_disk_has_come_before_samples_and_each_once(path: Path) -> None:
    spool = open_at(path, 1, tail_bytes=1)
    for n in range(6):
        spool.journal([RECORD, event(n)], {})
    spool.journal([RECORD], {})
    found = [positions(spool.backlog(max_records=4, max_bytes=BIG)) for _ in range(4)]
    assert found == [[2, 4, 6, 8], [10, 12], [1, 3, 5, 7], [9, 11]]
    assert spool.backlog(**ALL) == []
    spool.close()
