"""One silent and one slow unit among many behind one gateway: how late the cycles of the others reach their units.

    python -m benchmarks.edge.isolation [KIND …] [--units 100] [--seconds 30] [--slow 0.15] [--wait 0.8] [--json]

Kinds of gateway: tests/edge/gateways.py. The gateway is a process of its own and notes when each unit is reached; both
processes read one monotonic clock. Lateness counts from when the cycle is due, after the silent unit's first time-out;
what the machine itself adds is measured beside it (a timer of this process that has nothing else to do).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final, cast

import structlog

from benchmarks.machine import machine
from telemetry.clock import SystemClock
from telemetry.service import cancel_all
from tests.edge.gateways import KINDS, Gateway, Kind
from tests.edge.isolation import SILENT, SLOW, Measured, measure

USUAL_S: Final = 0.003
INTERVAL_S: Final = 1.0
LATE: Final = 0.2
"""Of the interval."""
TICK_S: Final = 0.01


@dataclass(slots=True)
class Elsewhere:
    """A gateway in another process. See tests.edge.isolation.Reached."""

    process: asyncio.subprocess.Process
    port: int
    slow: Mapping[int, float]
    silent: frozenset[int]
    reached: dict[int, list[float]] = field(default_factory=dict)
    accepted: int = 0

    def heal(self) -> None:
        """Not here."""
        raise NotImplementedError

    async def account(self) -> None:
        """Asks the other process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        told = json.loads(await self.process.stdout.readline())
        self.accepted = told["accepted"]
        self.reached = {unit: told["reached"].get(str(unit), []) for unit in range(1, 256)}


@dataclass(frozen=True, slots=True)
class Row:
    """What one kind of gateway showed."""

    kind: str
    cycles: int
    later_than_a_fifth: float
    """Share of the healthy units' cycles."""
    p50_ms: float
    p99_ms: float
    worst_ms: float
    missed: int
    machine_worst_ms: float
    values_lost: int
    """Cycles of healthy units of which a request failed."""
    slow_cycles: int
    silent_asked: int
    connections: int


@asynccontextmanager
async def gateway(kind: Kind, slow_s: float, wait_s: float) -> AsyncIterator[Elsewhere]:
    """A gateway's process while the context lasts."""
    words = ["-m", "benchmarks.edge.isolation", kind, "--slow", str(slow_s), "--wait", str(wait_s), "--serve"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**26
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        yield Elsewhere(process, port, {SLOW: slow_s}, frozenset({SILENT}))
    finally:
        process.stdin.close()
        await process.wait()


async def serve(kind: Kind, slow_s: float, wait_s: float) -> None:
    """The gateway's process: tells its port, and for each line what was reached so far. Ends with its input."""
    async with Gateway(kind, USUAL_S, {SLOW: slow_s}, frozenset({SILENT}), wait_s) as gateway:
        print(gateway.port, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps({"accepted": gateway.accepted, "reached": gateway.reached}), flush=True)


async def run(kind: Kind, arguments: argparse.Namespace) -> Row:
    """One kind, measured."""
    idle: list[float] = [0.0]
    async with gateway(kind, arguments.slow, arguments.wait) as elsewhere:
        watch = asyncio.create_task(_hiccups(idle))
        try:
            found = await measure(elsewhere, arguments.units, arguments.seconds, SystemClock(), interval_s=INTERVAL_S)
        finally:
            await cancel_all((watch,))
    return _row(kind, found, max(idle))


async def _hiccups(found: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + TICK_S
        await asyncio.sleep(TICK_S)
        found.append(loop.time() - due_s)


def _row(kind: str, found: Measured, idle_s: float) -> Row:
    late = sorted(one for cycles in found.late_s.values() for one in cycles)
    healthy = sum(count for name, count in found.failed.items() if name not in (f"e{SILENT}", f"e{SLOW}"))
    return Row(
        kind,
        len(late),
        round(found.share_later_than(LATE * INTERVAL_S), 4),
        round(1e3 * statistics.median(late), 1),
        round(1e3 * late[len(late) * 99 // 100], 1),
        round(1e3 * late[-1], 1),
        found.missed,
        round(1e3 * idle_s, 1),
        healthy,
        found.slow_reached,
        found.silent_reached,
        found.accepted,
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--slow", type=float, default=0.15, help="seconds that the slow unit takes to answer")
    parser.add_argument("--wait", type=float, default=0.8, help="seconds that the gateway waits for the silent one")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    kinds = cast(tuple[Kind, ...], tuple(arguments.kinds) or KINDS)
    if not set(kinds) <= set(KINDS):
        parser.error(f"expected kinds of {', '.join(KINDS)}, found {', '.join(kinds)}")
    if arguments.serve:
        asyncio.run(serve(kinds[0], arguments.slow, arguments.wait))
        return
    print(machine(), file=sys.stderr, flush=True)
    rows: list[dict[str, Any]] = []
    for kind in kinds:
        rows.append(asdict(asyncio.run(run(kind, arguments))))
        if not arguments.json:
            print(", ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    if arguments.json:
        print(json.dumps({"machine": machine(), "rows": rows}))


if __name__ == "__main__":
    main()
