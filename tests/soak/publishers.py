"""The simulated MQTT devices: QoS 1 on a connection of their own each, written by hand (MQTT 3.1.1), so that each knows
which of its messages the broker acknowledged. One that was not acknowledged is sent again, as it was.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from tests.soak.devices import Block
from tests.soak.layout import Place, check

PATIENCE_S: Final = 5.0
AGAIN_S: Final = 0.3
ACKNOWLEDGED, SENT = 0, 1
"""Statuses of a number, as GOOD and MAYBE of tests.soak.devices: must, and may, come to the table."""


@dataclass(slots=True, eq=False)
class Publisher:
    """One device. `run` publishes once a second until cancelled."""

    place: Place
    port: int
    drawn: random.Random
    fault: str | None = None
    a: Block = field(default_factory=Block)
    burst: int = 0
    """So many messages more at once."""
    connections: int = 0
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        """Publishes, whatever happens to the broker."""
        await asyncio.sleep(self.drawn.random())
        try:
            while True:
                if self.fault == "silent":
                    await asyncio.sleep(0.2)
                    continue
                if self.fault == "garbage":
                    await self._deliver(self._garbage())
                await self._publish()
                if self.burst > 0:
                    self.burst -= 1
                else:
                    await asyncio.sleep(1)
        finally:
            self._hang_up()

    async def _publish(self) -> None:
        number = self.a.give(time.time(), SENT)
        values = {"a": number, "a_check": check(number, self.place.index)}
        await self._deliver(json.dumps({"time": _now(), "values": values}).encode())
        self.a.status[number - 1] = ACKNOWLEDGED

    def _garbage(self) -> bytes:
        made = (b"", b"{", b"[1,2", b'{"values": 7}', b'{"time": "yesterday", "values": {}}', self.drawn.randbytes(50))
        return self.drawn.choice(made)

    async def _deliver(self, payload: bytes) -> None:
        """Sends until the broker has acknowledged it."""
        packet_id, again = self.drawn.randint(1, 65_535), 0
        while True:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._once(packet_id, payload, again=bool(again))
                return
            except (OSError, EOFError, TimeoutError):
                self._hang_up()
                again += 1
                await asyncio.sleep(AGAIN_S)

    async def _once(self, packet_id: int, payload: bytes, *, again: bool) -> None:
        if self._writer is None:
            await self._connect()
        assert self._writer is not None
        assert self._reader is not None
        if self.fault == "reset" and self.drawn.random() < 0.3:
            self._writer.write(b"\x32\x7f\0")  # half a packet, and gone
            raise ConnectionResetError
        topic = f"soak/{self.place.unit}/state".encode()
        body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", packet_id) + payload
        self._writer.write(bytes((0x3A if again else 0x32,)) + _length(len(body)) + body)
        while True:
            kind, length = await self._reader.readexactly(2)
            content = await self._reader.readexactly(length)
            if kind == 0x40 and content == struct.pack(">H", packet_id):
                return

    async def _connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.connections += 1
        name = self.place.name.encode()
        body = b"\x00\x04MQTT\x04\x02" + struct.pack(">HH", 120, len(name)) + name
        self._writer.write(b"\x10" + _length(len(body)) + body)
        if (await self._reader.readexactly(4))[:2] != b"\x20\x02":
            raise ConnectionError("expected CONNACK")

    def _hang_up(self) -> None:
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            with suppress(OSError):
                writer.transport.abort()


def _now() -> str:
    """To the microsecond: no two messages of a device have one time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _length(value: int) -> bytes:
    """MQTT 3.1.1, section 2.2.3."""
    made = b""
    while True:
        value, digit = divmod(value, 128)
        made += bytes((digit | 0x80 if value else digit,))
        if not value:
            return made
