"""The edges' ledger in the store: what they say they journaled, by equipment and hour, for the audit.

Invariant: a ledger split over several records counts when its last part has come, all of it at once; each record counts
exactly once, in whatever order they come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import psycopg

from telemetry.messages import Ledger, LedgerEntry
from telemetry.pg_array import Int8s, Times
from telemetry.wire import Identity

Connection = psycopg.AsyncConnection[Any]
Key = tuple[str, int]
"""(edge, epoch)."""
Row = tuple[str, int, str, int]
"""(edge, epoch, equipment, hour_us)."""

MODULUS: Final = 1 << 64
NOTHING_COVERED: Final = -1
SEQ_END: Final = 1 << 62
"""Records' numbers are less (ingest.decode)."""
_FIRST_US: Final = -62_135_596_800_000_000
_LAST_US: Final = 253_370_764_800_000_000


@dataclass(slots=True)
class Bookings:
    """What some ledger records change. Sums of (samples, checksum modulo 2^64)."""

    counted: dict[Row, tuple[int, int]] = field(default_factory=dict)
    waiting: dict[Row, tuple[int, int]] = field(default_factory=dict)
    """Of ledgers whose last part has not come."""
    through: dict[Key, int] = field(default_factory=dict)
    """Keys whose ledger covers more now, and up to which seq: their waiting rows in the store count, too."""


def clamped(moment_us: int) -> int:
    """The nearest time that a calendar holds (years 1 to 9998), in µs since 1970."""
    return min(max(moment_us, _FIRST_US), _LAST_US)


def impossible(ledger: Ledger, identity: Identity | None) -> str | None:
    """Why no edge can have said this, for the dead letters; None where one can.

    A ledger is journaled after the records that it covers, so one of the epoch that it comes under covers records before
    itself only. Of an earlier epoch (what an edge left when it was killed) there is no such bound: its records may still come,
    in another partition. But no record has a seq of 2^62 or more (ingest.decode), and a ledger that said so would take with it
    what stands in the books under such numbers (ingest.accounts.DROPPED).
    """
    if identity is not None and ledger.edge != identity.edge:
        return f"edge: expected {identity.edge}, which sent it, found {ledger.edge:.200}"
    own = identity is not None and ledger.epoch == identity.epoch
    end = identity.seq if identity is not None and own else SEQ_END
    if not NOTHING_COVERED <= ledger.through < end:
        what = "its own seq" if own else "2^62"
        return f"through: expected {NOTHING_COVERED} or more and less than {end} ({what}), found {ledger.through}"
    return None


def bookings(ledgers: Sequence[Ledger], through: Mapping[Key, int]) -> Bookings:
    """What these records change, in their order; `through` is what the store's ledger covers (−1: nothing). Pure.

    A record that covers just as much as is known is a part: it counts when the last part comes. One that covers less was
    overtaken by a later one (partitions changed, a dead letter was replayed): it counts at once.
    """
    made = Bookings()
    for ledger in ledgers:
        key = (ledger.edge, ledger.epoch)
        known = made.through.get(key, through[key])
        if ledger.through == known:
            _add(made.waiting, key, ledger.entries)
            continue
        _add(made.counted, key, ledger.entries)
        if ledger.through > known:
            made.through[key] = ledger.through
            for row in [row for row in made.waiting if row[:2] == key]:
                _sum(made.counted, row, *made.waiting.pop(row))
    return made


async def write_ledgers(connection: Connection, made: Bookings) -> None:
    """Books all of it. Rows are taken in one order, whoever books. Raises psycopg.Error."""
    if made.through:
        keys = sorted(made.through)
        values = {
            "edges": [edge for edge, _ in keys],
            "epochs": [epoch for _, epoch in keys],
            "through": [made.through[key] for key in keys],
        }
        await connection.execute(_SETTLE, values)
        await connection.execute(_THROUGH, values)
        await connection.execute(_COVERED, values)
    for rows, statement in ((made.counted, _ADD), (made.waiting, _ADD_WAITING)):
        if rows:
            await connection.execute(statement, _columns(rows))


def _add(rows: dict[Row, tuple[int, int]], key: Key, entries: Sequence[LedgerEntry]) -> None:
    for entry in entries:
        _sum(rows, (*key, entry.equipment, clamped(entry.hour_us)), entry.samples, entry.checksum)


def _sum(rows: dict[Row, tuple[int, int]], row: Row, samples: int, checksum: int) -> None:
    known = rows.get(row)
    rows[row] = (samples, checksum) if known is None else (known[0] + samples, (known[1] + checksum) % MODULUS)


def _columns(rows: Mapping[Row, tuple[int, int]]) -> dict[str, Any]:
    ordered = sorted(rows)
    return {
        "edges": [row[0] for row in ordered],
        "epochs": Int8s(np.array([row[1] for row in ordered], np.int64)),
        "equipment": [row[2] for row in ordered],
        "hours": Times(np.array([row[3] for row in ordered], np.int64)),
        "samples": Int8s(np.array([rows[row][0] for row in ordered], np.int64)),
        "checksums": [str(rows[row][1]) for row in ordered],
    }


_ROWS: Final = (
    "unnest(%(edges)s::text[], %(epochs)s::bigint[], %(equipment)s::text[], %(hours)s::timestamptz[],"
    " %(samples)s::bigint[], %(checksums)s::text[]) AS r(edge, epoch, equipment, hour, samples, checksum)"
)
_ADD: Final = f"""
INSERT INTO store.ledger AS l (edge, epoch, equipment, hour, samples, checksum)
SELECT r.edge, r.epoch, r.equipment, r.hour, r.samples, r.checksum::numeric FROM {_ROWS}
ON CONFLICT (edge, epoch, equipment, hour) DO UPDATE SET samples = l.samples + excluded.samples,
    checksum = mod(l.checksum + excluded.checksum, {MODULUS})
"""  # noqa: S608
_ADD_WAITING: Final = f"""
INSERT INTO store.ledger AS l (edge, epoch, equipment, hour, samples, checksum, pending_samples, pending_checksum)
SELECT r.edge, r.epoch, r.equipment, r.hour, 0, 0, r.samples, r.checksum::numeric FROM {_ROWS}
ON CONFLICT (edge, epoch, equipment, hour) DO UPDATE SET
    pending_samples = l.pending_samples + excluded.pending_samples,
    pending_checksum = mod(l.pending_checksum + excluded.pending_checksum, {MODULUS})
"""  # noqa: S608
_KEYS: Final = "unnest(%(edges)s::text[], %(epochs)s::bigint[], %(through)s::bigint[]) AS k(edge, epoch, through)"
_SETTLE: Final = f"""
UPDATE store.ledger l SET samples = samples + pending_samples,
    checksum = mod(checksum + pending_checksum, {MODULUS}), pending_samples = 0, pending_checksum = 0
FROM {_KEYS}
WHERE l.edge = k.edge AND l.epoch = k.epoch AND (l.pending_samples <> 0 OR l.pending_checksum <> 0)
"""  # noqa: S608
_THROUGH: Final = f"""
INSERT INTO store.ledger_through AS t (edge, epoch, through) SELECT edge, epoch, through FROM {_KEYS} ORDER BY 1, 2
ON CONFLICT (edge, epoch) DO UPDATE SET through = greatest(t.through, excluded.through)
"""  # noqa: S608
_COVERED: Final = f"""
DELETE FROM store.unledgered u USING {_KEYS} WHERE u.edge = k.edge AND u.epoch = k.epoch AND u.last_seq <= k.through
"""  # noqa: S608
