"""Ingest into TimescaleDB under load, each row of issue 5's table by one command.

    python -m benchmarks.ingest throughput --signals 1000 --seconds 60
    python -m benchmarks.ingest raw --signals 1000 --seconds 15 --rounds 5

Kafka, PostgreSQL with TimescaleDB and `vigil ingest` run on this machine, as processes of this run's own, on loopback; the
log is filled beforehand. Everything is deleted afterwards. `--seconds` is how long a writer of 2 M samples/s would take.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.ingest import flushes, late, latency, small, steady, telegraf, throughput
from benchmarks.ingest.fleet import Fleet
from benchmarks.ingest.report import SHOWN, throughputs
from benchmarks.machine import machine

ROWS = ("throughput", "raw", "writers", "latency", "small", "telegraf", "embedded", "flushes", "late", "steady")
FULL_PER_S = 2_000_000
DEFAULT_S = {"raw": 15.0, "telegraf": 2.5, "embedded": 5.0}


def main() -> None:
    """See the module."""
    arguments = parse(sys.argv[1:])
    print(machine(), file=sys.stderr, flush=True)
    found = measure(arguments)
    if arguments.json:
        print(json.dumps({"machine": machine(), "row": arguments.row, **found}))
    else:
        print(SHOWN.get(arguments.row, throughputs)(found), flush=True)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--signals", type=int, default=1_000)
    parser.add_argument("--edges", type=int, help="default: 2; 10 from 100,000 signals on")
    parser.add_argument("--record-samples", type=int, default=10_000)
    parser.add_argument(
        "--rate-hz", type=int, default=0, help="readings of a signal in a second; 0: so that records fill"
    )
    parser.add_argument("--jitter-us", type=int, default=2_000, help="how late a poll may be")
    parser.add_argument(
        "--seconds",
        type=float,
        help="default: 60; raw 15; telegraf 2.5; embedded 5; latency 15 a phase; small 240; steady 3,600",
    )
    parser.add_argument("--samples", type=int, help="instead of --seconds")
    parser.add_argument("--rounds", type=int, help="runs of each side; default: 1; raw 5")
    parser.add_argument("--most", type=int, default=2_500_000, help="latency: samples a second that are prepared for")
    parser.add_argument(
        "--window", type=int, help="latency: samples on their way; default: 2 M, 8 M from 100,000 signals on"
    )
    parser.add_argument("--background", action="store_true", help="TimescaleDB's own jobs run as well")
    parser.add_argument("--flavour", choices=("timescale", "plain"), default="timescale", help="steady")
    parser.add_argument("--no-audit", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(words)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    edges = arguments.edges or (10 if arguments.signals >= 100_000 else 2)
    fleet = Fleet(
        arguments.signals, edges, arguments.record_samples, jitter_us=arguments.jitter_us, rate_hz=arguments.rate_hz
    )
    if arguments.row == "latency":
        window = arguments.window or (8_000_000 if fleet.signals >= 100_000 else 2_000_000)
        return latency.measure(latency.Load(fleet, arguments.seconds or 15.0, arguments.most, window))
    if arguments.row == "flushes":
        return flushes.measure(fleet, arguments.samples or 4_000_000)
    if arguments.row == "late":
        return late.measure(arguments.samples or 4_000_000, arguments.rounds or 3)
    if arguments.row == "small":
        return small.measure(arguments.seconds or 240.0)
    if arguments.row == "steady":
        return steady.measure(arguments.seconds or 3_600.0, arguments.flavour)
    case = throughput.Case(
        fleet,
        arguments.samples or int((arguments.seconds or DEFAULT_S.get(arguments.row, 60.0)) * FULL_PER_S),
        writers=2 if arguments.row == "writers" else 1,
        rounds=arguments.rounds or (5 if arguments.row == "raw" else 1),
        with_raw=arguments.row == "raw",
        background=arguments.background,
        audit=not arguments.no_audit,
        embedded=arguments.row == "embedded",
    )
    found = telegraf.measure(case) if arguments.row == "telegraf" else throughput.measure(case)
    return {"row": arguments.row, "signals": fleet.signals, "record_samples": fleet.record_samples, **found}


if __name__ == "__main__":
    main()
