"""The suite's own ground: parsing Python is not disturbed by the garbage collector, whatever CPython runs it."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator

import pytest

from tests.fixtures.ast_parsing import affected

SOURCE = "def f(x):\n    return [x + 1, (x, x), {x: x}]\n" * 20


@pytest.fixture
def parsing_collector() -> Iterator[list[str]]:
    """A collector that comes often, and that parses something itself each time."""
    before, found = gc.get_threshold(), list[str]()

    def parse(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            gc.callbacks.remove(parse)
            found.append(ast.unparse(ast.parse("(a + b) * c")))
            gc.callbacks.append(parse)

    gc.callbacks.append(parse)
    gc.set_threshold(50)
    yield found
    gc.set_threshold(*before)
    gc.callbacks.remove(parse)


def test_a_collector_that_parses_does_not_disturb_who_parses(parsing_collector: list[str]) -> None:
    for _ in range(50):
        assert len(ast.parse(SOURCE).body) == 20
    assert gc.isenabled()
    assert set(parsing_collector) == {"(a + b) * c"}, "it came"


@pytest.mark.parametrize(
    ("version", "expected"),
    [((3, 11, 7), True), ((3, 11, 8), False), ((3, 12, 1), True), ((3, 12, 2), False), ((3, 13, 0), False)],
)
def test_only_where_cpython_loses_count_does_the_collector_wait(version: tuple[int, int, int], expected: bool) -> None:
    assert affected(version) is expected
