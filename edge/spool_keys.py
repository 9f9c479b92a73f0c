"""Keys of messages that were journaled, so that one that is delivered again is known.

Invariant: a key is durable with the readings of its message, in one transaction; the newest KEYS_MAX are kept.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from dataclasses import dataclass, field
from typing import Final

KEY_BYTES: Final = 16
KEYS_MAX: Final = 20_000
_SLACK: Final = KEYS_MAX // 10


@dataclass(slots=True)
class Keys:
    """The window. A commit costs one row."""

    db: sqlite3.Connection
    _rows: deque[tuple[int, int]] = field(default_factory=deque)
    """(position, keys), oldest first."""
    _total: int = 0

    def load(self) -> None:
        """Looks what is kept. After each ROLLBACK of something that changed it, too."""
        rows = self.db.execute(f"SELECT position, length(value) / {KEY_BYTES} FROM delivered ORDER BY position")  # noqa: S608
        self._rows = deque(rows.fetchall())
        self._total = sum(keys for _, keys in self._rows)

    def add(self, keys: bytes) -> None:
        """Keeps keys, end to end. Raises ValueError where there are not 16 bytes of each."""
        if len(keys) % KEY_BYTES:
            raise ValueError(f"expected keys of {KEY_BYTES} bytes, found {len(keys)} bytes")
        position = self.db.execute("INSERT INTO delivered (value) VALUES (?)", (keys,)).lastrowid
        assert position is not None  # noqa: S101
        self._rows.append((position, len(keys) // KEY_BYTES))
        self._total += len(keys) // KEY_BYTES
        if self._total > KEYS_MAX + _SLACK:
            self._prune()

    def all(self) -> list[bytes]:
        """The newest KEYS_MAX, oldest first."""
        value = b"".join(row[0] for row in self.db.execute("SELECT value FROM delivered ORDER BY position"))
        return [value[at : at + KEY_BYTES] for at in range(0, len(value), KEY_BYTES)][-KEYS_MAX:]

    def _prune(self) -> None:
        through = 0
        while self._rows and self._total - self._rows[0][1] >= KEYS_MAX:
            through, keys = self._rows.popleft()
            self._total -= keys
        self.db.execute("DELETE FROM delivered WHERE position <= ?", (through,))
