"""Errors as the API tells them: application/problem+json (RFC 9457), with a stable slug in `code`."""

from __future__ import annotations

from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from telemetry.errors import StoreUnavailable

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer that is not what was asked for: status, slug, and a sentence that says what to do."""

    def __init__(self, status: int, code: str, detail: str, **extra: Any) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.extra = extra
        super().__init__(detail)


def problem_response(problem: Problem) -> Response:
    """The response that says it."""
    content = {
        "type": f"urn:vigil:problem:{problem.code}",
        "title": problem.code.replace("-", " "),
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        **problem.extra,
    }
    headers = {"Cache-Control": "no-store"}
    if problem.status == 503:
        headers["Retry-After"] = "2"
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(orjson.dumps(content), problem.status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Teaches the application to answer its errors so."""

    @app.exception_handler(Problem)
    async def _problem(_: Request, error: Problem) -> Response:
        return problem_response(error)

    @app.exception_handler(StoreUnavailable)
    async def _store(_: Request, error: StoreUnavailable) -> Response:
        return problem_response(Problem(503, "store-unavailable", f"the database cannot be read now: {error}"))

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        faults = [{"where": ".".join(map(str, e["loc"])), "what": e["msg"]} for e in error.errors()]
        said = "; ".join(f"{fault['where']}: {fault['what']}" for fault in faults)
        return problem_response(Problem(422, "invalid-request", said, faults=faults))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "refused")
        return problem_response(Problem(error.status_code, code, str(error.detail)))
