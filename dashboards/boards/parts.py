"""Pieces of SQL and variables that several boards share. All read the public views only."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, VariableOption, VariableRefresh, VariableSort

from dashboards.boards.sql import DATASOURCE
from dashboards.boards.texts import LANGS, Lang, Texts

PRIORITIES: Final = ("critical", "high", "medium", "low")
STATES: Final = ("unacknowledged", "acknowledged", "returned_unacknowledged", "normal")
ACTIVE: Final = "m.state IN ('unacknowledged', 'acknowledged')"
OPEN: Final = "m.state <> 'normal'"
LATE_MINUTES: Final = 30
"""Rescue on site within 30 minutes of the report (domain/elevator.md): nobody acknowledging for so long is late."""
CHOSEN: Final = "coalesce({0}.area, '-') IN (${{area:sqlstring}}) AND {0}.class IN (${{class:sqlstring}})"
URGENCY: Final = "array_position(ARRAY['critical', 'high', 'medium', 'low'], m.priority)"


def uid(board: str, lang: Lang) -> str:
    """The stable uid of a board in a language."""
    return f"vigil-{board}-{lang}"


def unit_url(lang: Lang, column: str = "id") -> str:
    """Link to the unit of a row, with the time range."""
    return f"/d/{uid('unit', lang)}?var-equipment=${{__data.fields.{column}}}&${{__url_time_range}}"


def fleet_url(lang: Lang) -> str:
    """Link to the fleet of a row's area, with the chosen classes and the time range."""
    return f"/d/{uid('fleet', lang)}?var-area=${{__data.fields.id}}&${{class:queryparam}}&${{__url_time_range}}"


def board(name: str, lang: Lang, *, refresh: str, since: str) -> dashboard.Dashboard:
    """An empty board with what all boards share: uid, title, tags, time, links to the others."""
    text = Texts(lang)
    built = (
        dashboard.Dashboard(text(f"{name}.board"))
        .uid(uid(name, lang))
        .tags(["vigil", lang])
        .timezone("browser")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh(refresh)
        .time(since, "now")
    )
    for other in ("supervision", "fleet", "unit"):
        if other != name:
            built.link(
                dashboard.DashboardLink(text(f"{other}.title"))
                .url(f"/d/{uid(other, lang)}")
                .keep_time(True)
                .include_vars(True)
                .icon("dashboard")
            )
    return built


def variable(name: str, label: str, sql: str, *, none: str, every: bool) -> dashboard.QueryVariable:
    """A variable filled by a query with columns __text, __value and n (the order). `every`: all at once by default.

    Where the query finds nothing, the variable has `none` to choose: Grafana calls an empty one an error, and what asks by it
    is no SQL then.
    """
    sql = f"""WITH found AS ({sql}) SELECT __text, __value FROM (SELECT __text, __value, n FROM found
              UNION ALL SELECT '{none}', '-', 0 WHERE NOT EXISTS (SELECT FROM found)) v ORDER BY n, __text"""
    built = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(" ".join(sql.split()))
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.DISABLED)
    )
    if every:
        built.multi(True).include_all(True).current(VariableOption(selected=True, text="All", value="$__all"))
    return built


def area_variable(text: Texts) -> dashboard.QueryVariable:
    """The areas that have equipment, and none."""
    lang = text.lang
    return variable(
        "area",
        text("area"),
        f"SELECT DISTINCT coalesce(area_{lang}, '{text.literal('no_area')}') AS __text, coalesce(area, '-') AS __value, "
        "0 AS n FROM equipment WHERE retired_at IS NULL",
        none=text.literal("none"),
        every=True,
    )


def class_variable(text: Texts) -> dashboard.QueryVariable:
    """The classes that there are."""
    return variable(
        "class",
        text("class"),
        f"SELECT DISTINCT class_name_{text.lang} AS __text, class AS __value, 0 AS n FROM equipment WHERE retired_at IS NULL",
        none=text.literal("none"),
        every=True,
    )


def priority_words(text: Texts) -> str:
    """A priority in words."""
    return text.case("m.priority", *PRIORITIES)


def state_words(text: Texts) -> str:
    """An alarm's state in words."""
    return text.case("m.state", *STATES)


def other(lang: Lang) -> Lang:
    """The other language."""
    return LANGS[1 - LANGS.index(lang)]
