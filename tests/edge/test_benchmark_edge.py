"""The edge's benchmark: what it holds its figures against."""

from __future__ import annotations

import time
from itertools import chain, repeat

from benchmarks.edge.modbus import closest


def test_what_was_decoded_is_held_against_what_was_answered_between_two_slots() -> None:
    """A slot that is answered and not yet decoded at one end of a window, and not at the other, was taken for lost answers."""
    pairs = iter(chain([(500, 250), (500, 250), (500, 500), (750, 500)], repeat((1000, 750))))
    assert closest(lambda: next(pairs), time.monotonic() + 0.3) == (500, 500)


def test_answers_that_are_lost_show_in_every_pair() -> None:
    pairs = iter(chain([(500, 225), (500, 475)], repeat((750, 475))))
    assert closest(lambda: next(pairs), time.monotonic() + 0.1) == (500, 475)
    assert closest(lambda: (500, 0), time.monotonic()) == (500, 0), "one at least is read"
