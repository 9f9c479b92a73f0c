"""Where a plan learned by reading has its marks: which breaks are doubted, tried, taken back and kept, step by step."""

from __future__ import annotations

from typing import Literal

import pytest

from edge.learned import Learned
from edge.plan import Request
from telemetry.profile import ModbusPoint
from tests.edge.build import make_profile, points_of

Table = Literal["coil", "discrete", "input", "holding"]


def points(*addresses: int, table: str = "holding") -> dict[str, ModbusPoint]:
    return points_of(make_profile({f"p{a}": {"modbus": {"address": a, "table": table}} for a in addresses}))


def request(first: int, last: int, *names: int, table: Table = "holding") -> Request:
    """Registers first … last, with the points at `names`."""
    return Request(table, first, last - first + 1, tuple(f"p{a}" for a in names))


ALL = points(0, 4, 8, 12)
PLAN = [request(0, 4, 0, 4), request(8, 8, 8), request(12, 12, 12)]


@pytest.mark.parametrize(
    ("at", "why"),
    [(5, "where the first ends"), (8, "where the second begins"), (7, "between the two")],
)
def test_a_doubtful_break_between_two_answered_requests_is_taken_back_once(at: int, why: str) -> None:
    learned = Learned({("holding", at)}, doubtful={("holding", at)})
    assert learned.doubt(PLAN, ALL, all_known=True), why
    assert (learned.breaks, learned.doubtful, learned.tried) == (set(), set(), {("holding", at)})


@pytest.mark.parametrize("at", [0, 4, 13])
def test_one_that_lies_in_a_request_or_beyond_them_all_is_left(at: int) -> None:
    learned = Learned({("holding", at)}, doubtful={("holding", at)})
    assert not learned.doubt(PLAN, ALL, all_known=False)
    assert (learned.breaks, learned.doubtful) == ({("holding", at)}, {("holding", at)})


def test_one_of_another_table_or_between_two_tables_is_left() -> None:
    of_input = Learned({("input", 8)}, doubtful={("input", 8)})
    assert not of_input.doubt(PLAN, ALL, all_known=False)
    mixed = [request(0, 4, 0, 4, table="input"), request(8, 8, 8)]
    for table in ("input", "holding"):
        learned = Learned({(table, 8)}, doubtful={(table, 8)})
        assert not learned.doubt(mixed, ALL, all_known=False)
        assert learned.breaks == {(table, 8)}


def test_while_one_is_tried_no_other_is_taken_back() -> None:
    two = {("holding", 8), ("holding", 12)}
    learned = Learned(set(two), doubtful=set(two))
    assert learned.doubt(PLAN, ALL, all_known=True)
    assert learned.tried == {("holding", 8)}
    assert not learned.doubt([PLAN[2]], ALL, all_known=True), "what the device says to the first is not known yet"
    assert (learned.tried, learned.breaks) == ({("holding", 8)}, {("holding", 12)})


def test_one_that_was_tried_and_is_answered_over_is_settled_and_the_next_is_taken_back() -> None:
    learned = Learned({("holding", 12)}, doubtful={("holding", 12)}, tried={("holding", 8)})
    assert learned.doubt([request(0, 8, 0, 4, 8), PLAN[2]], ALL, all_known=True)
    assert (learned.tried, learned.breaks) == ({("holding", 12)}, set())


def test_one_that_was_tried_is_not_settled_by_an_answer_of_another_table() -> None:
    learned = Learned(tried={("input", 8)})
    assert not learned.doubt([request(0, 12, 0, 4, 8, 12)], ALL, all_known=True)
    assert learned.tried == {("input", 8)}


def test_one_that_was_tried_where_the_plan_has_two_requests_all_the_same_is_settled() -> None:
    """The two are too long for one, say: that the break is gone changes nothing."""
    learned = Learned(tried={("holding", 8)})
    assert not learned.doubt(PLAN, ALL, all_known=True)
    assert learned.tried == set()


def test_one_that_was_tried_and_is_refused_stays_for_good_and_costs_no_further_try() -> None:
    learned = Learned(tried={("holding", 8)})
    assert learned.split(request(0, 12, 0, 4, 8, 12), ALL)
    assert (learned.breaks, learned.tried, learned.doubtful) == ({("holding", 8)}, set(), set())
    assert not learned.doubt(PLAN, ALL, all_known=True)
    assert learned.breaks == {("holding", 8)}


def test_what_cannot_be_tried_is_settled_only_when_it_is_known_what_the_device_says_to_all() -> None:
    learned = Learned({("holding", 4)}, doubtful={("holding", 4)})
    assert not learned.doubt(PLAN, ALL, all_known=False)
    assert learned.doubtful == {("holding", 4)}
    assert not learned.doubt(PLAN, ALL, all_known=True)
    assert (learned.doubtful, learned.breaks) == (set(), {("holding", 4)})


def test_once_what_is_refused_is_found_the_breaks_inside_go_and_those_at_its_ends_and_of_other_tables_stay() -> None:
    inside = {("holding", 1), ("holding", 12)}
    kept = {("holding", 0), ("holding", 13), ("input", 4)}
    learned = Learned(inside | kept, refused={"p8"}, doubtful=inside | kept)
    learned.mend(request(0, 12, 0, 4, 8, 12), ALL)
    assert learned.breaks == kept | {("holding", 8), ("holding", 9)}, "and those round the point that is refused"
    assert learned.doubtful == kept


def test_a_point_that_the_device_has_after_all_takes_its_breaks_and_the_doubt_of_them_with_it() -> None:
    around, other = {("holding", 8), ("holding", 9)}, ("holding", 12)
    learned = Learned(around | {other}, refused={"p8"}, doubtful=around | {other})
    learned.accept(request(8, 8, 8), ALL)
    assert (learned.refused, learned.breaks, learned.doubtful) == (set(), {other}, {other})


def test_requests_are_halved_again_and_never_to_what_was_tried() -> None:
    learned = Learned()
    long = Request("holding", 0, 100, ("p0", "p4"))
    assert learned.shorten(long)
    assert learned.longest == 50
    assert not learned.shorten(long), "half of it is what is asked already"
    assert learned.shorten(Request("holding", 0, 50, ("p0", "p4")))
    assert learned.longest == 25
