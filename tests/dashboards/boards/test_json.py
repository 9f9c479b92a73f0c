"""The boards as JSON: what Grafana's own types read, and what was wrong when they were first seen in a real Grafana."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel, RowPanel

from dashboards.boards.build import BOARDS, build_boards, panels_of, to_json, write_boards
from dashboards.boards.push import FOLDER_TITLE
from dashboards.boards.sql import DATASOURCE_TYPE, DATASOURCE_UID, SqlQuery, register
from dashboards.boards.texts import LANGS, TEXTS, Lang
from dashboards.boards.theme import AMBER, BLANK, BLUE, LINE_COLOURS, RED
from telemetry.files import load_profile

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("lang", LANGS)
def test_the_json_is_what_grafanas_own_types_read_and_write(lang: Lang) -> None:
    register_default_plugins()
    register()
    for name, board in build_boards(lang).items():
        written = json.loads(to_json(board))
        again = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(written)))
        for found in (written, again):
            for annotation in found["annotations"].get("list", []):
                del annotation["target"]  # of any kind in Grafana; the SDK types only its own annotations'
        assert again == written, name


def test_titles_differ_from_each_other_and_from_the_folder_in_what_is_latin_in_them() -> None:
    """Grafana up to 9 tells them apart by that, and refuses a board that is named like its folder."""
    titles = [board.title or "" for lang in LANGS for board in build_boards(lang).values()]
    slugs = [re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") for title in [FOLDER_TITLE, *titles]]
    latin = [slug for slug in slugs if slug]
    assert len(set(titles)) == len(titles)
    assert len(set(latin)) == len(latin), latin


@pytest.mark.parametrize("lang", LANGS)
def test_variables_have_ids_of_their_own(lang: Lang) -> None:
    """The SDK gives all the same, and Grafana 9 keeps them by it: none was filled in."""
    for board in build_boards(lang).values():
        for variable in board.templating.list_val or []:
            assert variable.id_val == variable.name


@pytest.mark.parametrize("lang", LANGS)
def test_an_empty_cell_of_a_table_does_not_say_that_the_table_is_empty(lang: Lang) -> None:
    tables = [p for board in build_boards(lang).values() for p in panels_of(board) if p.type_val == "table"]
    assert len(tables) >= 10
    for panel in tables:
        assert isinstance(panel, Panel)
        assert panel.field_config is not None
        first = panel.field_config.overrides[0]
        assert (first.matcher.id_val, first.matcher.options) == ("byRegexp", "/.*/"), panel.title
        assert [(p.id_val, p.value) for p in first.properties] == [("noValue", BLANK)]


@pytest.mark.parametrize("lang", LANGS)
def test_a_coloured_column_is_coloured_under_the_old_and_the_new_name_of_the_option(lang: Lang) -> None:
    coloured = 0
    for board in build_boards(lang).values():
        for override in re.findall(
            r'"properties": \[(?:[^\[\]]|\[[^\[\]]*\])*\]', json.dumps(json.loads(to_json(board)))
        ):
            assert ("custom.cellOptions" in override) == ("custom.displayMode" in override)
            coloured += "custom.cellOptions" in override
    assert coloured >= 5


@pytest.mark.parametrize("lang", LANGS)
def test_bars_in_colours_have_a_legend_that_says_what_they_are(lang: Lang) -> None:
    bars = [p for p in panels_of(build_boards(lang)["supervision"]) if p.type_val == "barchart"]
    assert len(bars) == 2
    for panel in bars:
        options = json.loads(JSONEncoder().encode(panel))["options"]
        assert options["legend"]["showLegend"] is True
        assert options["showValue"] == "never"


def test_every_group_of_points_of_every_profile_has_a_name_in_both_languages() -> None:
    names = [path.stem for path in sorted((ROOT / "profiles").glob("*.yaml"))]
    groups = {point.group for name in names for point in load_profile(name).points.values()}
    assert len(groups) >= 15
    assert not groups - {key.removeprefix("group.") for key in TEXTS}


def test_lines_that_are_read_at_times_of_their_own_are_not_put_on_the_times_of_all() -> None:
    """As time_series, Grafana joined them by time: each reading stood between two gaps and was drawn as a dot."""
    (panel,) = [p for p in panels_of(build_boards("en")["unit"]) if p.title == "${group:text}"]
    assert isinstance(panel, Panel)
    assert [(t.id_val, t.options) for t in panel.transformations or []] == [("prepareTimeSeries", {"format": "multi"})]
    for target in panel.targets or []:
        assert isinstance(target, SqlQuery)
        assert target.format == "table"
        assert re.search(r'AS metric\b.* AS "Value"|metric, r\.value AS "Value"', target.raw_sql, re.DOTALL)


def test_a_measured_line_gets_the_colour_of_its_mark_and_a_limit_none() -> None:
    (panel,) = [p for p in panels_of(build_boards("en")["unit"]) if p.title == "${group:text}"]
    assert isinstance(panel, Panel)
    assert panel.field_config is not None
    colours = {
        str(o.matcher.options).strip("/"): o.properties[0].value["fixedColor"]
        for o in panel.field_config.overrides
        if isinstance(o.properties[0].value, dict)
    }

    def colour(name: str) -> list[object]:
        return [c for pattern, c in colours.items() if re.fullmatch(pattern, name)]

    lines = [colour("Speed" + "\u200b" * n) for n in range(1, len(LINE_COLOURS) + 1)]
    assert lines == [[c] for c in LINE_COLOURS]
    assert colour("Speed limit 1.2") == [AMBER]
    assert not {RED, AMBER, BLUE} & set(LINE_COLOURS)


def test_the_files_that_provision_grafana_are_yaml_and_name_the_boards_data_source_and_folder() -> None:
    """A brace without quotes was no YAML: with it, Grafana would not have started."""
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    read = {
        path.parent.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/*.yml"))
    }
    (source,) = read["datasources"]["datasources"]
    assert (source["uid"], source["type"]) == (DATASOURCE_UID, DATASOURCE_TYPE)
    assert source["secureJsonData"] == {"password": "$__file{/run/secrets/store_reader}"}
    (provider,) = read["dashboards"]["providers"]
    assert provider["folder"] == FOLDER_TITLE


@pytest.mark.parametrize("lang", LANGS)
def test_panels_have_ids_of_their_own_and_do_not_overlap(lang: Lang) -> None:
    for name, board in build_boards(lang).items():
        panels = panels_of(board)
        assert len({panel.id_val for panel in panels}) == len(panels)
        cells: set[tuple[int, int]] = set()
        for panel in panels:
            assert panel.grid_pos is not None, name
            x, y, w, h = panel.grid_pos.x, panel.grid_pos.y, panel.grid_pos.w, panel.grid_pos.h
            assert x + w <= 24
            mine = {(i, j) for i in range(x, x + w) for j in range(y, y + h)}
            assert not mine & cells, f"{name}: {panel.title} lies over another panel"
            cells |= mine


@pytest.mark.parametrize("lang", LANGS)
def test_every_panel_says_what_it_shows_and_an_empty_one_why(lang: Lang) -> None:
    for name, board in build_boards(lang).items():
        for panel in panels_of(board):
            if not isinstance(panel, RowPanel):
                assert panel.title, name
                assert panel.description, f"{name}: {panel.title}"
                no_value = panel.field_config.defaults.no_value if panel.field_config else None
                assert no_value, f"{name}: {panel.title}"


@pytest.mark.parametrize("lang", LANGS)
def test_links_lead_to_boards_and_variables_that_exist_with_the_time_range(lang: Lang) -> None:
    boards = {board.uid: board for board in build_boards(lang).values()}
    seen = 0
    for board in boards.values():
        for url in set(re.findall(r'"url": "(/d/[^"]+)"', to_json(board))):
            parts = urlsplit(url)
            target = boards[parts.path.removeprefix("/d/")]
            names = {f"var-{variable.name}" for variable in target.templating.list_val or []}
            given = {key for key in parse_qs(parts.query.replace("${__url_time_range}", "")) if key.startswith("var-")}
            assert given <= names, url
            assert not given or "${__url_time_range}" in url, url
            seen += 1
    assert seen >= 8


def test_every_text_exists_in_both_languages_and_the_chinese_boards_speak_chinese() -> None:
    for key, (zh, en) in TEXTS.items():
        assert zh, key
        assert en, key
        assert not re.search(r"[\u4e00-\u9fff]", en), key
    allowed = {"Vigil"}
    for board in build_boards("zh").values():
        for panel in panels_of(board):
            for text in (panel.title, None if isinstance(panel, RowPanel) else panel.description):
                if text and not text.startswith("${"):
                    assert re.search(r"[\u4e00-\u9fff]", text) or text in allowed, text


def test_the_committed_boards_are_current(tmp_path: Path) -> None:
    for path in write_boards(tmp_path):
        committed = ROOT / "deploy" / "grafana" / "boards" / path.relative_to(tmp_path)
        assert committed.read_text(encoding="utf-8") == path.read_text(encoding="utf-8"), "run: vigil boards build"
    assert len(list(tmp_path.rglob("*.json"))) == len(BOARDS) * len(LANGS)
