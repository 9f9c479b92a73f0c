"""A console that runs as its service does, on a seeded store, in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest

from alerting.service import run as alert
from dashboards.console.service import bind, check, serve
from telemetry.service import Health
from telemetry.settings import Settings
from tests.dashboards.console.seed import Seed, utc_now
from tests.fixtures.store import StoreServer, fresh_database
from tests.fixtures.waiting import eventually

WITHIN_S: Final = 10.0


@dataclass(slots=True)
class RunningConsole:
    """A console that listens on a free port of loopback."""

    settings: Settings
    url: str
    health: Health
    store_url: str
    _loop: asyncio.AbstractEventLoop | None = None
    _stop: asyncio.Event | None = None
    _thread: threading.Thread | None = None
    errors: list[BaseException] = field(default_factory=list)

    def start(self) -> None:
        """Serves in a thread, on the port of before."""
        self.health.missing("store", "starting")
        sock = bind(self.url.removeprefix("http://"))
        ready = threading.Event()

        async def main() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            ready.set()
            await serve(self.settings, self._stop, self.health, sock=sock)

        def work() -> None:
            try:
                asyncio.run(main())
            except BaseException as error:  # told by the test that stops it
                self.errors.append(error)
            finally:
                sock.close()

        self._thread = threading.Thread(target=work, name="console")
        self._thread.start()
        ready.wait(5)

    def stop(self) -> float:
        """Stops it as SIGTERM does. Returns the seconds that took."""
        started = time.monotonic()
        if self._thread is not None and self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)
            assert not self._thread.is_alive()
            self._thread = None
        assert not self.errors
        return time.monotonic() - started

    def client(self, **more: Any) -> httpx.Client:
        """A client of it."""
        return httpx.Client(base_url=self.url, timeout=10, **more)

    @contextmanager
    def database(self) -> Iterator[Seed]:
        """Writes as the owner, at this moment; each statement committed."""
        with psycopg.connect(self.store_url, autocommit=True) as connection:
            yield Seed(connection, now=utc_now())


@contextmanager
def running_console(store_url: str, state: Path, *, wait: bool = True, **more: Any) -> Iterator[RunningConsole]:
    """A console on this database."""
    with bind("127.0.0.1:0") as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    settings = Settings(store=store_url, state_dir=state, listen=address, lang="en", **more)
    check(settings)
    console = RunningConsole(settings, f"http://{address}", Health("console"), store_url)
    console.start()
    try:
        if wait:
            eventually(lambda: not console.health.waiting_for)
        yield console
    finally:
        console.stop()


@pytest.fixture(scope="module")
def console(plain_server: StoreServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningConsole]:
    """A console on a seeded store, shared by a module."""
    with fresh_database(plain_server.url) as url:
        with psycopg.connect(url) as connection:
            Seed(connection, now=utc_now()).fill(minutes=10)
        with running_console(url, tmp_path_factory.mktemp("console")) as running:
            yield running


@pytest.fixture
def api(console: RunningConsole) -> Iterator[httpx.Client]:
    """A client of the shared console."""
    with console.client() as client:
        yield client


class Alerting:
    """The real alerting, in a thread: the console may not change an alarm itself."""

    def __init__(self, store_url: str, state: Path) -> None:
        self._settings = Settings(store=store_url, state_dir=state)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._health = Health("alert")
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()), name="alerting")

    def __enter__(self) -> Alerting:
        self._health.missing("log", "not started")
        self._thread.start()
        eventually(lambda: not self._health.waiting_for)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        await alert(self._settings, self._stop, self._health)


@pytest.fixture
def alerting(console: RunningConsole, tmp_path: Path) -> Iterator[Alerting]:
    """Somebody who handles commands."""
    with Alerting(console.store_url, tmp_path) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Told:
    """One message of the stream."""

    kind: str
    id: str
    content: dict[str, Any]


def told(response: httpx.Response) -> Iterator[Told]:
    """The messages of a stream, as they come."""
    kind = message_id = data = ""
    for line in response.iter_lines():
        name, _, value = line.partition(": ")
        match name:
            case "event":
                kind = value
            case "id":
                message_id = value
            case "data":
                data += value
            case "" if kind:
                yield Told(kind, message_id, json.loads(data))
                kind = message_id = data = ""
