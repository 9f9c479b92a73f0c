"""What every service does alike: structured logs, /healthz and /metrics, a clean stop, waiting for what it needs.

A service is a coroutine `run(stop)`; `run_service` calls it, and SIGTERM or SIGINT sets `stop`. Its task boundary is the
one place that catches everything: an unexpected error is logged with its trace and the process exits 1, for the
supervisor to start it again.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

import structlog
from prometheus_client import REGISTRY, make_wsgi_app

from telemetry.errors import ConfigError, Fault, ListenError, VigilError
from telemetry.settings import Settings, is_loopback, split_listen

log = structlog.get_logger()

CANCEL_AGAIN_S: Final = 0.3


@dataclass(slots=True)
class Health:
    """What /healthz says: ready when nothing that the service needs is missing."""

    service: str
    waiting_for: dict[str, str] = field(default_factory=dict)

    def missing(self, what: str, why: str) -> None:
        """The service cannot work now because of `what`. Logged when the reason changes, not each time."""
        if self.waiting_for.get(what) != why:
            self.waiting_for[what] = why
            log.warning("waiting", service=self.service, what=what, why=why)

    def found(self, what: str) -> None:
        """`what` is there (again)."""
        if self.waiting_for.pop(what, None) is not None:
            log.info("found", service=self.service, what=what)


def configure_logging(settings: Settings) -> None:
    """Structured lines on stderr: JSON, or for people."""
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # It repeats itself many times a second while a broker is away; what matters of it comes as LogUnavailable.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


Run = Callable[[Settings, asyncio.Event, Health], Awaitable[None]]
"""A service: works until the event is set, then returns with everything closed."""


def run_service(
    name: str,
    settings: Settings,
    run: Run,
    *,
    listen: str | None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Runs a service until SIGTERM or SIGINT, with /healthz and /metrics on `listen` (None: it serves its own).

    Returns its exit status: 0 stopped when told, 1 failed, 2 bad configuration.
    """
    configure_logging(settings)
    structlog.contextvars.bind_contextvars(service=name)
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(_run(name, settings, run, listen))
    except Exception as error:
        return _exit_status(error)


def _exit_status(error: Exception) -> int:
    """Says what ended the service. A task group's only cause counts as the cause."""
    cause: BaseException = error
    while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
        cause = cause.exceptions[0]
    if isinstance(cause, ConfigError):
        print(cause, file=sys.stderr)
        return 2
    if isinstance(cause, VigilError):
        log.error("failed", error=type(cause).__name__, why=str(cause))
    else:
        log.error("failed", exc_info=error)
    return 1


async def _run(name: str, settings: Settings, run: Run, listen: str | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    health = Health(name)
    server = serve_health(listen, health, token=settings.secret("metrics_token")) if listen else None
    try:
        await run(settings, stop, health)
    finally:
        if server is not None:
            server.shutdown()
            server.server_close()
    log.info("stopped")
    return 0


async def cancel_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks and waits until they are done; again where a library swallowed it (wait_for of Python 3.11 can)."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)


async def wait_until(stop: asyncio.Event, seconds: float) -> bool:
    """Waits `seconds`, or until told to stop. Returns whether it was told to."""
    try:
        async with asyncio.timeout(seconds):  # not wait_for: before Python 3.12 it can swallow a cancellation
            await stop.wait()
    except TimeoutError:
        return False
    return True


def serve_health(listen: str, health: Health, *, token: str | None) -> WSGIServer:
    """/healthz and /metrics on a thread of their own; /metrics asks for `Authorization: Bearer TOKEN` where one is set.

    Raises ConfigError for an address that is not loopback without a token, ListenError.
    """
    host, port = split_listen(listen)
    setting = f"VIGIL_{health.service.upper()}_LISTEN"
    if not is_loopback(host) and not token:
        expected = "a loopback address, or VIGIL_METRICS_TOKEN_FILE set"
        raise ConfigError([Fault("settings", 0, setting, expected, listen)])
    try:
        server = make_server(host, port, health_app(health, token), server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise ListenError(f"{setting}={listen}: {error.strerror or error}") from error
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


def health_app(health: Health, token: str | None) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    """The WSGI application behind serve_health."""
    metrics = make_wsgi_app(REGISTRY)

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        match environ.get("PATH_INFO"):
            case "/healthz":
                waiting = dict(health.waiting_for)
                start("503 Service Unavailable" if waiting else "200 OK", [("Content-Type", "application/json")])
                return [json.dumps({"service": health.service, "ready": not waiting, "waiting_for": waiting}).encode()]
            case "/metrics" if token and not hmac.compare_digest(
                environ.get("HTTP_AUTHORIZATION", "").encode(), f"Bearer {token}".encode()
            ):
                start("401 Unauthorized", [("WWW-Authenticate", "Bearer"), ("Content-Type", "text/plain")])
                return [b"unauthorized\n"]
            case "/metrics":
                body: Iterable[bytes] = metrics(environ, start)
                return body
            case _:
                start("404 Not Found", [("Content-Type", "text/plain")])
                return [b"not found\n"]

    return app


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not news."""
