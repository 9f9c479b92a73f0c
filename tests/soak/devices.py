"""What a simulated Modbus device answers, and what it remembers of it. Pure: bytes in, bytes out.

Each answer that covers a whole block of registers has a number of its own, and the device notes when it gave it and
whether the edge may have it: GOOD must come to the table, MAYBE may (late, or in part), NEVER must not (another unit's,
another transaction's). It also notes which answers were asked for again: the same registers twice in a row, on two
connections. A cycle asks for each once, and the edge never asks again on the connection that it asked on.
"""

from __future__ import annotations

import math
import random
from array import array
from dataclasses import dataclass, field
from typing import Final

from tests.soak.layout import BLOCK, A, B, Place, check

GOOD, MAYBE, NEVER = 0, 1, 2
REFUSED_FROM: Final = B + 2
"""A device that refuses addresses refuses this one and all above."""
FAULTS: Final = (
    "silent",
    "late",
    "reset",
    "garbage",
    "drip",
    "refuse",
    "busy",
    "other-unit",
    "other-transaction",
    "short",
)


@dataclass(slots=True)
class Block:
    """Numbers that were given: number n at place n − 1."""

    at_s: array[float] = field(default_factory=lambda: array("d"))
    """Wall clock."""
    status: bytearray = field(default_factory=bytearray)
    again: bytearray = field(default_factory=bytearray)
    """1: the next number answers the same request, asked again."""

    def give(self, at_s: float, status: int) -> int:
        """The next number."""
        self.at_s.append(at_s)
        self.status.append(status)
        self.again.append(0)
        return len(self.status)


@dataclass(slots=True, eq=False)
class Visit:
    """A request as its device saw it."""

    connection: object
    """Which it came on; None where answers name no transaction, and the edge asks nothing again."""
    address: int
    count: int
    before: Visit | None = None
    """The one before it, until the device is done with this one."""
    gave: list[tuple[Block, int]] = field(default_factory=list)
    """The numbers of its answer."""

    def repeats(self, other: Visit) -> bool:
        """Whether it asks for the same again, on another connection."""
        asked, of = (self.address, self.count), (other.address, other.count)
        return asked == of and None is not self.connection is not other.connection


@dataclass(slots=True)
class Unit:
    """One device."""

    place: Place
    fault: str | None = None
    mute: bool = False
    """Never answers at all."""
    delay_s: float = 0.0
    a: Block = field(default_factory=Block)
    b: Block = field(default_factory=Block)
    asked: int = 0
    answered: int = 0
    booted: int = 0
    """The number of block a at which it was started last: its total counts from there."""
    _last: Visit | None = None

    def visit(self, connection: object, address: int, count: int) -> Visit:
        """A request came."""
        self._last = Visit(connection, address, count, self._last)
        return self._last

    def pdu(
        self, function: int, address: int, count: int, *, at_s: float, status: int, visit: Visit | None = None
    ) -> bytes:
        """The answer to a read of registers, all of whose answers are noted with `status`."""
        before, gave = (visit.before, visit.gave) if visit is not None else (None, [])
        words = {}
        for start, block in ((A, self.a), (B, self.b)):
            if address < start + BLOCK and address + count > start:
                whole = address <= start and address + count >= start + BLOCK
                number = block.give(at_s, status if whole or status == NEVER else MAYBE)
                words.update(self._words(start, number))
                gave.append((block, number))
        if visit is not None and before is not None and visit.repeats(before):
            for block, number in before.gave:
                block.again[number - 1] = 1
        body = b"".join((words.get(address + i, 0)).to_bytes(2, "big") for i in range(count))
        self.answered += 1
        return bytes((function, len(body))) + body

    def _words(self, start: int, number: int) -> dict[int, int]:
        level = round(1000 + 300 * math.sin(number / 40 + self.place.index))
        values = (
            number >> 16,
            number & 0xFFFF,
            check(number, self.place.index),
            level,
            number // 30 % 4,
            (number - self.booted) * 17 & 0xFFFF,
        )
        return {start + i: value for i, value in enumerate(values)}

    def refuses(self, address: int, count: int) -> int | None:
        """The exception that a request gets."""
        if self.fault == "busy":
            return 6
        if self.fault == "refuse" and address + count > REFUSED_FROM:
            return 2
        return None

    def reboot(self) -> None:
        """Its total begins again."""
        self.booted = len(self.a.status)


def crc(data: bytes) -> bytes:
    """MODBUS over Serial Line 1.02, appendix B."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return value.to_bytes(2, "little")


def rtu(unit: int, pdu: bytes) -> bytes:
    """A frame of a line."""
    frame = bytes((unit,)) + pdu
    return frame + crc(frame)


def tcp(transaction: int, unit: int, pdu: bytes) -> bytes:
    """A frame of a network."""
    return transaction.to_bytes(2, "big") + b"\0\0" + (len(pdu) + 1).to_bytes(2, "big") + bytes((unit,)) + pdu


def garbage(drawn: random.Random) -> bytes:
    """What is no frame."""
    return drawn.randbytes(drawn.randint(1, 60))
