"""What the audit's equation needs: the edges' ledger, what they dropped, and what no ledger record covers yet.

Invariant, at every commit: for each (equipment, hour), rows in the table = ledger + unledgered − dropped − dead, and what
could not be read, or was dropped by an edge that did not say of what, is booked under equipment ''. The ledger counts by
the edge; unledgered counts only bridge the seconds until the ledger record that covers them.

What was dropped of each cell is kept for good, as rows of store.unledgered that no ledger covers (`last_seq` is DROPPED).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import psycopg

from ingest.signals import Dictionary
from telemetry.batch import SampleBatch
from telemetry.ledger import HOUR_US
from telemetry.messages import DroppedRange, Ledger
from telemetry.wire import Identity

Connection = psycopg.AsyncConnection[Any]
Key = tuple[str, int]
"""(edge, epoch)."""
Cell = tuple[str, int]
"""(equipment, hour_us)."""

NOBODY: Final[Cell] = ("", 0)
"""The cell of samples whose equipment and hour are not known."""
DROPPED: Final = (1 << 63) - 1
"""`last_seq` of rows of store.unledgered that say what was dropped. No record has this number."""
MODULUS: Final = 1 << 64
_FIRST_US: Final = -62_135_596_800_000_000
_LAST_US: Final = 253_370_764_800_000_000
_1970: Final = datetime(1970, 1, 1, tzinfo=UTC)


def cells(batch: SampleBatch, dictionary: Dictionary) -> Counter[Cell]:
    """Samples of a batch by equipment and hour."""
    counts: Counter[Cell] = Counter()
    if not len(batch):
        return counts
    hours = batch.time_us // HOUR_US
    equipment = dictionary.equipment[batch.signal]
    first, last = int(hours.min()), int(hours.max())
    for hour in range(first, last + 1) if last - first < 48 else np.unique(hours).tolist():
        of_hour = equipment if first == last else equipment[hours == hour]
        found = np.bincount(of_hour, minlength=len(dictionary.equipments))
        for place in np.flatnonzero(found).tolist():
            counts[dictionary.equipments[place], clamped(hour * HOUR_US)] += int(found[place])
    return counts


def cells_of(dropped: DroppedRange) -> Mapping[Cell, int]:
    """Of what its samples were. Nothing where the cells cannot be right: then it is booked as if it had none."""
    found: Counter[Cell] = Counter()
    for cell in dropped.cells:
        if not cell.equipment or cell.samples <= 0:
            return {}
        found[cell.equipment, clamped(cell.hour_us)] += cell.samples
    return found if found.total() <= dropped.samples else {}


@dataclass(slots=True)
class Accounts:
    """Collects over the accepted records of a flush, in order; written in the flush's own transaction."""

    _counts: dict[Key, list[tuple[int, Mapping[Cell, int]]]] = field(default_factory=dict)
    _ledgers: list[Ledger] = field(default_factory=list)
    _dropped: list[tuple[str, DroppedRange]] = field(default_factory=list)

    def stored(self, identity: Identity, counts: Mapping[Cell, int]) -> None:
        """A record of samples was accepted: its rows are stored or dead, by cell."""
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
        keys = sorted({*self._counts, *((entry.edge, entry.epoch) for entry in self._ledgers)})
        if not keys:
            return
        through = await _through(connection, keys)
        for ledger in self._ledgers:
            key = (ledger.edge, ledger.epoch)
            await _book(connection, ledger, known=through[key])
            through[key] = max(through[key], ledger.through)
        for key in keys:
            await _bridge(connection, key, [c for c in self._counts.get(key, ()) if c[0] > through[key]])

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


async def _book(connection: Connection, ledger: Ledger, *, known: int) -> None:
    """Adds a ledger record; `known` is what the ledger covered before it.

    One that covers just as much is a part: it counts when the last part comes. One that covers less was overtaken by a
    later one (partitions changed, a dead letter was replayed): it counts at once.
    """
    whole = ledger.through > known
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
            await cursor.executemany(_ADD if ledger.through != known else _ADD_PENDING, values)
        if not whole:
            return
        key = {"edge": ledger.edge, "epoch": ledger.epoch, "through": ledger.through}
        await cursor.execute(_SETTLE, key)
        await cursor.execute(_THROUGH, key)
        await cursor.execute(
            "DELETE FROM store.unledgered WHERE edge = %(edge)s AND epoch = %(epoch)s AND last_seq <= %(through)s", key
        )


async def _bridge(connection: Connection, key: Key, counts: Sequence[tuple[int, Mapping[Cell, int]]]) -> None:
    """One row for what a flush stored beyond the ledger, and one for each record or range that nobody knows cells of."""
    known = [(seq, found) for seq, found in counts if NOBODY not in found]
    groups = [[pair] for pair in counts if NOBODY in pair[1]] + ([known] if known else [])
    rows = []
    for group in groups:
        total: Counter[Cell] = Counter()
        for _, found in group:
            total.update(found)
        seqs = [seq for seq, _ in group]
        cells_of = ([e for e, _ in total], [hour for _, hour in total], list(total.values()))
        rows.append((*key, min(seqs), max(seqs), *cells_of))
    if rows:
        async with connection.cursor() as cursor:
            await cursor.executemany(_BRIDGE, rows)


_BRIDGE: Final = """
INSERT INTO store.unledgered (edge, epoch, first_seq, last_seq, equipment, hour_us, samples)
VALUES (%s, %s, %s, %s, %s, %s, %s)
"""
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
