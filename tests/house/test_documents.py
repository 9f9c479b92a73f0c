"""What the documents list is what there is: dependencies, metrics, decisions, and the pages that link to each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    "edge": "edge",
    "ingest": "ingest",
    "analytics": "analytics",
    "alerting": "alerting",
    "dashboards/console": "console",
}


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_reason_of_every_dependency_is_in_the_architecture() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    names = {re.split(r"[\[<>=~!; ]", one)[0] for one in wanted} - {project["name"]}
    tables = read("ARCHITECTURE.md").partition("## Why each dependency")[2]
    named = {name for row in re.findall(r"^\| ([^|]+) \|", tables, re.MULTILINE) for name in re.split(r"[, ()]+", row)}
    assert names - named == set()


def test_every_metric_is_on_its_services_page_and_no_other() -> None:
    for package, page in PAGES.items():
        made = set(re.findall(r'"(vigil_[a-z]+_[a-z_]+)"', read(f"{package}/metrics.py")))
        assert made, package
        section = read(f"docs/{page}.md").partition("\n## Metrics\n")[2].partition("\n## ")[0]
        assert set(re.findall(r"`(vigil_\w+)`", section)) == made, page


def test_every_decision_is_in_the_index_by_its_own_title() -> None:
    index = read("docs/adr/README.md")
    for path in sorted((ROOT / "docs" / "adr").glob("[0-9]*.md")):
        number, _, title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").partition(" · ")
        assert f"| [{number}]({path.name}) | {title} |" in index


def test_every_link_between_pages_leads_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path.name}: {link}"
