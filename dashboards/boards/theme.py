"""How all boards look: calm by default, a colour only where somebody is needed, and always a word beside it."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import barchart, dashboard, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

from dashboards.boards.sql import DATASOURCE

CALM: Final = "#8a94a3"
RED: Final = "#d64545"
AMBER: Final = "#d9902f"
BLUE: Final = "#3d7dd8"
GREEN: Final = "#4a9c6d"
WIDTH: Final = 24
PRIORITY_COLOURS: Final = {"critical": RED, "high": AMBER, "medium": BLUE, "low": CALM}

Properties = list[DynamicConfigValue]


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
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.VALUE)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .thresholds(steps((None, CALM)))
    )


def rows(title: str, description: str, empty: str, *, height: int = 9, width: int = WIDTH) -> table.Panel:
    """A table; `empty` says why there is nothing."""
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .span(width)
        .height(height)
        .no_value(empty)
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
        .legend(
            common_builders.VizLegendOptions()
            .show_legend(True)
            .placement(common.LegendPlacement.BOTTOM)
            .display_mode(common.LegendDisplayMode.LIST)
        )
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
        .show_value(common.VisibilityMode.AUTO)
        .fill_opacity(80)
        .decimals(0)
    )


def states(title: str, description: str, empty: str, *, width: int = 12, height: int = 4) -> statetimeline.Panel:
    """What state when, in words."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .span(width)
        .height(height)
        .no_value(empty)
        .merge_values(True)
        .line_width(0)
        .fill_opacity(70)
        .show_value(common.VisibilityMode.AUTO)
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
    )


def words(colours: dict[str, str]) -> Properties:
    """A column whose words have colours; the word itself is shown."""
    options = {
        word: ValueMappingResult(text=word, color=colour, index=i) for i, (word, colour) in enumerate(colours.items())
    }
    mapping = ValueMap(options=options)
    return [
        DynamicConfigValue(id_val="mappings", value=[mapping]),
        DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}),
    ]


def unit(name: str, decimals: int = 0) -> Properties:
    """The unit of a column."""
    return [DynamicConfigValue(id_val="unit", value=name), DynamicConfigValue(id_val="decimals", value=decimals)]


def fixed(colour: str) -> Properties:
    """A series of one colour."""
    return [DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})]


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
