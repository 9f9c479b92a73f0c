"""What the audit's equation needs: the edges' ledger, what they dropped, and what no ledger record covers yet.

Invariant, at every commit: for each (equipment, hour), rows in the table = ledger + unledgered − dead, and what was
dropped or could not be read is booked under equipment ''. The ledger counts by the edge; unledgered counts only bridge
the seconds until the ledger record that covers them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import psycopg

from ingest.signals import Dictionary
from telemetry.batch import Int32, SampleBatch
from telemetry.ledger import HOUR_US
from telemetry.messages import DroppedRange, Ledger
from telemetry.pg_array import Int8s
from telemetry.wire import Identity

Connection = psycopg.AsyncConnection[Any]
Key = tuple[str, int]
"""(edge, epoch)."""
Cell = tuple[str, int]
"""(equipment, hour_us)."""

NOBODY: Final[Cell] = ("", 0)
"""The cell of samples whose equipment and hour are not known."""
MODULUS: Final = 1 << 64
_FIRST_US: Final = -62_135_596_800_000_000
_LAST_US: Final = 253_370_764_800_000_000
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

    def as_mapping(self) -> dict[Cell, int]:
        """The same as a plain mapping."""
        return dict(
            zip(
                ((self.equipments[place], clamped(hour * HOUR_US)) for place, hour in self._pairs()),
                self.samples.tolist(),
                strict=True,
            )
        )

    def _pairs(self) -> Iterable[tuple[int, int]]:
        return zip(self.place.tolist(), self.hour.tolist(), strict=True)


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
    return _summed(dictionary.equipments, equipment, batch.time_us // HOUR_US, np.ones(len(batch), np.int64))


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
    if int(equipment.max()) > 8 * len(equipment):  # a short record of a large fleet
        places, samples = np.unique(equipment, return_counts=True)
        return places.astype(np.int64), samples.astype(np.int64)
    counts = np.bincount(equipment)
    occurring = np.flatnonzero(counts)
    return occurring.astype(np.int64), counts[occurring].astype(np.int64)


def _summed(
    equipments: Sequence[str],
    place: npt.NDArray[np.integer[Any]],
    hour: npt.NDArray[np.int64],
    samples: npt.NDArray[np.int64],
) -> Cells:
    hours, of_hour = np.unique(hour, return_inverse=True)
    key = place.astype(np.int64) * len(hours) + of_hour
    keys, of_key = np.unique(key, return_inverse=True)
    total = np.zeros(len(keys), np.int64)
    np.add.at(total, of_key, samples)
    return Cells(equipments, keys // len(hours), hours[keys % len(hours)], total)


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
            counts = {NOBODY: dropped.samples} if dropped.samples else {}
            self.stored(Identity(edge, dropped.epoch, dropped.last), counts)

    async def write(self, connection: Connection) -> None:
        """Books everything. Raises psycopg.Error."""
        if self._dropped:
            await self._write_dropped(connection)
        keys = sorted({*self._counts, *self._cells, *((entry.edge, entry.epoch) for entry in self._ledgers)})
        if not keys:
            return
        through = await _through(connection, keys)
        for ledger in self._ledgers:
            key = (ledger.edge, ledger.epoch)
            await _book(connection, ledger, whole=ledger.through > through[key])
            through[key] = max(through[key], ledger.through)
        rows = []
        for key in keys:
            rows += _bridges(key, [pair for pair in self._counts.get(key, ()) if pair[0] > through[key]])
            if beyond := [pair for pair in self._cells.get(key, ()) if pair[0] > through[key]]:
                rows.append(_bridge(key, beyond))
        if rows:
            async with connection.cursor() as cursor:
                await cursor.executemany(_UNLEDGERED, rows)

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


def time_of(moment_us: int) -> datetime:
    """A timestamptz value of µs since 1970."""
    return _1970 + timedelta(microseconds=clamped(moment_us))


def clamped(moment_us: int) -> int:
    """The nearest time that a calendar holds (years 1 to 9998), in µs since 1970."""
    return min(max(moment_us, _FIRST_US), _LAST_US)


async def _through(connection: Connection, keys: Sequence[Key]) -> dict[Key, int]:
    cursor = await connection.execute(
        "SELECT t.edge, t.epoch, t.through FROM store.ledger_through t"
        " JOIN unnest(%s::text[], %s::bigint[]) AS k(edge, epoch) USING (edge, epoch)",
        ([k[0] for k in keys], [k[1] for k in keys]),
    )
    return {**dict.fromkeys(keys, -1), **{(edge, epoch): through for edge, epoch, through in await cursor.fetchall()}}


async def _book(connection: Connection, ledger: Ledger, *, whole: bool) -> None:
    """Adds a ledger record. One that covers no more records than before is a part: it counts when the last part comes."""
    values = [
        {
            "edge": ledger.edge,
            "epoch": ledger.epoch,
            "equipment": entry.equipment,
            "hour": time_of(entry.hour_us),
            "samples": entry.samples,
            "checksum": entry.checksum,
        }
        for entry in sorted(ledger.entries, key=lambda e: (e.equipment, e.hour_us))
    ]
    async with connection.cursor() as cursor:
        if values:
            await cursor.executemany(_ADD if whole else _ADD_PENDING, values)
        if not whole:
            return
        key = {"edge": ledger.edge, "epoch": ledger.epoch, "through": ledger.through}
        await cursor.execute(_SETTLE, key)
        await cursor.execute(_THROUGH, key)
        await cursor.execute(
            "DELETE FROM store.unledgered WHERE edge = %(edge)s AND epoch = %(epoch)s AND last_seq <= %(through)s", key
        )


def _bridge(key: Key, beyond: Sequence[tuple[int, Cells]]) -> tuple[Any, ...]:
    """One row for what a flush stored beyond the ledger."""
    total = together([found for _, found in beyond])
    seqs = [seq for seq, _ in beyond]
    equipments = [total.equipments[place] for place in total.place.tolist()]
    hour_us = np.clip(total.hour, _FIRST_US // HOUR_US, _LAST_US // HOUR_US) * HOUR_US
    return (*key, min(seqs), max(seqs), equipments, Int8s(hour_us), Int8s(total.samples))


def _bridges(key: Key, beyond: Sequence[tuple[int, Mapping[Cell, int]]]) -> list[tuple[Any, ...]]:
    """A row for each record or range that is known as a whole only."""
    return [
        (*key, seq, seq, [e for e, _ in counts], [hour for _, hour in counts], list(counts.values()))
        for seq, counts in beyond
    ]


_UNLEDGERED: Final = (
    "INSERT INTO store.unledgered (edge, epoch, first_seq, last_seq, equipment, hour_us, samples)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s)"
)
_ADD: Final = f"""
INSERT INTO store.ledger AS l (edge, epoch, equipment, hour, samples, checksum)
VALUES (%(edge)s, %(epoch)s, %(equipment)s, %(hour)s, %(samples)s, %(checksum)s)
ON CONFLICT (edge, epoch, equipment, hour) DO UPDATE SET samples = l.samples + excluded.samples,
    checksum = mod(l.checksum + excluded.checksum, {MODULUS})
"""  # noqa: S608
_ADD_PENDING: Final = f"""
INSERT INTO store.ledger AS l (edge, epoch, equipment, hour, samples, checksum, pending_samples, pending_checksum)
VALUES (%(edge)s, %(epoch)s, %(equipment)s, %(hour)s, 0, 0, %(samples)s, %(checksum)s)
ON CONFLICT (edge, epoch, equipment, hour) DO UPDATE SET
    pending_samples = l.pending_samples + excluded.pending_samples,
    pending_checksum = mod(l.pending_checksum + excluded.pending_checksum, {MODULUS})
"""  # noqa: S608
_SETTLE: Final = f"""
UPDATE store.ledger SET samples = samples + pending_samples,
    checksum = mod(checksum + pending_checksum, {MODULUS}), pending_samples = 0, pending_checksum = 0
WHERE edge = %(edge)s AND epoch = %(epoch)s AND (pending_samples <> 0 OR pending_checksum <> 0)
"""  # noqa: S608
_THROUGH: Final = """
INSERT INTO store.ledger_through AS t (edge, epoch, through) VALUES (%(edge)s, %(epoch)s, %(through)s)
ON CONFLICT (edge, epoch) DO UPDATE SET through = greatest(t.through, excluded.through)
"""
