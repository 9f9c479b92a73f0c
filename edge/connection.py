"""A lane's connection: opened when something is asked, tried at each place where the endpoint may be, with back-off.

Invariant: at most one connection is in use; what comes of one that was given up is nobody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import structlog

from edge.reach import CLOSED, Reach
from edge.ties import Ties

log = structlog.get_logger()

RECONNECT_S: Final = 0.5
RECONNECT_MAX_S: Final = 10.0


class Owner(Protocol):
    """Who has a connection."""

    @property
    def served(self) -> bool:
        """Whether anything was answered on it."""
        ...

    @property
    def ties(self) -> Ties:
        """What is known of other connections to the endpoint."""
        ...

    def received(self, data: bytes) -> None:
        """Bytes came."""
        ...

    def lost(self, why: str) -> None:
        """The connection is gone."""
        ...


class _Wire(asyncio.Protocol):
    """One connection, for as long as it is the one in use."""

    def __init__(self, connection: Connection) -> None:
        self.connection: Connection | None = connection

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.connection is not None:
            self.connection.owner.received(data)

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.ended(str(error or ""))


@dataclass(slots=True, eq=False)
class Connection:
    """To one endpoint."""

    reach: Reach
    owner: Owner
    transport: asyncio.Transport | None = None
    """None while there is none."""
    why: str = ""
    """Why the last attempt failed."""
    up_s: float = 0.0
    """When it was made, by the loop's time."""
    _wire: _Wire | None = None
    _connecting: asyncio.Task[None] | None = None
    _place: int = 0
    """Where the next attempt begins."""
    _used: int = 0
    """The place of the connection there is, or was last."""
    _retry_s: float = 0.0
    _wait_s: float = 0.0
    _useless: int = 0
    """Connections in a row that were closed before anything was answered."""
    _ended_s: float = 0.0
    """When the last one was closed by the other side."""

    def may_try(self, now_s: float) -> bool:
        """Whether there is a connection, one is being made, or one may be tried now."""
        return self.transport is not None or self._connecting is not None or now_s >= self._retry_s

    @property
    def opening(self) -> bool:
        """Whether one is being made."""
        return self._connecting is not None

    @property
    def fallback(self) -> str | None:
        """The place that the connection leads to, or the last one did, if it is not the first one's."""
        return self.reach.name(self._used) if self._used else None

    def older(self, other: Connection) -> bool:
        """Whether there is one still that was made before the other's."""
        return self.transport is not None and self.up_s <= other.up_s

    def open(self, timeout_s: float, done: Callable[[bool], None]) -> None:
        """Has a connection made, unless one is; `done` is told whether there is one."""
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._connect(timeout_s, done))
            self._connecting.add_done_callback(partial(self._tried, done))

    def _tried(self, done: Callable[[bool], None], attempt: asyncio.Task[None]) -> None:
        """Whoever waits is told, too, where an attempt ended as none should."""
        error = None if attempt.cancelled() else attempt.exception()
        if error is not None:
            log.error("cannot connect", to=self.reach.name(self._place % self.reach.places), error=repr(error))
            self._connecting, self._place = None, 0
            self.back_off(repr(error))
            done(False)

    def elsewhere(self) -> None:
        """The next attempt begins at the place after the one that was used."""
        self._place = self._used + 1

    def back_off(self, why: str) -> None:
        """Nothing is tried for a while, longer each time until there is a connection of use."""
        self._wait_s = min(self._wait_s * 2 or RECONNECT_S, RECONNECT_MAX_S)
        self._retry_s, self.why = asyncio.get_running_loop().time() + self._wait_s, why

    def hang_up(self) -> None:
        """Closes it. Nothing more is heard of it."""
        transport, self.transport = self.transport, None
        if self.owner.served:
            self._wait_s = 0.0
        if self._wire is not None:
            self._wire.connection = None
            self._wire = None
        if transport is not None:
            transport.abort()

    def close(self) -> None:
        """Closes it, and makes no other."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self.hang_up()

    def ended(self, why: str) -> None:
        """It was closed by the other side, which may not have said why. Too many in a row without an answer were no better
        than none.
        """
        self.transport = self._wire = None
        why = why or (CLOSED if self.owner.served else self.reach.why_closed)
        before_s, self._ended_s = self._ended_s, asyncio.get_running_loop().time()
        # Answers on other connections, meanwhile, say that the endpoint is well: then one of its units closes them.
        is_well = self.owner.served or self.owner.ties.last_heard_s() > before_s
        self._useless = 0 if is_well else self._useless + 1
        if not self._useless:
            self._wait_s = 0.0
        elif self._useless > self.owner.ties.tolerance():
            self.back_off(f"{self.reach.name(self._used)} closed the connection without an answer")
        self.owner.lost(why)

    async def _connect(self, timeout_s: float, done: Callable[[bool], None]) -> None:
        """Tries each place once, beginning with the one that is meant, within `timeout_s` each."""
        failures: list[str] = []
        for step in range(self.reach.places):
            place = (self._place + step) % self.reach.places
            why = await self._try(place, timeout_s)
            if why is None:
                self._connecting, self._place, self.why = None, 0, ""
                self._retry_s = 0.0
                self._leads_to(place, "; ".join(failures))
                done(True)
                return
            failures.append(f"{self.reach.name(place)} {why}")
        self._connecting, self._place = None, 0
        self.back_off("; ".join(failures))
        done(False)

    def _leads_to(self, place: int, why: str) -> None:
        """Says when it is no longer the place that it was: nobody else would notice that the first one is down."""
        before, self._used = self._used, place
        first = self.reach.name(0)
        if place and place != before:
            log.warning("read at the fallback", endpoint=first, fallback=self.fallback, why=why or "kept silent")
        elif before and not place:
            log.info("read at the first host again", endpoint=first)

    async def _try(self, place: int, timeout_s: float) -> str | None:
        """Why there is no connection to a place; None where there is one now."""
        wire = _Wire(self)
        try:
            async with asyncio.timeout(timeout_s):
                transport = await self.reach.open(place, lambda: wire)
        except TimeoutError:
            wire.connection = None
            return f"did not answer within {timeout_s:g} s"
        except (OSError, ValueError) as error:
            wire.connection = None
            return f"refused: {error}"
        if wire.connection is None:
            return "closed the connection at once"
        self.transport, self._wire, self.up_s = transport, wire, asyncio.get_running_loop().time()
        return None
