"""The soak's real parts, each a process of its own, and what faults do to them."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from tests.fixtures.line import Line, ready
from tests.fixtures.mosquitto import Mosquitto
from tests.fixtures.ports import free_port
from tests.fixtures.store import StoreServer
from tests.fixtures.waiting import eventually
from tests.soak.faults import Fault
from tests.soak.layout import BAD_PLANTS, Place, places, plant_text, spares, write_profiles
from vigil.processes import die_with_parent

LOG_BYTES: Final = 6 << 20
"""Small, so that it is full when ingest is away for a minute."""
MOSQUITTO: Final = "autosave_on_changes false\nautosave_interval 0\nmax_inflight_messages 4000\n"
"""As deploy/mosquitto has it. It writes its sessions when it is stopped: written at each message (what the fixture asks
for), they keep it from reading acknowledgements, and it has tens of thousands of messages on their way at a time."""
SPOOL_BYTES: Final = 256 << 20
MARGIN_S: Final = 1.5
"""Before and after a fault: what was asked and answered, and not yet journaled or given up."""
BURST: Final = 200
"""Messages of each MQTT device."""
UP_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Excuse:
    """When, and whose, an answer may be lost: of one device, or of all (name empty)."""

    begin_s: float
    end_s: float
    name: str
    why: str


@dataclass(slots=True, eq=False)
class World:
    """Everything that runs. Times in `excuses` are of the wall clock."""

    folder: Path
    seed: int
    line: Line
    store: StoreServer
    mosquitto: Mosquitto
    found: list[Place]
    fleet: subprocess.Popen[str]
    excuses: list[Excuse] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)
    """Sort of fault → how many were done."""
    died: list[str] = field(default_factory=list)
    """Services that ended by themselves."""
    _without: set[str] = field(default_factory=set)
    _fast: set[str] = field(default_factory=set)
    _plants: int = 0
    _lock: sqlite3.Connection | None = None

    # ---- the parts

    @property
    def spool(self) -> Path:
        """The edge's spool."""
        return self.line.state / "spool-edge-1.sqlite"

    @property
    def edge_pid(self) -> int:
        """Of the edge that runs now."""
        return self.line.processes["edge"].pid

    def tell(self, **command: Any) -> Any:
        """Has the fleet do something; its answer."""
        assert self.fleet.stdin is not None
        assert self.fleet.stdout is not None
        self.fleet.stdin.write(json.dumps(command) + "\n")
        self.fleet.stdin.flush()
        answer = self.fleet.stdout.readline()
        assert answer, f"the fleet is gone: {(self.folder / 'fleet.log').read_text()[-2000:]}"
        return json.loads(answer)

    def look_after(self) -> None:
        """Notes services that ended by themselves, and starts them again."""
        for name, process in list(self.line.processes.items()):
            if process.poll() is not None:
                self.died.append(f"{name} (status {process.returncode}): {self.line.tail(name, 5)}")
                self.line.start(name)

    def write_plant(self, text: str | None = None) -> None:
        """The plant file as it is meant now, or another text."""
        path = self.folder / "plant.yaml"
        if text is None:
            text = plant_text(self.found, without=frozenset(self._without), fast=frozenset(self._fast))
        beside = path.with_suffix(".new")
        beside.write_text(text, encoding="utf-8")
        beside.rename(path)

    def kill_edge(self) -> None:
        """SIGKILL, and up again."""
        now_s = time.time()
        self.line.kill("edge")
        self.line.start("edge")
        self.excuses.append(Excuse(now_s - MARGIN_S, now_s + MARGIN_S, "", "edge-kill"))

    # ---- faults

    def begin(self, fault: Fault, drawn: Any) -> Callable[[], None]:
        """Does what a fault says; what is returned ends it."""
        self.done[fault.kind] = self.done.get(fault.kind, 0) + 1
        now_s = time.time()
        begin: dict[str, Callable[[], Callable[[], None]]] = {
            "power": lambda: self._down(fault.target),
            "gateway-down": lambda: self._down("gateway-1"),
            "line-out": lambda: self._down("serial-1"),
            "mqtt-restart": self._mqtt_restart,
            "burst": self._burst,
            "plant": lambda: self._change_plant(drawn),
            "plant-bad": self._spoil_plant,
            "edge-pause": self._pause,
            "edge-kill": lambda: self._kill(fault.for_s),
            "edge-stop": lambda: self._stop(fault.for_s),
            "ingest-kill": lambda: self._away("ingest"),
            "log-full": lambda: self._away("ingest"),
            "database-kill": self._database,
            "log-locked": self._lock_log,
        }
        end = begin.get(fault.kind, lambda: self._device(fault))()

        def over() -> None:
            end()
            self._excuse(fault, now_s, time.time())

        return over

    def _excuse(self, fault: Fault, begin_s: float, end_s: float) -> None:
        """What may be lost by a fault: what a device says while it is in it, what the edge had not yet journaled."""
        margin_s = MARGIN_S
        names: Sequence[str]
        match fault.kind:
            case "gateway-down":
                names = [place.name for place in self.found if place.kind == "gateway"]
            case "line-out":
                names = [place.name for place in self.found if place.kind == "serial"]
            case "plant":
                names, margin_s = spares(self.found), 6.0
            case "edge-kill" | "edge-stop" | "edge-pause":
                names = [""]
            case "mqtt-restart" | "burst" | "plant-bad" | "ingest-kill" | "database-kill" | "log-locked" | "log-full":
                return
            case _:
                names = [fault.target]
        self.excuses += [Excuse(begin_s - margin_s, end_s + margin_s, name, fault.kind) for name in names]

    def _device(self, fault: Fault) -> Callable[[], None]:
        self.tell(do="fault", name=fault.target, kind=fault.kind)
        return lambda: self.tell(do="fault", name=fault.target, kind=None)

    def _down(self, name: str) -> Callable[[], None]:
        self.tell(do="down", name=name)
        return lambda: self.tell(do="up", name=name)

    def _mqtt_restart(self) -> Callable[[], None]:
        self.mosquitto.stop()
        return lambda: void(self.mosquitto.start())

    def _burst(self) -> Callable[[], None]:
        self.tell(do="burst", messages=BURST)
        return nothing

    def _change_plant(self, drawn: Any) -> Callable[[], None]:
        names = spares(self.found)
        self._without, self._fast = set(drawn.sample(names, 2)), set(drawn.sample(names, 3))
        self.write_plant()
        return self._mend_plant

    def _mend_plant(self) -> None:
        self._without, self._fast = set(), set()
        self.write_plant()

    def _spoil_plant(self) -> Callable[[], None]:
        self._plants += 1
        self.write_plant(BAD_PLANTS[self._plants % len(BAD_PLANTS)])
        return self.write_plant

    def _pause(self) -> Callable[[], None]:
        process = self.line.processes["edge"]
        process.send_signal(signal.SIGSTOP)
        return lambda: process.send_signal(signal.SIGCONT)

    def _kill(self, for_s: float) -> Callable[[], None]:
        self.line.kill("edge")
        return lambda: self._again("edge")

    def _stop(self, for_s: float) -> Callable[[], None]:
        process = self.line.processes.pop("edge")
        process.send_signal(signal.SIGTERM)
        status = process.wait(20)
        if status != 0:
            self.died.append(f"edge stopped with status {status}: {self.line.tail('edge', 5)}")
        return lambda: self._again("edge")

    def _away(self, name: str) -> Callable[[], None]:
        self.line.kill(name)
        return lambda: self._again(name)

    def _again(self, name: str) -> None:
        if name == "edge":  # one that starts reads no spoiled plant file: that is refused, and tested elsewhere
            self.write_plant()
        self.line.start(name)

    def _database(self) -> Callable[[], None]:
        self.store.kill()
        return self.store.start

    def _lock_log(self) -> Callable[[], None]:
        """Another process holds the topic's file: the edge cannot append."""
        file = next((self.line.state / "log").glob("vigil.telemetry*.sqlite"))
        self._lock = sqlite3.connect(file, isolation_level=None, timeout=10)
        self._lock.execute("BEGIN IMMEDIATE")

        def over() -> None:
            assert self._lock is not None
            self._lock.execute("ROLLBACK")
            self._lock.close()
            self._lock = None

        return over


def nothing() -> None:
    """Over by itself."""


def void(_: object) -> None:
    """For what returns something."""


@contextmanager
def world(folder: Path, seed: int) -> Iterator[World]:
    """Everything up and ready; ended at the end whatever happens."""
    folder.mkdir(parents=True, exist_ok=True)
    write_profiles(folder / "profiles")
    store, mosquitto = StoreServer("plain"), Mosquitto(folder / "mosquitto", MOSQUITTO).start()
    modbus_port = free_port()
    found = places(modbus_port=modbus_port, mqtt_port=mosquitto.port, line=folder / "line")
    extra = {
        "VIGIL_PROFILES_DIR": str(folder / "profiles"),
        "VIGIL_LOG_MAX_BYTES": str(LOG_BYTES),
        "VIGIL_SPOOL_MAX_BYTES": str(SPOOL_BYTES),
    }
    line = Line(state=folder / "state", plant=folder / "plant.yaml", log="embedded:", store=store.url, extra=extra)
    fleet = _start_fleet(folder, modbus_port, mosquitto.port, seed)
    made = World(folder, seed, line, store, mosquitto, found, fleet)
    made.write_plant()
    try:
        assert fleet.stdout is not None
        assert fleet.stdout.readline() == "true\n", (folder / "fleet.log").read_text()[-2000:]
        store.start()
        line.start("ingest", "edge")
        eventually(lambda: ready(line.ports["ingest"]) and ready(line.ports["edge"]), UP_S, lambda: line.tail("ingest"))
        eventually(lambda: _connected_to(line.processes["edge"].pid, mosquitto.port), UP_S, lambda: line.tail("edge"))
        time.sleep(2)  # for the subscriptions: nothing tells of them
        made.tell(do="publish")  # now there is a session that keeps what is published
        yield made
    finally:
        line.stop()
        with closing(fleet.stdin or sys.stdin):
            pass
        try:
            fleet.wait(10)
        except subprocess.TimeoutExpired:
            fleet.kill()
        mosquitto.kill()
        store.remove()


def _connected_to(pid: int, port: int) -> bool:
    """Whether a process has a connection to a port."""
    return any(c.raddr and c.raddr.port == port for c in psutil.Process(pid).net_connections("tcp"))


def _start_fleet(folder: Path, modbus_port: int, mqtt_port: int, seed: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.soak.fleet", str(folder), str(modbus_port), str(mqtt_port), str(seed)]
    with (folder / "fleet.log").open("a") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=out,
            text=True,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
