from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVICES = ("edge", "ingest", "analytics", "alerting", "telemetry")
EMITTED = (
    re.compile(r'own_event\(\s*"([a-z-]+)"'),
    re.compile(r'VIGIL_SCHEME,\s*"([a-z-]+)"(?!:)'),
    re.compile(r'code = "([a-z-]+)"'),
    re.compile(r'^CODE: Final = "([a-z-]+)"', re.M),
    re.compile(r'^    "([a-z-]+)": \("\w+_(?:records|samples)"', re.M),
)


def test_the_page_of_events_names_each_code_that_a_service_emits_and_no_other() -> None:
    sources = [p.read_text(encoding="utf-8") for s in SERVICES for p in (ROOT / s).rglob("*.py")]
    emitted = {
        code
        for text in sources
        if "VIGIL_SCHEME" in text or "own_event" in text
        for pattern in EMITTED
        for code in pattern.findall(text)
    }
    page = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z-]+)`", page, re.M)) == emitted
    assert len(emitted) >= 10
