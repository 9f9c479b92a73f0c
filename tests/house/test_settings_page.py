"""docs/settings.md has every setting once, with the default that is in force, and none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

from telemetry.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def rows() -> list[tuple[str, str]]:
    return re.findall(r"^\| `VIGIL_(\w+)` \| (?:`([^`]*)`|–) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def defaults() -> dict[str, str]:
    values = {name.upper(): field.get_default() for name, field in Settings.model_fields.items()}
    return {name: "" if value in (None, ()) else str(value) for name, value in values.items()}


def test_every_setting_is_on_the_page_once_with_its_default() -> None:
    assert dict(rows()) == defaults()
    assert len(rows()) == len(defaults())


def test_every_variable_that_the_documents_name_is_a_setting() -> None:
    root = PAGE.parents[1]
    documents = [root / "README.md", root / "ARCHITECTURE.md", *sorted((root / "docs").rglob("*.md"))]
    known = {f"VIGIL_{name}" for name in defaults()}
    for path in documents:
        named = set(re.findall(r"VIGIL_(?!TEST_|BENCH_)[A-Z_]*[A-Z]", path.read_text(encoding="utf-8")))
        assert named <= known, path.name
