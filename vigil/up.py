"""`vigil up`: the whole line on one machine, every service a process of its own.

Invariants: one supervisor a state directory (a lock that dies with its holder); nothing runs on after it; a second
start continues with the data of the first.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import structlog

from telemetry.errors import ConfigError, Fault, StateLocked, VigilError
from telemetry.files import load_plant
from telemetry.local import free_port, is_free, write_whole
from telemetry.plant import Plant
from telemetry.service import wait_until
from telemetry.settings import Settings, is_loopback, split_listen
from telemetry.store import URL_FILE
from vigil.embedded.postgres import EmbeddedPostgres
from vigil.processes import Child, Keeper

log = structlog.get_logger()

SERVICES: Final = ("ingest", "analyze", "alert", "console", "edge")
"""In the order of stopping: reversed, so that what was read is still carried through."""
READY_WITHIN_S: Final = 60.0
PLANT_WITHIN_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of one installation, kept over restarts."""

    console: int
    edge: int
    ingest: int
    analyze: int
    alert: int
    broker: int


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Holds the state directory. Raises StateLocked with the holder's process id."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StateLocked(
                f"{state}: in use by process {file.read().strip() or '?'}; stop it, or give --state another directory"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def run_up(settings: Settings, data: Path | None) -> int:
    """Runs the line until SIGINT or SIGTERM. Returns the exit status."""
    plant = load_plant(settings.plant, profiles_dir=settings.profiles_dir) if settings.plant else None
    with locked(settings.state_dir):
        return asyncio.run(_Line(settings, plant, data).run())


class _Line:
    """The processes of one line and the order of their coming and going."""

    def __init__(self, settings: Settings, plant: Plant | None, data: Path | None) -> None:
        self._settings = settings
        self._state = settings.state_dir.resolve()
        self._plant = plant
        self._data = data
        self._ports = choose_ports(self._state, split_listen(settings.listen)[1])
        self._keepers: list[Keeper] = []
        self._stop = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        async with asyncio.TaskGroup() as group:
            try:
                await self._start(group)
                await self._announce()
                await self._stop.wait()
            finally:
                say("stopping")
                await self._end()
        say("stopped")
        return 0

    async def _start(self, group: asyncio.TaskGroup) -> None:
        if self._settings.store == "embedded:":
            await self._postgres(group)
        if self._plant is None or self._settings.plant is None:
            plant_file = await self._demonstration(group)
        else:
            plant_file = self._settings.plant
            for port in await asyncio.to_thread(missing_brokers, self._plant):
                self._keep(
                    group, python_child(f"broker-{port}", "vigil.embedded.broker", "--listen", f"127.0.0.1:{port}")
                )
        environment = self._environment(plant_file)
        for name in SERVICES:
            self._keep(group, python_child(name, "vigil", name, environment=environment))

    async def _postgres(self, group: asyncio.TaskGroup) -> None:
        say("preparing the embedded PostgreSQL")
        postgres = EmbeddedPostgres(self._state / "pg")
        await asyncio.to_thread(postgres.prepare)
        write_whole(self._state / URL_FILE, postgres.url)
        self._keep(
            group,
            Child(
                "postgres",
                postgres.command(),
                popen=postgres.popen(),
                stop_signal=signal.SIGINT,
                death_signal=signal.SIGQUIT,
                stop_within_s=5.0,
            ),
        )

    async def _demonstration(self, group: asyncio.TaskGroup) -> Path:
        say("starting the demonstration plant")
        broker = f"127.0.0.1:{self._ports.broker}"
        self._keep(group, python_child("broker", "vigil.embedded.broker", "--listen", broker))
        plant_file = self._state / "demo-plant.yaml"
        plant_file.unlink(missing_ok=True)
        extra = ("--data", str(self._data)) if self._data else ()
        self._keep(
            group, python_child("demo", "simulators.demo", "--state", str(self._state), "--broker", broker, *extra)
        )
        deadline = asyncio.get_running_loop().time() + PLANT_WITHIN_S
        while not plant_file.exists():
            if asyncio.get_running_loop().time() > deadline:
                raise VigilError(
                    f"the demonstration plant did not start within {PLANT_WITHIN_S:.0f} s: "
                    f"see {self._state / 'logs' / 'demo.log'}"
                )
            if await wait_until(self._stop, 0.1):
                break
        return plant_file

    def _environment(self, plant_file: Path) -> dict[str, str]:
        settings, ports = self._settings, self._ports
        host, _ = split_listen(settings.listen)
        return {
            **{
                f"VIGIL_{name.upper()}": str(value)
                for name, value in settings.model_dump(
                    include={"log", "store", "lang", "clock", "edge", "log_level"}
                ).items()
            },
            **({"VIGIL_PROFILES_DIR": str(settings.profiles_dir.resolve())} if settings.profiles_dir else {}),
            "VIGIL_STATE_DIR": str(self._state),
            "VIGIL_PLANT": str(plant_file.resolve()),
            "VIGIL_LISTEN": f"{host}:{ports.console}",
            "VIGIL_EDGE_LISTEN": f"127.0.0.1:{ports.edge}",
            "VIGIL_INGEST_LISTEN": f"127.0.0.1:{ports.ingest}",
            "VIGIL_ANALYZE_LISTEN": f"127.0.0.1:{ports.analyze}",
            "VIGIL_ALERT_LISTEN": f"127.0.0.1:{ports.alert}",
        }

    async def _announce(self) -> None:
        url = f"http://127.0.0.1:{self._ports.console}"
        waited = ""
        async with httpx.AsyncClient(timeout=1.0) as client:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + READY_WITHIN_S
            while not self._stop.is_set() and loop.time() < deadline:
                try:
                    answer = await client.get(f"{url}/healthz")
                    if answer.status_code == httpx.codes.OK:
                        say(f"Vigil is at {url}   (Ctrl-C stops it; data and logs are in {self._state})")
                        return
                    why = answer.text
                except httpx.HTTPError:
                    why = "the console starts"
                if why != waited:
                    waited = why
                    say(f"waiting: {why}")
                await wait_until(self._stop, 0.25)
        if not self._stop.is_set():
            say(f"the console is not ready after {READY_WITHIN_S:.0f} s: see {self._state / 'logs'}")

    async def _end(self) -> None:
        """Services first, all at once; what they stand on after them."""
        by_name = {keeper.child.name: keeper for keeper in self._keepers}
        services = [by_name.pop(name) for name in SERVICES if name in by_name]
        postgres = by_name.pop("postgres", None)
        await asyncio.gather(*(keeper.stop() for keeper in [*services, *by_name.values()]))
        if postgres is not None:
            await postgres.stop()

    def _keep(self, group: asyncio.TaskGroup, child: Child) -> None:
        keeper = Keeper(child, self._state / "logs")
        self._keepers.append(keeper)
        group.create_task(keeper.run(), name=child.name)


def python_child(name: str, module: str, *arguments: str, environment: dict[str, str] | None = None) -> Child:
    """A child that runs one of our own modules."""
    return Child(name, (sys.executable, "-m", module, *arguments), environment or {})


def choose_ports(state: Path, console: int) -> Ports:
    """The console's port as told, the others next to it where they are free; what was chosen once is kept while it is.

    Raises ConfigError when the console's port is taken.
    """
    if not is_free(console):
        raise ConfigError([Fault("settings", 0, "VIGIL_LISTEN (--port)", "a free port", f"{console}, in use")])
    path = state / "ports.json"
    kept: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    chosen = {"console": console}
    for distance, name in enumerate(("edge", "ingest", "analyze", "alert", "broker"), start=1):
        wanted = kept.get(name, console + distance)
        chosen[name] = wanted if wanted not in chosen.values() and is_free(wanted) else free_port()
    write_whole(path, json.dumps(chosen))
    return Ports(**chosen)


def missing_brokers(plant: Plant) -> list[int]:
    """Loopback ports that the plant's MQTT addresses name and where nothing listens: an embedded broker is needed there."""
    wanted = {e.address.port for e in plant.equipment if e.address.scheme == "mqtt" and is_loopback(e.address.host)}
    return sorted(port for port in wanted if is_free(port))


def say(text: str) -> None:
    """A line of progress, for people."""
    print(f"vigil: {text}", file=sys.stderr, flush=True)
