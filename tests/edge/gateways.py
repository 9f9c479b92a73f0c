"""Simulated gateways with many units behind them, silent ones, slow ones, and such as spoil the connection; they note when
each unit is reached.

- `concurrent`: passes each request on at once and answers by transaction.
- `in order`: serves each connection one request after another, connections beside one another.
- `one line`: one serial line behind it, which all connections share; a silent unit is waited for.
- `newest only`, `one only`, `deaf to more`: in order, and lives with one connection: a new one ends the older; is closed
  at once; is accepted, and never served. As long as it works on a request, a connection counts as open.

What was begun for a unit goes on when the connection is closed, as it does in gateways.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import defaultdict
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from telemetry.service import cancel_all

Spoil = Literal["reset", "close", "half and reset", "garbage", "short", "other unit", "other function"]
SPOILS: tuple[Spoil, ...] = ("reset", "close", "half and reset", "garbage", "short", "other unit", "other function")
Kind = Literal["concurrent", "in order", "one line", "newest only", "one only", "deaf to more"]
KINDS: tuple[Kind, ...] = ("concurrent", "in order", "one line", "newest only", "one only", "deaf to more")
_HEADER = struct.Struct(">HHHBBHH")


@dataclass(slots=True)
class Gateway:
    """One gateway. Reached units are in `reached`: unit → when each request that begins a cycle (address 0) came there."""

    kind: Kind
    usual_s: float
    """What a unit takes to answer."""
    slow: Mapping[int, float] = field(default_factory=dict)
    silent: frozenset[int] = frozenset()
    wait_s: float = 1.0
    """How long the gateway waits for a silent unit before it answers exception 11."""
    spoils: dict[int, Spoil] = field(default_factory=dict)
    """What comes to the connection in place of a unit's answer."""
    reached: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    ways: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Unit → the connections, counted from 1, by which it was asked, request by request."""
    accepted: int = 0
    port: int = 0
    clients: list[_Client] = field(default_factory=list)
    _open: list[_Client] = field(default_factory=list)
    _line: asyncio.Lock = field(default_factory=asyncio.Lock)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Gateway:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Client(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for client in list(self.clients):
            client.end()
            await client.stop()

    def heal(self) -> None:
        """The silent units answer from now on."""
        self.silent = frozenset()

    async def account(self) -> None:
        """`reached` is always up to date."""

    def admit(self, client: _Client) -> None:
        """A client connected."""
        self.accepted += 1
        self.clients.append(client)
        client.number = self.accepted
        if self.kind == "newest only":
            for older in self._open:
                older.end()
        elif self._open and self.kind == "one only":
            client.end()
            return
        elif self._open and self.kind == "deaf to more":
            client.deaf = True
            return
        self._open.append(client)

    def dismiss(self, client: _Client) -> None:
        """A client is gone."""
        if client in self._open:
            self._open.remove(client)

    async def serve(self, request: bytes, way: int) -> bytes:
        """What the unit, or the gateway in its place, answers; when it does."""
        self.ways[request[6]].append(way)
        if self.kind != "one line":
            return await self._ask(request)
        async with self._line:
            return await self._ask(request)

    async def _ask(self, request: bytes) -> bytes:
        transaction, _, _, unit, function, address, count = _HEADER.unpack(request)
        if address == 0:
            self.reached[unit].append(asyncio.get_running_loop().time())
        if unit in self.silent:
            await asyncio.sleep(self.wait_s)
            return struct.pack(">HHHBBB", transaction, 0, 3, unit, function | 0x80, 11)
        await asyncio.sleep(self.slow.get(unit, self.usual_s))
        words = b"".join((address + i).to_bytes(2, "big") for i in range(count))
        return struct.pack(">HHHBBB", transaction, 0, 3 + len(words), unit, function, len(words)) + words


class _Client(asyncio.Protocol):
    """One connection to a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.number = 0
        self.deaf = False
        self.busy = False
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.gateway.admit(self)
        if self.gateway.kind != "concurrent":
            self._start(self._in_order())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _HEADER.size and not self.deaf:
            request, self._buffer = self._buffer[: _HEADER.size], self._buffer[_HEADER.size :]
            if self.gateway.kind == "concurrent":
                self._start(self._answer(request))
            else:
                self._waiting.put_nowait(request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end()

    def end(self) -> None:
        """Closes the connection."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        if not self.busy:
            self._over()

    def _over(self) -> None:
        self.gateway.dismiss(self)
        for task in self._tasks:
            task.cancel()

    async def stop(self) -> None:
        """Ends what is under way."""
        await cancel_all(tuple(self._tasks))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _in_order(self) -> None:
        while self._transport is not None:
            request = await self._waiting.get()
            self.busy = True
            await self._answer(request)
            self.busy = False
        self._over()

    async def _answer(self, request: bytes) -> None:
        answer = await self.gateway.serve(request, self.number)
        spoil = self.gateway.spoils.get(request[6])
        if self._transport is None:
            return
        self._transport.write(answer if spoil is None else spoiled(answer, spoil))
        if spoil in ("reset", "half and reset"):
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        elif spoil == "close":
            self._transport.close()


def spoiled(answer: bytes, spoil: Spoil) -> bytes:
    """What comes instead of an answer."""
    if spoil in ("reset", "close"):
        return b""
    if spoil == "half and reset":
        return answer[: len(answer) // 2]
    if spoil == "garbage":
        return b"\xde\xad\xbe\xef" * 5
    if spoil == "short":
        return answer[:4] + (len(answer) - 8).to_bytes(2, "big") + answer[6:8] + bytes([answer[8] - 2]) + answer[9:-2]
    at, by = (6, 100) if spoil == "other unit" else (7, 1)
    return answer[:at] + bytes([answer[at] + by]) + answer[at + 1 :]
