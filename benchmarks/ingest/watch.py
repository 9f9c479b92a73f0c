"""A run, watched from outside: how many samples the database says are stored, and what every process has cost so far.

The database's own offsets are asked, not ingest: they move in the transaction that holds the rows. Rates count from the
first commit that is seen, so neither start-up nor the way to the first commit is in them, to the last under load: the very
last flush finds the log empty and waits for company that never comes, up to 4 s (ingest/pace.py). Costs and the rate of the
whole run have that one in them.
"""

from __future__ import annotations

import bisect
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg

from benchmarks.ingest.topic import Filled
from benchmarks.machine import tree
from telemetry.log.protocol import TELEMETRY

LOOK_EVERY_S: Final = 0.05
LOGIN: Final = "vigil_bench"
"""What ingest logs in as."""
COST_EVERY_S: Final = 1.0
LEAST_COMMITS: Final = 3
WINDOW_S: Final = 10.0
_TICK: Final = os.sysconf("SC_CLK_TCK")


def spent_s(root: int) -> float:
    """User and system seconds of a process tree, with those of its children that have ended."""
    ticks = 0
    for pid in tree(root):
        try:
            fields = (Path("/proc") / str(pid) / "stat").read_text().rsplit(") ", 1)[1].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / _TICK


def resident_mb(pid: int, key: str = "VmRSS:") -> float:
    """Resident set (`VmHWM:` its highest) of a process in MiB; 0 when it is gone."""
    try:
        text = (Path("/proc") / str(pid) / "status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith(key)), 0.0)


@dataclass(frozen=True, slots=True)
class Look:
    """At a moment."""

    at_s: float
    stored: int
    cpu_s: Mapping[str, float]
    """By process tree."""
    resident_mb: float
    """Of the writers together."""


@dataclass(slots=True)
class Run:
    """What was seen of a run."""

    stored: list[tuple[float, int]] = field(default_factory=list)
    """(monotonic s, samples stored) whenever it had changed."""
    idle: int = 0
    """How many of the last commits were of flushes that had waited for company: one a writer."""
    looks: list[Look] = field(default_factory=list)
    peak_mb: float = 0.0
    waits: Counter[str] = field(default_factory=Counter)
    """What the sessions of the service that were in a transaction were doing, look by look."""

    def shares(self) -> dict[str, float]:
        """Of all looks, how often so: `running`, a wait event of PostgreSQL, or `none`, no transaction at all."""
        return {what: round(n / self.waits.total(), 3) for what, n in self.waits.most_common(6)}

    @property
    def loaded(self) -> Sequence[tuple[float, int]]:
        """`stored` as long as the log had more; all of a run that is too short to tell."""
        under_load = self.stored[: len(self.stored) - self.idle]
        return under_load if len(under_load) >= LEAST_COMMITS else self.stored

    @property
    def seconds(self) -> float:
        """From the first commit seen to the last under load."""
        return self.loaded[-1][0] - self.loaded[0][0]

    @property
    def per_s(self) -> float:
        """Samples a second under load."""
        return (self.loaded[-1][1] - self.loaded[0][1]) / self.seconds

    @property
    def whole_per_s(self) -> float:
        """Samples a second from the first commit seen to the very last, with the last flush's wait in it."""
        return (self.stored[-1][1] - self.stored[0][1]) / (self.stored[-1][0] - self.stored[0][0])

    def slowest(self, window_s: float = WINDOW_S) -> float:
        """Samples a second in the slowest stretch of that length; over all of a run that is not twice as long."""
        if self.seconds < 2 * window_s:
            return self.per_s
        ends = [at for at, _ in self.loaded if at - self.stored[0][0] >= window_s]
        return min((self.at(end) - self.at(end - window_s)) / window_s for end in ends)

    def at(self, moment_s: float) -> int:
        """Samples stored at a moment: of the last commit seen before it."""
        place = bisect.bisect_right(self.stored, moment_s + 1e-9, key=lambda seen: seen[0])
        return self.stored[place - 1][1] if place else 0

    def cpu_per_million(self) -> dict[str, float]:
        """CPU seconds for a million samples, by process tree, between the first look and the last."""
        first, last = self.looks[0], self.looks[-1]
        million = (last.stored - first.stored) / 1e6
        return {who: (last.cpu_s[who] - first.cpu_s[who]) / million for who in last.cpu_s}

    def memory_slope(self) -> float:
        """MiB a minute, by least squares over the second half of the run; NaN for less than four looks."""
        half = self.looks[len(self.looks) // 2 :]
        if len(half) < 4:
            return float("nan")
        return statistics.linear_regression([k.at_s for k in half], [k.resident_mb for k in half]).slope * 60


class Watch:
    """Looks until everything is stored, in a thread of its own."""

    def __init__(self, url: str, filled: Filled, roots: Mapping[str, int], writers: Sequence[int]) -> None:
        """`url` of the superuser; `roots` first process of each tree; `writers` process ids of ingest."""
        self.run = Run(idle=len(writers))
        self._url, self._filled, self._roots, self._writers = url, filled, roots, writers
        self._failure: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)
        self._thread.start()

    def until_stored(self, within_s: float, alive: Callable[[], bool], *, samples: int | None = None) -> Run:
        """Returns when all (or so many) are stored. Raises RuntimeError when it takes longer, or a writer ends."""
        wanted = self._filled.total if samples is None else samples
        deadline = time.monotonic() + within_s
        try:
            while not self.run.stored or self.run.stored[-1][1] < wanted:
                if not self._thread.is_alive():
                    raise RuntimeError("the watch ended") from self._failure
                if time.monotonic() > deadline or not alive():
                    seen = self.run.stored[-1][1] if self.run.stored else 0
                    raise RuntimeError(f"stored {seen:,} of {wanted:,} samples; deadline or a writer's end")
                time.sleep(LOOK_EVERY_S)
        finally:
            self.end()
        return self.run

    def end(self) -> None:
        """Stops looking."""
        self._over.set()
        self._thread.join(10)

    def _work(self) -> None:
        try:
            with psycopg.connect(self._url, autocommit=True) as connection:
                while not self._over.wait(LOOK_EVERY_S):
                    self._look(connection)
                if self.run.stored:
                    self._cost(*self.run.stored[-1])
        except psycopg.Error as error:
            self._failure = error

    def _look(self, connection: psycopg.Connection[Any]) -> None:
        rows = connection.execute(POSITIONS, (TELEMETRY,)).fetchall()
        now, stored = time.monotonic(), self._filled.before(dict(rows))
        run = self.run
        if run.stored and run.stored[-1][1] < self._filled.total:
            run.waits.update([what for (what,) in connection.execute(_WAITS, (LOGIN,)).fetchall()] or ["none"])
        if stored and (not run.stored or stored > run.stored[-1][1]):
            run.stored.append((now, stored))
            if not run.looks or now - run.looks[-1].at_s >= COST_EVERY_S:
                self._cost(now, stored)

    def _cost(self, now: float, stored: int) -> None:
        cpu = {who: spent_s(pid) for who, pid in self._roots.items()}
        self.run.looks.append(Look(now, stored, cpu, sum(map(resident_mb, self._writers))))
        self.run.peak_mb = max(self.run.peak_mb, sum(resident_mb(pid, "VmHWM:") for pid in self._writers))


_WAITS: Final = """
SELECT coalesce(wait_event, 'running') FROM pg_stat_activity WHERE usename = %s AND backend_xid IS NOT NULL
"""
POSITIONS: Final = "SELECT partition, next FROM store.log_position WHERE service = 'ingest' AND topic = %s"
