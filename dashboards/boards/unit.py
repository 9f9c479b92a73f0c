"""The unit board: what did this unit do before, during and after. For a maintainer or an engineer, of any class.

It is drawn from what the profile says: a panel of values a point group, a timeline a state point.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import AnnotationTarget, VariableHide

from dashboards.boards import theme
from dashboards.boards.parts import PRIORITIES, board, priority_words, state_words, variable
from dashboards.boards.sql import DATASOURCE, Sql, SqlQuery
from dashboards.boards.texts import Lang, Texts

UNIT = "${equipment:sqlstring}"
POINTS = f"FROM signals g WHERE g.equipment = {UNIT} AND g.retired_at IS NULL"
SPAN = "($__timeTo()::timestamptz - $__timeFrom()::timestamptz)"
RAW_UP_TO = "interval '2 hours'"
MINUTES_UP_TO = "interval '2 days'"


def unit(lang: Lang) -> dashboard.Dashboard:
    """The board in one language."""
    text = Texts(lang)
    return (
        board("unit", lang, refresh="10s", since="now-1h")
        .with_variable(unit_variable(text))
        .with_variable(group_variable(text))
        .with_variable(state_variable(text))
        .annotation(alarm_annotations(text))
        .annotation(event_annotations(text))
        .with_panel(
            theme.rows(text("unit.card"), text("unit.card.d"), text("unit.empty.unit"), height=4).with_target(
                Sql(card(text))
            )
        )
        .with_panel(
            theme.rows(text("unit.alarms"), text("unit.alarms.d"), text("unit.empty.alarms"), height=6)
            .override_by_name(text("priority"), theme.words({text(p): theme.PRIORITY_COLOURS[p] for p in PRIORITIES}))
            .with_target(Sql(alarms(text)))
        )
        .with_row(dashboard.Row(text("unit.values")))
        .with_panel(
            theme.lines("${group:text}", text("unit.values.d"), text("unit.empty.values"), width=12)
            .repeat("group")
            .repeat_direction("h")
            .override_by_regexp(f".*{text('limit')}.*", theme.as_line(theme.AMBER))
            .with_target(Sql(values(text), format="time_series", ref_id="A"))
            .with_target(Sql(limits(text), format="time_series", ref_id="B"))
        )
        .with_row(dashboard.Row(text("unit.states")))
        .with_panel(
            theme.states("${state:text}", text("unit.states.d"), text("unit.empty.values"))
            .repeat("state")
            .repeat_direction("h")
            .with_target(Sql(states(text)))
        )
        .with_row(dashboard.Row(text("unit.counters")))
        .with_panel(
            theme.rows(
                text("unit.counters"), text("unit.counters.d"), text("unit.empty.counters"), width=12
            ).with_target(Sql(counters(text)))
        )
        .with_panel(
            theme.rows(text("unit.events"), text("unit.events.d"), text("unit.empty.events"), width=12).with_target(
                Sql(events(text))
            )
        )
        .with_panel(
            theme.rows(text("unit.raw"), text("unit.raw.d"), text("unit.empty.values")).with_target(Sql(raw(text)))
        )
    )


def unit_variable(text: Texts) -> dashboard.QueryVariable:
    """One unit."""
    sql = f"SELECT name_{text.lang} || ' · ' || id AS __text, id AS __value FROM equipment WHERE retired_at IS NULL ORDER BY 1"
    return variable("equipment", text("unit"), sql, every=False)


def group_variable(text: Texts) -> dashboard.QueryVariable:
    """The unit's groups of measured points, each a panel."""
    sql = f"""SELECT DISTINCT g."group" AS __text, g."group" AS __value {POINTS}
              AND g.kind IN ('measurement', 'setpoint') ORDER BY 1"""
    return variable("group", text("unit.group"), sql, every=True).hide(VariableHide.HIDE_VARIABLE)


def state_variable(text: Texts) -> dashboard.QueryVariable:
    """The unit's states, each a timeline."""
    sql = f"SELECT g.name_{text.lang} AS __text, g.point AS __value {POINTS} AND g.kind = 'state' ORDER BY g.name_{text.lang}"
    return variable("state", text("unit.state"), sql, every=True).hide(VariableHide.HIDE_VARIABLE)


def alarm_annotations(text: Texts) -> dashboard.AnnotationQuery:
    """Alarms as regions, from their onset until the condition was gone."""
    sql = f"""SELECT m.onset AS time, coalesce(m.cleared_at, now()) AS timeend, m.text_{text.lang} AS text,
                     {priority_words(text)} AS tags
              FROM alarms m WHERE m.equipment = {UNIT} AND m.onset <= $__timeTo()::timestamptz
              AND coalesce(m.cleared_at, now()) >= $__timeFrom()::timestamptz ORDER BY m.onset LIMIT 500"""
    return _annotation(text("annotation.alarms"), theme.RED, sql)


def event_annotations(text: Texts) -> dashboard.AnnotationQuery:
    """Codes that began."""
    sql = f"""SELECT time, scheme || ' ' || code AS text, state AS tags FROM events
              WHERE equipment = {UNIT} AND state = 'on' AND $__timeFilter(time) ORDER BY time DESC LIMIT 500"""
    return _annotation(text("annotation.events"), theme.BLUE, sql)


def _annotation(name: str, colour: str, sql: str) -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(colour)
        .target(SqlTarget(" ".join(sql.split())))
    )


class SqlTarget(dashboard.AnnotationTarget):
    """An annotation's query. The SDK types only the target of Grafana's own annotations; the SQL takes its place."""

    def __init__(self, raw_sql: str) -> None:
        super().__init__()
        self._target = SqlAnnotationTarget(raw_sql)

    def build(self) -> AnnotationTarget:
        """The target."""
        return self._target


class SqlAnnotationTarget(AnnotationTarget):
    """See SqlTarget."""

    def __init__(self, raw_sql: str) -> None:
        super().__init__()
        self.query = SqlQuery(raw_sql, ref_id="Anno")

    def to_json(self) -> dict[str, object]:
        """As Grafana keeps it."""
        return self.query.to_json()


def card(text: Texts) -> str:
    """Who and where it is."""
    lang, column = text.lang, text.column
    return f"""
        SELECT e.name_{lang} AS {column("unit")},
               CASE WHEN e.online IS NULL THEN '{text.literal("unknown")}' WHEN e.online THEN '{text.literal("online")}'
                    ELSE '{text.literal("offline")}' END AS {column("connection")},
               e.class_name_{lang} AS {column("class")}, e.area_{lang} AS {column("area")}, e.address AS {column("address")},
               e.owner_{lang} || ' ' || e.owner_phone AS {column("owner")},
               e.user_{lang} || ' ' || e.user_phone AS {column("user")},
               e.maintainer_{lang} || ' ' || e.maintainer_phone AS {column("maintainer")},
               e.registration_code AS {column("registration")}, e.model AS {column("model")}, e.profile AS {column("profile")}
        FROM equipment e WHERE e.id = {UNIT}"""


def alarms(text: Texts) -> str:
    """Raised in the period or still open, newest first."""
    lang, column = text.lang, text.column
    return f"""
        SELECT m.onset AS {column("since")}, {priority_words(text)} AS {column("priority")},
               m.text_{lang} AS {column("alarm")},
               {state_words(text)} AS {column("state")}, m.acknowledged_by AS {column("acknowledged_by")},
               m.acknowledge_note AS {column("note")}, m.cleared_at AS {column("cleared")},
               m.action_{lang} AS {column("action")}
        FROM alarms m WHERE m.equipment = {UNIT} AND ($__timeFilter(m.raised_at) OR m.state <> 'normal')
        ORDER BY m.raised_at DESC LIMIT 200"""


def _label(text: Texts) -> str:
    """A point's name with its unit."""
    return f"g.name_{text.lang} || CASE WHEN g.unit = '' THEN '' ELSE ' (' || g.unit || ')' END"


def values(text: Texts) -> str:
    """Raw readings, means of a minute or of an hour, by the length of the period; bad readings leave a gap."""
    metric = _label(text)
    chosen = (
        f"""g.equipment = {UNIT} AND g."group" IN (${{group:sqlstring}}) AND g.kind IN ('measurement', 'setpoint')"""
    )
    join = "JOIN signals g ON g.equipment = s.equipment AND g.point = s.point"
    return f"""
        SELECT s.time, {metric} AS metric, CASE WHEN s.quality >= 64 THEN s.value END AS value
        FROM samples s {join} WHERE {chosen} AND s.equipment = {UNIT} AND $__timeFilter(s.time) AND {SPAN} <= {RAW_UP_TO}
        UNION ALL
        SELECT s.time, {metric}, s.avg
        FROM samples_1m s {join} WHERE {chosen} AND s.equipment = {UNIT} AND $__timeFilter(s.time)
        AND {SPAN} > {RAW_UP_TO} AND {SPAN} <= {MINUTES_UP_TO}
        UNION ALL
        SELECT s.time, {metric}, s.avg
        FROM samples_1h s {join} WHERE {chosen} AND s.equipment = {UNIT} AND $__timeFilter(s.time)
        AND {SPAN} > {MINUTES_UP_TO}
        ORDER BY 1"""


def limits(text: Texts) -> str:
    """Alarm limits of the group's points, as lines over the whole period."""
    return f"""
        SELECT t.time, g.name_{text.lang} || ' {text.literal("limit")} ' || (l.limit_ ->> 'limit') AS metric,
               (l.limit_ ->> 'limit')::float8 AS value
        FROM signals g, jsonb_array_elements(g.limits) AS l(limit_),
             (VALUES ($__timeFrom()::timestamptz), ($__timeTo()::timestamptz)) AS t(time)
        WHERE g.equipment = {UNIT} AND g."group" IN (${{group:sqlstring}}) AND g.kind = 'measurement'
        AND l.limit_ ->> 'condition' IN ('above', 'below') ORDER BY 1, 2"""


def states(text: Texts) -> str:
    """Changes of one state point, in words."""
    lang = text.lang
    return f"""
        SELECT c.time, coalesce(c.enum -> (c.value::int)::text ->> '{lang}', c.value::text, '{text.literal("bad")}') AS state
        FROM (SELECT s.time, CASE WHEN s.quality >= 64 THEN s.value END AS value, g.enum,
                     lag(CASE WHEN s.quality >= 64 THEN s.value END) OVER (ORDER BY s.time) AS before,
                     row_number() OVER (ORDER BY s.time) AS n
              FROM samples s JOIN signals g ON g.equipment = s.equipment AND g.point = s.point
              WHERE s.equipment = {UNIT} AND s.point IN (${{state:sqlstring}}) AND $__timeFilter(s.time)) c
        WHERE c.n = 1 OR c.value IS DISTINCT FROM c.before ORDER BY 1 LIMIT 5000"""


def counters(text: Texts) -> str:
    """Counters: the newest value and the growth over the period."""
    column = text.column
    return f"""
        SELECT {_label(text)} AS {column("point")}, l.value AS {column("value")}, l.time AS {column("time")},
               (SELECT max(h.max) - min(h.min) FROM samples_1m h WHERE h.equipment = g.equipment AND h.point = g.point
                AND $__timeFilter(h.time)) AS {column("increase")}
        FROM signals g LEFT JOIN latest l ON l.equipment = g.equipment AND l.point = g.point
        WHERE g.equipment = {UNIT} AND g.kind = 'counter' AND g.retired_at IS NULL ORDER BY 1"""


def events(text: Texts) -> str:
    """What the unit reported."""
    column = text.column
    return f"""
        SELECT time AS {column("time")}, scheme AS {column("scheme")}, code AS {column("code")},
               {text.case("state", "on", "off")} AS {column("state")}
        FROM events WHERE equipment = {UNIT} AND $__timeFilter(time) ORDER BY time DESC LIMIT 200"""


def raw(text: Texts) -> str:
    """The readings themselves."""
    column = text.column
    quality = f"""CASE WHEN s.quality >= 192 THEN '{text.literal("good")}' WHEN s.quality >= 64
                  THEN '{text.literal("uncertain")}' ELSE '{text.literal("bad")}' END"""
    return f"""
        SELECT s.time AS {column("time")}, g.name_{text.lang} AS {column("point")}, s.value AS {column("value")},
               g.unit AS {column("unit")}, {quality} AS {column("quality")}
        FROM samples s JOIN signals g ON g.equipment = s.equipment AND g.point = s.point
        WHERE s.equipment = {UNIT} AND $__timeFilter(s.time) ORDER BY s.time DESC LIMIT 500"""
