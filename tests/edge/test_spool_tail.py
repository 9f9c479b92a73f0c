"""The newest records in memory, between the spool's thread and the forwarder."""

from __future__ import annotations

import threading

from edge.spool_tail import Stored, Tail
from telemetry.messages import Kind
from telemetry.wire import Encoded, Identity

BIG = 1 << 30


def records(first: int, last: int, size: int = 10) -> list[Stored]:
    made = Encoded(Kind.SAMPLES, 1, 0, b"x" * size)
    return [Stored(n, Identity("e", 1, n), made) for n in range(first, last + 1)]


def positions(stored: list[Stored]) -> list[int]:
    return [one.position for one in stored]


def test_what_does_not_fit_is_left_to_the_disk_oldest_first() -> None:
    tail = Tail(35)
    tail.push(records(1, 5))
    assert (tail.spilled, len(tail)) == (2, 3)
    assert positions(tail.take(max_records=9, max_bytes=BIG)) == [3, 4, 5]
    tail.push(records(6, 6, size=100))
    assert (tail.spilled, len(tail)) == (2, 1), "the newest one stays, however large"


def test_a_batch_is_bounded_in_records_and_bytes_and_never_empty() -> None:
    tail = Tail()
    tail.push(records(1, 6))
    assert positions(tail.take(max_records=2, max_bytes=BIG)) == [1, 2]
    assert positions(tail.take(max_records=9, max_bytes=20)) == [3, 4]
    assert positions(tail.take(max_records=9, max_bytes=1)) == [5]


def test_what_is_out_is_not_withdrawn_and_what_is_withdrawn_is_not_taken() -> None:
    tail = Tail()
    tail.push(records(1, 4))
    tail.take(max_records=1, max_bytes=BIG)
    assert tail.withdraw([1, 2, 9]) == {2, 9}
    assert tail.take(max_records=9, max_bytes=BIG) == [], "it may yet come back"
    tail.restore()
    assert positions(tail.take(max_records=1, max_bytes=BIG)) == [2]
    assert tail.withdraw([3]) == {3}
    tail.forget()
    assert positions(tail.take(max_records=9, max_bytes=BIG)) == [4]


def test_it_is_through_when_all_up_to_there_is_acknowledged() -> None:
    tail = Tail()
    tail.push(records(1, 3))
    assert not tail.is_through(1)
    taken = tail.take(max_records=2, max_bytes=BIG)
    assert not tail.is_through(2)
    tail.acknowledge(taken[:1])
    assert tail.is_through(1)
    assert not tail.is_through(2)
    tail.acknowledge(taken[1:])
    assert tail.is_through(2)
    assert not tail.is_through(3)
    tail.settled(tail.acknowledged())
    assert (tail.acknowledged(), tail.known, tail.deletable_bytes) == ([], 1, 0)
    assert not tail.is_out(1)


def test_two_threads_never_both_have_a_record() -> None:
    tail, n = Tail(), 20_000
    taken: list[int] = []
    withdrawn: set[int] = set()
    over = threading.Event()

    def forwards() -> None:
        while not over.is_set() or len(tail):
            some = tail.take(max_records=7, max_bytes=BIG)
            taken.extend(positions(some))
            tail.acknowledge(some)

    thread = threading.Thread(target=forwards)
    thread.start()
    for first in range(1, n, 10):
        tail.push(records(first, first + 9))
        granted = tail.withdraw(range(max(first - 15, 1), first + 5))
        if first % 3:
            tail.forget()
            withdrawn |= granted
        else:
            tail.restore()
        tail.settled(tail.acknowledged())
    over.set()
    thread.join(20)
    assert not thread.is_alive()
    assert taken == sorted(set(taken))
    # What was withdrawn again after it was settled as sent is no record any more.
    assert {*taken, *withdrawn} == set(range(1, n + 1))
    assert len(withdrawn) > 1_000
