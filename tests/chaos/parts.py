"""What can be killed, paused and cut: each part begins a fault and says how it ends. Each is used by one thread.

A service that ends by itself is started again by `look_after`, as the supervisor of the machine would.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import psutil
import psycopg

from tests.chaos.faults import Fault
from tests.chaos.relay import Link, Relay
from tests.fixtures.kafka import KafkaBroker
from tests.fixtures.store import StoreServer, execute
from vigil.processes import die_with_parent

START_WITHIN_S: Final = 90.0
STOP_WITHIN_S: Final = 30.0
End = Callable[[], None]


class Part(Protocol):
    """One target of faults."""

    def begin(self, fault: Fault) -> End:
        """Does what the fault says; what is returned ends it, and returns when the part is started again."""
        ...

    def look_after(self) -> None:
        """Starts again what ended by itself."""
        ...


@dataclass(slots=True, eq=False)
class Service:
    """`vigil NAME` as a process of its own."""

    command: str
    name: str
    environment: Mapping[str, str]
    folder: Path
    port: int
    """Of /healthz and /metrics."""
    process: subprocess.Popen[bytes] | None = None
    died: list[str] = field(default_factory=list)
    hurt: list[tuple[float, float, str]] = field(default_factory=list)
    """When it was killed or stood still, by the wall clock: from, to, what."""

    @property
    def log(self) -> Path:
        """What it said."""
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Starts it; does not wait until it is ready."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vigil", self.command],
                env={**os.environ, **self.environment},
                cwd=self.folder,
                stdout=out,
                stderr=out,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )

    def stop(self) -> int:
        """SIGTERM; its exit status. Raises subprocess.TimeoutExpired."""
        assert self.process is not None
        self.process.terminate()
        status = self.process.wait(STOP_WITHIN_S)
        self.process = None
        return status

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_WITHIN_S)
            self.process = None

    def tail(self, lines: int = 15) -> str:
        """Its last words."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def metric(self, name: str) -> float | None:
        """A series of /metrics; None where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=2) as answer:
                said = re.search(rf"^{name} ([0-9.e+-]+)$", answer.read().decode(), re.MULTILINE)
        except OSError:
            return None
        return float(said[1]) if said else None

    def begin(self, fault: Fault) -> End:
        """See Part."""
        began_s = time.time()
        if fault.kind.endswith("-kill"):
            self.kill()
            self.hurt.append((began_s, time.time(), fault.kind))
            return self.start
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

        def go_on() -> None:
            assert self.process is not None
            self.process.send_signal(signal.SIGCONT)
            self.hurt.append((began_s, time.time(), fault.kind))

        return go_on

    def look_after(self) -> None:
        """See Part."""
        if self.process is not None and self.process.poll() is not None:
            self.died.append(f"{self.name} (status {self.process.returncode}): {self.tail(5)}")
            self.start()


@dataclass(slots=True, eq=False)
class Broker:
    """Kafka."""

    kafka: KafkaBroker

    def begin(self, fault: Fault) -> End:
        """See Part."""
        if fault.kind == "broker-kill":
            self.kafka.kill()
            return self.kafka.start
        pid = self.kafka.pid
        os.kill(pid, signal.SIGSTOP)
        return lambda: os.kill(pid, signal.SIGCONT)

    def look_after(self) -> None:
        """See Part. A broker that ends by itself is not expected: whatever asks it next says so."""


@dataclass(slots=True, eq=False)
class Database:
    """PostgreSQL with its sessions."""

    server: StoreServer

    def begin(self, fault: Fault) -> End:
        """See Part."""
        match fault.kind:
            case "database-kill":
                self.server.kill()
                return self.start
            case "database-pause":
                return self._pause()
            case _:
                return self._kill_session(random.Random(fault.luck))

    def start(self) -> None:
        """Starts it; sessions of a killed server may take a moment to leave. Raises RuntimeError."""
        deadline = time.monotonic() + START_WITHIN_S
        while True:
            try:
                self.server.start()
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def look_after(self) -> None:
        """See Part. It is not expected to end by itself."""

    def _pause(self) -> End:
        assert self.server.process is not None
        whole = psutil.Process(self.server.process.pid)
        whole.suspend()  # first, so that it has no further children
        stopped = [whole, *whole.children(recursive=True)]
        for process in stopped[1:]:
            with suppress(psutil.NoSuchProcess):
                process.suspend()

        def go_on() -> None:
            for process in reversed(stopped):
                with suppress(psutil.NoSuchProcess):
                    process.resume()

        return go_on

    def _kill_session(self, drawn: random.Random) -> End:
        """SIGKILL to one session of ingest: PostgreSQL ends all its sessions and recovers."""
        with suppress(psycopg.OperationalError):
            sessions = execute(
                self.server.url,
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'vigil_ingest' ORDER BY backend_start",
            )
            if sessions:
                os.kill(drawn.choice(sessions)[0], signal.SIGKILL)
        return nothing


@dataclass(slots=True, eq=False)
class Way:
    """A link of the relay."""

    relay: Relay
    link: Link

    def begin(self, fault: Fault) -> End:
        """See Part."""
        drawn = random.Random(fault.luck)
        self.relay.do(lambda: self.link.begin(fault.kind, drawn))
        return lambda: self.relay.do(lambda: self.link.end(fault.kind))

    def look_after(self) -> None:
        """See Part."""


def nothing() -> None:
    """Over by itself."""
