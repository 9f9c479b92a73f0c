"""The edge beside Telegraf, each row of issue 4's table by one command.

    python -m benchmarks.edge [modbus|read|big|mqtt|small|all] [--seconds N] [--rounds N] [--json]

Both do the same work on the same simulated devices, one after the other, in the same run, the first one changing from
round to round; figures are medians over the rounds. Telegraf is taken from VIGIL_BENCH_TELEGRAF or PATH; without it the
edge is measured alone. Needs the Kafka broker and mosquitto of the tests. Everything is on loopback.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.edge import telegraf
from benchmarks.edge.fleet import Fleet
from benchmarks.edge.modbus import Bench, alternate
from benchmarks.edge.mqtt import MqttBench
from benchmarks.edge.report import compared, shown
from benchmarks.edge.small import footprint
from benchmarks.machine import machine
from tests.fixtures.kafka import KafkaBroker, kafka_jars

ROWS = ("modbus", "read", "big", "mqtt", "small")


def main() -> None:
    """See the module."""
    arguments = parse(sys.argv[1:])
    binary = telegraf.find_telegraf()
    peer = telegraf.version_of(binary) if binary else f"no Telegraf ({telegraf.WHERE} or PATH): the edge alone"
    print(f"{machine()}; {peer}", file=sys.stderr, flush=True)
    rows = [name for name in ROWS if arguments.row in (name, "all")]
    results: dict[str, Any] = {}
    with broker(needed=rows != ["read"]) as kafka:
        for name in rows:
            print(f"\n== {name}", file=sys.stderr, flush=True)
            results[name] = measure(name, arguments, kafka, binary)
            if not arguments.json:
                print(f"\n{shown(name, results[name])}", flush=True)
    if arguments.json:
        print(json.dumps({"machine": machine(), "telegraf": peer, **results}))


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", nargs="?", default="all", choices=(*ROWS, "all"))
    parser.add_argument("--seconds", type=int, help="measured seconds of each run; default: 15; small 40")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument("--devices", type=int, help="default: 1,000; big 2,000; small 20")
    parser.add_argument("--points", type=int, help="registers of a device; default: 100; small 30")
    parser.add_argument("--units-per-endpoint", type=int, default=1, help="1: each device is a connection of its own")
    parser.add_argument("--spread", action="store_true", help="Telegraf, too, reads spread over the second")
    parser.add_argument("--together", action="store_true", help="the edge, too, reads all devices at once")
    parser.add_argument("--messages", type=int, default=100_000, help="MQTT messages of each run")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(words)


@contextmanager
def broker(*, needed: bool) -> Iterator[str]:
    """host:port of a Kafka broker of this run's own; nothing where none is needed."""
    if not needed:
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="vigil-bench-kafka-") as name:
        kafka = KafkaBroker(Path(name) / "kafka", kafka_jars())
        kafka.start()
        try:
            yield f"{kafka.host}:{kafka.port}"
        finally:
            kafka.stop()


def measure(row: str, arguments: argparse.Namespace, kafka: str, binary: Path | None) -> dict[str, Any]:
    """One row of the table."""
    if row == "mqtt":
        return MqttBench(arguments.messages, kafka, binary).run(arguments.rounds)
    devices = arguments.devices or {"big": 2000, "small": 20}.get(row, 1000)
    fleet = Fleet(
        devices, arguments.points or (30 if row == "small" else 100), arguments.units_per_endpoint, arguments.together
    )
    seconds = arguments.seconds or (40 if row == "small" else 15)
    bench = Bench(fleet, seconds, kafka, binary, arguments.spread)
    mine, peers = (bench.vigil_read, bench.peer_read) if row == "read" else (bench.vigil, bench.peer)
    result = compared(alternate(mine, peers if binary else None, arguments.rounds))
    return result | (footprint(fleet, kafka) if row == "small" else {})


if __name__ == "__main__":
    main()
