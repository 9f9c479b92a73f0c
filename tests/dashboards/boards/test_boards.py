"""The boards: every query runs on the real schema and tells the seeded truth; the JSON is what Grafana's own types say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel, RowPanel

from dashboards.boards.build import BOARDS, build_boards, panels_of, to_json, write_boards
from dashboards.boards.sql import SqlQuery, register
from dashboards.boards.texts import LANGS, TEXTS, Lang, Texts
from dashboards.boards.unit import SqlAnnotationTarget
from tests.dashboards.boards.world import FROM, TO, fill
from tests.fixtures.store import fresh_database

ROOT = Path(__file__).parents[3]
CHOSEN = {
    "area": ["a", "b", "-"],
    "class": ["elevator", "boiler"],
    "equipment": ["boiler-1"],
    "group": ["heat"],
    "state": ["running"],
    "target": ["10"],
    "timezone": ["Asia/Shanghai"],
}

Rows = list[dict[str, Any]]


def expanded(sql: str, since: object = FROM, until: object = TO, chosen: dict[str, list[str]] | None = None) -> str:
    """SQL as Grafana's PostgreSQL data source sends it (its documented macros and variable formats)."""
    begin, end = (f"'{moment:%Y-%m-%dT%H:%M:%S}Z'" for moment in (since, until))
    sql = re.sub(r"\$__timeFilter\(([^()]+)\)", lambda m: f"{m[1]} BETWEEN {begin} AND {end}", sql)
    sql = sql.replace("$__timeFrom()", begin).replace("$__timeTo()", end)
    values = {**CHOSEN, **(chosen or {})}
    sql = re.sub(
        r"\$\{(\w+):sqlstring\}", lambda m: ",".join("'" + v.replace("'", "''") + "'" for v in values[m[1]]), sql
    )
    assert "$" not in sql, f"a macro or variable that is not Grafana's: {sql}"
    return sql


class Reader:
    """The read-only role, on a filled store."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, **chosen: Any) -> Rows:
        cursor = self._connection.execute(expanded(sql, **chosen).encode())
        assert cursor.description is not None
        names = [column.name for column in cursor.description]
        assert len(set(names)) == len(names), f"two columns of one name: {names}"
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@pytest.fixture(scope="module", params=["plain", "timescale", "wasm"])
def reader(request: pytest.FixtureRequest) -> Iterator[Reader]:
    with (
        database(request) as url,
        psycopg.connect(url, autocommit=True, options="-c timezone=UTC") as connection,
    ):
        fill(connection)
        connection.execute("SET ROLE vigil_reader")
        yield Reader(connection)


def database(request: pytest.FixtureRequest) -> AbstractContextManager[str]:
    """The URL of an empty, migrated store of the flavour."""
    if request.param == "wasm":
        return nullcontext(request.getfixturevalue("wasm_timescale").url)
    plain = request.param == "plain"
    return fresh_database(
        request.getfixturevalue("plain_server").url if plain else request.getfixturevalue("timescale_url")
    )


def queries(board: Dashboard) -> list[tuple[str, SqlQuery]]:
    found = []
    for panel in panels_of(board):
        if isinstance(panel, Panel):
            for target in panel.targets or []:
                assert isinstance(target, SqlQuery)
                found.append((panel.title or "", target))
    return found


def query(name: str, title: str, lang: Lang = "en", ref_id: str = "A") -> str:
    """The SQL of a panel, by the key of its title (or the title itself)."""
    wanted = Texts(lang)(title) if title in TEXTS else title
    return next(q.raw_sql for t, q in queries(build_boards(lang)[name]) if t == wanted and q.ref_id == ref_id)


@pytest.mark.parametrize("lang", LANGS)
def test_every_query_of_every_panel_variable_and_annotation_runs_and_has_its_columns(
    reader: Reader, lang: Lang
) -> None:
    ran = 0
    for board in build_boards(lang).values():
        for title, target in queries(board):
            found = reader.rows(target.raw_sql)
            assert found, f"{title}: no row of the seeded world"
            if target.format == "time_series":
                assert list(found[0]) == ["time", "metric", "value"], title
            ran += 1
        for variable in board.templating.list_val or []:
            if variable.type_val == "query":
                assert isinstance(variable.query, str)
                assert list(reader.rows(variable.query)[0]) == ["__text", "__value"], variable.name
                ran += 1
        for annotation in board.annotations.list_val or []:
            assert isinstance(annotation.target, SqlAnnotationTarget)
            assert {"time", "text", "tags"} <= set(reader.rows(annotation.target.query.raw_sql)[0])
            ran += 1
    assert ran >= 25


def test_the_worst_street_is_first_with_its_online_rate_and_response(reader: Reader) -> None:
    first, second = reader.rows(query("supervision", "supervision.areas"))
    text = Texts("en")
    assert (first["id"], first[text("units")], first[text("active")], first[text("late")]) == ("a", 2, 1, 1)
    assert first[text("online_rate")] == pytest.approx(0.75, abs=0.001)  # 4 h of 4 h and 2 h of 4 h
    assert first[text("alarms")] == 2
    assert first[text("within")] == 0.5
    assert first[text("to_acknowledge")] == 600
    assert (second["id"], second[text("late")], second[text("within")], second[text("to_acknowledge")]) == (
        "b",
        0,
        0,
        2400,
    )


def test_an_area_that_is_not_chosen_is_not_counted(reader: Reader) -> None:
    sql = query("supervision", "supervision.active")
    assert reader.rows(sql) == [{"value": 2}]
    assert reader.rows(sql, chosen={"area": ["b"]}) == [{"value": 1}]
    assert reader.rows(sql, chosen={"area": ["it's"]}) == [{"value": 0}]


def test_who_is_late_is_first_among_the_maintainers(reader: Reader) -> None:
    found = reader.rows(query("supervision", "supervision.maintainers"))
    text = Texts("en")
    assert [(row[text("maintainer")], row[text("late")]) for row in found] == [("Company slow", 1), ("Company fast", 0)]
    assert found[0][text("to_clear")] == 3600


def test_the_trend_counts_each_alarm_on_its_local_day_and_the_period_before_beside(reader: Reader) -> None:
    found = reader.rows(query("supervision", "supervision.daily"))
    by_metric = {
        metric: sum(row["value"] for row in found if row["metric"] == metric) for metric in {r["metric"] for r in found}
    }
    days = len({row["time"] for row in found})
    assert by_metric == {"this period": 3, "the period before": by_metric["the period before"], "target": 10 * days}
    assert all(row["time"].hour == 16 for row in found), "a day of Shanghai begins at 16:00 UTC"


def test_live_faults_are_most_urgent_first_with_who_has_them(reader: Reader) -> None:
    found = reader.rows(query("fleet", "fleet.faults"))
    text = Texts("en")
    assert [row[text("alarm")] for row in found] == ["nobody-came", "too-slow"]
    assert found[0][text("priority")] == "critical"
    assert found[0][text("for")] == pytest.approx(7200, abs=120)
    assert (found[0][text("maintainer")], found[0][text("phone")]) == ("Company slow", "110")


def test_units_that_cannot_be_reached_are_named_and_counted(reader: Reader) -> None:
    assert [row["id"] for row in reader.rows(query("fleet", "fleet.offline"))] == ["lift-2"]
    assert reader.rows(query("fleet", "fleet.offline_count")) == [{"value": 1}]


@pytest.mark.parametrize("hours", [1, 6, 24 * 5])
def test_values_come_raw_by_minute_or_by_hour_with_the_length_of_the_period(reader: Reader, hours: int) -> None:
    from datetime import timedelta

    found = reader.rows(query("unit", "${group:text}"), since=TO - timedelta(hours=hours))
    values = [row["value"] for row in found]
    assert {row["metric"] for row in found} == {"temperature (°C)"}
    assert max(v for v in values if v is not None) <= 91.5
    if hours == 1:
        assert values == [70.0, 91.5, None, 80.0], "raw, a bad reading is a gap"
    else:
        assert None not in values[:2] or hours > 6


def test_limits_are_lines_over_the_whole_period(reader: Reader) -> None:
    found = reader.rows(query("unit", "${group:text}", ref_id="B"))
    assert [(row["metric"], row["value"]) for row in found] == [("temperature limit 90.0", 90.0)] * 2


@pytest.mark.parametrize(("lang", "words"), [("zh", ["停", "行"]), ("en", ["stopped", "running"])])
def test_a_timeline_shows_changes_only_and_in_words(reader: Reader, lang: Lang, words: list[str]) -> None:
    assert [row["state"] for row in reader.rows(query("unit", "${state:text}", lang))] == words


def test_a_counter_says_how_much_it_grew(reader: Reader) -> None:
    sql = next(q.raw_sql for t, q in queries(build_boards("en")["unit"]) if t == "Counters")
    (row,) = reader.rows(sql)
    assert (row["Value"], row["Increase in the period"]) == (104, 4)


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
                counts = panel.type_val == "stat"
                no_value = panel.field_config.defaults.no_value if panel.field_config else None
                assert counts or no_value, f"{name}: {panel.title}"


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
