"""The supervision board: where is it worst, is it getting better, who is late. For a district and its streets."""

from __future__ import annotations

from grafana_foundation_sdk.builders import barchart, dashboard, stat, table
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import VariableOption

from dashboards.boards import theme
from dashboards.boards.parts import (
    ACTIVE,
    CHOSEN,
    LATE_MINUTES,
    PRIORITIES,
    area_variable,
    board,
    class_variable,
    fleet_url,
    unit_url,
)
from dashboards.boards.sql import Sql
from dashboards.boards.texts import Lang, Texts

ALARMS = f"FROM alarms m WHERE {CHOSEN.format('m')}"
IN_PERIOD = f"{ALARMS} AND $__timeFilter(m.raised_at)"
UNITS = f"FROM equipment e WHERE e.retired_at IS NULL AND {CHOSEN.format('e')}"
LATE = (
    "m.acknowledged_at IS NULL AND m.state IN ('unacknowledged', 'returned_unacknowledged') "
    f"AND m.raised_at < now() - interval '{LATE_MINUTES} minutes'"
)
# An alarm still too young to be late counts neither way.
RESPONSE = f"""
    percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM m.acknowledged_at - m.raised_at)) AS to_acknowledge,
    count(*) FILTER (WHERE m.acknowledged_at - m.raised_at <= interval '{LATE_MINUTES} minutes')::float8 / nullif(
        count(*) FILTER (WHERE m.acknowledged_at IS NOT NULL OR m.raised_at < now() - interval '{LATE_MINUTES} minutes'), 0)
        AS within,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM m.cleared_at - m.raised_at)) AS to_clear"""
# Each stretch of one state, cut to the period: time-weighted, not a count of changes.
ONLINE = """
    online AS (
        SELECT equipment, extract(epoch FROM sum(until - since))::float8 AS seconds,
               coalesce(extract(epoch FROM sum(until - since) FILTER (WHERE online)), 0)::float8 AS online_seconds
        FROM (SELECT h.equipment, h.online, greatest(h.time, $__timeFrom()::timestamptz) AS since,
                     least(coalesce(lead(h.time) OVER (PARTITION BY h.equipment ORDER BY h.time), now()),
                           $__timeTo()::timestamptz, now()) AS until
              FROM online_history h) stretches
        WHERE until > since GROUP BY equipment)"""


def supervision(lang: Lang) -> dashboard.Dashboard:
    """The board in one language."""
    text = Texts(lang)
    return (
        board("supervision", lang, refresh="1m", since="now-30d")
        .with_variable(area_variable(text))
        .with_variable(class_variable(text))
        .with_variable(target_variable(text))
        .with_variable(timezone_variable(text))
        .with_row(dashboard.Row(text("supervision.now")))
        .with_panel(
            theme.number(text("supervision.online"), text("supervision.online.d"))
            .unit("percentunit")
            .decimals(1)
            .thresholds(theme.steps((None, theme.RED), (0.9, theme.AMBER), (0.98, theme.CALM)))
            .with_target(Sql(f"SELECT avg((e.online IS TRUE)::int)::float8 AS value {UNITS}"))
        )
        .with_panel(_count(text, "active", f"{ALARMS} AND {ACTIVE}", theme.AMBER))
        .with_panel(_count(text, "critical", f"{ALARMS} AND {ACTIVE} AND m.priority = 'critical'", theme.RED))
        .with_panel(_count(text, "late", f"{ALARMS} AND {LATE}", theme.RED))
        .with_row(dashboard.Row(text("supervision.where")))
        .with_panel(
            theme.rows(
                text("supervision.areas"), text("supervision.areas.d"), text("supervision.empty.areas"), height=14
            )
            .override_by_name("id", theme.hidden())
            .override_by_name(text("online_rate"), theme.unit("percentunit", 1))
            .override_by_name(text("late"), [*theme.wanting(theme.RED), *theme.wide(100)])
            .override_by_name(text("active"), theme.wide(100))
            .override_by_name(text("within"), theme.unit("percentunit", 1))
            .override_by_name(text("to_acknowledge"), theme.unit("dthms"))
            .override_by_name(text("area"), theme.link(text("open_fleet"), fleet_url(lang)))
            .with_target(Sql(areas(text)))
        )
        .with_panel(
            _by(text, "by_class", f"(SELECT class_name_{lang} FROM equipment e WHERE e.id = m.equipment)", "class")
        )
        .with_panel(_by(text, "by_area", f"coalesce(m.area_{lang}, '{text.literal('no_area')}')", "area"))
        .with_panel(
            theme.rows(text("supervision.worst"), text("supervision.worst.d"), text("supervision.empty.alarms"))
            .override_by_name("id", theme.hidden())
            .override_by_name(text("area"), theme.wide(110))
            .override_by_name(text("alarms"), theme.wide(80))
            .override_by_name(text("active"), theme.wide(100))
            .override_by_name(text("late"), [*theme.wanting(theme.RED), *theme.wide(110)])
            .override_by_name(text("to_acknowledge"), theme.unit("dthms"))
            .override_by_name(text("unit"), [*theme.link(text("open_unit"), unit_url(lang)), *theme.wide(160)])
            .override_by_name(text("phone"), theme.phone(text("call")))
            .with_target(Sql(worst_units(text)))
        )
        .with_row(dashboard.Row(text("supervision.who")))
        .with_panel(_companies(text, "maintainers", "maintainer"))
        .with_panel(_companies(text, "users", "user"))
        .with_row(dashboard.Row(text("supervision.trend")))
        .with_panel(
            theme.lines(text("supervision.daily"), text("supervision.daily.d"), text("supervision.empty.alarms"))
            .decimals(0)
            .min(0)
            .draw_style(common.GraphDrawStyle.BARS)
            .fill_opacity(60)
            .override_by_name(text("this_period"), theme.fixed(theme.BLUE))
            .override_by_name(text("previous_period"), theme.as_line(theme.CALM))
            .override_by_name(text("target"), theme.as_line(theme.GREEN))
            .with_target(Sql(daily(text), format="time_series"))
        )
    )


def target_variable(text: Texts) -> dashboard.CustomVariable:
    """Alarms a day that a district means to stay below."""
    return (
        dashboard.CustomVariable("target")
        .label(text("supervision.target"))
        .values("1,2,5,10,20,50,100,200")
        .current(VariableOption(selected=True, text="10", value="10"))
    )


def timezone_variable(text: Texts) -> dashboard.CustomVariable:
    """Where a day begins: the database's own days are UTC's, which cut a Shanghai day at 08:00."""
    return (
        dashboard.CustomVariable("timezone")
        .label(text("supervision.timezone"))
        .values("Asia/Shanghai,Asia/Urumqi,UTC,Europe/Berlin,America/New_York")
        .current(VariableOption(selected=True, text="Asia/Shanghai", value="Asia/Shanghai"))
    )


def _count(text: Texts, name: str, source: str, colour: str) -> stat.Panel:
    return (
        theme.number(text(f"supervision.{name}"), text(f"supervision.{name}.d"))
        .thresholds(theme.steps((None, theme.CALM), (1, colour)))
        .with_target(Sql(f"SELECT count(*) AS value {source}"))
    )


def _by(text: Texts, name: str, by: str, column: str) -> barchart.Panel:
    """Alarms of the period by something, a bar a row, a colour a priority."""
    counts = ", ".join(
        f"count(*) FILTER (WHERE m.priority = '{priority}') AS {text.column(priority)}" for priority in PRIORITIES
    )
    panel = theme.bars(
        text(f"supervision.{name}"), text("supervision.count.d"), text("supervision.empty.alarms"), text(column)
    )
    for priority in PRIORITIES:
        panel.override_by_name(text(priority), theme.fixed(theme.PRIORITY_COLOURS[priority]))
    return panel.with_target(
        Sql(f"SELECT {by} AS {text.column(column)}, {counts} {IN_PERIOD} GROUP BY 1 ORDER BY count(*) DESC LIMIT 30")
    )


def _companies(text: Texts, name: str, role: str) -> table.Panel:
    return (
        theme.rows(
            text(f"supervision.{name}"),
            text("supervision.companies.d"),
            text("supervision.empty.alarms"),
        )
        .override_by_name(text("phone"), theme.phone(text("call")))
        .override_by_name(text("late"), [*theme.wanting(theme.RED), *theme.wide(100)])
        .override_by_name(text("within"), theme.unit("percentunit", 1))
        .override_by_name(text("to_acknowledge"), theme.unit("dthms"))
        .override_by_name(text("to_clear"), theme.unit("dthms"))
        .with_target(Sql(companies(text, role)))
    )


def areas(text: Texts) -> str:
    """Area by area, the worst first: late, then active, then the online rate."""
    lang, column = text.lang, text.column
    return f"""
        WITH {ONLINE},
        units AS (
            SELECT coalesce(e.area, '-') AS id, coalesce(e.area_{lang}, '{text.literal("no_area")}') AS name,
                   count(*) AS units, sum(o.online_seconds) / nullif(sum(o.seconds), 0) AS online_rate
            FROM equipment e LEFT JOIN online o ON o.equipment = e.id
            WHERE e.retired_at IS NULL AND {CHOSEN.format("e")} GROUP BY 1, 2),
        raised AS (
            SELECT coalesce(m.area, '-') AS id, count(*) AS alarms, {RESPONSE} {IN_PERIOD} GROUP BY 1),
        present AS (
            SELECT coalesce(m.area, '-') AS id, count(*) FILTER (WHERE {ACTIVE}) AS active,
                   count(*) FILTER (WHERE {LATE}) AS late {ALARMS} AND m.state <> 'normal' GROUP BY 1)
        SELECT u.id, u.name AS {column("area")}, coalesce(p.late, 0) AS {column("late")},
               coalesce(p.active, 0) AS {column("active")}, r.within AS {column("within")},
               r.to_acknowledge AS {column("to_acknowledge")}, coalesce(r.alarms, 0) AS {column("alarms")},
               u.online_rate AS {column("online_rate")}, u.units AS {column("units")}
        FROM units u LEFT JOIN raised r USING (id) LEFT JOIN present p USING (id)
        ORDER BY coalesce(p.late, 0) DESC, coalesce(p.active, 0) DESC, u.online_rate, u.name"""


def worst_units(text: Texts) -> str:
    """Units with the most alarms in the period."""
    lang, column = text.lang, text.column
    return f"""
        SELECT m.equipment AS id, max(coalesce(m.equipment_{lang}, m.equipment)) AS {column("unit")},
               count(*) AS {column("alarms")}, count(*) FILTER (WHERE {LATE}) AS {column("late")},
               count(*) FILTER (WHERE {ACTIVE}) AS {column("active")},
               max(m.area_{lang}) AS {column("area")}, max(m.address) AS {column("address")},
               percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM m.acknowledged_at - m.raised_at))
                   AS {column("to_acknowledge")},
               max(m.maintainer_{lang}) AS {column("maintainer")}, max(m.maintainer_phone) AS {column("phone")}
        {IN_PERIOD} GROUP BY m.equipment ORDER BY count(*) DESC, m.equipment LIMIT 20"""


def companies(text: Texts, role: str) -> str:
    """Companies of a role, the slowest first: late, then the share within 30 minutes."""
    lang, column = text.lang, text.column
    return f"""
        SELECT name AS {column(role)}, late AS {column("late")}, within AS {column("within")},
               to_acknowledge AS {column("to_acknowledge")}, to_clear AS {column("to_clear")},
               alarms AS {column("alarms")}, phone AS {column("phone")}
        FROM (SELECT m.{role}_{lang} AS name, max(m.{role}_phone) AS phone, count(*) AS alarms,
                     count(*) FILTER (WHERE {LATE}) AS late, {RESPONSE}
              {IN_PERIOD} AND m.{role}_{lang} IS NOT NULL GROUP BY 1) ranked
        ORDER BY late DESC, within NULLS LAST, alarms DESC LIMIT 50"""


def daily(text: Texts) -> str:
    """Alarms a day of this period, of the one before moved onto it, and the target. Days of the chosen time zone."""
    back = "($__timeTo()::timestamptz - $__timeFrom()::timestamptz)"
    zone = "${timezone:sqlstring}"
    first, last = f"$__timeFrom()::timestamptz AT TIME ZONE {zone}", f"$__timeTo()::timestamptz AT TIME ZONE {zone}"

    def counted(day: str, name: str) -> str:
        return f"""SELECT d.day AS time, '{text.literal(name)}' AS metric,
            (SELECT count(*) {ALARMS} AND m.raised_at >= {day} AND m.raised_at < {day} + interval '1 day')::float8 AS value
            FROM days d"""

    return f"""
        WITH days AS (SELECT local_day AT TIME ZONE {zone} AS day
                      FROM generate_series(date_trunc('day', {first}), {last}, interval '1 day') AS local_day)
        {counted("d.day", "this_period")} UNION ALL {counted(f"d.day - {back}", "previous_period")} UNION ALL
        SELECT d.day, '{text.literal("target")}', nullif(${{target:sqlstring}}, '')::float8 FROM days d ORDER BY 1, 2"""
