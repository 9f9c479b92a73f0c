"""One client of the stream: what it wants, what waits for it, and how far it has been told.

Invariant: what waits is bounded. Readings are coalesced (a point's newest replaces its older), alarms and events wait in
a bounded queue; a client that lets it overflow is told to read everything again (`reset`), and nobody waits for it.
A message's id is a position in the store (not of this process), so a client can resume at another console.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from sse_starlette import ServerSentEvent

from dashboards.console.metrics import STREAM_RESETS

MAX_PENDING: Final = 500
MAX_READINGS: Final = 20_000
BEAT_S: Final = 5.0
RETRY_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class Position:
    """How far a client was told: the last transition, the last event, the change time (µs) of the last reading."""

    transition: int
    event: int
    latest_us: int

    def __str__(self) -> str:
        return f"{self.transition}-{self.event}-{self.latest_us}"


def parse_position(text: str | None) -> Position | None:
    """The position of a Last-Event-ID; None if it is none of ours."""
    parts = (text or "").split("-")
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() and len(part) <= 18 for part in parts):
        return None
    return Position(*map(int, parts))


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client wants to hear."""

    kinds: frozenset[str]
    equipments: frozenset[str] | None
    """None: all."""
    all_alarms: bool
    """Alarms and connection states of all equipment, whatever `equipments` says."""

    def takes(self, kind: str, equipment: str) -> bool:
        """Whether a message of this kind about this equipment is for the client."""
        if kind == "store":
            return True
        if kind not in self.kinds:
            return False
        if self.equipments is None or equipment in self.equipments:
            return True
        return self.all_alarms and kind in ("alarm", "online")


@dataclass(frozen=True, slots=True)
class Message:
    """Something to tell."""

    kind: str
    equipment: str
    content: dict[str, Any]
    transition: int = 0
    event: int = 0


class Subscriber:
    """What waits for one client."""

    def __init__(self, wish: Wish, position: Position, now_iso: Callable[[], str]) -> None:
        self.wish = wish
        self._position = position
        self._now_iso = now_iso
        self._pending: deque[Message] = deque()
        self._readings: dict[tuple[str, str], dict[str, Any]] = {}
        self._latest_us = position.latest_us
        self._reset: Position | None = None
        self._closed = False
        self._wake = asyncio.Event()

    def offer(self, message: Message) -> None:
        """Queues a message if the client wants it. Never waits."""
        if not self.wish.takes(message.kind, message.equipment):
            return
        if len(self._pending) >= MAX_PENDING:
            self.reset(replace(self._position, transition=message.transition or self._position.transition))
            return
        self._pending.append(message)
        self._wake.set()

    def offer_readings(self, readings: list[tuple[str, str, dict[str, Any]]], latest_us: int) -> None:
        """Queues readings (equipment, point, content) read up to `latest_us`."""
        if "latest" not in self.wish.kinds:
            return
        for equipment, point, content in readings:
            if self.wish.takes("latest", equipment):
                self._readings[equipment, point] = content
        self._latest_us = latest_us
        if len(self._readings) > MAX_READINGS:
            self.reset(self._position)
        elif self._readings:
            self._wake.set()

    def reset(self, position: Position) -> None:
        """The client has missed something: it is told to read again, and is up to date from `position` on."""
        STREAM_RESETS.inc()
        self._pending.clear()
        self._readings.clear()
        self._reset = position
        self._wake.set()

    def close(self) -> None:
        """Ends the stream once what waits is told."""
        self._closed = True
        self._wake.set()

    async def messages(self, *, store_up: Callable[[], bool]) -> AsyncIterator[ServerSentEvent]:
        """What to send: `hello` first, then as it comes, with a `beat` when it is quiet."""
        yield self._say("hello", {"at": self._now_iso(), "store": "ok" if store_up() else "away"}, retry=RETRY_MS)
        while not self._closed:
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._wake.wait()
            except TimeoutError:
                yield self._say("beat", {"at": self._now_iso(), "store": "ok" if store_up() else "away"})
                continue
            self._wake.clear()
            for event in self._drain():
                yield event

    def _drain(self) -> list[ServerSentEvent]:
        told = []
        if self._reset is not None:
            self._position, self._reset = self._reset, None
            told.append(self._say("reset", {"at": self._now_iso()}))
        while self._pending:
            message = self._pending.popleft()
            self._position = replace(
                self._position,
                transition=max(self._position.transition, message.transition),
                event=max(self._position.event, message.event),
            )
            told.append(self._say(message.kind, message.content))
        self._position = replace(self._position, latest_us=self._latest_us)
        if self._readings:
            told.append(self._say("latest", {"at": self._now_iso(), "items": list(self._readings.values())}))
            self._readings.clear()
        return told

    def _say(self, kind: str, content: dict[str, Any], *, retry: int | None = None) -> ServerSentEvent:
        return ServerSentEvent(orjson.dumps(content).decode(), event=kind, id=str(self._position), retry=retry)
