"""The Modbus rows: one side at a time on the same devices, measured over whole seconds of a steady state.

`kafka`: read → decoded → (spooled) → Kafka with acks=all; tags are counted in the topic. `read`: read and decoded
only; tags are counted by the devices' server, which knows what it answered.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.edge import telegraf
from benchmarks.edge.agent import Edge, quantile_s
from benchmarks.edge.arrivals import Arrivals, count, end_offset, make_topic, telegraf_record, vigil_record
from benchmarks.edge.fleet import Devices, Fleet, write_plant
from benchmarks.edge.process import Memory, Program, machine_busy_s, sleep_until
from telemetry.log.protocol import TELEMETRY

SETTLE_S: Final = 5.0
STEADY_WITHIN_S: Final = 60.0
STEADY: Final = 0.95
"""Of the requests that are due in a second."""
PAIRS_S: Final = 1.0
"""So long what was answered and what was decoded are read again and again: one interval, with rests between its slots."""
PAUSE_S: Final = 0.02
AFTER_S: Final = 3.0
"""What was read in the window gets so long to arrive."""


@dataclass(frozen=True, slots=True)
class Window:
    """What a program used while it was measured, [begin, end) on the wall clock."""

    begin_us: int
    end_us: int
    seconds: float
    cpu_s: float
    devices_cpu_s: float
    others_cpu_s: float
    """Of all else on the machine: broker, other people's work."""
    requests: int
    memory: Memory


@dataclass(frozen=True, slots=True)
class Side:
    """One measured run of one program."""

    who: str
    cores: float
    tags_per_s: float
    tags_per_cpu_s: float
    missed: int | None
    """Cycles of which nothing arrived."""
    doubled: int | None
    behind_s: float | None
    memory: Memory
    devices_cores: float
    others_cores: float
    lateness_p99_ms: float | None = None
    own_missed: int | None = None
    """What the edge itself counted."""

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def steady(devices: Devices, program: Program) -> None:
    """Waits until every device is asked once a second, then SETTLE_S more. Says so where that never came."""
    give_up = time.monotonic() + STEADY_WITHIN_S
    due, good = devices.fleet.devices * STEADY, 0
    before = devices.requests()
    while time.monotonic() < give_up and good < 2:
        if program.process.poll() is not None:
            raise RuntimeError(f"ended while it started: {program.said()}")
        time.sleep(1.0)
        now = devices.requests()
        good = good + 1 if now - before >= due else 0
        before = now
    if good < 2:
        print(f"  not every device is asked every second, {STEADY_WITHIN_S:g} s after the start", file=sys.stderr)
    time.sleep(SETTLE_S)


def window(program: Program, devices: Devices, seconds: int) -> Window:
    """Measures `seconds` from the next half of a second on: Telegraf reads all at once when a second begins."""
    begin_s = math.ceil(time.time() + 0.2) + 0.5
    sleep_until(begin_s)
    before = program.cpu_s(), devices.program.cpu_s(), machine_busy_s(), devices.requests(), time.monotonic()
    sleep_until(begin_s + seconds)
    after = program.cpu_s(), devices.program.cpu_s(), machine_busy_s(), devices.requests(), time.monotonic()
    used, served, busy, requests, elapsed = (b - a for a, b in zip(before, after, strict=True))
    begin_us = round(begin_s * 1_000_000)
    return Window(
        begin_us,
        begin_us + seconds * 1_000_000,
        elapsed,
        used,
        served,
        busy - used - served,
        int(requests),
        program.memory(),
    )


def side(who: str, seen: Window, fleet: Fleet, arrivals: Arrivals | None, **more: Any) -> Side:
    """The figures of a window: of what arrived, or of what was asked where nothing was to arrive."""
    if arrivals is None:
        tags, missed, doubled, behind_s = seen.requests * fleet.points, None, None, None
    else:
        tags = arrivals.tags_in(seen.begin_us, seen.end_us)
        missed = arrivals.missed_in(seen.begin_us, seen.end_us, fleet.devices)
        doubled = arrivals.doubled
        behind_s = arrivals.behind_s(seen.begin_us, seen.end_us)
    return Side(
        who,
        seen.cpu_s / seen.seconds,
        tags / seen.seconds,
        tags / seen.cpu_s,
        missed,
        doubled,
        behind_s,
        seen.memory,
        seen.devices_cpu_s / seen.seconds,
        seen.others_cpu_s / seen.seconds,
        **more,
    )


@dataclass(frozen=True, slots=True)
class Bench:
    """What all runs of a row share. `kafka` is host:port."""

    fleet: Fleet
    seconds: int
    kafka: str = ""
    telegraf: Path | None = None
    spread: bool = False
    """Telegraf, too, reads its devices spread over the second, as the edge does."""

    def vigil(self) -> Side:
        """`vigil edge`, into Kafka."""
        with tempfile.TemporaryDirectory(prefix="vigil-bench-") as name:
            folder = Path(name)
            devices = Devices(self.fleet, folder)
            edge = Edge(folder, write_plant(self.fleet, devices.port, folder), f"kafka://{self.kafka}")
            start = end_offset(self.kafka, TELEMETRY)
            with devices.program, edge.start() as program:
                steady(devices, program)
                before = edge.metrics()
                seen = window(program, devices, self.seconds)
                after = edge.metrics()
                time.sleep(AFTER_S)
        arrivals = count(self.kafka, TELEMETRY, start, vigil_record)
        late_s = quantile_s(before, after, "vigil_edge_cycle_lateness_seconds", 0.99)
        own = int(after["vigil_edge_cycles_missed_total"] - before["vigil_edge_cycles_missed_total"])
        return side("vigil", seen, self.fleet, arrivals, lateness_p99_ms=late_s * 1000, own_missed=own)

    def peer(self) -> Side:
        """Telegraf, into Kafka."""
        topic = f"telegraf-{time.time_ns()}"
        make_topic(self.kafka, topic)
        seen = self._peer(telegraf.kafka(self.kafka, topic))
        return side("telegraf", seen, self.fleet, count(self.kafka, topic, 0, telegraf_record))

    def vigil_read(self) -> Side:
        """The edge's own way from device to values, and no further: benchmarks.edge.read_only."""
        with tempfile.TemporaryDirectory(prefix="vigil-bench-") as name:
            folder = Path(name)
            devices = Devices(self.fleet, folder)
            plant = write_plant(self.fleet, devices.port, folder)
            command = [sys.executable, "-m", "benchmarks.edge.read_only", str(plant), str(folder / "profiles")]
            with devices.program, Program(command, folder / "read.log", piped=True) as program:
                steady(devices, program)
                before = self._pair(devices, program)
                seen = window(program, devices, self.seconds)
                after = self._pair(devices, program)
        found = side("vigil", seen, self.fleet, None)
        expected, decoded = after[0] - before[0], after[1] - before[1]
        if abs(decoded - expected) > 0.02 * expected:
            raise RuntimeError(f"expected {expected} tags decoded, as many as were answered, found {decoded}")
        return found

    def _pair(self, devices: Devices, program: Program) -> tuple[int, int]:
        """(tags answered, tags decoded) so far, with as little as possible of the one on its way to the other."""

        def read() -> tuple[int, int]:
            decoded = int(program.ask())
            return devices.requests() * self.fleet.points, decoded

        return closest(read, time.monotonic() + PAIRS_S)

    def peer_read(self) -> Side:
        """Telegraf, with nowhere to write to."""
        return side("telegraf", self._peer(telegraf.DISCARD), self.fleet, None)

    def _peer(self, output: str) -> Window:
        assert self.telegraf is not None
        with tempfile.TemporaryDirectory(prefix="vigil-bench-") as name:
            folder = Path(name)
            devices = Devices(self.fleet, folder)
            with (
                devices.program,
                telegraf.start(
                    self.telegraf, telegraf.modbus(self.fleet, devices.port, output, spread=self.spread), folder
                ) as program,
            ):
                steady(devices, program)
                seen = window(program, devices, self.seconds)
                time.sleep(AFTER_S)
                return seen


def closest(read: Callable[[], tuple[int, int]], until_s: float) -> tuple[int, int]:
    """Of the pairs that `read` gives until a monotonic time the one whose numbers differ least, at least one is read.

    Answers come a slot (0.25 s) at a time and are decoded 40 ms later: a pair that is read between the two has a whole slot's
    difference, which is more than the 2 % of 12 s that may be missing.
    """
    pairs = [read()]
    while time.monotonic() < until_s:
        time.sleep(PAUSE_S)
        pairs.append(read())
    return min(pairs, key=lambda pair: abs(pair[0] - pair[1]))


def alternate(mine: Callable[[], Side], peers: Callable[[], Side] | None, rounds: int) -> list[Side]:
    """Both sides so many times, one after the other, the first one changing."""
    sides = []
    for turn in range(rounds):
        order = [mine] if peers is None else [mine, peers] if turn % 2 == 0 else [peers, mine]
        for measure in order:
            sides.append(measure())
            print(f"  {told(sides[-1])}", file=sys.stderr, flush=True)
    return sides


def told(one: Side) -> str:
    """A run in one line."""
    words = [f"{one.who:<9} {one.tags_per_s:>9,.0f} tags/s, {one.cores:.3f} cores"]
    words.append(f"{one.tags_per_cpu_s / 1e6:.3f} M tags a CPU second")
    if one.missed is not None:
        words.append(f"{one.missed} cycles missed, {one.doubled} doubled, up to {one.behind_s:.1f} s behind")
    if one.lateness_p99_ms is not None:
        words.append(f"lateness p99 {one.lateness_p99_ms:.0f} ms, {one.own_missed} missed by its own count")
    memory = one.memory
    words.append(f"RSS {memory.rss_mb:.0f}, PSS {memory.pss_mb:.0f}, peak {memory.peak_mb:.0f} MB")
    words.append(f"(devices {one.devices_cores:.2f}, all else {one.others_cores:.2f} cores)")
    return ", ".join(words)
