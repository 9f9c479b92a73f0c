"""A serial line of this machine (a pty pair) with a Modbus RTU unit at its other end, written by hand from MODBUS over
Serial Line 1.02, to misbehave at will.

A behaviour takes a request and the line, and says on it what it likes. The line's device is a link, as those that udev
makes for USB adapters: it goes when the adapter is unplugged, and comes back to another terminal.
"""

from __future__ import annotations

import asyncio
import os
import struct
import termios
import time
import tty
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

REQUEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as it came."""

    unit: int
    function: int
    address: int
    count: int
    at_s: float


def checksum(body: bytes) -> bytes:
    """The algorithm of MODBUS over Serial Line 1.02, 6.2.2, bit by bit; low byte first."""
    value = 0xFFFF
    for byte in body:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value.to_bytes(2, "little")


def rtu(unit: int, pdu: bytes) -> bytes:
    """A frame."""
    body = bytes([unit]) + pdu
    return body + checksum(body)


def answer(ask: Ask, *, shift: int = 0) -> bytes:
    """The frame that answers a read: registers whose values are their addresses, bits that are all on."""
    if ask.function in (1, 2):
        data = b"\xff" * ((ask.count + 7) // 8)
    else:
        data = b"".join(struct.pack(">H", (ask.address + i + shift) % 65536) for i in range(ask.count))
    return rtu(ask.unit, bytes([ask.function, len(data)]) + data)


def good(ask: Ask, line: SerialLine) -> None:
    """Answers as it should."""
    line.say(answer(ask))


def silent(ask: Ask, line: SerialLine) -> None:
    """Never answers."""


Behaviour = Callable[[Ask, "SerialLine"], None]


@dataclass(slots=True)
class SerialLine:
    """A line and the unit on it. `asked` has every request that came whole; anything else that came is in `odd`."""

    link: Path
    behaviour: Behaviour = good
    asked: list[Ask] = field(default_factory=list)
    said_s: list[float] = field(default_factory=list)
    odd: bytes = b""
    _ours: int = -1
    _theirs: int = -1
    _buffer: bytes = b""

    async def __aenter__(self) -> SerialLine:
        self.plug_in()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unplug()

    def plug_in(self) -> None:
        """The adapter is there."""
        self._ours, self._theirs = os.openpty()
        tty.setraw(self._theirs)
        os.set_blocking(self._ours, False)
        self.link.symlink_to(os.ttyname(self._theirs))
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    def unplug(self) -> None:
        """The adapter is gone."""
        if self._ours >= 0:
            asyncio.get_running_loop().remove_reader(self._ours)
            os.close(self._ours)
            os.close(self._theirs)
            self._ours = -1
            self.link.unlink()

    def say(self, data: bytes) -> None:
        """Puts bytes on the line."""
        os.write(self._ours, data)
        self.said_s.append(time.monotonic())

    def say_later(self, seconds: float, data: bytes) -> None:
        """The same after a while."""
        asyncio.get_running_loop().call_later(seconds, self.say, data)

    def url(self, unit: int = 1, options: str = "") -> str:
        """Its address."""
        return f"modbus+rtu://{self.link}/{unit}{options}"

    def settings(self) -> tuple[int, bool]:
        """How the other side speaks: baud, and whether with two stop bits. (A pty has no parity.)"""
        _, _, flags, _, _, speed, _ = termios.tcgetattr(self._theirs)
        rates = {
            getattr(termios, name): int(name[1:]) for name in dir(termios) if name[0] == "B" and name[1:].isdigit()
        }
        return rates[speed], bool(flags & termios.CSTOPB)

    def _read(self) -> None:
        try:
            self._buffer += os.read(self._ours, 4096)
        except BlockingIOError:
            return
        while len(self._buffer) >= REQUEST_BYTES:
            frame, self._buffer = self._buffer[:REQUEST_BYTES], self._buffer[REQUEST_BYTES:]
            unit, function, address, count = struct.unpack(">BBHH", frame[:6])
            if frame[6:] != checksum(frame[:6]) or function not in (1, 2, 3, 4):
                self.odd += frame
                continue
            ask = Ask(unit, function, address, count, time.monotonic())
            self.asked.append(ask)
            self.behaviour(ask, self)
