"""docs/promises.md and docs/exactly-once.md name tests; each must exist, or the page promises what nothing pins."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("page", "tests"), [("promises", 80), ("exactly-once", 35)])
def test_every_test_that_the_page_names_exists(page: str, tests: int) -> None:
    named = re.findall(r"`([\w/]+)::(\w+)`", (DOCS / f"{page}.md").read_text(encoding="utf-8"))
    assert len(named) > tests
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (path := TESTS / f"{file}.py").exists() or test not in functions(path)
    ]
    assert missing == []
