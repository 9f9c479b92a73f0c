from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.seqset import SeqSet

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda p: (p[0], p[0] + p[1])), max_size=12)


def naive(ranges: list[tuple[int, int]]) -> set[int]:
    return {n for first, end in ranges for n in range(first, end)}


@given(RANGES)
def test_it_holds_exactly_what_was_added(ranges: list[tuple[int, int]]) -> None:
    held, model = SeqSet(ranges), naive(ranges)
    assert [n for n in range(80) if n in held] == sorted(model)
    assert (len(held), bool(held), held.end) == (len(model), bool(model), max(model, default=-1) + 1)


@given(RANGES, st.lists(st.integers(0, 80), max_size=60))
def test_add_says_whether_the_number_was_new(ranges: list[tuple[int, int]], numbers: list[int]) -> None:
    held, model = SeqSet(ranges), naive(ranges)
    for number in numbers:
        assert held.add(number) == (number not in model)
        model.add(number)
    assert [n for n in range(90) if n in held] == sorted(model)


@given(RANGES)
def test_its_ranges_are_sorted_never_empty_and_never_touch(ranges: list[tuple[int, int]]) -> None:
    told = list(SeqSet(ranges).ranges())
    assert all(first < end for first, end in told)
    assert all(end < following for (_, end), (following, _) in pairwise(told))
    assert SeqSet(told) == SeqSet(ranges)


@given(RANGES, st.integers(0, 40))
def test_missing_and_held_together_are_everything_up_to_the_end(ranges: list[tuple[int, int]], start: int) -> None:
    held = SeqSet(ranges)
    holes = naive(held.missing(start=start))
    assert holes == {n for n in range(start, held.end) if n not in held}


def test_a_copy_does_not_follow_the_original() -> None:
    original = SeqSet([(0, 3)])
    copy = original.copy()
    original.add(3)
    assert (3 in original, 3 in copy) == (True, False)


def test_it_cannot_be_a_key() -> None:
    with pytest.raises(TypeError):
        hash(SeqSet())
