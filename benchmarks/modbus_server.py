"""A Modbus TCP server for benchmarks, fast enough not to be what is measured. Read holding registers only.

Every unit id answers; a register's value is what the control connection last set, else address plus a counter that moves
with every second, so that values change as real ones do. `python -m benchmarks.modbus_server --port P` (0: any; printed).
"""

from __future__ import annotations

import argparse
import asyncio
import struct
import time
from typing import Final

HEADER: Final = struct.Struct(">HHHBBHH")
"""Transaction, protocol 0, length, unit, function, address, count: a whole read request (12 bytes)."""
ILLEGAL_FUNCTION: Final = b"\x01"


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

    def __init__(self, registers: Registers) -> None:
        self._registers = registers
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._buffer += data
        out = []
        while len(self._buffer) >= HEADER.size:
            transaction, _, _, unit, function, address, count = HEADER.unpack_from(self._buffer)
            self._buffer = self._buffer[HEADER.size :]
            if function == 3 and address + count <= 2048:
                words = self._registers.read(address, count)
                out.append(struct.pack(">HHHBBB", transaction, 0, 3 + len(words), unit, 3, len(words)) + words)
            else:
                out.append(struct.pack(">HHHBB", transaction, 0, 3, unit, function | 0x80) + ILLEGAL_FUNCTION)
        if self._transport is not None:
            self._transport.write(b"".join(out))


async def serve(registers: Registers, port: int = 0) -> asyncio.Server:
    """A server on 127.0.0.1. The port is in `server.sockets[0].getsockname()[1]`."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: ModbusProtocol(registers), "127.0.0.1", port)


async def _main(ports: int) -> None:
    servers = [await serve(Registers()) for _ in range(ports)]
    print(" ".join(str(s.sockets[0].getsockname()[1]) for s in servers), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=1)
    asyncio.run(_main(parser.parse_args().servers))
