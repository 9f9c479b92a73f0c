"""An MQTT byte stream taken apart into packets: PUBLISH packets are read here, all others are for paho-mqtt.

Why not all by paho: it reads a packet in four calls of recv, copies it three times, and looks for the callback of each
message; at 20 fields of JSON that is two thirds of all that the edge does. See docs/adr/0014.

Source: MQTT 3.1.1 and 5.0 (OASIS), sections 2.2 (fixed header), 3.3 (PUBLISH), 3.4 (PUBACK: 40 02, packet id).
Invariant: however the stream is cut into pieces, the same packets come out, in order; no packet beyond `limit` bytes is
held in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

RETAIN: Final = 0x01
QOS_1: Final = 0x02
QOS_2: Final = 0x04
DUP: Final = 0x08
TOO_LARGE: Final = 0x100
"""Beside a PUBLISH packet's first byte: the payload is its size in decimal digits, for it was not kept."""
LIMIT: Final = 1 << 20
"""Bytes of the largest packet that is read."""
_PUBLISH: Final = 0x30
_PUBACK: Final = b"\x40\x02"


class StreamError(Exception):
    """What came is no MQTT, or nothing that was asked for. The connection cannot go on."""


@dataclass(slots=True)
class Published:
    """PUBLISH packets, in order: columns of one length, and the acknowledgements of those that want one."""

    heads: list[int] = field(default_factory=list)
    topics: list[bytes] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    acks: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class PacketStream:
    """What has come of one connection and is not taken yet."""

    version_5: bool
    limit: int = LIMIT
    control: bytearray = field(default_factory=bytearray)
    """Whole packets that are no PUBLISH."""
    published: Published = field(default_factory=Published)
    _rest: bytes = b""
    _skip: int = 0
    """Bytes still to come of a payload that is not kept."""

    def feed(self, data: bytes) -> None:
        """Takes the next bytes. Raises StreamError."""
        if self._skip:
            cut = min(self._skip, len(data))
            self._skip -= cut
            data = data[cut:]
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        while at + 2 <= size:
            head, length, body = data[at], data[at + 1], at + 2
            if length > 127:
                length, body = _varint(data, at + 1)
                if not body:
                    break
            after = body + length
            if length > self.limit:
                begun, at = at, self._oversized(data, at, body, after)
                if at == begun:
                    break
                continue
            if after > size:
                break
            if head & 0xF0 == _PUBLISH:
                self._publish(data, head, body, after)
            else:
                self.control += data[at:after]
            at = after
        self._rest = data[at:]

    def take(self) -> Published:
        """The PUBLISH packets since the last call."""
        taken, self.published = self.published, Published()
        return taken

    def _publish(self, data: bytes, head: int, body: int, after: int) -> None:
        start = self._header(data, head, body, after)
        if self.version_5:
            if start < after and data[start] < 128:
                start += 1 + data[start]
            else:
                length, end = _varint(data[start:after], 0)
                start = start + end + length if end else after + 1
            if start > after:
                raise StreamError("PUBLISH: properties beyond the packet's end")
        self.published.payloads.append(data[start:after])

    def _header(self, data: bytes, head: int, body: int, after: int) -> int:
        """Takes topic and packet id; returns where they end."""
        topic_end = body + 2 + (data[body] << 8 | data[body + 1]) if body + 2 <= after else after + 1
        end = topic_end + 2 if head & 6 else topic_end
        if end > after:
            raise StreamError("PUBLISH: topic or packet id beyond the packet's end")
        if head & QOS_2:
            raise StreamError("PUBLISH: a message of QoS 2, which was not subscribed to")
        if head & QOS_1:
            self.published.acks.append(_PUBACK + data[topic_end:end])
        self.published.heads.append(head)
        self.published.topics.append(data[body + 2 : topic_end])
        return end

    def _oversized(self, data: bytes, at: int, body: int, after: int) -> int:
        """A packet that is too large: of a PUBLISH all but its payload is taken. Returns where the rest begins."""
        head = data[at]
        if head & 0xF0 != _PUBLISH:
            raise StreamError(f"expected a packet of at most {self.limit} bytes, found {after - body}")
        if len(data) < min(after, body + 2 + 0xFFFF + 2):
            return at
        self._header(data, head, body, after)
        self.published.heads[-1] |= TOO_LARGE
        self.published.payloads.append(b"%d" % (after - body))
        self._skip = max(after - len(data), 0)
        return min(after, len(data))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, where it ends) of a variable byte integer; the end is 0 where it is not all there. Raises StreamError."""
    value = 0
    for place, byte in enumerate(data[at : at + 4]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    if len(data) - at >= 4:
        raise StreamError("a length of more than four bytes")
    return -1, 0
