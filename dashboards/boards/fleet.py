"""The fleet board: what is broken now, where, since when, who has it. For a maintainer at 3 a.m., on a phone."""

from __future__ import annotations

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard, table
from grafana_foundation_sdk.models import common

from dashboards.boards import theme
from dashboards.boards.parts import (
    ACTIVE,
    CHOSEN,
    OPEN,
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
    return (
        board("fleet", lang, refresh="10s", since="now-24h")
        .with_variable(area_variable(text))
        .with_variable(class_variable(text))
        .with_panel(
            theme.number(text("fleet.now"), text("fleet.now.d"), width=theme.WIDTH)
            .orientation(common.VizOrientation.VERTICAL)
            .text_mode(common.BigValueTextMode.VALUE_AND_NAME)
            .justify_mode(common.BigValueJustifyMode.CENTER)
            .text(common_builders.VizTextDisplayOptions().title_size(14).value_size(36))
            .override_by_name(text("fleet.open"), theme.from_one(theme.RED))
            .override_by_name(text("fleet.active"), theme.from_one(theme.AMBER))
            .override_by_name(text("fleet.offline_count"), theme.from_one(theme.BLUE))
            .with_target(Sql(now(text)))
        )
        .with_panel(
            _units(
                text, theme.rows(text("fleet.faults"), text("fleet.faults.d"), text("fleet.empty.faults"), height=14)
            )
            .override_by_name(text("priority"), theme.priorities(text))
            .override_by_name(text("alarm"), theme.wide(230))
            .override_by_name(text("state"), theme.alarm_states(text))
            .with_target(Sql(live_faults(text)))
        )
        .with_panel(
            _units(text, theme.rows(text("fleet.offline"), text("fleet.offline.d"), text("fleet.empty.offline")))
            .override_by_name(text("connection"), theme.wide(100))
            .override_by_name(text("class"), theme.wide(100))
            .with_target(Sql(offline_units(text)))
        )
    )


def now(text: Texts) -> str:
    """Four numbers in one panel: on a phone they lie above the faults, side by side, and not a screen each."""
    return f"""
        SELECT (SELECT count(*) {ALARMS} AND m.acknowledged_at IS NULL AND {OPEN}) AS {text.column("fleet.open")},
               (SELECT count(*) {ALARMS} AND {ACTIVE}) AS {text.column("fleet.active")},
               (SELECT count(*) {UNITS} AND e.online IS NOT TRUE) AS {text.column("fleet.offline_count")},
               (SELECT count(*) {UNITS}) AS {text.column("fleet.total")}"""


def _units(text: Texts, panel: table.Panel) -> table.Panel:
    """The columns of a list of units: the link to the unit, and the maintainer's telephone to touch."""
    return (
        panel.override_by_name("id", theme.hidden())
        .override_by_name(text("unit"), [*theme.link(text("open_unit"), unit_url(text.lang)), *theme.wide(150)])
        .override_by_name(text("since"), theme.moment())
        .override_by_name(text("for"), [*theme.unit("dtdhms"), *theme.wide(110)])
        .override_by_name(text("area"), theme.wide(100))
        .override_by_name(text("phone"), theme.phone(text("call")))
    )


def live_faults(text: Texts) -> str:
    """Open alarms, most urgent first. What a narrow screen cuts off, on the right, is what is needed least."""
    lang, column = text.lang, text.column
    return f"""
        SELECT m.equipment AS id, {priority_words(text)} AS {column("priority")},
               coalesce(m.equipment_{lang}, m.equipment) AS {column("unit")}, m.text_{lang} AS {column("alarm")},
               m.maintainer_phone AS {column("phone")}, m.address AS {column("address")}, m.onset AS {column("since")},
               extract(epoch FROM coalesce(m.cleared_at, now()) - m.onset)::float8 AS {column("for")},
               {state_words(text)} AS {column("state")}, m.maintainer_{lang} AS {column("maintainer")},
               m.action_{lang} AS {column("action")}
        {ALARMS} AND {OPEN} ORDER BY {URGENCY}, m.raised_at DESC LIMIT 200"""


def offline_units(text: Texts) -> str:
    """Units that do not answer, longest first."""
    lang, column = text.lang, text.column
    return f"""
        SELECT e.id, e.name_{lang} AS {column("unit")},
               CASE WHEN e.online IS NULL THEN '{text.literal("unknown")}' ELSE '{text.literal("offline")}' END
                   AS {column("connection")},
               e.maintainer_phone AS {column("phone")}, e.address AS {column("address")},
               e.online_since AS {column("since")},
               extract(epoch FROM now() - e.online_since)::float8 AS {column("for")},
               e.class_name_{lang} AS {column("class")}, e.area_{lang} AS {column("area")},
               e.maintainer_{lang} AS {column("maintainer")}
        {UNITS} AND e.online IS NOT TRUE ORDER BY e.online_since NULLS FIRST LIMIT 200"""
