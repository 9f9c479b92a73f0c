"""What happens, as it happens: server-sent events.

`hello` first, then `alarm`, `event`, `latest` and `online` as they come, `store` when the database goes or comes back,
`reset` when the client has missed something and must read again, and `beat` when it is quiet. Each carries an id; a
client that sends it back as Last-Event-ID is told what it missed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Header, Query
from sse_starlette import EventSourceResponse, ServerSentEvent

from dashboards.console.context import Console, Here
from dashboards.console.problems import Problem
from dashboards.console.subscriber import Subscriber, Wish, parse_position

router = APIRouter(prefix="/api/v1", tags=["stream"])

HEARTBEAT_S: Final = 15
SEND_TIMEOUT_S: Final = 30
Kind = Literal["alarm", "latest", "event", "online"]
KINDS: Final = frozenset({"alarm", "latest", "event", "online"})


@router.get("/stream", response_class=EventSourceResponse)
async def stream(
    console: Here,
    equipment: Annotated[list[str] | None, Query(max_length=500, description="Only these units.")] = None,
    kind: Annotated[list[Kind] | None, Query(description="Only these kinds of message.")] = None,
    all_alarms: Annotated[bool, Query(description="Alarms and connections of all units nonetheless.")] = False,
    last_event_id: Annotated[str | None, Header()] = None,
) -> EventSourceResponse:
    """Alarms, readings, events and connection states as they happen."""
    wish = Wish(frozenset(kind or KINDS), frozenset(equipment) if equipment else None, all_alarms)
    client = console.hub.subscribe(wish)
    if client is None:
        raise Problem(503, "too-many-streams", "too many clients listen; try again later")
    since = parse_position(last_event_id)
    if since is not None:
        await console.hub.resume(client, since)
    return EventSourceResponse(
        _messages(console, client),
        ping=HEARTBEAT_S,
        send_timeout=SEND_TIMEOUT_S,
        headers={"X-Accel-Buffering": "no"},
    )


async def _messages(console: Console, client: Subscriber) -> AsyncIterator[ServerSentEvent]:
    try:
        async for message in client.messages(store_up=lambda: console.store.available):
            yield message
    finally:
        console.hub.unsubscribe(client)
