"""From runs to a row of docs/benchmarks.md: medians of each side and the ratio of the two."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.edge.modbus import Side


def compared(sides: Sequence[Side]) -> dict[str, Any]:
    """Medians by side, the ratio of tags per CPU second, and every run."""
    result: dict[str, Any] = {"runs": [one.row() for one in sides]}
    for who in dict.fromkeys(one.who for one in sides):
        result[who] = _median([one for one in sides if one.who == who])
    if "telegraf" in result:
        result["ratio"] = round(result["vigil"]["tags_per_cpu_s"] / result["telegraf"]["tags_per_cpu_s"], 2)
    return result


def _median(sides: Sequence[Side]) -> dict[str, Any]:
    figures: dict[str, list[float]] = {
        "cores": [s.cores for s in sides],
        "tags_per_s": [s.tags_per_s for s in sides],
        "tags_per_cpu_s": [s.tags_per_cpu_s for s in sides],
        "missed": [s.missed for s in sides if s.missed is not None],
        "doubled": [s.doubled for s in sides if s.doubled is not None],
        "own_missed": [s.own_missed for s in sides if s.own_missed is not None],
        "behind_s": [s.behind_s for s in sides if s.behind_s is not None],
        "lateness_p99_ms": [s.lateness_p99_ms for s in sides if s.lateness_p99_ms is not None],
        "rss_mb": [s.memory.rss_mb for s in sides],
        "pss_mb": [s.memory.pss_mb for s in sides],
        "peak_mb": [s.memory.peak_mb for s in sides],
    }
    return {name: float(round(statistics.median(values), 4)) for name, values in figures.items() if values}


def shown(row: str, result: dict[str, Any]) -> str:
    """A row for people."""
    lines = []
    for who, figures in result.items():
        if isinstance(figures, dict):
            told = ", ".join(f"{name} {_figure(value)}" for name, value in figures.items())
            lines.append(f"{row} {who}: {told}")
    if "ratio" in result:
        lines.append(f"{row}: Vigil does {result['ratio']} × Telegraf's work per CPU second (medians)")
    return "\n".join(lines)


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
