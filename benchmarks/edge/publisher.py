"""A publisher that is not what is measured: bare MQTT 3.1.1 over one socket, QoS 1, packets made in bulk.

    python -m benchmarks.edge.publisher PORT DEVICES SHARDS MESSAGES

sends MESSAGES to the topics `bench/SHARD/DEVICE/state` in turn and ends when the broker has acknowledged the last one. Each
message has a device time of its own and FIELDS numbers.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

FIELDS: Final = 20
VARIANTS: Final = 64
"""Different sets of values, sent in turn."""
UNACKNOWLEDGED: Final = 2000
AT_ONCE: Final = 100
TIMEOUT_S: Final = 60.0
PUBACK_BYTES: Final = 4


def device_name(device: int) -> str:
    """The equipment's id."""
    return f"sensor-{device}"


def shard_of(device: int, shards: int) -> int:
    """Which of so many processes reads a device: a hash of its name, the same for ever."""
    return zlib.crc32(device_name(device).encode()) % shards


def prefix_of(device: int, shards: int) -> str:
    """Where a device speaks: below a level that a wildcard can take a shard by."""
    return f"bench/{shard_of(device, shards)}/{device_name(device)}"


def field_name(field: int) -> str:
    """Of a value in the payload."""
    return f"f{field:02}"


def values(variant: int) -> str:
    """The values of a message, as JSON."""
    chance = random.Random(variant)
    return ",".join(f'"{field_name(i)}":{chance.uniform(-50, 500):.2f}' for i in range(FIELDS))


def packet(topic: bytes, identifier: int, payload: bytes) -> bytes:
    """PUBLISH, QoS 1 (MQTT 3.1.1, section 3.3)."""
    body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", identifier) + payload
    length, rest = b"", len(body)
    while True:
        rest, digit = divmod(rest, 128)[0], rest % 128
        length += bytes((digit | 0x80 if rest else digit,))
        if not rest:
            return b"\x32" + length + body


def packets(devices: int, shards: int, messages: int) -> Iterator[bytes]:
    """All that is to be sent, in order. A device's times are 1 µs apart at least."""
    texts = [values(variant) for variant in range(VARIANTS)]
    topics = [f"{prefix_of(device, shards)}/state".encode() for device in range(devices)]
    for number in range(messages):
        stamp = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        payload = f'{{"time":"{stamp}","values":{{{texts[number % VARIANTS]}}}}}'.encode()
        yield packet(topics[number % devices], number % 65_535 + 1, payload)


def connect(port: int) -> socket.socket:
    """A clean session. Raises ConnectionError when the broker does not take it."""
    link = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    client = b"bench-publisher"
    body = b"\x00\x04MQTT\x04\x02" + struct.pack(">H", 120) + struct.pack(">H", len(client)) + client
    link.sendall(b"\x10" + bytes((len(body),)) + body)
    if link.recv(4)[:2] != b"\x20\x02":
        raise ConnectionError("expected CONNACK")
    return link


def main(port: int, devices: int, shards: int, messages: int) -> None:
    """Sends all, with at most UNACKNOWLEDGED on the way."""
    link, acknowledged_bytes, bundle = connect(port), 0, []
    for sent, one in enumerate(packets(devices, shards, messages), 1):
        bundle.append(one)
        if len(bundle) == AT_ONCE or sent == messages:
            link.sendall(b"".join(bundle))
            bundle.clear()
            allowed = UNACKNOWLEDGED if sent < messages else 0
            while sent - acknowledged_bytes // PUBACK_BYTES > allowed:
                if not (came := link.recv(1 << 16)):
                    raise ConnectionError("the broker closed the connection")
                acknowledged_bytes += len(came)
    link.sendall(b"\xe0\x00")
    link.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]))
