"""From runs to a row of docs/benchmarks.md."""

from __future__ import annotations

from typing import Any


def shown(row: str, found: dict[str, Any]) -> str:
    """A table with one line a side."""
    lines = [
        "| row | signals · record | M samples/s | slowest 10 s | CPU s a million | B a sample | rows a flush |"
        " RSS · peak · slope | audit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines.append(_line(row, found, found["vigil"]))
    if "raw" in found:
        lines.append(_line("raw COPY", found, found["raw"]))
        each = " ".join(f"{one:.2f}" for one in found["ratios"])
        lines.append(f"\nratio to the raw limit: **{found['ratio']:.2f}** (median of {each})")
    return "\n".join(lines)


def _line(row: str, found: dict[str, Any], side: dict[str, Any]) -> str:
    cpu = " · ".join(f"{who} {spent:.2f}" for who, spent in side["cpu_s_per_million"].items())
    slowest = f"{side['slowest_10s_per_s'] / 1e6:.2f}" if "slowest_10s_per_s" in side else ""
    memory = ""
    if "rss_mb" in side:
        memory = f"{side['rss_mb']:.0f} · {side['peak_mb']:.0f} MiB · {side['slope_mb_per_min']:+.0f} MiB/min"
    audit = side.get("audit")
    verdict = f"lost {audit['lost']}, doubled {audit['doubled']}" if audit else ""
    return (
        f"| {row} | {found['signals']:,} · {found['record_samples']:,} | **{side['per_s'] / 1e6:.2f}** | {slowest} | {cpu} "
        f"| {side['bytes_per_sample']:.1f} | {side['flush_rows']:,.0f} | {memory} | {verdict} |"
    )
