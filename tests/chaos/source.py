"""The devices, as a process of its own: the truth about what was said. It is never killed.

    python -m tests.chaos.source EDGES UNITS

prints its port, then answers each line on its standard input, the name of a file, with a line when what it has answered
so far is in that file (npz: for each device when each of its answers left, by the wall clock, and whether the edge must
have it). It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from tests.chaos.layout import WORDS, Fleet, Place, words
from tests.soak.devices import GOOD, MAYBE

REQUEST: Final = struct.Struct(">HHHBBHH")
"""Transaction, protocol 0, length, unit, function, address, count (Modbus application protocol 1.1b3; 12 bytes)."""
ANSWER: Final = struct.Struct(">HHHBBB")
PORTS_TRIED: Final = 20


@dataclass(slots=True)
class Device:
    """One device, and what it said: answer n at place n − 1."""

    place: Place
    at_s: array[float] = field(default_factory=lambda: array("d"))
    status: bytearray = field(default_factory=bytearray)

    def answer(self, transaction: int, unit: int, address: int, count: int, *, heard: bool) -> bytes:
        """The frame that answers a read of registers."""
        self.at_s.append(time.time())
        self.status.append(GOOD if heard and address == 0 and count == WORDS else MAYBE)
        body = words(len(self.status), self.place.index)[address : address + count].astype(">u2").tobytes()
        return ANSWER.pack(transaction, 0, 3 + len(body), unit, 3, len(body)) + body


class Client(asyncio.Protocol):
    """One connection of an edge."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        assert self._transport is not None
        self._buffer += data
        while len(self._buffer) >= REQUEST.size:
            transaction, _, _, unit, function, address, count = REQUEST.unpack_from(self._buffer)
            self._buffer = self._buffer[REQUEST.size :]
            if function != 3 or address + count > WORDS:
                self._transport.write(struct.pack(">HHHBBB", transaction, 0, 3, unit, function | 0x80, 2))
                continue
            heard = not self._transport.is_closing()
            self._transport.write(self._device.answer(transaction, unit, address, count, heard=heard))


def sockets(fleet: Fleet) -> list[socket.socket]:
    """A listening socket for each device, all on one free port. Raises OSError when none is found."""
    for _ in range(PORTS_TRIED):
        found: list[socket.socket] = []
        port = 0
        try:
            for place in fleet.places:
                found.append(socket.create_server((place.host, port)))
                port = found[0].getsockname()[1]
        except OSError:
            for one in found:
                one.close()
        else:
            return found
    raise OSError("expected a port that is free on all the devices' addresses, found none")


def report(devices: list[Device], file: Path) -> None:
    """What was said so far."""
    arrays = {f"{device.place.name}/at_s": np.array(device.at_s) for device in devices}
    arrays |= {f"{device.place.name}/status": np.frombuffer(bytes(device.status), np.uint8) for device in devices}
    np.savez(file, **arrays)  # type: ignore[arg-type, unused-ignore]


async def main(fleet: Fleet) -> None:
    """See the module."""
    loop = asyncio.get_running_loop()
    devices, listening = [Device(place) for place in fleet.places], sockets(fleet)
    for device, one in zip(devices, listening, strict=True):
        await loop.create_server(lambda device=device: Client(device), sock=one)  # type: ignore[misc]
    print(listening[0].getsockname()[1], flush=True)
    asked: asyncio.Queue[str] = asyncio.Queue()
    loop.add_reader(sys.stdin, lambda: asked.put_nowait(sys.stdin.readline()))
    while line := await asked.get():
        report(devices, Path(line.strip()))
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Fleet(int(sys.argv[1]), int(sys.argv[2]))))
