"""What the audit's equation needs: the edges' ledger, what they dropped, and what no ledger record covers yet.

Invariant, at every commit: for each (equipment, hour), rows in the table = ledger + unledgered − dropped − dead, and what
could not be read, or was dropped by an edge that did not say of what, is booked under equipment ''. The ledger counts by
the edge; unledgered counts only bridge the seconds until the ledger record that covers them.

What was dropped of each cell is kept as long as the ledger, as rows of store.unledgered that no ledger covers (`last_seq`
is DROPPED); who takes such a row away takes its sum from store.progress with it (ingest.retention).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import psycopg

from ingest.ledgers import Key, bookings, clamped, write_ledgers
from ingest.signals import Dictionary
from telemetry.batch import Int32, SampleBatch
from telemetry.ledger import HOUR_US
from telemetry.messages import DroppedRange, Ledger
from telemetry.pg_array import Int8s
from telemetry.wire import Identity

Connection = psycopg.AsyncConnection[Any]
Cell = tuple[str, int]
"""(equipment, hour_us)."""

NOBODY: Final[Cell] = ("", 0)
"""The cell of samples whose equipment and hour are not known."""
DROPPED: Final = (1 << 63) - 1
"""`last_seq` of rows of store.unledgered that say what was dropped. No record has this number."""
COUNTED_PER_ROW: Final = 8
COUNTED_AT_ONCE: Final = 1 << 21
"""Cells are counted in an array of all that there could be, where these are not more; else the rows are sorted."""
_1970: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Samples of a record by equipment and hour. All (k,): each pair once, k ≤ equipments × hours of the record."""

    equipments: Sequence[str]
    place: npt.NDArray[np.int64]
    """Index into equipments."""
    hour: npt.NDArray[np.int64]
    """Hours since 1970."""
    samples: npt.NDArray[np.int64]


def cells(batch: SampleBatch, dictionary: Dictionary) -> Cells:
    """Samples of a batch by equipment and hour."""
    equipment = dictionary.equipment[batch.signal]
    if not len(batch):
        nothing = np.empty(0, np.int64)
        return Cells(dictionary.equipments, nothing, nothing, nothing)
    first, last = int(batch.time_us.min()) // HOUR_US, int(batch.time_us.max()) // HOUR_US
    if first == last:
        place, samples = _counted(equipment)
        return Cells(dictionary.equipments, place, np.full(len(place), first, np.int64), samples)
    return _summed(dictionary.equipments, equipment, batch.time_us // HOUR_US, None)


def together(parts: Sequence[Cells]) -> Cells:
    """The sum of the cells of several records, all of one table of equipment."""
    return _summed(
        parts[0].equipments,
        np.concatenate([part.place for part in parts]),
        np.concatenate([part.hour for part in parts]),
        np.concatenate([part.samples for part in parts]),
    )


def _counted(equipment: Int32) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(which occur, how often)."""
    if int(equipment.max()) > COUNTED_PER_ROW * len(equipment):  # a short record of a large fleet
        places, samples = np.unique(equipment, return_counts=True)
        return places.astype(np.int64), samples.astype(np.int64)
    counts = np.bincount(equipment)
    occurring = np.flatnonzero(counts)
    return occurring.astype(np.int64), counts[occurring].astype(np.int64)


def _summed(
    equipments: Sequence[str],
    place: npt.NDArray[np.integer[Any]],
    hour: npt.NDArray[np.int64],
    samples: npt.NDArray[np.int64] | None,
) -> Cells:
    """Cells of sums, by place and hour."""
    first, span = int(hour.min()), int(hour.max()) - int(hour.min()) + 1
    if (int(place.max()) + 1) * span <= min(COUNTED_PER_ROW * len(place), COUNTED_AT_ONCE):
        total = np.bincount(place.astype(np.int64) * span + (hour - first), samples)
        occurring = np.flatnonzero(total)
        return Cells(equipments, occurring // span, first + occurring % span, total[occurring].astype(np.int64))
    hours, of_hour = np.unique(hour, return_inverse=True)
    key = place.astype(np.int64) * len(hours) + of_hour
    keys, of_key = np.unique(key, return_inverse=True)
    total = np.bincount(of_key, samples)
    return Cells(equipments, keys // len(hours), hours[keys % len(hours)], total.astype(np.int64))


def cells_of(dropped: DroppedRange) -> Mapping[Cell, int]:
    """Of what its samples were. Nothing where the cells cannot be right: then it is booked as if it had none."""
    found: Counter[Cell] = Counter()
    for cell in dropped.cells:
        if not cell.equipment or cell.samples <= 0:
            return {}
        found[cell.equipment, clamped(cell.hour_us)] += cell.samples
    return found if found.total() <= dropped.samples else {}


def booked_epochs(edge: str, content: object) -> Iterable[Key]:
    """Whose books a record's content changes: not its own epoch's alone, because what is left of an edge's earlier run
    (its ledger, what it dropped) comes under the epoch of the next one. Who books, or replays, holds them all."""
    if isinstance(content, Ledger):
        yield content.edge, content.epoch
    elif isinstance(content, tuple):
        yield from ((edge, item.epoch) for item in content if isinstance(item, DroppedRange))


@dataclass(slots=True)
class Accounts:
    """Collects over the accepted records of a flush, in order; written in the flush's own transaction."""

    _counts: dict[Key, list[tuple[int, Mapping[Cell, int]]]] = field(default_factory=dict)
    _cells: dict[Key, list[tuple[int, Cells]]] = field(default_factory=dict)
    _ledgers: list[Ledger] = field(default_factory=list)
    _dropped: list[tuple[str, DroppedRange]] = field(default_factory=list)

    def samples(self, identity: Identity, counts: Cells) -> None:
        """A record of samples was accepted: its rows are stored or dead, by cell."""
        if len(counts.samples):
            self._cells.setdefault((identity.edge, identity.epoch), []).append((identity.seq, counts))

    def stored(self, identity: Identity, counts: Mapping[Cell, int]) -> None:
        """The same where only a few cells are known, or none: a record that is set aside whole, a dropped range."""
        if counts:
            self._counts.setdefault((identity.edge, identity.epoch), []).append((identity.seq, counts))

    def ledger(self, ledger: Ledger) -> None:
        """A ledger record was accepted."""
        self._ledgers.append(ledger)

    def dropped(self, edge: str, ranges: Iterable[DroppedRange]) -> None:
        """A record of drops was accepted."""
        for dropped in ranges:
            self._dropped.append((edge, dropped))
            known = cells_of(dropped)
            unknown = dropped.samples - sum(known.values())
            for counts in (known, {NOBODY: unknown} if unknown else {}):
                self.stored(Identity(edge, dropped.epoch, dropped.last), counts)

    async def write(self, connection: Connection) -> None:
        """Books everything. Raises psycopg.Error."""
        if self._dropped:
            await self._write_dropped(connection)
        keys = sorted({*self._counts, *self._cells, *((entry.edge, entry.epoch) for entry in self._ledgers)})
        if not keys:
            return
        through = await _through(connection, keys)
        booked = bookings(self._ledgers, through)
        await write_ledgers(connection, booked)
        through.update(booked.through)
        rows = []
        for key in keys:
            rows += _bridges(key, [pair for pair in self._counts.get(key, ()) if pair[0] > through[key]])
            if beyond := [pair for pair in self._cells.get(key, ()) if pair[0] > through[key]]:
                rows.append(_bridge(key, beyond))
        if rows:
            async with connection.cursor() as cursor:
                await cursor.executemany(_BRIDGE, rows)

    async def _write_dropped(self, connection: Connection) -> None:
        async with connection.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO store.progress AS p (service, edge, epoch, dropped, samples_dropped)"
                " VALUES ('ingest', %(edge)s, %(epoch)s, int8multirange(int8range(%(first)s, %(last)s, '[]')), %(samples)s)"
                " ON CONFLICT (service, edge, epoch) DO UPDATE SET dropped = p.dropped + excluded.dropped,"
                " samples_dropped = p.samples_dropped + excluded.samples_dropped",
                [
                    {"edge": edge, "epoch": d.epoch, "first": d.first, "last": d.last, "samples": d.samples}
                    for edge, d in sorted(self._dropped, key=lambda pair: (pair[0], pair[1].epoch, pair[1].first))
                ],
            )
            await cursor.executemany(
                _BRIDGE,
                [
                    (edge, d.epoch, d.first, DROPPED, [e for e, _ in known], [at for _, at in known], [*known.values()])
                    for edge, d in self._dropped
                    if (known := cells_of(d))
                ],
            )


def time_of(moment_us: int) -> datetime:
    """A timestamptz value of µs since 1970."""
    return _1970 + timedelta(microseconds=clamped(moment_us))


async def _through(connection: Connection, keys: Sequence[Key]) -> dict[Key, int]:
    cursor = await connection.execute(
        "SELECT t.edge, t.epoch, t.through FROM store.ledger_through t"
        " JOIN unnest(%s::text[], %s::bigint[]) AS k(edge, epoch) USING (edge, epoch)",
        ([k[0] for k in keys], [k[1] for k in keys]),
    )
    return {**dict.fromkeys(keys, -1), **{(edge, epoch): through for edge, epoch, through in await cursor.fetchall()}}


def _bridge(key: Key, beyond: Sequence[tuple[int, Cells]]) -> tuple[Any, ...]:
    """One row for what a flush stored beyond the ledger."""
    total = together([found for _, found in beyond])
    seqs = [seq for seq, _ in beyond]
    equipments = [total.equipments[place] for place in total.place.tolist()]
    hours = np.clip(total.hour, clamped(-(1 << 63)) // HOUR_US, clamped((1 << 63) - 1) // HOUR_US) * HOUR_US
    return (*key, min(seqs), max(seqs), equipments, Int8s(hours), Int8s(total.samples))


def _bridges(key: Key, beyond: Sequence[tuple[int, Mapping[Cell, int]]]) -> list[tuple[Any, ...]]:
    """A row for each record or range that is known as a whole only."""
    return [
        (*key, seq, seq, [e for e, _ in counts], [hour for _, hour in counts], list(counts.values()))
        for seq, counts in beyond
    ]


_BRIDGE: Final = """
INSERT INTO store.unledgered (edge, epoch, first_seq, last_seq, equipment, hour_us, samples)
VALUES (%s, %s, %s, %s, %s, %s, %s)
"""
