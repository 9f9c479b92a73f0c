"""A run from its start to its verdict."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import psycopg

from tests.chaos.faults import Fault, Pace, counts, draw
from tests.chaos.traced import Found, trace
from tests.chaos.world import World
from tests.fixtures.line import ready
from tests.fixtures.waiting import eventually
from tests.soak.verdict import Verdict

TURN_S: Final = 0.05
LOOK_S: Final = 0.25
LONGEST: Final = 5
STOOD_S: Final = 2.0
"""Nothing committed for so long: the line stood."""
DRAIN_S: Final = 300.0
"""After the last fault: time-outs of dead connections (60 s), back-fill, and a hole that turns to loss (60 s)."""
BACKLOG: Final = "vigil_edge_spool_backlog_records"
SAID: Final = ("assigned", "waiting", "began again from the database", "terminated a frozen session")
"""Events in the services' logs."""
_AGAIN: Final = """
SELECT (SELECT sum(next) FROM store.log_position WHERE service = 'ingest' AND topic = 'vigil.telemetry')
     - (SELECT sum(upper(r) - lower(r)) FROM store.progress p, unnest(p.accepted) r WHERE p.service = 'ingest')
"""


@dataclass(slots=True, eq=False)
class Progress:
    """How many samples the store holds over time, by ingest's own books: only to say when the line stood."""

    url: str
    at_s: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Looks until told to stop."""
        while not self._over.wait(LOOK_S):
            try:
                with psycopg.connect(self.url, connect_timeout=2, autocommit=True) as connection:
                    while not self._over.is_set():
                        self._look(connection)
                        self._over.wait(LOOK_S)
            except psycopg.OperationalError:
                continue

    def _look(self, connection: psycopg.Connection) -> None:
        row = connection.execute(
            "SELECT coalesce(sum(samples), 0)::bigint FROM store.progress WHERE service = 'ingest'"
        ).fetchone()
        assert row is not None
        self.at_s.append(time.monotonic())
        self.samples.append(row[0])

    def stop(self) -> None:
        """The last look."""
        self._over.set()

    def stood(self) -> list[tuple[float, float]]:
        """(seconds, from when on) of each time longer than STOOD_S between one commit of samples and the next."""
        at_s, samples = np.array(self.at_s), np.array(self.samples)
        moved = at_s[1:][np.diff(samples) > 0]
        gaps = np.diff(moved)
        return [(float(gaps[at]), float(moved[at])) for at in np.flatnonzero(gaps > STOOD_S)]


def chaos(made: World, *, seed: int, kills: int, pace: Pace, samples: int) -> Verdict:
    """So many faults over at least so many samples; then all drains, and is judged."""
    verdict, progress = Verdict(), Progress(made.server.url)
    faults = draw(seed, kills, sorted(made.parts), pace)
    (made.folder / "faults.json").write_text(json.dumps([asdict(fault) for fault in faults]), encoding="utf-8")
    watching = threading.Thread(target=progress.watch, name="progress", daemon=True)
    watching.start()
    began_s = time.monotonic()
    try:
        _suffer(made, faults, began_s)
        lasted_s = time.monotonic() - began_s
        _until_enough(made, progress, samples)
        drained_s = _drain(made, verdict)
    finally:
        progress.stop()
        watching.join(10)
    verdict.say("drained after the last fault", f"in {drained_s:.0f} s")
    _say(verdict, made, faults, progress, began_s=began_s, lasted_s=lasted_s)
    judge(verdict, made, at_least=samples)
    return verdict


def _suffer(made: World, faults: Sequence[Fault], began_s: float) -> None:
    """All faults: those of one target one after another on its own thread. Raises what any of them raised."""
    failed = threading.Event()

    def one(target: str) -> None:
        part = made.parts[target]
        for fault in [fault for fault in faults if fault.target == target]:
            while time.monotonic() < began_s + fault.at_s:
                part.look_after()
                if failed.wait(TURN_S):
                    return
            print(f"{time.monotonic() - began_s:8.2f} s, due {fault}", file=sys.stderr, flush=True)
            end = part.begin(fault)
            failed.wait(fault.for_s)
            end()

    running = [made.on(target, lambda target=target: one(target)) for target in made.parts]  # type: ignore[misc]
    wait(running, return_when=FIRST_EXCEPTION)
    failed.set()
    for future in running:
        future.result()


def _look_after(made: World) -> None:
    for target, part in made.parts.items():
        made.on(target, part.look_after).result(DRAIN_S)


def _until_enough(made: World, progress: Progress, samples: int) -> None:
    """The line works on, until it has stored so many."""
    while not progress.samples or progress.samples[-1] < samples:
        _look_after(made)
        time.sleep(LOOK_S)


def _drain(made: World, verdict: Verdict) -> float:
    """Everything goes to the table: seconds until it was there, the edges having been told to stop."""
    began_s = time.monotonic()

    def calm() -> bool:
        _look_after(made)
        return made.ready() and all(edge.metric(BACKLOG) == 0 for edge in made.edges)

    eventually(calm, DRAIN_S, made.everything)
    for edge in made.edges:
        now_s = time.time()
        status = edge.stop()
        edge.hurt.append((now_s, time.time() + 1e6, "stopped"))
        verdict.say(f"status of {edge.name}", status, holds=status == 0)
    eventually(lambda: any(ready(worker.port) for worker in made.workers), DRAIN_S, made.everything)
    deadline = time.monotonic() + DRAIN_S
    while not _settled(made.audit()) and time.monotonic() < deadline:
        time.sleep(1)
    return time.monotonic() - began_s


def _settled(report: dict[str, Any]) -> bool:
    """Nothing is under way any more, and the ledger covers everything."""
    return not report["in_flight"] and all(line["checksum"] != "pending" for line in report["equipment"])


def _say(
    verdict: Verdict, made: World, faults: Sequence[Fault], progress: Progress, *, began_s: float, lasted_s: float
) -> None:
    stood = sorted(progress.stood(), reverse=True)
    links = made.relay.links.values()
    verdict.say("faults", f"{len(faults)} in {lasted_s:.0f} s: {_listed(counts(faults))}")
    verdict.say(
        "connections through the links",
        f"{sum(link.resets for link in links)} reset, {sum(link.hushed for link in links)} left half-open, "
        f"{sum(link.carried for link in links) / 1e6:.0f} MB carried",
    )
    verdict.say(
        f"the line stood (no commit for {STOOD_S:g} s)",
        f"{sum(gap for gap, _ in stood):.0f} s in {len(stood)} times",
    )
    for gap_s, from_s in stood[:LONGEST]:
        during = [fault for fault in faults if from_s - 1 <= began_s + fault.at_s <= from_s + gap_s]
        what = ", ".join(f"{fault.kind} {fault.target}" for fault in during)
        verdict.say(f"  {gap_s:.1f} s from {from_s - began_s:.0f} s on", what or "none began in it")
    verdict.say("what the services did", _listed(made.said(SAID)))
    verdict.say("records that the log holds more than once", _again(made.server.url))
    verdict.say("services that ended by themselves", made.died or "none", holds=not made.died)


def _again(url: str) -> int:
    """Records that were sent again although the log had them: what only the sets keep from the table."""
    with psycopg.connect(url) as connection:
        row = connection.execute(_AGAIN).fetchone()
    assert row is not None
    return int(row[0])


def judge(verdict: Verdict, made: World, *, at_least: int) -> tuple[dict[str, Any], Found]:
    """The audit's word, and that of the source."""
    report, told = made.audit(), made.vigil("audit")
    verdict.say("vigil audit", told.stdout.strip())
    verdict.say("status of vigil audit", told.returncode, holds=told.returncode == 0)
    verdict.audit(report)
    verdict.say("samples journaled, at least", at_least, holds=report["journaled"] >= at_least)
    pending = sum(line["checksum"] != "same" for line in report["equipment"])
    verdict.say("cells of the ledger", f"{len(report['equipment'])}, other checksum {pending}", holds=pending == 0)
    verdict.say("epochs of edges", len(report["edges"]))
    found = trace(made.server.url, made.fleet, made.report(), made.excuses)
    verdict.say("rows of the table", found.rows, holds=found.rows == report["stored"])
    verdict.say("rows of a signal and time twice", found.twice, holds=found.twice == 0)
    verdict.say("reads that are not whole", found.torn[:10] or 0, holds=not found.torn)
    verdict.traced("reads", found.reads)
    return report, found


def _listed(found: dict[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in found.items())
