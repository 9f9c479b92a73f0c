"""The fleet board: what is broken now, where, since when, who has it. For a maintainer at 3 a.m., on a phone."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from dashboards.boards import theme
from dashboards.boards.parts import (
    ACTIVE,
    CHOSEN,
    OPEN,
    PRIORITIES,
    URGENCY,
    area_variable,
    board,
    class_variable,
    priority_words,
    state_words,
    unit_url,
)
from dashboards.boards.sql import Sql
from dashboards.boards.texts import Lang, Texts

ALARMS = f"FROM alarms m WHERE {CHOSEN.format('m')}"
UNITS = f"FROM equipment e WHERE e.retired_at IS NULL AND {CHOSEN.format('e')}"


def fleet(lang: Lang) -> dashboard.Dashboard:
    """The board in one language."""
    text = Texts(lang)
    some = theme.steps((None, theme.CALM), (1, theme.RED))
    return (
        board("fleet", lang, refresh="10s", since="now-24h")
        .with_variable(area_variable(text))
        .with_variable(class_variable(text))
        .with_panel(
            theme.number(text("fleet.open"), text("fleet.open.d"))
            .thresholds(some)
            .with_target(Sql(f"SELECT count(*) AS value {ALARMS} AND m.acknowledged_at IS NULL AND {OPEN}"))
        )
        .with_panel(
            theme.number(text("fleet.active"), text("fleet.active.d"))
            .thresholds(theme.steps((None, theme.CALM), (1, theme.AMBER)))
            .with_target(Sql(f"SELECT count(*) AS value {ALARMS} AND {ACTIVE}"))
        )
        .with_panel(
            theme.number(text("fleet.offline_count"), text("fleet.offline.d"))
            .thresholds(theme.steps((None, theme.CALM), (1, theme.BLUE)))
            .with_target(Sql(f"SELECT count(*) FILTER (WHERE e.online IS NOT TRUE) AS value {UNITS}"))
        )
        .with_panel(
            theme.number(text("fleet.total"), text("fleet.total.d")).with_target(
                Sql(f"SELECT count(*) AS value {UNITS}")
            )
        )
        .with_panel(
            theme.rows(text("fleet.faults"), text("fleet.faults.d"), text("fleet.empty.faults"), height=14)
            .override_by_name("id", theme.hidden())
            .override_by_name(text("priority"), theme.words({text(p): theme.PRIORITY_COLOURS[p] for p in PRIORITIES}))
            .override_by_name(text("for"), theme.unit("s"))
            .override_by_name(text("unit"), theme.link(text("open_unit"), unit_url(lang)))
            .with_target(Sql(live_faults(text)))
        )
        .with_panel(
            theme.rows(text("fleet.offline"), text("fleet.offline.d"), text("fleet.empty.offline"))
            .override_by_name("id", theme.hidden())
            .override_by_name(text("for"), theme.unit("s"))
            .override_by_name(text("unit"), theme.link(text("open_unit"), unit_url(lang)))
            .with_target(Sql(offline_units(text)))
        )
    )


def live_faults(text: Texts) -> str:
    """Open alarms, most urgent first."""
    lang, column = text.lang, text.column
    return f"""
        SELECT m.equipment AS id, {priority_words(text)} AS {column("priority")},
               coalesce(m.equipment_{lang}, m.equipment) AS {column("unit")}, m.text_{lang} AS {column("alarm")},
               {state_words(text)} AS {column("state")}, m.onset AS {column("since")},
               extract(epoch FROM coalesce(m.cleared_at, now()) - m.onset)::float8 AS {column("for")},
               m.area_{lang} AS {column("area")}, m.address AS {column("address")},
               m.maintainer_{lang} AS {column("maintainer")}, m.maintainer_phone AS {column("phone")},
               m.action_{lang} AS {column("action")}
        {ALARMS} AND {OPEN} ORDER BY {URGENCY}, m.raised_at DESC LIMIT 200"""


def offline_units(text: Texts) -> str:
    """Units that do not answer, longest first."""
    lang, column = text.lang, text.column
    return f"""
        SELECT e.id, e.name_{lang} AS {column("unit")}, e.class_name_{lang} AS {column("class")},
               CASE WHEN e.online IS NULL THEN '{text.literal("unknown")}' ELSE '{text.literal("offline")}' END
                   AS {column("connection")},
               e.online_since AS {column("since")},
               extract(epoch FROM now() - e.online_since)::float8 AS {column("for")},
               e.area_{lang} AS {column("area")}, e.address AS {column("address")},
               e.maintainer_{lang} AS {column("maintainer")}, e.maintainer_phone AS {column("phone")}
        {UNITS} AND e.online IS NOT TRUE ORDER BY e.online_since NULLS FIRST LIMIT 200"""
