"""The application, put together: the API, the page, /healthz and /metrics, behind the guard."""

from __future__ import annotations

import hmac
from importlib.resources import files
from pathlib import Path
from typing import Final

import orjson
from fastapi import FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from dashboards.console import problems
from dashboards.console.context import Console, console_of
from dashboards.console.guard import Guard, Places
from dashboards.console.routes import alarms, equipment, site, stream

STATIC: Final = Path(str(files("dashboards.console"))) / "static"


def create_app(console: Console) -> FastAPI:
    """The ASGI application that serves `console`."""
    app = FastAPI(
        title="Vigil",
        version="1",
        description="Elevators, forklifts and boilers, as Vigil sees them. Times are ISO 8601 in UTC.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.console = console
    problems.install(app)
    for module in (equipment, alarms, stream, site):
        app.include_router(module.router)
    app.add_api_route("/healthz", _healthz, methods=["GET"], tags=["operation"], summary="Whether the console is ready")
    app.add_api_route("/metrics", _metrics, methods=["GET"], tags=["operation"], summary="Prometheus metrics")
    app.add_api_route("/api/docs", _docs, methods=["GET"], include_in_schema=False)
    app.add_api_route("/favicon.ico", _icon, methods=["GET"], include_in_schema=False)
    app.add_api_route("/", _page, methods=["GET"], include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(Guard, places=Places(console.settings), sessions=console.sessions, routes=_route)
    return app


async def _healthz(request: Request) -> Response:
    """200 when ready; 503 with what is waited for."""
    console = console_of(request)
    waiting = dict(console.health.waiting_for)
    if not console.sessions.authorised(request.headers, request.cookies):
        waiting = dict.fromkeys(waiting, "log in to see why")
    content = {"service": console.health.service, "ready": not waiting, "waiting_for": waiting}
    return Response(orjson.dumps(content), 503 if waiting else 200, media_type="application/json")


async def _metrics(request: Request) -> Response:
    """Prometheus text; with the metrics' token where there is one, else as the rest of the console."""
    console = console_of(request)
    token = console.settings.secret("metrics_token")
    given = request.headers.get("authorization", "")
    allowed = (
        hmac.compare_digest(given.encode(), f"Bearer {token}".encode())
        if token
        else console.sessions.authorised(request.headers, request.cookies)
    )
    if not allowed:
        raise problems.Problem(401, "log-in-needed", "metrics ask for `Authorization: Bearer TOKEN`")
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _page() -> Response:
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


async def _docs() -> Response:
    return FileResponse(STATIC / "api-docs.html", headers={"Cache-Control": "no-cache"})


async def _icon() -> Response:
    return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")


def _route(scope: Scope) -> str:
    """The route's template, so that metrics have few labels."""
    route = scope.get("route")
    path = getattr(route, "path_format", None)
    return str(path) if path else ("/static" if scope["path"].startswith("/static") else "other")
