"""A Modbus TCP server for benchmarks, fast enough not to be what is measured. Read holding registers only.

Every unit id answers; a register's value is what the control connection last set, else address plus a counter that moves
with every second, so that values change as real ones do.

    python -m benchmarks.modbus_server --servers N         N ports on 127.0.0.1, printed in one line
    python -m benchmarks.modbus_server --endpoints N       one port on N loopback addresses (`loopback`), printed

The second form gives each device an endpoint of its own. It answers each line on its standard input with one line of
JSON: what it has answered so far (`Counts`). It ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import Final

HEADER: Final = struct.Struct(">HHHBBHH")
"""Transaction, protocol 0, length, unit, function, address, count: a whole read request (12 bytes)."""
ANSWER: Final = struct.Struct(">HHHBBB")
ILLEGAL_FUNCTION: Final = b"\x01"
UNITS: Final = 256
PER_SUBNET: Final = 250
BACKLOG: Final = 64
PORTS_TRIED: Final = 20


def loopback(endpoint: int) -> str:
    """The address of an endpoint, counted from 0: 127.0.1.1 … 127.0.1.250, 127.0.2.1 …"""
    return f"127.0.{1 + endpoint // PER_SUBNET}.{1 + endpoint % PER_SUBNET}"


@dataclass(slots=True)
class Counts:
    """What one endpoint has answered: requests by unit id."""

    by_unit: list[int] = field(default_factory=lambda: [0] * UNITS)
    connections: int = 0
    """Open ones."""


class Registers:
    """What the server answers: one table for all units, rebuilt once a second."""

    def __init__(self) -> None:
        self.fixed: dict[int, int] = {}
        self._second = -1
        self._words = b""

    def read(self, address: int, count: int) -> bytes:
        """`count` registers from `address`, as bytes on the wire."""
        second = int(time.monotonic())
        if second != self._second:
            self._second = second
            self._words = b"".join(((a + second) & 0x7FFF).to_bytes(2, "big") for a in range(2048))
        words = self._words[2 * address : 2 * (address + count)]
        for at, value in self.fixed.items():
            if address <= at < address + count:
                i = 2 * (at - address)
                words = words[:i] + value.to_bytes(2, "big") + words[i + 2 :]
        return words


class ModbusProtocol(asyncio.Protocol):
    """One client."""

    def __init__(self, registers: Registers, counts: Counts | None = None) -> None:
        self._registers = registers
        self._counts = counts or Counts()
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._counts.connections += 1
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._counts.connections -= 1

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        buffer = self._buffer + data if self._buffer else data
        out, at = [], 0
        while len(buffer) - at >= HEADER.size:
            transaction, _, _, unit, function, address, count = HEADER.unpack_from(buffer, at)
            at += HEADER.size
            if function == 3 and address + count <= 2048:
                words = self._registers.read(address, count)
                out.append(ANSWER.pack(transaction, 0, 3 + len(words), unit, 3, len(words)) + words)
                self._counts.by_unit[unit] += 1
            else:
                out.append(struct.pack(">HHHBB", transaction, 0, 3, unit, function | 0x80) + ILLEGAL_FUNCTION)
        self._buffer = buffer[at:]
        if self._transport is not None and out:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))


async def serve(registers: Registers, port: int = 0) -> asyncio.Server:
    """A server on 127.0.0.1. The port is in `server.sockets[0].getsockname()[1]`."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: ModbusProtocol(registers), "127.0.0.1", port)


async def serve_endpoints(endpoints: int) -> tuple[int, list[Counts]]:
    """One port on so many loopback addresses: (port, counts by endpoint)."""
    loop, registers = asyncio.get_running_loop(), Registers()
    counts = [Counts() for _ in range(endpoints)]
    sockets = _same_port(endpoints)
    for one, its in zip(sockets, counts, strict=True):
        await loop.create_server(lambda its=its: ModbusProtocol(registers, its), sock=one, backlog=BACKLOG)  # type: ignore[misc]
    return sockets[0].getsockname()[1], counts


def _same_port(endpoints: int) -> list[socket.socket]:
    """Listening sockets on `loopback` addresses, all on one free port. Raises OSError when none is found."""
    for _ in range(PORTS_TRIED):
        sockets = [socket.create_server((loopback(0), 0), backlog=BACKLOG)]
        port = sockets[0].getsockname()[1]
        try:
            sockets += [socket.create_server((loopback(place), port), backlog=BACKLOG) for place in range(1, endpoints)]
        except OSError:
            for one in sockets:
                one.close()
        else:
            return sockets
    raise OSError(f"expected a port that is free on {endpoints} loopback addresses, found none")


async def _main_ports(ports: int) -> None:
    servers = [await serve(Registers()) for _ in range(ports)]
    print(" ".join(str(s.sockets[0].getsockname()[1]) for s in servers), flush=True)
    await asyncio.Event().wait()


async def _main_endpoints(endpoints: int) -> None:
    port, counts = await serve_endpoints(endpoints)
    print(port, flush=True)
    asked: asyncio.Queue[str] = asyncio.Queue()
    asyncio.get_running_loop().add_reader(sys.stdin, lambda: asked.put_nowait(sys.stdin.readline()))
    while await asked.get():
        requests = [n for its in counts for n in its.by_unit if n]
        connections = sum(its.connections for its in counts)
        print(json.dumps({"requests": sum(requests), "units": len(requests), "connections": connections}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--endpoints", type=int, default=0)
    arguments = parser.parse_args()
    asyncio.run(_main_endpoints(arguments.endpoints) if arguments.endpoints else _main_ports(arguments.servers))
