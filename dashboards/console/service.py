"""The console as a service: checks that it may listen where it is told, then serves until stopped.

It starts without a database, says so on its page and in /healthz, and finds it when it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import structlog
import uvicorn
from sse_starlette.sse import AppStatus

from dashboards.console.app import create_app
from dashboards.console.codes import CodeNames
from dashboards.console.context import Console
from dashboards.console.hub import Hub
from dashboards.console.profiles import profile_finder
from dashboards.console.session import Sessions
from dashboards.console.store import Store
from telemetry.errors import ConfigError, Fault, ListenError
from telemetry.service import Health
from telemetry.settings import Settings, is_loopback, split_listen

log = structlog.get_logger()

GRACE_S = 1


async def run(settings: Settings, stop: asyncio.Event, health: Health) -> None:
    """Serves the console on `settings.listen` until `stop` is set. Raises ConfigError, ListenError."""
    check(settings)
    with contextlib.closing(bind(settings.listen)) as sock:
        await serve(settings, stop, health, sock=sock)


async def serve(settings: Settings, stop: asyncio.Event, health: Health, *, sock: socket.socket) -> None:
    """Serves the console on a socket that listens already."""
    console = build(settings, health)
    config = uvicorn.Config(
        create_app(console),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=settings.tls_cert_file,
        ssl_keyfile=settings.tls_key_file,
    )
    server = _Server(config)
    AppStatus.enable_automatic_graceful_drain = False  # streams end by hub.close(), not by a signal
    host, port = sock.getsockname()[:2]
    log.info("listening", host=host, port=port, tls=settings.tls_cert_file is not None)
    health.missing("store", "not connected yet")
    async with asyncio.TaskGroup() as group:
        group.create_task(console.store.keep(stop, console.hub.follow, console.hub.store_away))
        group.create_task(_stop_server(stop, server, console.hub))
        await server.serve(sockets=[sock])
        stop.set()


def build(settings: Settings, health: Health) -> Console:
    """The console's parts, connected to nothing yet."""
    clock = settings.the_clock
    store = Store(settings, health)
    codes = CodeNames(profile_finder(settings.profiles_dir))
    sessions = Sessions(settings.secret("console_token"), clock)
    return Console(settings, health, clock, store, codes, Hub(store, codes, clock), sessions)


def check(settings: Settings) -> None:
    """Raises ConfigError with every reason why the console may not run so."""
    faults = []
    host, _ = _listen_address(settings.listen)
    token = settings.secret("console_token")
    if token is not None and len(token) < 16:
        faults.append(Fault("settings", 0, "VIGIL_CONSOLE_TOKEN", "at least 16 characters", f"{len(token)}"))
    if not is_loopback(host) and not token:
        wanted = "a loopback address, or VIGIL_CONSOLE_TOKEN_FILE set"
        faults.append(Fault("settings", 0, "VIGIL_LISTEN", wanted, settings.listen))
    if (settings.tls_cert_file is None) != (settings.tls_key_file is None):
        found = "only one of them"
        faults.append(Fault("settings", 0, "VIGIL_TLS_CERT_FILE", "both it and VIGIL_TLS_KEY_FILE, or neither", found))
    for key, path in (("VIGIL_TLS_CERT_FILE", settings.tls_cert_file), ("VIGIL_TLS_KEY_FILE", settings.tls_key_file)):
        if path is not None and not path.is_file():
            faults.append(Fault("settings", 0, key, "a file", str(path)))
    if faults:
        raise ConfigError(faults)


def bind(listen: str) -> socket.socket:
    """A listening socket. Raises ListenError that says why not."""
    host, port = _listen_address(listen)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(128)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise ListenError(f"VIGIL_LISTEN={listen}: {error.strerror or error}") from error
    sock.setblocking(False)
    return sock


def _listen_address(listen: str) -> tuple[str, int]:
    try:
        return split_listen(listen)
    except ValueError as error:
        raise ConfigError([Fault("settings", 0, "VIGIL_LISTEN", "HOST:PORT", listen)]) from error


async def _stop_server(stop: asyncio.Event, server: uvicorn.Server, hub: Hub) -> None:
    await stop.wait()
    hub.close()
    server.should_exit = True


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the service is stopped by its event."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
