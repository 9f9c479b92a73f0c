"""How all boards look: calm by default, a colour only where somebody is needed, and always a word beside it."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import barchart, dashboard, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

from dashboards.boards.sql import DATASOURCE
from dashboards.boards.texts import Texts

CALM: Final = "#8a94a3"
RED: Final = "#d64545"
AMBER: Final = "#d9902f"
BLUE: Final = "#3d7dd8"
GREEN: Final = "#4a9c6d"
WIDTH: Final = 24
PRIORITY_COLOURS: Final = {"critical": RED, "high": AMBER, "medium": BLUE, "low": CALM}

STATE_COLOURS: Final = (CALM, "#6aa8a0", "#9a8fc4", "#b39b6e", "#7fa36b", "#c48fa6", "#6f8fb3", "#a3b08a")
"""Of states, told apart by their words: none of them says that somebody is needed."""
LINE_COLOURS: Final = ("#4f9d94", "#8f7ec7", "#7a8699", "#8a9a3b", "#b86fa0", "#8c6d46")
"""Of measured lines: Grafana's own palette has red, orange and blue in it, which here mean that somebody is needed."""
BLANK: Final = "–"

Properties = list[DynamicConfigValue]

_COLOURED: Final = [
    DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}),
    DynamicConfigValue(id_val="custom.displayMode", value="color-text"),  # its name up to Grafana 9.4
]


def steps(*pairs: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    """Absolute thresholds: from each value on, its colour; the first value is None."""
    return (
        dashboard.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value=value, color=colour) for value, colour in pairs])
    )


def number(title: str, description: str, *, width: int = 6, height: int = 4) -> stat.Panel:
    """One number that answers in a second. Grey unless thresholds say otherwise."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .span(width)
        .height(height)
        .no_value(BLANK)
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.VALUE)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .thresholds(steps((None, CALM)))
    )


def rows(title: str, description: str, empty: str, *, height: int = 9, width: int = WIDTH) -> table.Panel:
    """A table; `empty` says why there is nothing at all. Grafana would say it in each empty cell, too: BLANK is there."""
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .span(width)
        .height(height)
        .no_value(empty)
        .override_by_regexp("/.*/", [DynamicConfigValue(id_val="noValue", value=BLANK)])
        .cell_height(common.TableCellHeight.SM)
        .thresholds(steps((None, CALM)))
    )


def lines(title: str, description: str, empty: str, *, height: int = 9, width: int = WIDTH) -> timeseries.Panel:
    """Values over time. Gaps stay gaps."""
    return (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .span(width)
        .height(height)
        .no_value(empty)
        .line_width(1)
        .fill_opacity(0)
        .show_points(common.VisibilityMode.NEVER)
        .span_nulls(False)
        .legend(_legend())
        .tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
    )


def bars(title: str, description: str, empty: str, x: str, *, width: int = 12, height: int = 9) -> barchart.Panel:
    """Counts by something."""
    return (
        barchart.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .span(width)
        .height(height)
        .no_value(empty)
        .x_field(x)
        .orientation(common.VizOrientation.HORIZONTAL)
        .stacking(common.StackingMode.NORMAL)
        .show_value(common.VisibilityMode.NEVER)  # Grafana writes a part's number into the part after it
        .legend(_legend())
        .fill_opacity(80)
        .decimals(0)
    )


def states(title: str, description: str, empty: str, *, width: int = WIDTH, height: int = 3) -> statetimeline.Panel:
    """What state when: the numbers of query A in the words and colours (columns code, word, colour) of query B."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .span(width)
        .height(height)
        .no_value(empty)
        .merge_values(True)
        .line_width(1)
        .fill_opacity(70)
        .show_value(common.VisibilityMode.AUTO)
        .legend(_legend(shown=False))
        .display_name("\N{NO-BREAK SPACE}")  # the title names the point; its axis would only take the room
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.FIXED).fixed_color(CALM))
        .with_transformation(
            DataTransformerConfig(
                id_val="configFromData",
                options={
                    "configRefId": "B",
                    "mappings": [
                        {"fieldName": "code", "handlerKey": "mappings.value"},
                        {"fieldName": "word", "handlerKey": "mappings.text"},
                        {"fieldName": "colour", "handlerKey": "mappings.color"},
                    ],
                },
            )
        )
    )


def _legend(*, shown: bool = True) -> common_builders.VizLegendOptions:
    return (
        common_builders.VizLegendOptions()
        .show_legend(shown)
        .placement(common.LegendPlacement.BOTTOM)
        .display_mode(common.LegendDisplayMode.LIST)
    )


def words(colours: dict[str, str]) -> Properties:
    """A column whose words have colours; the word itself is shown."""
    options = {
        word: ValueMappingResult(text=word, color=colour, index=i) for i, (word, colour) in enumerate(colours.items())
    }
    mapping = ValueMap(options=options)
    plain = DynamicConfigValue(id_val="thresholds", value=steps((None, "text")).build())
    return [plain, DynamicConfigValue(id_val="mappings", value=[mapping]), *_COLOURED]


def priorities(text: Texts) -> Properties:
    """A column of priorities, in words and colours."""
    return [*words({text(priority): colour for priority, colour in PRIORITY_COLOURS.items()}), *wide(76)]


def alarm_states(text: Texts) -> Properties:
    """A column of alarms' states."""
    return wide({"zh": 115, "en": 200}[text.lang])


def wanting(colour: str) -> Properties:
    """A column of counts: grey at 0, a colour from 1 on."""
    return [*from_one(colour), *_COLOURED]


def from_one(colour: str) -> Properties:
    """A number: grey at 0, a colour from 1 on."""
    return [DynamicConfigValue(id_val="thresholds", value=steps((None, CALM), (1, colour)).build())]


def unit(name: str, decimals: int = 0) -> Properties:
    """The unit of a column."""
    return [DynamicConfigValue(id_val="unit", value=name), DynamicConfigValue(id_val="decimals", value=decimals)]


def wide(pixels: int) -> Properties:
    """The width of a column; one without a width shares what is left."""
    return [DynamicConfigValue(id_val="custom.width", value=pixels)]


def narrow(pixels: int) -> Properties:
    """A column that may shrink so far on a narrow screen."""
    return [DynamicConfigValue(id_val="custom.minWidth", value=pixels)]


def moment(form: str = "MM-DD HH:mm") -> Properties:
    """A column of times, in the reader's time zone."""
    return [DynamicConfigValue(id_val="unit", value=f"time:{form}"), *wide(26 + 8 * len(form))]


def phone(title: str) -> Properties:
    """A column of telephone numbers: a touch calls. Where there is none, there is nothing to touch."""
    nothing = DynamicConfigValue(id_val="noValue", value="\N{ZERO WIDTH SPACE}")
    return [nothing, *link(title, "tel:${__value.text}"), *wide(124)]


def fixed(colour: str) -> Properties:
    """A series of one colour."""
    return [DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})]


def marked(rank: str) -> str:
    """SQL of the mark that `line_colours` knows a line by: `rank` (from 0 on) in zero-width spaces after its name."""
    return f"repeat(chr(8203), 1 + (({rank}) % {len(LINE_COLOURS)})::int)"


def apart(panel: timeseries.Panel) -> timeseries.Panel:
    """Lines of tables with columns time, metric and "Value", each with its own times.

    Grafana's own format of series puts all lines on the times of all: lines that are not read at the very same
    microsecond then have a gap beside every reading, and no line is left.
    """
    return panel.with_transformation(DataTransformerConfig(id_val="prepareTimeSeries", options={"format": "multi"}))


def line_colours(panel: timeseries.Panel) -> timeseries.Panel:
    """Colours the lines whose names are marked, and no other."""
    for rank, colour in enumerate(LINE_COLOURS):
        panel.override_by_regexp(rf"/^[^\u200b]*\u200b{{{rank + 1}}}$/", fixed(colour))
    return panel


def hidden() -> Properties:
    """A column that only carries an id for links."""
    return [DynamicConfigValue(id_val="custom.hidden", value=True)]


def link(title: str, url: str) -> Properties:
    """A data link on a column."""
    return [DynamicConfigValue(id_val="links", value=[{"title": title, "url": url}])]


def as_line(colour: str) -> Properties:
    """A series drawn as a dashed line among bars or values."""
    return [
        *fixed(colour),
        DynamicConfigValue(id_val="custom.drawStyle", value="line"),
        DynamicConfigValue(id_val="custom.fillOpacity", value=0),
        DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [8, 6]}),
    ]
