"""Where the state of signals lies: shared, kept, given back, and the turns of rows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.slots import NO_ROW, UNWATCHED, Slots
from telemetry.quality import GOOD
from tests.edge.readings import block_of, columns_of

FIRST = block_of("a", "x", "free", "y")
SECOND = block_of("b", "x")
PLAIN = block_of("c", "x")
PLACES = [(block, place) for block in (FIRST, SECOND, PLAIN) for place in range(len(block.names))]


def slots() -> Slots:
    made = Slots()
    made.add(FIRST, ["a/x", None, "a/y"])
    made.add(SECOND, ["b/x"])
    made.add(PLAIN, [None])
    return made


@settings(max_examples=150)
@given(st.lists(st.sampled_from(range(len(PLACES))), max_size=40))
def test_turns_have_each_watched_row_once_a_signals_rows_in_order_and_each_with_the_one_before(
    picked: list[int],
) -> None:
    made = slots()
    names = [PLACES[i][0].names[PLACES[i][1]] for i in picked]
    watched = made.watched(columns_of([(*PLACES[i], n, 0.0, GOOD) for n, i in enumerate(picked)]))
    rows = [row for row, name in enumerate(names) if name in ("a/x", "a/y", "b/x")]
    assert watched.row.tolist() == rows
    latest: dict[str, int] = {}
    done: list[int] = []
    for turn in made.passes(watched):
        assert len(set(turn.slot.tolist())) == len(turn.slot)
        for row, before in zip(turn.row.tolist(), turn.before.tolist(), strict=True):
            assert before == latest.get(names[row], NO_ROW) < row
            latest[names[row]] = row
            done.append(row)
    assert sorted(done) == rows


def test_equal_keys_share_a_slot_until_the_last_block_with_them_is_forgotten() -> None:
    made, again = slots(), block_of("a", "y", "z")
    x, _, y = made.slots_of(FIRST).tolist()
    assert made.add(again, ["a/y", "a/z"]) == [y, made.capacity - 1]
    assert made.forget(FIRST) == [x]
    assert made.forget(FIRST) == []
    assert made.forget(again) == [y, made.capacity - 1]


def test_slots_and_room_that_are_given_back_are_used_again() -> None:
    made = Slots()
    for i in range(100):
        block = block_of(f"e{i}", "x", "y")
        made.add(block, [f"e{i}/x", f"e{i}/y"])
        assert sorted(made.slots_of(block).tolist()) == [0, 1]
        made.release(made.forget(block))
    assert (made.capacity, made.room) == (2, 2)


def test_a_slot_that_is_not_given_back_is_its_keys_when_it_comes_again() -> None:
    made = slots()
    kept = made.forget(SECOND)
    later = block_of("b", "w", "x")
    assert made.add(later, [None, "b/x"]) == [UNWATCHED, *kept]


def test_blocks_without_watched_signals_are_not_kept() -> None:
    assert slots().blocks() == [FIRST, SECOND]


def test_a_block_is_added_once_with_a_key_a_name() -> None:
    made = slots()
    with pytest.raises(ValueError, match="expected it once"):
        made.add(FIRST, ["a/x", None, "a/y"])
    with pytest.raises(ValueError, match="expected it once"):
        made.add(block_of("d", "x"), [])
