"""docs/promises.md names tests; each must exist, or the page promises what nothing pins."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "promises.md"


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`([\w/]+)::(\w+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) > 80
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (path := TESTS / f"{file}.py").exists() or test not in functions(path)
    ]
    assert missing == []
