"""The boards as JSON, one file a board and language, sorted, so that a diff is readable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard as Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel, RowPanel

from dashboards.boards.fleet import fleet
from dashboards.boards.supervision import supervision
from dashboards.boards.texts import LANGS, Lang
from dashboards.boards.unit import unit

BOARDS: Final[dict[str, Callable[[Lang], Builder]]] = {"supervision": supervision, "fleet": fleet, "unit": unit}


def build_boards(lang: Lang) -> dict[str, Dashboard]:
    """The boards of one language by name, panels and variables with ids of their own."""
    return {name: _identified(board(lang).build()) for name, board in BOARDS.items()}


def to_json(board: Dashboard) -> str:
    """The text of a board's file."""
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(board) + "\n"


def write_boards(out: Path, langs: Sequence[Lang] = LANGS) -> list[Path]:
    """Writes `out`/LANG/NAME.json; returns the files."""
    written = []
    for lang in langs:
        folder = out / lang
        folder.mkdir(parents=True, exist_ok=True)
        for name, board in build_boards(lang).items():
            path = folder / f"{name}.json"
            path.write_text(to_json(board), encoding="utf-8")
            written.append(path)
    return written


def _identified(board: Dashboard) -> Dashboard:
    """Panels need ids of their own, or links to a panel and repeats go astray.

    Variables too: the SDK gives all of them one and the same, and Grafana 9 keeps them by it, so that none works.
    """
    for variable in board.templating.list_val or []:
        variable.id_val = variable.name
    for number, panel in enumerate(panels_of(board), start=1):
        panel.id_val = number
    return board


def panels_of(board: Dashboard) -> list[Panel | RowPanel]:
    """All panels, rows and what is folded in them."""
    found: list[Panel | RowPanel] = []
    for panel in board.panels or []:
        found.append(panel)
        if isinstance(panel, RowPanel):
            found += panel.panels
    return found
