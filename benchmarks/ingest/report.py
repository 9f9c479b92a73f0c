"""From runs to a row of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final


def throughputs(found: dict[str, Any]) -> str:
    """A table with one line a side."""
    lines = [
        "| row | signals · record | M samples/s | slowest 10 s | with the last flush | CPU s a million | B a sample |"
        " rows a flush | RSS · peak · slope | audit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines.append(_line(found["row"], found, found["vigil"]))
    if "raw" in found:
        lines.append(_line("raw COPY", found, found["raw"]))
        each = " ".join(f"{one:.2f}" for one in found["ratios"])
        whole = f"with the last flush, which waits for company, {found['whole_ratio']:.2f}"
        lines.append(f"\nratio to the raw limit: **{found['ratio']:.2f}** (median of {each}); {whole}")
    return "\n".join(lines)


def _line(row: str, found: dict[str, Any], side: dict[str, Any]) -> str:
    cpu = " · ".join(f"{who} {spent:.2f}" for who, spent in side["cpu_s_per_million"].items())
    slowest, whole = (
        f"{side[name] / 1e6:.2f}" if name in side else "" for name in ("slowest_10s_per_s", "whole_per_s")
    )
    memory = ""
    if "rss_mb" in side:
        memory = f"{side['rss_mb']:.0f} · {side['peak_mb']:.0f} MiB · {side['slope_mb_per_min']:+.0f} MiB/min"
    audit = side.get("audit")
    verdict = ""
    if audit:
        same = f"{audit['checksums_same']:,} of {audit['cells']:,} checksums the same"
        verdict = f"lost {audit['lost']}, doubled {audit['doubled']}; {same}"
    return (
        f"| {row} | {found['signals']:,} · {found['record_samples']:,} | **{side['per_s'] / 1e6:.2f}** | {slowest} | {whole} "
        f"| {cpu} | {side['bytes_per_sample']:.1f} | {side['flush_rows']:,.0f} | {memory} | {verdict} |"
    )


def latencies(found: dict[str, Any]) -> str:
    """A table with one line a phase. Ingest's own quantiles are of its histogram's buckets, of a flush's oldest record."""
    lines = [
        "| row | signals · record | samples/s | p50 | p99 | worst | ingest's own p50 · p99 |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found["phases"]:
        rate = one["offered_per_s"] or one["stored_per_s"]
        lines.append(
            f"| latency, {one['phase']} | {one['signals']:,} · {one['record_samples']:,} | {rate:,} "
            f"| {one['p50_s'] * 1e3:,.0f} ms | **{one['p99_s'] * 1e3:,.0f} ms** | {one['worst_s'] * 1e3:,.0f} ms "
            f"| {one['own_p50_s'] * 1e3:,.0f} · {one['own_p99_s'] * 1e3:,.0f} ms |"
        )
    return "\n".join(lines)


def smalls(found: dict[str, Any]) -> str:
    """A table with one line a way of storing."""
    lines = [
        "| 10,000 samples/s of 2,000 signals | rows | flushes direct · plain | B a sample written | after the policy |"
        " compressed anew | audit |",
        "|---|---|---|---|---|---|---|",
    ]
    for way in ("real time", "bulk"):
        one = found[way]
        lines.append(
            f"| {way} | {one['rows']:,} | {one['flushes']['direct']} · {one['flushes']['plain']} | {one['bytes_before']:.1f} "
            f"| **{one['bytes_after']:.1f}** | {one['bytes_least']:.1f} | lost {one['lost']}, doubled {one['doubled']} |"
        )
    return "\n".join([*lines, "", f"real time to bulk: **{found['ratio']:.2f}** (limit 1.5)"])


def steadiness(found: dict[str, Any]) -> str:
    """A table with one line."""
    return "\n".join(
        [
            "| 10,000 samples/s | samples | CPU s a million | MiB at each tenth | peak | MiB an hour, second half "
            "| p50 · p99 | audit |",
            "|---|---|---|---|---|---|---|---|",
            f"| {found['flavour']}, {found['seconds']:,} s | {found['samples']:,} | {found['cpu_per_million_s']:.2f} "
            f"| {' '.join(f'{one:.1f}' for one in found['resident_mb'])} | {found['peak_mb']:.1f} "
            f"| **{found['slope_mb_per_h']:+.2f}** | {found['p50_s'] * 1e3:.0f} · {found['p99_s'] * 1e3:.0f} ms "
            f"| lost {found['lost']}, doubled {found['doubled']} |",
        ]
    )


def peers(found: dict[str, Any]) -> str:
    """Vigil's line and Telegraf's three."""
    lines = [
        "| the same rows | M samples/s | CPU s a million | B a sample | lost | doubled |",
        "|---|---|---|---|---|---|",
    ]
    vigil = found["vigil"]
    audit = vigil.get("audit", {"lost": "", "doubled": ""})
    rows = [("Vigil", vigil | {name: audit[name] for name in ("lost", "doubled")})]
    rows += [(name, found[name]) for name in ("telegraf", "killed", "defaults") if name in found]
    for name, one in rows:
        speed = f"**{one['per_s'] / 1e6:.2f}**" if "per_s" in one else ""
        cpu = " · ".join(f"{who} {spent:.2f}" for who, spent in one.get("cpu_s_per_million", {}).items())
        size = f"{one['bytes_per_sample']:.1f}" if "bytes_per_sample" in one else ""
        lines.append(f"| {_PEERS.get(name, name)} | {speed} | {cpu} | {size} | {one['lost']:,} | {one['doubled']:,} |")
    return "\n".join([*lines, *(["", f"Vigil to Telegraf: {found['ratio']:.1f} ×"] if "ratio" in found else [])])


def sizes(found: dict[str, Any]) -> str:
    """A table with one line a size of flush."""
    lines = [
        "| raw COPY, signals · jitter | rows a flush | rows a signal | M samples/s | PostgreSQL CPU s a million |"
        " B a sample |",
        "|---|---|---|---|---|---|",
    ]
    for one in found["flushes"]:
        fleet = f"{one['signals']:,} · {one['jitter_us'] / 1e3:g} ms"
        rows, each = one["flush_rows"], one["flush_rows"] / one["signals"]
        cpu = one["cpu_s_per_million"]["postgres"]
        lines.append(
            f"| {fleet} | {rows:,} | {each:,.0f} | {one['per_s'] / 1e6:.2f} | {cpu:.2f} | {one['bytes_per_sample']:.1f} |"
        )
    return "\n".join(lines)


def lates(found: dict[str, Any]) -> str:
    """A table with one line a flavour of the store."""
    lines = [
        "| store | CPU s a million, ingest: live · a random month | ratio | PostgreSQL: live · month |",
        "|---|---|---|---|",
    ]
    for flavour in ("timescale", "plain"):
        live, month, ratio = (found[flavour][name] for name in ("live", "month", "ratio"))
        lines.append(
            f"| {flavour} | {live['ingest']:.2f} · {month['ingest']:.2f} | **{ratio:.1f}** "
            f"| {live['postgres']:.2f} · {month['postgres']:.2f} |"
        )
    return "\n".join(lines)


_PEERS: Final = {
    "telegraf": "Telegraf",
    "killed": "Telegraf, one kill -9 in mid-load",
    "defaults": "Telegraf, default limits",
}
SHOWN: Final[Mapping[str, Callable[[dict[str, Any]], str]]] = {
    "latency": latencies,
    "small": smalls,
    "steady": steadiness,
    "telegraf": peers,
    "flushes": sizes,
    "late": lates,
}
"""How rows that are no plain throughput are shown."""
