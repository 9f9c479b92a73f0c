"""What the page needs besides: areas and classes to choose from, the fleet in numbers, texts, and the log-in."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from dashboards.console import models, reads
from dashboards.console.context import Here
from dashboards.console.problems import Problem
from dashboards.console.session import COOKIE, LASTS_S
from dashboards.console.texts import tables

router = APIRouter(prefix="/api/v1", tags=["site"])


@router.get("/areas", response_model=models.AreaPage)
async def list_areas(console: Here) -> models.AreaPage:
    """All areas, with the number of units in each and below."""
    return models.AreaPage(items=await reads.areas(console.store))


@router.get("/classes", response_model=models.ClassPage)
async def list_classes(console: Here) -> models.ClassPage:
    """All classes of equipment, with the number of units of each."""
    return models.ClassPage(items=await reads.classes(console.store))


@router.get("/summary", response_model=models.Summary)
async def read_summary(console: Here) -> models.Summary:
    """The fleet in numbers: connections, active alarms by priority."""
    return await reads.summary(console.store, console.now())


@router.get("/texts")
async def read_texts(console: Here) -> dict[str, Any]:
    """The page's texts in both languages, and the language to begin with."""
    return {"lang": console.settings.lang, "texts": tables()}


@router.get("/session", response_model=models.SessionState)
async def read_session(console: Here, request: Request) -> models.SessionState:
    """Whether a log-in is needed, and whether this client is logged in."""
    sessions = console.sessions
    return models.SessionState(needed=sessions.needed, authorised=sessions.authorised(request.headers, request.cookies))


@router.post("/session", response_model=models.SessionState)
async def log_in(
    console: Here, request: Request, response: Response, body: models.SessionRequest
) -> models.SessionState:
    """Exchanges the console's token for a cookie."""
    sessions = console.sessions
    if sessions.blocked():
        raise Problem(429, "too-many-tries", "too many wrong tokens; try again in a minute")
    value = sessions.exchange(body.token)
    if value is None:
        raise Problem(401, "wrong-token", "this is not the console's token")
    outside = request.headers.get("origin", "")  # what the browser sees, where a proxy ends TLS
    secure = request.url.scheme == "https" or outside.startswith("https://")
    response.set_cookie(COOKIE, value, max_age=LASTS_S, httponly=True, samesite="strict", secure=secure)
    return models.SessionState(needed=True, authorised=True)


@router.delete("/session", response_model=models.SessionState)
async def log_out(console: Here, response: Response) -> models.SessionState:
    """Forgets the cookie."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return models.SessionState(needed=console.sessions.needed, authorised=not console.sessions.needed)
