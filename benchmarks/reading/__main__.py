"""Reading from 100 M samples: fills a store of its own, then each figure in the server (EXPLAIN ANALYZE) and over HTTP.

    python -m benchmarks.reading [--flavour timescale|plain|both] [--rows 100e6] [--signals 1000] [--json]

10,000 equipments of 10 points in the register and in `latest`; one sample a second of each of `--signals` signals, up to
now, with half an hour without any. Everything is in memory that fits there. Exit 1 where a figure is above its limit.
Bounded: a store that is not filled in FILL_WITHIN_S ends the run. What was made is removed, whatever happens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

import structlog

from benchmarks.machine import machine
from benchmarks.reading.fill import Filled, fill
from benchmarks.reading.measure import Figure, over_http, server_figures
from ingest.retention import apply_retention
from telemetry.settings import Settings
from telemetry.store import INGEST, connect
from tests.dashboards.console.conftest import running_console
from tests.fixtures.store import Flavour, StoreServer, fresh_database, make_template

FILL_WITHIN_S: Final = 1_500.0


def main() -> int:
    """Fills, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flavour", choices=["timescale", "plain", "both"], default="timescale")
    parser.add_argument("--rows", type=lambda text: int(float(text)), default=100_000_000)
    parser.add_argument("--signals", type=int, default=1_000)
    parser.add_argument("--json", action="store_true", help="a line a flavour for machines, on stdout")
    arguments = parser.parse_args()
    flavours: list[Flavour] = ["timescale", "plain"] if arguments.flavour == "both" else [arguments.flavour]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was made is removed then, too
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    above = False
    for flavour in flavours:
        filled, figures = run(flavour, arguments.rows, arguments.signals)
        above = above or any(figure.above for figure in figures)
        if arguments.json:
            told = {"flavour": flavour, "machine": machine(), "filled": asdict(filled)}
            print(json.dumps(told | {"figures": [figure.as_json() for figure in figures]}), flush=True)
        else:
            _print(flavour, filled, figures)
    return int(above)


def run(flavour: Flavour, rows: int, signals: int) -> tuple[Filled, list[Figure]]:
    """One flavour on a server of its own."""
    server = StoreServer(flavour)
    try:
        server.start()
        make_template(server.url)
        with fresh_database(server.url) as url, tempfile.TemporaryDirectory() as state:
            settings = Settings(store=url, state_dir=Path(state))
            now_s = int(time.time()) // 60 * 60
            filled = asyncio.run(_filled(settings, rows, signals, now_s, timescale=flavour == "timescale"))
            figures = server_figures(url, filled)
            with running_console(url, Path(state)) as console, console.client() as client:
                figures += over_http(client, filled)
    finally:
        server.remove()
    return filled, figures


async def _filled(settings: Settings, rows: int, signals: int, now_s: int, *, timescale: bool) -> Filled:
    async with asyncio.timeout(FILL_WITHIN_S):
        async with await connect(settings, INGEST, autocommit=True) as connection:
            await apply_retention(settings, connection)
        return await fill(settings, rows=rows, signals=signals, now_s=now_s, timescale=timescale)


def _print(flavour: str, filled: Filled, figures: list[Figure]) -> None:
    print(f"\n{flavour}: {machine()}")
    print(
        f"{filled.rows / 1e6:.0f} M samples of {filled.signals} signals filled in {filled.fill_s:.0f} s "
        f"({filled.rows / filled.fill_s / 1e6:.2f} M/s, {filled.bytes_per_row:.1f} B a sample), "
        f"minutes and hours made in {filled.aggregate_s:.0f} s"
    )
    for figure in figures:
        limit = f"limit {figure.limit_ms:.0f} ms" if figure.limit_ms is not None else ""
        word = "  ABOVE" if figure.above else ""
        print(
            f"  {figure.name:66} {figure.median_ms:8.1f} ms (best {figure.best_ms:.1f})  {limit:14}{word}  {figure.note}"
        )


if __name__ == "__main__":
    sys.exit(main())
