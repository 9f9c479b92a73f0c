"""What went from the spool without reaching the log, until it is published: ranges of seqs, and of what their samples were.

Invariants
- A range is noted in the transaction that deletes its records, and gone from here in the one that journals the record which
  tells of it: everything that was dropped is told exactly once.
- The cells of a range (samples by equipment and hour) never add up to more than its samples. They are counted from the
  records themselves when they go, so what is kept costs nothing for it; what cannot be read has none.
- A record of drops stays below what a log takes, however much is dropped: a range has about CELLS_MAX cells at most.

Of the spool's thread, within its transactions.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from telemetry.arrow_stream import read_places
from telemetry.ledger import HOUR_US
from telemetry.messages import DroppedCell, DroppedRange, Kind
from telemetry.wire import Encoded, encode_dropped

RANGES_MAX: Final = 5_000
CELLS_MAX: Final = 4_000
"""Of one range, and of one record, about: some 300 kB."""
Cell = tuple[str, int]
"""(equipment, hour_us)."""


@dataclass(frozen=True, slots=True)
class Gone:
    """A record that goes: enough of it to report it."""

    position: int
    epoch: int
    seq: int
    kind: str
    count: int
    size: int
    """Bytes of its value."""

    @property
    def samples(self) -> int:
        """Samples in it."""
        return self.count if self.kind == Kind.SAMPLES else 0


@dataclass(slots=True)
class _Run:
    """Records of consecutive seqs."""

    epoch: int
    first: int
    last: int
    samples: int
    cells: Counter[Cell]


@dataclass(slots=True)
class Dropped:
    """The tables `dropped` and `dropped_cell`."""

    db: sqlite3.Connection

    def note(self, gone: Sequence[Gone]) -> None:
        """These go. To be called while they are still there."""
        for run in self._runs(gone):
            first = self._joined(run)
            if first is None:
                row = (run.epoch, run.first, run.last, run.samples)
                self.db.execute("INSERT INTO dropped VALUES (?, ?, ?, ?)", row)
                first = run.first
            self.db.executemany(
                "INSERT INTO dropped_cell VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (epoch, first, equipment, hour_us) DO UPDATE SET samples = samples + excluded.samples",
                [(run.epoch, first, *cell, samples) for cell, samples in run.cells.items()],
            )

    def record(self) -> Encoded | None:
        """The record of what was noted, the oldest part of it where it is much; None where there is none."""
        ranges: list[DroppedRange] = []
        cells = 0
        rows = self.db.execute("SELECT epoch, first, last, samples FROM dropped LIMIT ?", (RANGES_MAX,)).fetchall()
        for epoch, first, last, samples in rows:
            found = self.db.execute(
                "SELECT equipment, hour_us, samples FROM dropped_cell WHERE epoch = ? AND first = ?", (epoch, first)
            ).fetchall()
            cells += len(found)
            if ranges and cells > CELLS_MAX:
                break
            ranges.append(DroppedRange(epoch, first, last, samples, tuple(DroppedCell(*cell) for cell in found)))
        for one in ranges:
            for table in ("dropped", "dropped_cell"):
                self.db.execute(f"DELETE FROM {table} WHERE epoch = ? AND first = ?", (one.epoch, one.first))  # noqa: S608
        return encode_dropped(ranges) if ranges else None

    def _runs(self, gone: Sequence[Gone]) -> Iterator[_Run]:
        run: _Run | None = None
        for one in sorted(gone, key=lambda g: (g.epoch, g.seq)):
            cells = self._cells(one)
            if (
                run is not None
                and (run.epoch, run.last) == (one.epoch, one.seq - 1)
                and len(run.cells | cells) <= CELLS_MAX
            ):
                run.last, run.samples = one.seq, run.samples + one.samples
                run.cells.update(cells)
                continue
            if run is not None:
                yield run
            run = _Run(one.epoch, one.seq, one.seq, one.samples, cells)
        if run is not None:
            yield run

    def _joined(self, run: _Run) -> int | None:
        """Joins the range that ends just before. Its first seq; None where there is none, or the two are too much."""
        row = self.db.execute(
            "SELECT first FROM dropped WHERE epoch = ? AND last = ?", (run.epoch, run.first - 1)
        ).fetchone()
        if row is None:
            return None
        first = int(row[0])
        (held,) = self.db.execute(
            "SELECT count(*) FROM dropped_cell WHERE epoch = ? AND first = ?", (run.epoch, first)
        ).fetchone()
        if held + len(run.cells) > CELLS_MAX:
            known = self.db.execute(
                "SELECT equipment, hour_us FROM dropped_cell WHERE epoch = ? AND first = ?", (run.epoch, first)
            )
            if len(run.cells.keys() | set(known)) > CELLS_MAX:
                return None
        self.db.execute(
            "UPDATE dropped SET last = ?, samples = samples + ? WHERE epoch = ? AND first = ?",
            (run.last, run.samples, run.epoch, first),
        )
        return first

    def _cells(self, one: Gone) -> Counter[Cell]:
        """Of what the samples of a record are: nobody knows of one that is damaged, nor of one of very many equipments."""
        if not one.samples:
            return Counter()
        row = self.db.execute("SELECT crc, value FROM record WHERE position = ?", (one.position,)).fetchone()
        if row is None or not isinstance(row[1], bytes) or zlib.crc32(row[1]) != row[0]:
            return Counter()
        found = cells_of(row[1])
        return found if found.total() == one.samples and len(found) <= CELLS_MAX else Counter()


def cells_of(value: bytes) -> Counter[Cell]:
    """Samples of a record by equipment and hour. None at all where it is no stream of ours."""
    try:
        utf8, offsets, signal, time_us = read_places(value)
    except ValueError:
        return Counter()
    if not len(signal):
        return Counter()
    begins = _owners(np.frombuffer(utf8, np.uint8), offsets)
    names = [utf8[offsets[i] : offsets[i + 1]].split(b"/", 1)[0].decode(errors="replace") for i in begins.tolist()]
    owner = np.searchsorted(begins, np.arange(len(offsets) - 1), "right") - 1
    hour = time_us // HOUR_US
    first = int(hour.min())
    if first == int(hour.max()):  # as nearly always
        counts = np.bincount(owner[signal], minlength=len(names))
        return _summed((names[i], first, int(counts[i])) for i in np.flatnonzero(counts).tolist())
    pairs, counts = np.unique(np.stack((owner[signal], hour)), axis=1, return_counts=True)
    return _summed((names[i], at, n) for (i, at), n in zip(pairs.T.tolist(), counts.tolist(), strict=True))


def _owners(utf8: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int32]) -> npt.NDArray[np.intp]:
    """(runs,) where runs of names of one equipment begin: of (names,) names, at least one, by what is before their `/`."""
    slashes = np.append(np.flatnonzero(utf8 == ord("/")), len(utf8))
    starts = offsets[:-1].astype(np.intp)
    length = np.minimum(slashes[np.searchsorted(slashes, starts)], offsets[1:]) - starts
    columns = np.arange(int(length.max()))
    inside = columns < length[:, None]
    letters = np.where(inside, utf8[np.where(inside, starts[:, None] + columns, 0)], 0)
    differs = (letters[1:] != letters[:-1]).any(axis=1) | (length[1:] != length[:-1])
    return np.concatenate(([0], np.flatnonzero(differs) + 1))


def _summed(counted: Iterable[tuple[str, int, int]]) -> Counter[Cell]:
    """By (equipment, hour_us): two runs may be of one equipment."""
    found: Counter[Cell] = Counter()
    for equipment, hour, samples in counted:
        found[equipment, hour * HOUR_US] += samples
    return found
