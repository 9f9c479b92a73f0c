"""The boards: every query runs on the real schema, as Grafana sends it, and tells the truth of the seeded world."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from dashboards.boards.build import build_boards, panels_of
from dashboards.boards.sql import SqlQuery
from dashboards.boards.texts import LANGS, TEXTS, Lang, Texts
from dashboards.boards.theme import STATE_COLOURS
from dashboards.boards.unit import SqlAnnotationTarget
from telemetry.settings import Settings
from tests.dashboards.boards.world import FROM, TO, fill
from tests.fixtures.store import fresh_database

HOUR = timedelta(hours=1)
ROOT = Path(__file__).parents[3]
CHOSEN = {
    "area": ["a", "b", "-"],
    "class": ["elevator", "boiler"],
    "equipment": ["boiler-1"],
    "group": ["heat/°C"],
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
    text = Texts("en")
    assert reader.rows(query("fleet", "fleet.now")) == [
        {text("fleet.open"): 1, text("fleet.active"): 2, text("fleet.offline_count"): 1, text("fleet.total"): 3}
    ]


@pytest.mark.parametrize("hours", [1, 6, 24 * 5])
def test_values_come_raw_by_minute_or_by_hour_with_the_length_of_the_period(reader: Reader, hours: int) -> None:
    found = reader.rows(query("unit", "${group:text}"), since=TO - timedelta(hours=hours))
    values = [row["Value"] for row in found]
    assert {row["metric"] for row in found} == {"temperature\N{ZERO WIDTH SPACE}"}, "marked for its colour"
    assert max(v for v in values if v is not None) <= 91.5
    if hours == 1:
        assert values == [70.0, 91.5, None, 80.0], "raw, a bad reading is a gap"
    else:
        assert None not in values[:2] or hours > 6


def test_limits_are_lines_over_the_whole_period(reader: Reader) -> None:
    found = reader.rows(query("unit", "${group:text}", ref_id="B"))
    assert [(row["metric"], row["Value"]) for row in found] == [("temperature limit 90.0", 90.0)] * 2


@pytest.mark.parametrize(("lang", "words"), [("zh", ["停", "行"]), ("en", ["stopped", "running"])])
def test_a_timeline_shows_changes_only_and_in_words(reader: Reader, lang: Lang, words: list[str]) -> None:
    codes = [row[Texts(lang)("state")] for row in reader.rows(query("unit", "${state:text}", lang), since=TO - HOUR)]
    said = {float(row["code"]): row for row in reader.rows(query("unit", "${state:text}", lang, ref_id="B"))}
    assert [said[code]["word"] for code in codes] == words
    assert [said[code]["colour"] for code in codes] == list(STATE_COLOURS[:2])


def test_over_many_hours_a_timeline_shows_how_each_minute_ended(reader: Reader) -> None:
    changes = reader.rows(query("unit", "${state:text}"), since=TO - timedelta(days=3))
    assert [row["State"] for row in changes] == [0, 1]
    assert changes[1]["time"].second == 0


def test_a_counter_says_how_much_it_grew(reader: Reader) -> None:
    sql = next(q.raw_sql for t, q in queries(build_boards("en")["unit"]) if t == "Counters")
    (row,) = reader.rows(sql)
    assert (row["Value"], row["Increase"]) == (104, 4)


def test_a_raw_reading_says_its_unit_of_measure(reader: Reader) -> None:
    found = reader.rows(query("unit", "unit.raw", "zh"))
    assert {row["测点"]: row["单位"] for row in found} == {"测点temperature": "°C", "测点running": "", "测点starts": ""}


def test_the_card_has_a_line_for_what_is_known_and_the_parties_numbers(reader: Reader) -> None:
    lines = [tuple(row.values()) for row in reader.rows(query("unit", "unit.card"))]
    assert lines[:3] == [("Unit", "boiler-1", None), ("Connection", "online", None), ("Address", "1 Road", None)]
    assert ("Maintainer", "Company fast", "110") in lines
    assert "Model" not in {line[0] for line in lines}, "not known"


def test_a_group_is_drawn_by_its_measure_so_that_an_axis_has_one(reader: Reader) -> None:
    (variable,) = [v for v in build_boards("en")["unit"].templating.list_val or [] if v.name == "group"]
    assert isinstance(variable.query, str)
    assert reader.rows(variable.query) == [{"__text": "heat (°C)", "__value": "heat/°C"}]


def test_on_an_empty_store_and_for_a_unit_without_points_everything_runs_and_a_variable_says_that_there_is_nothing(
    plain_store: Settings,
) -> None:
    """Grafana calls a variable without a choice an error, and a query by it is no SQL."""
    with psycopg.connect(plain_store.store, autocommit=True) as connection:
        empty = Reader(connection)
        for board in build_boards("en").values():
            variables = [v for v in board.templating.list_val or [] if v.type_val == "query"]
            for variable in variables:
                assert isinstance(variable.query, str)
                assert [row["__value"] for row in empty.rows(variable.query)] == ["-"]
            for _, target in queries(board):
                empty.rows(target.raw_sql, chosen={variable.name: ["-"] for variable in variables})


def test_the_values_of_a_unit_read_no_other_units_rows(reader: Reader) -> None:
    for title in ("${group:text}", "unit.counters"):
        plan = [row["QUERY PLAN"] for row in reader.rows("EXPLAIN (COSTS OFF) " + query("unit", title))]
        scans = [i for i, line in enumerate(plan) if re.search(r"Scan.* on (_hyper_\d|sample_2)", line)]
        assert scans, plan
        for i in scans:
            assert any("signal_id = ANY" in line for line in plan[i + 1 : i + 4]), "\n".join(plan)


def test_on_a_narrow_screen_the_columns_seen_first_are_what_is_wrong_and_where(reader: Reader) -> None:
    assert list(reader.rows(query("fleet", "fleet.faults"))[0])[:5] == ["id", "Priority", "Unit", "Alarm", "Phone"]
    assert list(reader.rows(query("supervision", "supervision.areas"))[0])[:4] == ["id", "Area", "Late", "Active now"]
    assert list(reader.rows(query("supervision", "supervision.maintainers"))[0])[:2] == ["Maintainer", "Late"]
