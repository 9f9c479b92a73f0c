"""What every request passes: the Host it names, the Origin it comes from, who sent it; and what every answer forbids.

Host and Origin are checked on loopback too: a page of another site, whose name is made to resolve to 127.0.0.1, is
otherwise as good as the console's own (DNS rebinding). An IP address in Host cannot be rebound, a name can.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboards.console.metrics import REQUEST_SECONDS, REQUESTS
from dashboards.console.problems import Problem, problem_response
from dashboards.console.session import Sessions
from telemetry.settings import Settings, is_loopback, split_listen

SECURITY_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
OPEN_PATHS: Final = frozenset({"/", "/healthz", "/metrics", "/favicon.ico", "/api/v1/session", "/api/v1/texts"})
OPEN_PREFIX: Final = "/static/"
"""What anybody may fetch: the page itself, which holds no data. /metrics has a token of its own."""
STREAM_PATH: Final = "/api/v1/stream"


class Places:
    """Which Host and Origin values are the console's own."""

    def __init__(self, settings: Settings) -> None:
        host, _ = split_listen(settings.listen)
        self._loopback = is_loopback(host)
        self._names = {"localhost", "127.0.0.1", "::1"} if self._loopback or host in ("0.0.0.0", "::") else set()  # noqa: S104
        self._any_address = host in ("0.0.0.0", "::", "")  # noqa: S104
        self._names.add(host)
        self._further = set(map(str.lower, settings.console_origins))

    def is_host(self, header: str) -> bool:
        """Whether this Host is ours: loopback's names (any port: it may be forwarded), our address, or configured."""
        header = header.lower()
        name = _host_name(header)
        if name is None:
            return False
        if name in self._names or header in self._further or name in self._further:
            return True
        if any(urlsplit(o).netloc == header for o in self._further):
            return True
        return self._any_address and _is_address(name)

    def is_origin(self, header: str, *, host: str, scheme: str) -> bool:
        """Whether a request with this Origin comes from our own page, or a configured one."""
        header = header.lower()
        return header == f"{scheme}://{host.lower()}" or header in self._further


def _host_name(header: str) -> str | None:
    """The name in a Host header, without its port; None if it is none."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname if not (parts.path or parts.query or parts.username or "@" in header) else None


def _is_address(name: str) -> bool:
    return ":" in name or all(part.isdecimal() for part in name.split("."))


class Guard:
    """The outermost layer: refuses, adds headers, counts."""

    def __init__(self, app: ASGIApp, *, places: Places, sessions: Sessions, routes: Callable[[Scope], str]) -> None:
        self._app = app
        self._places = places
        self._sessions = sessions
        self._route = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *_headers(scope, message["headers"])]}
            await send(message)

        refusal = self._refusal(Request(scope))
        app = problem_response(refusal) if refusal else self._app
        try:
            await app(scope, receive, answer)
        finally:
            route = "refused" if refusal else self._route(scope)
            REQUESTS.labels(route, f"{status // 100}xx").inc()
            if scope["path"] != STREAM_PATH:
                REQUEST_SECONDS.labels(route).observe(time.perf_counter() - started)

    def _refusal(self, request: Request) -> Problem | None:
        host = request.headers.get("host", "")
        if not self._places.is_host(host):
            return Problem(
                403, "host-refused", "Host: expected an address of this console; others go into VIGIL_CONSOLE_ORIGINS"
            )
        origin = request.headers.get("origin")
        if origin is not None and not self._places.is_origin(origin, host=host, scheme=request.url.scheme):
            return Problem(403, "origin-refused", "Origin: expected this console's own page")
        if (
            request.headers.get("sec-fetch-site") == "cross-site"
            and request.headers.get("sec-fetch-mode") != "navigate"
        ):
            return Problem(403, "origin-refused", "requests from another site are refused")
        path = request.url.path
        if path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            return None
        if not self._sessions.authorised(request.headers, request.cookies):
            return Problem(401, "log-in-needed", "log in with the console's token, or send it as a bearer token")
        return None


def _headers(scope: Scope, present: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    names = {name.lower() for name, _ in present}
    extra = [(name.encode(), text.encode()) for name, text in SECURITY_HEADERS.items()]
    if b"cache-control" not in names:
        static = scope["path"].startswith(OPEN_PREFIX)
        extra.append((b"cache-control", b"no-cache" if static else b"no-store"))
    return extra
