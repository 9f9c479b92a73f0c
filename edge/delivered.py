"""Messages that were taken before, known when they come again: after a crash, or after a reconnect.

A message is known by 16 bytes: BLAKE2b of (equipment, topic, payload), where the payload holds the device's own time.
Two different messages have two times; one that a device sends twice with one time says the same of the same moment.
So a message that is known is left out whether or not its broker marks it as a duplicate. Without a device time a
message has no key: delivered again, it is taken again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

KEY_BYTES: Final = 16
WINDOW: Final = 65_536
"""Keys that are remembered (10 MB): no broker has more messages than packet ids, 65,535, on their way to one client."""


def key_of(prefix: bytes, payload: bytes) -> bytes:
    """16 bytes that stand for a message; about 1 µs. `prefix` names equipment and topic (see prefix_of)."""
    return blake2b(prefix + payload, digest_size=KEY_BYTES).digest()


def prefix_of(equipment: str, topic: str) -> bytes:
    """What a key has of equipment and topic. No name of either holds a NUL."""
    return f"{equipment}\0{topic}\0".encode()


@dataclass(slots=True)
class Delivered:
    """The last `window` keys. Not for several threads."""

    window: int = WINDOW
    _known: set[bytes] = field(default_factory=set)
    _order: deque[bytes] = field(default_factory=deque)

    def remember(self, keys: Iterable[bytes]) -> None:
        """Keys of an earlier run, oldest first."""
        for key in keys:
            self.is_new(key)

    def is_new(self, key: bytes) -> bool:
        """Whether the key was not known; from now on it is."""
        if key in self._known:
            return False
        self._known.add(key)
        self._order.append(key)
        if len(self._order) > self.window:
            self._known.discard(self._order.popleft())
        return True
