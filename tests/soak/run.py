"""A soak from its start to its verdict."""

from __future__ import annotations

import heapq
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.fixtures.line import ready
from tests.fixtures.waiting import eventually
from tests.soak.faults import Fault, Run, draw
from tests.soak.gauges import Gauge, as_json, look
from tests.soak.layout import SILENT_UNITS
from tests.soak.stored import all_well, trace
from tests.soak.verdict import Verdict
from tests.soak.world import World, world

LOOK_S: Final = 5.0
TURN_S: Final = 0.05
SETTLE_S: Final = 150.0
"""After the last fault: breakers probe every 30 s, refused points are asked again every 60 s."""
FILL: Final = 1700
"""Messages of each MQTT device at once, at the start: what the edge remembers of messages is bounded by their number
(65,536 keys), and is filled before memory is measured."""


@dataclass(slots=True, eq=False)
class Soak:
    """A run under way."""

    world: World
    drawn: random.Random
    gauges: list[Gauge] = field(default_factory=list)
    _look_s: float = 0.0

    def part(self, faults: Sequence[Fault], began_s: float, until_s: float) -> None:
        """Does the faults at their times (of the run), until so long after it began; then all are over."""
        due: list[tuple[float, int, Callable[[], None]]] = []
        order = itertools.count()
        for fault in faults:
            heapq.heappush(due, (fault.at_s, next(order), lambda fault=fault: self._begin(fault, due, order, began_s)))  # type: ignore[misc]
        while (now_s := time.monotonic() - began_s) < until_s or due:
            if due and due[0][0] <= now_s:
                heapq.heappop(due)[2]()
            self.turn()

    def _begin(self, fault: Fault, due: list[Any], order: Any, began_s: float) -> None:
        print(
            f"{fault.at_s:8.2f} s  {fault.kind:15} {fault.target:12} {fault.for_s:.1f} s", file=sys.stderr, flush=True
        )
        end = self.world.begin(fault, self.drawn)
        heapq.heappush(due, (max(fault.at_s + fault.for_s, time.monotonic() - began_s), next(order), end))

    def turn(self) -> Gauge | None:
        """Looks at the edge when it is time; a short rest."""
        busy = {"edge", "ingest"} - set(self.world.line.processes)
        if not busy:
            self.world.look_after()
        if time.monotonic() >= self._look_s:
            self._look_s = time.monotonic() + LOOK_S
            self.look()
        time.sleep(TURN_S)
        return None

    def look(self) -> Gauge | None:
        """One look, kept."""
        process = self.world.line.processes.get("edge")
        found = look(process.pid, self.world.line.ports["edge"], self.world.spool) if process is not None else None
        if found is not None:
            self.gauges.append(found)
        return found

    def settle(self, within_s: float) -> bool:
        """Until every device that can answer is read again, and everything is in the table."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            self.turn()
            gauge = self.look()
            well = gauge is not None and gauge.unreachable == len(SILENT_UNITS)
            if well and all_well(self.world.store.url, self.world.found, len(SILENT_UNITS)):
                return True
            self.rest(2.0)
        return False

    def rest(self, seconds: float) -> None:
        """Time passes."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self.turn()


def soak(folder: Path, seed: int, minutes: float, *, fill: int = FILL) -> Verdict:
    """Runs it all; takes some minutes more than `minutes`."""
    verdict = Verdict()
    with world(folder, seed) as made:
        run, soaking = draw(seed, minutes, made.found), Soak(made, random.Random(seed))
        _settled(verdict, "settled at the start", soaking.settle(SETTLE_S))
        made.tell(do="burst", messages=fill)
        began_s = time.monotonic()
        before, after = _measured(verdict, soaking, run, began_s)
        life = [gauge for gauge in soaking.gauges if gauge.pid == after.pid and gauge.at_s >= before.at_s]
        verdict.memory(life)
        verdict.leaks(before, after, life)
        made.kill_edge()
        _settled(verdict, "settled after a last kill", soaking.settle(SETTLE_S))
        _end(verdict, soaking, folder)
    excuses = [asdict(excuse) for excuse in made.excuses]
    (folder / "excuses.json").write_text(json.dumps(excuses), encoding="utf-8")
    (folder / "gauges.json").write_text(json.dumps(as_json(soaking.gauges)), encoding="utf-8")
    return verdict


def _measured(verdict: Verdict, soaking: Soak, run: Run, began_s: float) -> tuple[Gauge, Gauge]:
    """Both parts: the edge when all was well, before and after the second."""
    made = soaking.world
    soaking.part(run.first, began_s, run.quiet_s[0])
    made.kill_edge()
    soaking.part((), began_s, run.quiet_s[1])
    _settled(verdict, "settled between the parts", soaking.settle(SETTLE_S))
    before = soaking.look()
    assert before is not None
    soaking.part(run.second, began_s + max(time.monotonic() - began_s - run.quiet_s[1], 0.0), run.end_s)
    _settled(verdict, "settled after all faults", soaking.settle(SETTLE_S))
    after = soaking.look()
    assert after is not None
    verdict.say("one life of the edge", f"{before.pid} to {after.pid}", holds=before.pid == after.pid)
    return before, after


def _settled(verdict: Verdict, what: str, settled: bool) -> None:
    verdict.say(what, settled, holds=settled)


def _end(verdict: Verdict, soaking: Soak, folder: Path) -> None:
    """Stops the devices' history, then the edge; audits."""
    made = soaking.world
    for place in made.found:
        made.tell(do="fault", name=place.name, kind="silent")
    soaking.rest(3.0)
    made.tell(do="report", file=str(folder / "given.npz"))
    made.line.processes["edge"].terminate()
    status = made.line.processes.pop("edge").wait(20)
    verdict.say("status of the edge", status, holds=status == 0)
    eventually(lambda: ready(made.line.ports["ingest"]), 30, lambda: made.line.tail("ingest"))
    deadline = time.monotonic() + 60
    while (report := made.line.audit())["in_flight"] and time.monotonic() < deadline:
        time.sleep(1)
    verdict.audit(report)
    modbus, mqtt, fallen = trace(made, folder / "given.npz")
    verdict.traced("Modbus", modbus)
    verdict.traced("MQTT", mqtt)
    verdict.say("totals that went back", fallen, holds=fallen == 0)
    verdict.say("faults", ", ".join(f"{kind} {count}" for kind, count in sorted(made.done.items())))
    verdict.say("services that ended by themselves", made.died or "none", holds=not made.died)
