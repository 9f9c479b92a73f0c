"""The simulated Modbus devices on their connections: TCP, RTU over TCP, a serial line on a pty.

A gateway answers its units beside one another, each answer in one go: no byte of another comes between its bytes, however
slowly it comes. A line answers one request after another. What a device's fault does to
its bytes is here; what it answers and remembers is in tests.soak.devices.
"""

from __future__ import annotations

import asyncio
import os
import pty
import random
import socket
import struct
import time
import tty
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak import devices
from tests.soak.devices import GOOD, MAYBE, NEVER, Unit, Visit
from tests.soak.layout import TIMEOUT_S

LATE_S = TIMEOUT_S + 0.3
REQUEST_BYTES = 12
LINE_REQUEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came."""

    transaction: int
    """−1 on a line."""
    unit: Unit
    function: int
    address: int
    count: int

    def frame(self, pdu: bytes, *, unit_by: int = 0, transaction_by: int = 0) -> bytes:
        """The answer as this connection has it."""
        unit = (self.unit.place.unit + unit_by) % 256
        if self.transaction < 0:
            return devices.rtu(unit, pdu)
        return devices.tcp((self.transaction + transaction_by) % 65536, unit, pdu)


@dataclass(frozen=True, slots=True)
class Wire:
    """Where answers go."""

    write: Callable[[bytes], None]
    reset: Callable[[], None]
    is_open: Callable[[], bool]
    """Whether anybody is still there to hear the answer."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Who has it speaks. Without it an answer that drips would have others' bytes in it, which no receiver can tell."""


async def answer(asked: Asked, wire: Wire, drawn: random.Random) -> None:
    """What the device does with a request."""
    visit = asked.unit.visit(wire if asked.transaction >= 0 else None, asked.address, asked.count)
    try:
        await _answer(asked, visit, wire, drawn)
    finally:
        visit.before = None


async def _answer(asked: Asked, visit: Visit, wire: Wire, drawn: random.Random) -> None:
    unit, fault = asked.unit, asked.unit.fault
    unit.asked += 1
    if unit.mute or fault == "silent":
        return
    if unit.delay_s:
        await asyncio.sleep(unit.delay_s)
    code = unit.refuses(asked.address, asked.count)
    if code is None and fault == "late":
        await asyncio.sleep(LATE_S)
    async with wire.turn:
        if code is not None:
            wire.write(asked.frame(bytes((asked.function | 0x80, code))))
        else:
            await _say(asked, visit, wire, drawn, fault)


async def _say(asked: Asked, visit: Visit, wire: Wire, drawn: random.Random, fault: str | None) -> None:
    """What comes instead of an exception."""

    def pdu(status: int) -> bytes:
        return _pdu(asked, visit, status)

    if fault == "garbage":
        wire.write(devices.garbage(drawn))
    elif fault == "late":
        wire.write(asked.frame(pdu(MAYBE)))
    elif fault == "drip":
        for byte in asked.frame(pdu(MAYBE)):
            wire.write(bytes((byte,)))
            await asyncio.sleep(0.001)
    elif fault == "reset":
        wire.write(asked.frame(pdu(NEVER))[:9])
        wire.reset()
    elif fault == "short":
        wire.write(asked.frame(pdu(NEVER)[:-2]))
    elif fault == "other-unit":
        wire.write(asked.frame(pdu(NEVER), unit_by=100))
    elif fault == "other-transaction" and asked.transaction >= 0:
        wire.write(asked.frame(pdu(NEVER), transaction_by=-30_000))
    else:
        wire.write(asked.frame(pdu(GOOD if wire.is_open() else MAYBE)))


def _pdu(asked: Asked, visit: Visit, status: int) -> bytes:
    unit = asked.unit
    return unit.pdu(asked.function, asked.address, asked.count, at_s=time.time(), status=status, visit=visit)


@dataclass(slots=True, eq=False)
class Endpoint:
    """A TCP endpoint with its units; `down` closes it and every connection, `up` has it listen again."""

    host: str
    port: int
    units: Mapping[int, Unit]
    drawn: random.Random
    line: bool = False
    """RTU frames, one after another."""
    accepted: int = 0
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._open)

    async def up(self) -> None:
        """Listens."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, self.host, self.port, reuse_address=True)

    async def down(self) -> None:
        """Gone, as when the power is cut: connections are reset."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in list(self._open):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._open.add(writer)
        wire = Wire(writer.write, lambda: _reset(writer), lambda: writer in self._open and not writer.is_closing())
        try:
            while True:
                asked = await (self._line_request(reader) if self.line else self._request(reader))
                if asked is None:
                    continue
                if self.line or len(self.units) == 1:
                    await answer(asked, wire, self.drawn)
                else:
                    task = asyncio.create_task(answer(asked, wire, self.drawn))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> Asked | None:
        transaction, protocol, length, unit, function, address, count = struct.unpack(
            ">HHHBBHH", await reader.readexactly(REQUEST_BYTES)
        )
        assert (protocol, length) == (0, 6)
        assert function in (1, 2, 3, 4), "nothing but reads may ever arrive"
        return Asked(transaction, self.units[unit], function, address, count) if unit in self.units else None

    async def _line_request(self, reader: asyncio.StreamReader) -> Asked | None:
        return line_request(await reader.readexactly(LINE_REQUEST_BYTES), self.units)


def line_request(frame: bytes, units: Mapping[int, Unit]) -> Asked | None:
    """A request in RTU framing."""
    unit, function, address, count = struct.unpack(">BBHH", frame[:6])
    assert devices.crc(frame[:6]) == frame[6:], "the edge's own frames are sound"
    assert function in (1, 2, 3, 4), "nothing but reads may ever arrive"
    return Asked(-1, units[unit], function, address, count) if unit in units else None


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    with suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@dataclass(slots=True, eq=False)
class Line:
    """A serial line: a pty, to which a link of a lasting name leads. `down` takes both away, as a pulled adapter does."""

    link: Path
    units: Mapping[int, Unit]
    drawn: random.Random
    _master: int | None = None
    _waiting: bytearray = field(default_factory=bytearray)
    _task: asyncio.Task[None] | None = None
    _requests: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)

    async def up(self) -> None:
        """Plugged in."""
        if self._master is not None:
            return
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        name = os.ttyname(slave)
        os.close(slave)
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(name)
        os.set_blocking(self._master, False)
        asyncio.get_running_loop().add_reader(self._master, self._readable, self._master)
        self._waiting.clear()
        self._requests = asyncio.Queue()
        self._task = asyncio.create_task(self._serve(self._master))

    async def down(self) -> None:
        """Pulled out."""
        master, self._master = self._master, None
        if master is None:
            return
        self.link.unlink(missing_ok=True)
        asyncio.get_running_loop().remove_reader(master)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        os.close(master)

    def _readable(self, master: int) -> None:
        try:
            self._waiting += os.read(master, 4096)
        except BlockingIOError:
            return
        except OSError:  # nobody has it open: poll it again in a moment, not at once
            loop = asyncio.get_running_loop()
            loop.remove_reader(master)
            self._waiting.clear()
            loop.call_later(0.05, self._listen, master)
            return
        while len(self._waiting) >= LINE_REQUEST_BYTES:
            self._requests.put_nowait(bytes(self._waiting[:LINE_REQUEST_BYTES]))
            del self._waiting[:LINE_REQUEST_BYTES]

    def _listen(self, master: int) -> None:
        if self._master == master:
            asyncio.get_running_loop().add_reader(master, self._readable, master)

    async def _serve(self, master: int) -> None:
        def write(data: bytes) -> None:
            with suppress(OSError):
                os.write(master, data)

        wire = Wire(write, lambda: None, lambda: self._master == master)
        while True:
            asked = line_request(await self._requests.get(), self.units)
            if asked is not None:
                await answer(asked, wire, self.drawn)
