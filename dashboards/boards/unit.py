"""The unit board: what did this unit do before, during and after. For a maintainer or an engineer, of any class.

It is drawn from what the profile says: a panel of values a point group, a timeline a state point.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import AnnotationTarget, VariableHide

from dashboards.boards import theme
from dashboards.boards.parts import board, priority_words, state_words, variable
from dashboards.boards.sql import DATASOURCE, Sql, SqlQuery
from dashboards.boards.texts import Lang, Texts

UNIT = "${equipment:sqlstring}"
POINTS = f"FROM signals g WHERE g.equipment = {UNIT} AND g.retired_at IS NULL"
GROUP = """g."group" || '/' || g.unit"""
MEASURED = "g.kind IN ('measurement', 'setpoint')"
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
            theme.rows(text("unit.card"), text("unit.card.d"), text("unit.empty.unit"), height=13, width=9)
            .show_header(False)
            .override_by_name(text("field"), theme.wide(96))
            .override_by_name(
                text("value"), [*theme.words({text(s): theme.BLUE for s in ("offline", "unknown")}), *theme.narrow(120)]
            )
            .override_by_name(text("phone"), theme.phone(text("call")))
            .with_target(Sql(card(text)))
        )
        .with_panel(
            theme.rows(text("unit.alarms"), text("unit.alarms.d"), text("unit.empty.alarms"), height=13, width=15)
            .override_by_name(text("priority"), theme.priorities(text))
            .override_by_name(text("since"), theme.moment())
            .override_by_name(text("cleared"), theme.moment())
            .override_by_name(text("state"), theme.alarm_states(text))
            .override_by_name(text("alarm"), theme.wide(220))
            .with_target(Sql(alarms(text)))
        )
        .with_row(dashboard.Row(text("unit.values")))
        .with_panel(
            theme.line_colours(
                theme.apart(theme.lines("${group:text}", text("unit.values.d"), text("unit.empty.values"), height=7))
            )
            .repeat("group")
            .repeat_direction("v")
            .override_by_regexp(f".*{text('limit')}.*", theme.as_line(theme.AMBER))
            .with_target(Sql(values(text), ref_id="A"))
            .with_target(Sql(limits(text), ref_id="B"))
        )
        .with_row(dashboard.Row(text("unit.states")))
        .with_panel(
            theme.states("${state:text}", text("unit.states.d"), text("unit.empty.values"))
            .repeat("state")
            .repeat_direction("v")
            .with_target(Sql(states(text), ref_id="A"))
            .with_target(Sql(state_words_of_point(text), ref_id="B"))
        )
        .with_row(dashboard.Row(text("unit.details")))
        .with_panel(
            theme.rows(text("unit.counters"), text("unit.counters.d"), text("unit.empty.counters"), width=12)
            .override_by_name(text("time"), theme.moment("YYYY-MM-DD HH:mm:ss"))
            .with_target(Sql(counters(text)))
        )
        .with_panel(
            theme.rows(text("unit.events"), text("unit.events.d"), text("unit.empty.events"), width=12)
            .override_by_name(text("time"), theme.moment("YYYY-MM-DD HH:mm:ss"))
            .with_target(Sql(events(text)))
        )
        .with_panel(
            theme.rows(text("unit.raw"), text("unit.raw.d"), text("unit.empty.values"))
            .override_by_name(text("time"), theme.moment("YYYY-MM-DD HH:mm:ss.SSS"))
            .with_target(Sql(raw(text)))
        )
    )


def unit_variable(text: Texts) -> dashboard.QueryVariable:
    """One unit."""
    sql = f"""SELECT name_{text.lang} || ' · ' || id AS __text, id AS __value, 0 AS n FROM equipment
              WHERE retired_at IS NULL"""
    return variable("equipment", text("unit"), sql, none=text.literal("none"), every=False)


def group_variable(text: Texts) -> dashboard.QueryVariable:
    """The unit's groups of measured points of one measure, each a panel with one axis, in the profile's order."""
    name = f"""{text.group_case('g."group"')} || CASE g.unit WHEN '' THEN '' ELSE ' (' || g.unit || ')' END"""
    sql = f"""SELECT {name} AS __text, {GROUP} AS __value, min(g.ordinal) AS n {POINTS} AND {MEASURED} GROUP BY 1, 2"""
    built = variable("group", text("unit.group"), sql, none=text.literal("unit.no_values"), every=True)
    return built.hide(VariableHide.HIDE_VARIABLE)


def state_variable(text: Texts) -> dashboard.QueryVariable:
    """The unit's states, each a timeline."""
    sql = f"SELECT g.name_{text.lang} AS __text, g.point AS __value, g.ordinal AS n {POINTS} AND g.kind = 'state'"
    built = variable("state", text("unit.state"), sql, none=text.literal("unit.no_states"), every=True)
    return built.hide(VariableHide.HIDE_VARIABLE)


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
    """Who and where it is, a line each: what is not known has none."""
    lang, column = text.lang, text.column
    connection = f"""CASE WHEN e.online IS NULL THEN '{text.literal("unknown")}'
                          WHEN e.online THEN '{text.literal("online")}' ELSE '{text.literal("offline")}' END"""
    lines = {
        "unit": f"e.name_{lang}, ''",
        "connection": f"{connection}, ''",
        "address": "e.address, ''",
        "area": f"e.area_{lang}, ''",
        "maintainer": f"e.maintainer_{lang}, e.maintainer_phone",
        "user": f"e.user_{lang}, e.user_phone",
        "owner": f"e.owner_{lang}, e.owner_phone",
        "class": f"e.class_name_{lang}, ''",
        "registration": "e.registration_code, ''",
        "model": "e.model, ''",
        "profile": "e.profile, ''",
    }
    values = ", ".join(f"({n}, '{text.literal(key)}', {line})" for n, (key, line) in enumerate(lines.items()))
    return f"""
        SELECT v.field AS {column("field")}, v.value AS {column("value")}, nullif(v.phone, '') AS {column("phone")}
        FROM equipment e, LATERAL (VALUES {values}) AS v(n, field, value, phone)
        WHERE e.id = {UNIT} AND v.value <> '' ORDER BY v.n"""


def alarms(text: Texts) -> str:
    """Raised in the period or still open, newest first."""
    lang, column = text.lang, text.column
    return f"""
        SELECT {priority_words(text)} AS {column("priority")}, m.text_{lang} AS {column("alarm")},
               m.onset AS {column("since")}, m.cleared_at AS {column("cleared")},
               {state_words(text)} AS {column("state")}, m.action_{lang} AS {column("action")},
               m.acknowledged_by AS {column("acknowledged_by")}, m.acknowledge_note AS {column("note")}
        FROM alarms m WHERE m.equipment = {UNIT} AND ($__timeFilter(m.raised_at) OR m.state <> 'normal')
        ORDER BY m.raised_at DESC LIMIT 200"""


def _label(text: Texts) -> str:
    """A point's name with its unit."""
    return f"g.name_{text.lang} || CASE WHEN g.unit = '' THEN '' ELSE ' (' || g.unit || ')' END"


def _readings(
    signals: str, *, last: bool = False, raw_up_to: str = RAW_UP_TO, minutes_up_to: str = MINUTES_UP_TO
) -> str:
    """Columns signal_id, time, value, low, high: raw readings, minutes or hours by the length of the period.

    `signals` is a query of signal ids: as an array, not joined, they reach the inside of the aggregates (docs/sql.md).
    `last`: the last reading of a minute or hour, not its mean.
    """
    mine = f"s.signal_id = ANY (ARRAY({signals})) AND $__timeFilter(s.time)"
    good, value = "CASE WHEN s.quality >= 64 THEN s.value END", "s.last" if last else "s.avg"
    return f"""
        SELECT s.signal_id, s.time, {good} AS value, {good} AS low, {good} AS high
        FROM samples s WHERE {mine} AND {SPAN} <= {raw_up_to}
        UNION ALL
        SELECT s.signal_id, s.time, {value}, s.min, s.max
        FROM samples_1m s WHERE {mine} AND {SPAN} > {raw_up_to} AND {SPAN} <= {minutes_up_to}
        UNION ALL
        SELECT s.signal_id, s.time, {value}, s.min, s.max FROM samples_1h s WHERE {mine} AND {SPAN} > {minutes_up_to}"""


def values(text: Texts) -> str:
    """Raw readings, means of a minute or of an hour, by the length of the period; bad readings leave a gap."""
    mine = f"{POINTS} AND {GROUP} IN (${{group:sqlstring}}) AND {MEASURED}"
    name = f"g.name_{text.lang} || {theme.marked('row_number() OVER (ORDER BY g.ordinal) - 1')}"
    return f"""
        SELECT r.time, g.metric, r.value AS "Value" FROM ({_readings(f"SELECT g.signal_id {mine}")}) r
        JOIN (SELECT g.signal_id, {name} AS metric {mine}) g USING (signal_id) ORDER BY r.time"""


def limits(text: Texts) -> str:
    """Alarm limits of the group's points, as lines over the whole period."""
    return f"""
        SELECT t.time, g.name_{text.lang} || ' {text.literal("limit")} ' || (l.limit_ ->> 'limit') AS metric,
               (l.limit_ ->> 'limit')::float8 AS "Value"
        FROM signals g, jsonb_array_elements(g.limits) AS l(limit_),
             (VALUES ($__timeFrom()::timestamptz), ($__timeTo()::timestamptz)) AS t(time)
        WHERE g.equipment = {UNIT} AND {GROUP} IN (${{group:sqlstring}}) AND g.kind = 'measurement'
        AND l.limit_ ->> 'condition' IN ('above', 'below') ORDER BY 1, 2"""


def states(text: Texts) -> str:
    """Changes of one state point, a bad reading as a gap: each change up to 6 hours, else as each minute ended."""
    signals = f"SELECT g.signal_id {POINTS} AND g.point IN (${{state:sqlstring}})"
    readings = _readings(signals, last=True, raw_up_to="interval '6 hours'", minutes_up_to="interval '40 days'")
    return f"""
        SELECT c.time, c.value AS {text.column("state")}
        FROM (SELECT r.time, r.value, lag(r.value) OVER (ORDER BY r.time) AS before,
                     row_number() OVER (ORDER BY r.time) AS n FROM ({readings}) r) c
        WHERE c.n = 1 OR c.value IS DISTINCT FROM c.before ORDER BY 1 LIMIT 5000"""


def state_words_of_point(text: Texts) -> str:
    """What the values of one state point mean, and their colours: the lowest is grey, so that what is usual is calm."""
    colours = ", ".join(f"'{colour}'" for colour in theme.STATE_COLOURS)
    return f"""
        SELECT o.key AS code, o.value ->> '{text.lang}' AS word,
               (ARRAY[{colours}])[1 + (row_number() OVER (ORDER BY o.key::float8) - 1) % {len(theme.STATE_COLOURS)}] AS colour
        FROM signals g, jsonb_each(g.enum) AS o WHERE g.equipment = {UNIT} AND g.point IN (${{state:sqlstring}})
        ORDER BY o.key::float8"""


def counters(text: Texts) -> str:
    """Counters: the newest value and the growth over the period."""
    column, mine = text.column, f"{POINTS} AND g.kind = 'counter'"
    return f"""
        WITH growth AS (SELECT r.signal_id, max(r.high) - min(r.low) AS increase
                        FROM ({_readings(f"SELECT g.signal_id {mine}")}) r GROUP BY r.signal_id)
        SELECT {_label(text)} AS {column("point")}, l.value AS {column("value")}, i.increase AS {column("increase")},
               l.time AS {column("time")}
        FROM (SELECT * {mine}) g LEFT JOIN latest l ON l.equipment = g.equipment AND l.point = g.point
        LEFT JOIN growth i USING (signal_id) ORDER BY g.ordinal, g.point"""


def events(text: Texts) -> str:
    """What the unit reported."""
    column = text.column
    return f"""
        SELECT time AS {column("time")}, scheme AS {column("scheme")}, code AS {column("code")},
               {text.case("state", "on", "off")} AS {column("state")}
        FROM events WHERE equipment = {UNIT} AND $__timeFilter(time) ORDER BY time DESC LIMIT 200"""


def raw(text: Texts) -> str:
    """The readings themselves: the last of each signal by its index, then the last of all."""
    column = text.column
    quality = f"""CASE WHEN s.quality >= 192 THEN '{text.literal("good")}' WHEN s.quality >= 64
                  THEN '{text.literal("uncertain")}' ELSE '{text.literal("bad")}' END"""
    return f"""
        SELECT s.time AS {column("time")}, g.name_{text.lang} AS {column("point")}, s.value AS {column("value")},
               g.unit AS {column("measure")}, {quality} AS {column("quality")}
        FROM signals g CROSS JOIN LATERAL (
            SELECT * FROM samples s WHERE s.signal_id = g.signal_id AND $__timeFilter(s.time) ORDER BY s.time DESC LIMIT 500) s
        WHERE g.equipment = {UNIT} ORDER BY s.time DESC LIMIT 500"""
