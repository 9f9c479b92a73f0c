"""The line under test, all of it real: devices → edges → Kafka → two workers of ingest → TimescaleDB, links between them.

Without a native TimescaleDB or Kafka, and as a variant of its own: the embedded log and the embedded PostgreSQL.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit

from tests.chaos.layout import Fleet, edge_name, plant_text, write_profile
from tests.chaos.parts import Broker, Database, Part, Service, Way
from tests.chaos.relay import Relay, Upstream
from tests.fixtures.kafka import KafkaBroker, kafka_jars
from tests.fixtures.line import ready
from tests.fixtures.ports import free_port
from tests.fixtures.store import StoreServer
from tests.fixtures.waiting import eventually
from tests.soak.world import Excuse
from vigil.processes import die_with_parent

T = TypeVar("T")

Variant = Literal["production", "embedded"]
WORKERS: Final = 2
PARTITIONS: Final = 6
UP_S: Final = 90.0
MARGIN_S: Final = 1.5
"""Around what an edge suffers: what was asked and answered, and not yet journaled or given up."""
AUDIT_S: Final = 300.0
SOCKET: Final = ".s.PGSQL.5432"


@dataclass(slots=True, eq=False)
class World:
    """Everything that runs."""

    folder: Path
    fleet: Fleet
    variant: Variant
    relay: Relay
    server: StoreServer
    kafka: KafkaBroker | None
    source: subprocess.Popen[str]
    services: dict[str, Service] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)
    """By target."""
    _threads: dict[str, ThreadPoolExecutor] = field(default_factory=dict)

    @property
    def edges(self) -> list[Service]:
        """The edges."""
        return [service for service in self.services.values() if service.command == "edge"]

    @property
    def workers(self) -> list[Service]:
        """The workers of ingest."""
        return [service for service in self.services.values() if service.command == "ingest"]

    @property
    def died(self) -> list[str]:
        """Services that ended by themselves."""
        return [died for service in self.services.values() for died in service.died]

    @property
    def excuses(self) -> list[Excuse]:
        """When an edge's answers may be lost: before it journaled them. The name is the edge's."""
        return [
            Excuse(begin_s - MARGIN_S, end_s + MARGIN_S, edge.name, why)
            for edge in self.edges
            for begin_s, end_s, why in edge.hurt
        ]

    def on(self, target: str, work: Callable[[], T]) -> Future[T]:
        """Runs something on the target's own thread, which lasts: what it starts dies with that thread."""
        if target not in self._threads:
            self._threads[target] = ThreadPoolExecutor(1, f"chaos {target}")
        return self._threads[target].submit(work)

    def ready(self) -> bool:
        """Whether every service has all it needs."""
        return all(ready(service.port) for service in self.services.values())

    def report(self) -> Path:
        """What the devices have said so far, as a file."""
        file = self.folder / "said.npz"
        assert self.source.stdin is not None
        assert self.source.stdout is not None
        self.source.stdin.write(f"{file}\n")
        self.source.stdin.flush()
        assert self.source.stdout.readline() == "done\n", "the source is gone"
        return file

    def vigil(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the command line, past the links."""
        return subprocess.run(
            [sys.executable, "-m", "vigil", *arguments],
            env={**os.environ, **self.workers[0].environment, "VIGIL_STORE": self.server.url},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=AUDIT_S,
            check=False,
        )

    def audit(self) -> dict[str, Any]:
        """What `vigil audit --json` says."""
        told = self.vigil("audit", "--json")
        assert told.stdout, told.stderr
        report: dict[str, Any] = json.loads(told.stdout)
        return report

    def said(self, events: Sequence[str]) -> dict[str, int]:
        """How often each event is in the services' logs."""
        texts = [service.log.read_text(errors="replace") for service in self.services.values()]
        return {event: sum(text.count(f'"event": "{event}"') for text in texts) for event in events}

    def everything(self) -> str:
        """Last words of all."""
        return "\n".join(f"--- {name}\n{service.tail()}" for name, service in self.services.items())

    def close(self) -> None:
        """Ends every process and thread."""
        for service in self.services.values():
            service.kill()
        if self.kafka is not None:
            self.kafka.stop()
        self.server.remove()
        for thread in self._threads.values():
            thread.shutdown(wait=True)


@contextmanager
def world(folder: Path, variant: Variant, fleet: Fleet) -> Iterator[World]:
    """Everything up and ready; ended at the end whatever happens."""
    folder.mkdir(parents=True, exist_ok=True)
    write_profile(folder / "profiles")
    with ExitStack() as stack:
        relay = stack.enter_context(Relay())
        source = stack.enter_context(_source(folder, fleet))
        server = StoreServer("timescale" if variant == "production" else "plain")
        kafka = KafkaBroker(folder / "kafka", kafka_jars()) if variant == "production" else None
        made = World(folder, fleet, variant, relay, server, kafka, source)
        stack.callback(made.close)
        _build(made)
        yield made


def _build(made: World) -> None:
    assert made.source.stdout is not None
    port = int(made.source.stdout.readline())
    (made.folder / "state").mkdir(exist_ok=True)
    logs = {name: _log(made, name) for name in (*_edges(made.fleet), *_workers())}
    database = Database(made.server)
    made.parts["database"] = database
    starting = [made.on("database", database.start)]
    if made.kafka is not None:
        made.parts["broker"] = Broker(made.kafka)
        starting.append(made.on("broker", made.kafka.start))
    for future in starting:
        future.result(UP_S)
    for edge, name in enumerate(_edges(made.fleet)):
        plant = made.folder / f"{name}.yaml"
        plant.write_text(plant_text(made.fleet, edge, port), encoding="utf-8")
        _serve(made, "edge", name, {"VIGIL_LOG": logs[name], "VIGIL_PLANT": str(plant), "VIGIL_EDGE": name})
    for name in _workers():
        store = _link(made, f"{name}-store", _socket(made.server.url))
        url = f"postgresql://postgres@127.0.0.1:{store}/postgres"
        _serve(made, "ingest", name, {"VIGIL_LOG": logs[name], "VIGIL_STORE": url})
    eventually(made.ready, UP_S, made.everything)


def _edges(fleet: Fleet) -> list[str]:
    return [edge_name(edge) for edge in range(fleet.edges)]


def _workers() -> list[str]:
    return [f"ingest-{worker + 1}" for worker in range(WORKERS)]


def _log(made: World, name: str) -> str:
    """VIGIL_LOG of one service: on Kafka through a link of its own."""
    if made.kafka is None:
        return "embedded:"
    port = free_port()
    inner = made.kafka.listen_behind(f"VIA_{name.upper().replace('-', '_')}", port)
    _link(made, f"{name}-log", inner, port=port)
    return f"kafka://127.0.0.1:{port}"


def _link(made: World, name: str, upstream: Upstream, *, port: int = 0) -> int:
    link = made.relay.add(name, upstream, port=port)
    made.parts[f"link:{name}"] = Way(made.relay, link)
    return link.port


def _socket(url: str) -> Path:
    """The server's unix socket, from its URL."""
    return Path(parse_qs(urlsplit(url).query)["host"][0]) / SOCKET


def _serve(made: World, command: str, name: str, environment: dict[str, str]) -> None:
    port = free_port()
    settings = {
        "VIGIL_STATE_DIR": str(made.folder / "state"),
        "VIGIL_PROFILES_DIR": str(made.folder / "profiles"),
        "VIGIL_LOG_PARTITIONS": str(PARTITIONS),
        "VIGIL_LANG": "en",
        f"VIGIL_{command.upper()}_LISTEN": f"127.0.0.1:{port}",
    }
    service = Service(command, name, {**settings, **environment}, made.folder, port)
    made.services[name] = service
    made.parts[f"{command}:{name}"] = service
    made.on(f"{command}:{name}", service.start).result(UP_S)


@contextmanager
def _source(folder: Path, fleet: Fleet) -> Iterator[subprocess.Popen[str]]:
    command: Sequence[str] = [sys.executable, "-m", "tests.chaos.source", str(fleet.edges), str(fleet.units)]
    with (folder / "source.log").open("a") as out:
        source = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=out,
            text=True,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
    try:
        yield source
    finally:
        source.kill()
        source.communicate(timeout=10)
