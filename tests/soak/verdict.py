"""The bounds of a soak, and whether they held. Pure: figures in, lines out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from tests.soak.gauges import Gauge
from tests.soak.layout import SILENT_UNITS
from tests.soak.traced import Traced

GROWTH: Final = 0.10
"""Most that the median of memory may grow from the first to the last third of the measured life."""
WARM_UP: Final = 1 / 6
"""Of the measured life: memory of that time is not judged."""
DESCRIPTORS: Final = 4
"""More than before the faults: connections beside the first one of a gateway, files of the spool."""
TASKS: Final = 2
UNREACHABLE: Final = 0.001
"""Most of all answers that may find the edge deaf: it asks a device that it gave up rarely, and then hears it."""
EXECUTOR: Final = min(32, (os.cpu_count() or 1) + 4)
"""Threads that asyncio.to_thread may make in the course of time (concurrent.futures)."""
ROWS: Final = 400
"""Of the spool: those of the commits since the last ledger record (5 s of them) come and go."""


@dataclass(slots=True)
class Verdict:
    """What was found, as lines; those of `broken` are bounds that did not hold."""

    lines: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def say(self, what: str, found: object, *, holds: bool = True) -> None:
        """One figure."""
        line = f"{what}: {found}"
        self.lines.append(line if holds else f"{line}  ← BROKEN")
        if not holds:
            self.broken.append(line)

    def memory(self, life: Sequence[Gauge]) -> None:
        """Resident memory over the measured life: flat."""
        warm = life[int(len(life) * WARM_UP) :]
        if len(warm) < 6:
            self.say("memory", f"only {len(warm)} looks after the warm-up", holds=False)
            return
        rss = np.array([gauge.rss_mb for gauge in warm])
        third = len(warm) // 3
        first, last = float(np.median(rss[:third])), float(np.median(rss[-third:]))
        hours = np.array([gauge.at_s for gauge in warm]) / 3600
        slope = float(np.polyfit(hours - hours[0], rss, 1)[0])
        self.say(
            "resident, MB",
            f"first third {first:.1f}, last third {last:.1f} ({last / first - 1:+.1%}), range {rss.min():.1f} … "
            f"{rss.max():.1f}, slope {slope:+.1f} an hour, over {(warm[-1].at_s - warm[0].at_s) / 60:.1f} min",
            holds=last <= first * (1 + GROWTH),
        )

    def leaks(self, before: Gauge, after: Gauge, life: Sequence[Gauge]) -> None:
        """What is held when all is well: before the faults, and after them."""
        most = max(gauge.descriptors for gauge in life)
        self.say(
            "descriptors",
            f"{before.descriptors} before, {after.descriptors} after (at most {most})",
            holds=after.descriptors <= before.descriptors + DESCRIPTORS,
        )
        self.say(
            "threads",
            f"{before.threads} before, {after.threads} after",
            holds=after.threads <= before.threads + EXECUTOR,
        )
        known = before.tasks is not None and after.tasks is not None
        many = max(gauge.tasks or 0 for gauge in life)
        self.say(
            "tasks",
            f"{before.tasks} before, {after.tasks} after (at most {many})",
            holds=known and (after.tasks or 0) <= (before.tasks or 0) + TASKS,
        )
        self.say(
            "rows of the spool",
            f"{before.rows} before, {after.rows} after (at most {max(gauge.rows for gauge in life)})",
            holds=after.rows <= before.rows + ROWS,
        )
        biggest = max(gauge.spool_mb for gauge in life)
        self.say(
            "spool's file, MB", f"{before.spool_mb:.1f} before, {after.spool_mb:.1f} after (at most {biggest:.1f})"
        )
        silent = len(SILENT_UNITS)
        self.say(
            "unreachable at the end",
            f"{after.unreachable} ({silent} never answer)",
            holds=after.unreachable == silent,
        )
        cpu = (life[-1].cpu_s - life[0].cpu_s) / max(life[-1].at_s - life[0].at_s, 1e-9)
        self.say("CPU of the edge", f"{cpu:.1%} of a core")

    def audit(self, report: Mapping[str, Any]) -> None:
        """`vigil audit`: clean."""
        for word in ("lost", "doubled", "in_flight", "dead", "dropped"):
            self.say(f"audit, {word}", report[word], holds=report[word] == 0)
        self.say("audit, journaled and stored", f"{report['journaled']}, {report['stored']}")

    def traced(self, what: str, found: Traced) -> None:
        """Answers and rows."""
        share = sum(found.excused.values()) + found.told + found.twice + found.unreachable
        excused = ", ".join(f"{why} {count}" for why, count in sorted(found.excused.items()))
        self.say(f"{what}: answers given, rows with a number", f"{found.answers}, {found.rows}", holds=found.rows > 0)
        for word in ("doubled", "unknown", "wrong"):
            self.say(f"{what}: {word}", getattr(found, word), holds=getattr(found, word) == 0)
        if found.odd:
            self.say(f"{what}: rows such as", "; ".join(found.odd))
        self.say(
            f"{what}: without a row",
            f"{share}: told as bad {found.told}; while unreachable {found.unreachable}; asked twice {found.twice}; "
            f"in faults: {excused or 'none'}",
            holds=found.unreachable <= UNREACHABLE * found.answers,
        )
        lost = f"{len(found.lost)}{' such as ' + '; '.join(found.lost[:10]) if found.lost else ''}"
        self.say(f"{what}: without a row or a reason", lost, holds=not found.lost)
