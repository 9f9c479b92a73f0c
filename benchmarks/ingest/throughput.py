"""From a filled log to rows in the columnstore, and beside it the limit: raw COPY of the same rows, in turns.

One log is filled once and read by every run, each into a fresh database. The first run says how many rows ingest's flushes
have; the raw side then copies the same rows in flushes of that size.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.ingest import raw
from benchmarks.ingest.edges import journal
from benchmarks.ingest.fleet import SECOND_US, Fleet
from benchmarks.ingest.service import Ingest, database, server
from benchmarks.ingest.topic import Filled, fill, fill_embedded, kafka, servers_of
from benchmarks.ingest.watch import Run, Watch
from tests.fixtures.store import Flavour, StoreServer, execute

MARGIN_S: Final = 120
"""The newest sample is so old when the log begins to be filled."""
SLOWEST_PER_S: Final = 60_000
"""A run slower than that is given up."""
START_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured."""

    fleet: Fleet
    samples: int
    writers: int = 1
    rounds: int = 1
    with_raw: bool = False
    background: bool = False
    """TimescaleDB's own jobs (refreshes, compression) run, too."""
    audit: bool = True
    embedded: bool = False
    """The embedded log and PostgreSQL in place of Kafka and TimescaleDB."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Servers and a filled log, for several runs."""

    case: Case
    store: StoreServer
    log: str
    """VIGIL_LOG."""
    servers: str
    """host:port of Kafka; empty on the embedded log."""
    roots: Mapping[str, int]
    """First process of every tree beside the writers."""
    state: Path | None
    """Where the embedded log is."""
    filled: Filled
    start_us: int
    seconds: int
    folder: Path


@contextmanager
def bench(case: Case) -> Iterator[Bench]:
    """Starts servers, fills the log; ends and deletes it all."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vigil-bench-")))
        flavour: Flavour = "plain" if case.embedded else "timescale"
        store = stack.enter_context(server(flavour, background=case.background))
        assert store.process is not None
        roots = {"postgres": store.process.pid}
        seconds = case.fleet.seconds_for(case.samples)
        start_us = (time.time_ns() // 10**9 - seconds - MARGIN_S) * SECOND_US
        records = journal(case.fleet, start_us, seconds)
        if case.embedded:
            filled = fill_embedded(folder / "state", records)
            made = Bench(case, store, "embedded:", "", roots, folder / "state", filled, start_us, seconds, folder)
        else:
            broker = stack.enter_context(kafka(case.writers))
            filled = fill(servers_of(broker), records, case.writers)
            roots["kafka"] = broker.pid
            made = Bench(case, store, broker.url, servers_of(broker), roots, None, filled, start_us, seconds, folder)
        told(
            f"log filled: {filled.total:,} samples, {filled.records:,} records, {filled.bytes / filled.total:.1f} B a sample,"
            f" {filled.seconds:.0f} s; samples of {seconds:,} s"
        )
        yield made


def measure(case: Case) -> dict[str, Any]:
    """All runs of a case; medians, the ratio to the raw limit, and every run."""
    runs: list[dict[str, Any]] = []
    limits: list[dict[str, Any]] = []
    with bench(case) as made:
        flushes: raw.Flushes | None = None
        for number in range(case.rounds):
            last = number == case.rounds - 1
            if flushes is not None and number % 2:
                limits.append(limited(made, flushes))
            runs.append(ingested(made, number, audit=case.audit and last))
            if case.with_raw:
                if flushes is None:
                    flushes = raw.prepare(
                        made.case.fleet, made.start_us, made.seconds, runs[0]["flush_rows"], made.folder
                    )
                if number % 2 == 0:
                    limits.append(limited(made, flushes))
    result: dict[str, Any] = {"vigil": medians(runs), "runs": runs}
    if limits:
        result |= {"raw": medians(limits), "raw_runs": limits}
        pairs = [run["per_s"] / limit["per_s"] for run, limit in zip(runs, limits, strict=True)]
        whole = [run["whole_per_s"] / limit["per_s"] for run, limit in zip(runs, limits, strict=True)]
        result["ratio"], result["whole_ratio"] = statistics.median(pairs), statistics.median(whole)
        result["ratios"] = [round(pair, 3) for pair in pairs]
    return result


def ingested(made: Bench, number: int, *, audit: bool) -> dict[str, Any]:
    """One run of ingest into a fresh database."""
    case = made.case
    with database(made.store) as url, ExitStack() as stack:
        writers = [
            Ingest(made.folder, url, made.log, f"ingest-{number}-{w}", state=made.state) for w in range(case.writers)
        ]
        programs = [stack.enter_context(writer.start()) for writer in writers]
        roots = {f"ingest {w}" if w else "ingest": program.pid for w, program in enumerate(programs)} | dict(made.roots)
        watch = Watch(url, made.filled, roots, [program.pid for program in programs])
        within_s = START_S + made.filled.total / SLOWEST_PER_S
        try:
            run = watch.until_stored(within_s, lambda: all(p.process.poll() is None for p in programs))
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{programs[0].said()}") from error
        scraped = [writer.metrics() for writer in writers]
        found = figures(run, url, scraped)
        for program in programs:
            program.stop()
        if audit:
            found["audit"] = writers[0].audit()
    told(f"run {number + 1}: {shown(found)}")
    return found


def figures(run: Run, url: str, scraped: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Of one run, from the watch, the database and ingest's own counters."""
    rows = execute(url, "SELECT count(*) FROM store.sample")[0][0]
    size = execute(url, size_of(url))[0][0]
    flushes = {
        how: sum(one.get(f'vigil_ingest_flushes_total{{copy="{how}"}}', 0.0) for one in scraped)
        for how in ("direct", "plain")
    }
    return {
        "per_s": round(run.per_s),
        "whole_per_s": round(run.whole_per_s),
        "slowest_10s_per_s": round(run.slowest()),
        "seconds": round(run.seconds, 2),
        "samples": run.stored[-1][1],
        "rows": rows,
        "cpu_s_per_million": {who: round(spent, 3) for who, spent in run.cpu_per_million().items()},
        "bytes_per_sample": round(size / rows, 2),
        "flushes": {how: int(n) for how, n in flushes.items()},
        "flush_rows": round(rows / max(sum(flushes.values()), 1)),
        "database": run.shares(),
        "rss_mb": round(run.looks[-1].resident_mb),
        "peak_mb": round(run.peak_mb),
        "slope_mb_per_min": round(run.memory_slope(), 1),
        "restarts": int(sum(n for one in scraped for name, n in one.items() if name.startswith(_RESTARTS))),
        "dead_letters": int(sum(n for one in scraped for name, n in one.items() if name.startswith(_DEAD))),
    }


def size_of(url: str) -> str:
    """The query that gives the bytes of all rows of store.sample with their indexes."""
    (hypertable,) = execute(url, "SELECT to_regproc('hypertable_size') IS NOT NULL")[0]
    return "SELECT hypertable_size('store.sample')" if hypertable else _PLAIN_SIZE


def limited(made: Bench, flushes: raw.Flushes) -> dict[str, Any]:
    """One run of the raw limit into a fresh database on the same server."""
    with database(made.store) as url:
        found = raw.copied(made.store, url, flushes)
    told(f"raw: {shown(found)}")
    return found


def medians(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of every figure; of the audit what the last run had."""
    result: dict[str, Any] = {}
    for name, value in runs[-1].items():
        given = [run[name] for run in runs if name in run]
        if isinstance(value, dict) and name not in ("audit", "database"):
            result[name] = medians(given)
        elif isinstance(value, (int, float)) and not math.isnan(value):
            result[name] = statistics.median(given)
        else:
            result[name] = value
    return result


def shown(found: dict[str, Any]) -> str:
    """A run in one line for people."""
    cpu = " ".join(f"{who} {spent:.3f}" for who, spent in found["cpu_s_per_million"].items())
    told = f"{found['per_s'] / 1e6:.3f} M/s over {found['seconds']:.1f} s; CPU s a million: {cpu}; "
    if "whole_per_s" in found:
        told += f"with the last flush's wait {found['whole_per_s'] / 1e6:.3f} M/s; "
    told += f"{found['bytes_per_sample']:.2f} B a sample; flushes of {found['flush_rows']:,.0f}"
    if "database" in found:
        told += "; database " + ", ".join(f"{what} {share:.0%}" for what, share in found["database"].items())
    if "audit" in found:
        audit = found["audit"]
        told += f"; audit lost {audit['lost']}, doubled {audit['doubled']}, clean {audit['clean']}"
    return told


def told(text: str) -> None:
    """To people who wait."""
    print(f"  {text}", file=sys.stderr, flush=True)


_PLAIN_SIZE: Final = "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('store.sample') WHERE isleaf"
_RESTARTS: Final = "vigil_ingest_restarts_total{"
_DEAD: Final = "vigil_ingest_dead_letters_total{"
