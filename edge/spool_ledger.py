"""The spool's ledger: increments are kept with each commit and published as records every few seconds.

A commit costs one row, `tally`: its increments as JSON, the epoch's last seq, and the time. What rows say is also summed in
memory; `fold` writes the sums into the table `ledger` and deletes the rows, `publish` makes records of the sums.
Invariant: of every epoch, published + ledger + tally = exactly what was journaled, at every commit.

Of the spool's thread, within its transactions; memory changes only in `committed`, after COMMIT.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from edge.ledger import Increment, Increments, add
from telemetry.messages import Ledger, LedgerEntry
from telemetry.wire import Encoded, encode_ledger

ENTRIES_MAX: Final = 5_000
"""Ledger entries in one record: keeps it below any log's record size."""
_WRAP: Final = 1 << 64
_SIGN: Final = 1 << 63
"""SQLite's integers are signed, checksums are not."""
Cells = dict[tuple[str, int], Increment]


@dataclass(slots=True)
class SpoolLedger:
    """Counts of the present epoch in memory, of all on the disk."""

    db: sqlite3.Connection
    edge: str
    epoch: int
    _pending: Cells = field(default_factory=dict)
    """Counted since the last publication; checksums are not reduced yet."""
    _unfolded: set[tuple[str, int]] = field(default_factory=set)
    """Cells that the table `ledger` does not have as they are in memory."""
    _older: set[int] = field(default_factory=set)
    """Epochs before this one with something to publish."""

    def load(self) -> None:
        """Takes over what earlier epochs left. Within a transaction."""
        found: dict[int, Cells] = {}
        for epoch, last, value in self.db.execute("SELECT epoch, last, value FROM tally ORDER BY position"):
            cells = found.setdefault(epoch, self._cells(epoch))
            for equipment, hour_us, samples, checksum in orjson.loads(value):
                add(cells, (equipment, hour_us), (samples, checksum))
            self._reached(epoch, last)
        for epoch, cells in found.items():
            self._write(epoch, cells)
        self.db.execute("DELETE FROM tally")
        self._older = {row[0] for row in self.db.execute("SELECT DISTINCT epoch FROM ledger")}

    def commit(self, last: int, increments: Increments, *, wall_us: int, at_s: int) -> None:
        """Keeps the increments of a commit whose last record is `last`."""
        value = orjson.dumps([(*cell, *increment) for cell, increment in increments.items()])
        self.db.execute(
            "INSERT INTO tally (epoch, last, wall_us, at_s, value) VALUES (?, ?, ?, ?, ?)",
            (self.epoch, last, wall_us, at_s, value),
        )

    def committed(self, increments: Increments) -> None:
        """They are durable."""
        pending = self._pending
        for cell, (samples, checksum) in increments.items():  # 50 cells, 20 times a second: no call for each
            before = pending.get(cell)
            pending[cell] = (samples, checksum) if before is None else (before[0] + samples, before[1] + checksum)
        self._unfolded.update(increments)

    def fold(self, last: int) -> None:
        """Sums up the rows of `tally`, so that an outage leaves one row a cell and not one a commit."""
        self._write(self.epoch, {cell: self._pending[cell] for cell in self._unfolded})
        self._reached(self.epoch, last)
        self.db.execute("DELETE FROM tally")

    def folded(self) -> None:
        """It is durable."""
        self._unfolded.clear()

    def records(self, last: int, present: Collection[int]) -> list[Encoded]:
        """What is to be published: of the present epoch what was counted; of an older one once no record of it is left
        here (`present`: epochs that have some), so that no audit takes what is still to be back-filled for lost."""
        found: list[Encoded] = []
        for epoch in sorted(self._older - set(present)):
            row = self.db.execute("SELECT last FROM epoch WHERE epoch = ?", (epoch,)).fetchone()
            found += self._encode(epoch, row[0], self._cells(epoch))
            self._forget(epoch)
        found += self._encode(self.epoch, last, self._pending)
        self._forget(self.epoch)
        self.db.execute("DELETE FROM tally")
        return found

    def published(self, present: Collection[int]) -> None:
        """It is durable."""
        self._pending.clear()
        self._unfolded.clear()
        self._older &= set(present)

    def _encode(self, epoch: int, last: int, cells: Mapping[tuple[str, int], Increment]) -> list[Encoded]:
        entries = [LedgerEntry(*cell, samples, checksum % _WRAP) for cell, (samples, checksum) in cells.items()]
        found = []
        for start in range(0, len(entries), ENTRIES_MAX):
            # Only the last record of an epoch may say that everything up to `last` is covered.
            through = last if start + ENTRIES_MAX >= len(entries) else -1
            part = tuple(entries[start : start + ENTRIES_MAX])
            found.append(encode_ledger(Ledger(self.edge, epoch, through, part)))
        return found

    def _cells(self, epoch: int) -> Cells:
        rows = self.db.execute(
            "SELECT equipment, hour_us, samples, checksum FROM ledger WHERE epoch = ?", (epoch,)
        ).fetchall()
        return {(equipment, hour): (samples, checksum + _SIGN) for equipment, hour, samples, checksum in rows}

    def _write(self, epoch: int, cells: Mapping[tuple[str, int], Increment]) -> None:
        rows = [(epoch, *cell, samples, checksum % _WRAP - _SIGN) for cell, (samples, checksum) in cells.items()]
        self.db.executemany("INSERT OR REPLACE INTO ledger VALUES (?, ?, ?, ?, ?)", rows)

    def _reached(self, epoch: int, last: int) -> None:
        self.db.execute(
            "INSERT INTO epoch VALUES (?, ?, -1) ON CONFLICT (epoch) DO UPDATE SET last = max(last, excluded.last)",
            (epoch, last),
        )

    def _forget(self, epoch: int) -> None:
        self.db.execute("DELETE FROM ledger WHERE epoch = ?", (epoch,))
        self.db.execute("DELETE FROM epoch WHERE epoch = ?", (epoch,))
