"""A Modbus TCP device written by hand from the specification (Messaging on TCP/IP 1.0b), to misbehave at will.

A behaviour takes a request and gives the bytes to send; `CLOSE` closes the connection, `RESET` resets it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as it came."""

    transaction: int
    unit: int
    function: int
    address: int
    count: int
    at_s: float
    connection: int = 0
    """On which of the device's connections, counted from 1."""


class Close(Exception):
    """The device closes the connection after what it sent."""


class Reset(Exception):
    """The device resets the connection."""


Behaviour = Callable[[Ask, asyncio.StreamWriter], Awaitable[None]]


def frame(ask: Ask, pdu: bytes, **other: int) -> bytes:
    """An answer: MBAP header and PDU; `transaction`, `protocol`, `length`, `unit` may differ from what is right."""
    return (
        struct.pack(
            ">HHHB",
            other.get("transaction", ask.transaction),
            other.get("protocol", 0),
            other.get("length", len(pdu) + 1),
            other.get("unit", ask.unit),
        )
        + pdu
    )


def data(ask: Ask, *, shift: int = 0, function: int | None = None) -> bytes:
    """The PDU that answers a read of registers whose values are their addresses, or of bits that are all on."""
    if ask.function in (1, 2):
        body = b"\xff" * ((ask.count + 7) // 8)
    else:
        body = b"".join(struct.pack(">H", (ask.address + i + shift) % 65536) for i in range(ask.count))
    return bytes([function if function is not None else ask.function, len(body)]) + body


async def good(ask: Ask, writer: asyncio.StreamWriter) -> None:
    """Answers as it should."""
    writer.write(frame(ask, data(ask)))


async def silent(ask: Ask, writer: asyncio.StreamWriter) -> None:
    """Never answers."""


def send(make: Callable[[Ask], bytes]) -> Behaviour:
    """Answers with these bytes."""

    async def behave(ask: Ask, writer: asyncio.StreamWriter) -> None:
        writer.write(make(ask))

    return behave


@dataclass(slots=True)
class Device:
    """A device that listens on a port of its own. `asked` has every request it got."""

    behaviour: Behaviour = good
    asked: list[Ask] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    tls: ssl.SSLContext | None = None
    _server: asyncio.Server | None = None
    _serving: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Device:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"modbus+tcp://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        task: asyncio.Task[None] | None = asyncio.current_task()
        assert task is not None
        self._serving.append(task)
        try:
            while True:
                head = await reader.readexactly(7)
                transaction, protocol, length, unit = struct.unpack(">HHHB", head)
                pdu = await reader.readexactly(length - 1)
                assert protocol == 0
                assert pdu[0] in (1, 2, 3, 4), "nothing but reads may ever arrive"
                function, address, count = struct.unpack(">BHH", pdu)
                ask = Ask(transaction, unit, function, address, count, time.monotonic(), connection)
                self.asked.append(ask)
                await self.behaviour(ask, writer)
                await writer.drain()
        except Close:
            await writer.drain()
        except Reset:
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()
