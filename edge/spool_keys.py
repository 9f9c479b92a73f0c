"""Keys of messages that were journaled, so that one that is delivered again is known.

Invariant: a key is durable with the readings of its message, in one transaction; the newest KEYS_MAX are kept.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

KEY_BYTES: Final = 16
KEYS_MAX: Final = 65_536
"""As many as edge.delivered remembers while it runs: what a broker can have on its way to one client. Receive Maximum
asks for fewer, but mosquitto 2.0.11 (Debian 12) was seen with 15,000 and more beyond it."""
_SLACK: Final = KEYS_MAX // 10


@dataclass(slots=True)
class Keys:
    """The window. A commit costs one row."""

    db: sqlite3.Connection
    _total: int = 0

    def load(self) -> None:
        """Looks how many are kept. After each ROLLBACK of something that changed it, too."""
        (bytes_kept,) = self.db.execute("SELECT coalesce(sum(length(value)), 0) FROM delivered").fetchone()
        self._total = bytes_kept // KEY_BYTES

    def add(self, keys: bytes) -> None:
        """Keeps keys, end to end. Raises ValueError where there are not 16 bytes of each."""
        if len(keys) % KEY_BYTES:
            raise ValueError(f"expected keys of {KEY_BYTES} bytes, found {len(keys)} bytes")
        self.db.execute("INSERT INTO delivered (value) VALUES (?)", (keys,))
        self._total += len(keys) // KEY_BYTES
        if self._total > KEYS_MAX + _SLACK:
            self._prune()

    def all(self) -> list[bytes]:
        """The newest KEYS_MAX, oldest first."""
        value = b"".join(row[0] for row in self.db.execute("SELECT value FROM delivered ORDER BY position"))
        return [value[at : at + KEY_BYTES] for at in range(0, len(value), KEY_BYTES)][-KEYS_MAX:]

    def _prune(self) -> None:
        """The oldest rows; reads no others."""
        through, left = 0, self._total
        oldest = self.db.execute(f"SELECT position, length(value) / {KEY_BYTES} FROM delivered ORDER BY position")  # noqa: S608
        for position, keys in oldest:
            if left - keys < KEYS_MAX:
                break
            through, left = position, left - keys
        oldest.close()
        self.db.execute("DELETE FROM delivered WHERE position <= ?", (through,))
        self._total = left
