"""The judge finds what it is there to find, and a seed says what happens."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tests.chaos.faults import LONG, REST_S, SHORT, SORTS, Pace, counts, draw
from tests.chaos.layout import POINTS, WORDS, Fleet, sums, words
from tests.chaos.traced import Found, Reads
from tests.soak.devices import GOOD, MAYBE
from tests.soak.traced import Given
from tests.soak.world import Excuse

INDEX = 5
TARGETS = ["broker", "database", "edge:hall-1", "edge:hall-2", "ingest:ingest-1", "link:a", "link:b"]


def reads(numbers: list[int], *, every_s: float = 0.5) -> Reads:
    """Whole reads with these numbers."""
    number = np.array(numbers, np.int64)
    count = np.full(len(numbers), POINTS, np.int64)
    known = sums(100, INDEX)
    total = np.array([known[n - 1] if n else 0 for n in numbers], np.int64)
    values = np.where(number > 0, POINTS, 0)
    return Reads(np.arange(len(numbers), dtype=np.float64) * every_s, count, count.copy(), values, number, total)


def judged(held: Reads, answers: int, *, why: list[Excuse] | None = None, last: int = GOOD) -> Found:
    """Against a device that gave so many answers, one every 0.5 s."""
    found = Found()
    status = np.array([GOOD] * (answers - 1) + [last], np.uint8)
    said = Given(np.arange(answers, dtype=np.float64) * 0.5, status, np.zeros(answers, np.bool_))
    found.add("unit-5", said, held, sums(answers, INDEX), why or [])
    return found


def test_a_table_that_holds_each_answer_once_is_as_it_should_be() -> None:
    found = judged(reads([1, 2, 3]), 3)
    assert (found.rows, found.twice, found.torn) == (3 * POINTS, 0, [])
    assert (found.reads.answers, found.reads.doubled, found.reads.unknown, found.reads.wrong) == (3, 0, 0, 0)
    assert found.reads.lost == []


def test_an_answer_without_its_rows_is_lost_unless_its_edge_was_hurt() -> None:
    assert judged(reads([1, 3]), 3).reads.lost == ["unit-5 2 at 0.50"]
    hurt = [Excuse(0.4, 0.6, "", "edge-kill")]
    assert judged(reads([1, 3]), 3, why=hurt).reads.excused == {"edge-kill": 1}
    assert judged(reads([1, 4]), 4, why=hurt).reads.lost == ["unit-5 3 at 1.00"], "that one was after it"
    assert judged(reads([1, 2]), 3, last=MAYBE).reads.lost == []


def test_an_answer_that_is_there_twice_is_found_whatever_its_time() -> None:
    assert judged(reads([1, 2, 2, 3]), 3).reads.doubled == 1


def test_rows_of_one_signal_and_time_that_are_there_twice_are_found() -> None:
    held = reads([1, 2, 3])
    held.rows[1] += 1
    held.values[1] += 1
    found = judged(held, 3)
    assert (found.twice, found.torn) == (1, [f"unit-5 2 ({POINTS + 1} rows)"])


def test_a_read_that_lacks_a_point_or_a_value_is_found() -> None:
    held = reads([1, 2, 3])
    held.rows[0] -= 1
    held.points[0] -= 1
    held.values[0] -= 1
    held.values[2] -= 1
    assert len(judged(held, 3).torn) == 2


def test_a_value_that_belongs_to_another_answer_or_device_is_found() -> None:
    held = reads([1, 2, 3])
    held.total[1] = held.total[2]
    held.total[2] = sums(3, INDEX + 1)[2]
    assert judged(held, 3).reads.wrong == 2


def test_a_number_that_was_never_said_is_found() -> None:
    assert judged(reads([1, 2, 9]), 3).reads.unknown == 1


def test_the_sums_are_those_of_the_registers() -> None:
    known = sums(70_000, INDEX)
    for number in (1, 2, 65_535, 65_536, 70_000):
        said = words(number, INDEX)
        assert (int(said[0]) << 16 | int(said[1])) == number
        assert int(said[2:].astype(np.int64).sum()) == known[number - 1]
    assert len(said) == WORDS == POINTS + 1


@pytest.mark.parametrize("pace", [LONG, SHORT])
def test_a_seed_draws_the_same_faults_again_and_another_seed_draws_others(pace: Pace) -> None:
    once, again = draw(3, 200, TARGETS, pace), draw(3, 200, TARGETS, pace)
    assert once == again
    assert len(once) == 200
    assert draw(4, 200, TARGETS, pace) != once
    assert draw(3, 20, TARGETS, pace) == once[:20], "a longer run begins as a shorter one"


def test_two_hundred_faults_are_of_every_kind_and_hit_every_target() -> None:
    faults = draw(1, 200, TARGETS, LONG)
    assert set(counts(faults)) == set(SORTS)
    assert {fault.target for fault in faults} == set(TARGETS)
    assert "black-hole" not in counts(draw(1, 200, TARGETS, SHORT)), "found out by minutes of time-outs only"


def test_a_target_has_peace_between_two_faults() -> None:
    faults = draw(2, 300, TARGETS, LONG)
    for target in TARGETS:
        for earlier, later in pairwise(fault for fault in faults if fault.target == target):
            assert later.at_s >= earlier.at_s + earlier.for_s + REST_S - 0.02


def test_without_a_broker_there_are_no_faults_of_one() -> None:
    kinds = counts(draw(1, 200, ["database", "edge:a", "ingest:b", "link:c"], LONG))
    assert not {kind for kind in kinds if kind.startswith("broker")}


def test_each_device_has_an_address_of_its_own() -> None:
    places = Fleet(edges=3, units=24).places
    assert len({place.host for place in places}) == len({place.name for place in places}) == 72
