"""`vigil audit`: what the edges journaled, by their own ledger, against the rows of the table, counted and summed here.

Invariant: nothing that ingest counted decides about lost or doubled where the ledger speaks. For each (equipment, hour):

    expected = ledger + unledgered − dead          counted = rows in store.sample, each hashed again

A cell with fewer rows than expected has lost, one with more has doubled, one with as many but another checksum has at
least one of each. What the edge dropped of a cell explains as much of that cell's deficit, and what it does not explain is
doubled. Samples of unknown cells (records that cannot be read, drops of which nobody said of what) are owed by their edge as a
whole: deficits of its cells up to that number are explained. Deficits of an epoch with a young hole in its
sequence are in flight: its records may still come. One snapshot of the database is read, so a live line is judged rightly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString

import psycopg

from ingest.accounts import DROPPED, Cell
from ingest.audit_report import AuditReport, EdgeAudit, EquipmentAudit
from ingest.audit_rows import counted_rows
from ingest.ledgers import MODULUS
from telemetry.ledger import HOUR_US
from telemetry.settings import Settings
from telemetry.store import INGEST, connect, migrated

Connection = psycopg.AsyncConnection[Any]

HOLE_YOUNG_S: Final = 60.0
"""A hole in a sequence counts as in flight so long after its epoch last moved; then it is loss."""
DAY_US: Final = 86_400_000_000


@dataclass(slots=True)
class _Cell:
    """One (equipment, hour)."""

    ledger: int = 0
    checksum: int = 0
    unledgered: int = 0
    dead: int = 0
    dropped: int = 0
    counted: int = 0
    counted_checksum: int = 0
    edges: set[str] = field(default_factory=set)

    @property
    def expected(self) -> int:
        return self.ledger + self.unledgered - self.dead

    @property
    def mismatch(self) -> bool:
        """As many rows as expected, but not those that were journaled."""
        return self.counted == self.expected and not self.unledgered and self.checksum != self.counted_checksum


@dataclass(slots=True)
class _Edge:
    """What is known of an edge beside its cells."""

    owed: int = 0
    """Samples dropped or unreadable, which the ledger counts in cells that we do not know."""
    young_hole: bool = False
    began_us: int = 1 << 62


async def audit(settings: Settings) -> AuditReport:
    """Compares ledger and rows. Raises StoreError."""
    since_us = _since(settings)
    async with migrated(settings), await connect(settings, INGEST, autocommit=True) as connection:
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await connection.set_read_only(True)
        async with connection.transaction():
            cells = await _expected(connection)
            for cell, (samples, checksum) in (await counted_rows(connection)).items():
                cells[cell].counted, cells[cell].counted_checksum = samples, checksum
            epochs = await _epochs(connection)
    return judge(cells, epochs, since_us=since_us)


def _since(settings: Settings) -> int:
    """Rows of hours before this may be gone by retention: what lacks there is not judged."""
    oldest = settings.the_clock.now_us() - int(settings.retention_days * DAY_US)
    return (oldest // HOUR_US + 1) * HOUR_US


async def _expected(connection: Connection) -> defaultdict[Cell, _Cell]:
    cells: defaultdict[Cell, _Cell] = defaultdict(_Cell)
    for edge, equipment, hour_us, samples, checksum in await _rows(connection, _LEDGER):
        cell = cells[equipment, hour_us]
        cell.ledger += samples
        cell.checksum = (cell.checksum + int(checksum)) % MODULUS
        cell.edges.add(edge)
    for edge, equipment, hour_us, samples, dropped in await _rows(connection, _UNLEDGERED, (DROPPED, DROPPED)):
        cell = cells[equipment, hour_us]
        cell.unledgered += samples
        cell.dropped += dropped
        cell.edges.add(edge)
    for edge, equipment, hour_us, samples, checksum in await _rows(connection, _DEAD):
        cell = cells[equipment, hour_us]
        cell.dead += samples
        cell.checksum = (cell.checksum - int(checksum)) % MODULUS
        cell.edges.add(edge)
    return cells


async def _epochs(connection: Connection) -> list[EdgeAudit]:
    return [EdgeAudit(*row) for row in await _rows(connection, _EPOCHS, (HOLE_YOUNG_S, DROPPED))]


def judge(cells: Mapping[Cell, _Cell], epochs: list[EdgeAudit], *, since_us: int) -> AuditReport:
    """The verdict, from what was read. Pure."""
    report = AuditReport(edges=epochs)
    edges: defaultdict[str, _Edge] = defaultdict(_Edge)
    for epoch in epochs:
        edge = edges[epoch.edge]
        edge.owed += epoch.dropped - epoch.dropped_known + epoch.unreadable - epoch.unledgered_unknown
        edge.young_hole |= epoch.hole == "young"
        edge.began_us = min(edge.began_us, epoch.began_us)
    for (equipment, hour_us), cell in sorted(cells.items()):
        # Of such an hour rows may be gone, and so may the ledger's, while what was dropped of it is still told.
        if hour_us < since_us and cell.counted < cell.expected + cell.dropped:
            continue
        report.add(_line(equipment, hour_us, cell, edges))
    report.dropped = sum(epoch.dropped for epoch in epochs)
    report.dead += sum(epoch.unreadable for epoch in epochs)
    report.journaled += sum(epoch.unledgered_unknown for epoch in epochs)
    # A drop that no deficit answers to: its samples are in the table although their edge says that they are not.
    report.doubled += sum(e.owed for e in edges.values() if e.owed > 0 and e.began_us >= since_us)
    return report


def _line(equipment: str, hour_us: int, cell: _Cell, edges: Mapping[str, _Edge]) -> EquipmentAudit:
    line = EquipmentAudit(equipment, hour_us, sorted(cell.edges))
    line.journaled, line.counted, line.dead = cell.ledger + cell.unledgered, cell.counted, cell.dead
    line.checksum = "pending" if cell.unledgered else "differs" if cell.mismatch else "same"
    line.explained = cell.dropped
    deficit = cell.expected - cell.dropped - cell.counted
    if deficit > 0:
        line.checksum = "differs"
        _explain(line, deficit, edges)
    elif deficit < 0:
        line.checksum, line.doubled = "differs", -deficit
    elif cell.dropped:
        line.checksum = "differs"
    elif cell.mismatch:
        line.lost = line.doubled = 1
    return line


def _explain(line: EquipmentAudit, deficit: int, edges: Mapping[str, _Edge]) -> None:
    """Where the missing rows of a cell went: dropped or unreadable, in flight, or lost."""
    owners = [edges[name] for name in line.edges if name in edges]
    for edge in owners:
        taken = min(deficit, max(edge.owed, 0))
        edge.owed -= taken
        line.explained += taken
        deficit -= taken
    if any(edge.young_hole for edge in owners):
        line.in_flight = deficit
    else:
        line.lost = deficit


async def _rows(connection: Connection, query: LiteralString, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(query, values or None)
    return await cursor.fetchall()


_LEDGER: Final[LiteralString] = """
SELECT edge, equipment, (extract(epoch FROM hour) * 1000000)::bigint, sum(samples)::bigint,
       mod(sum(checksum), 18446744073709551616)
FROM store.ledger GROUP BY 1, 2, 3 HAVING sum(samples) <> 0
"""
_UNLEDGERED: Final[LiteralString] = """
SELECT u.edge, c.equipment, c.hour_us, coalesce(sum(c.samples) FILTER (WHERE u.last_seq <> %s), 0)::bigint,
       coalesce(sum(c.samples) FILTER (WHERE u.last_seq = %s), 0)::bigint
FROM store.unledgered u, unnest(u.equipment, u.hour_us, u.samples) AS c(equipment, hour_us, samples)
WHERE c.equipment <> '' GROUP BY 1, 2, 3
"""
_DEAD: Final[LiteralString] = """
SELECT edge, equipment, (extract(epoch FROM hour) * 1000000)::bigint, sum(samples)::bigint,
       mod(sum(checksum), 18446744073709551616)
FROM store.dead_sample WHERE equipment <> '' GROUP BY 1, 2, 3 HAVING sum(samples) <> 0
"""
_EPOCHS: Final[LiteralString] = """
WITH known AS (
    SELECT p.*, coalesce(t.through, -1) AS through,
           int8multirange(int8range(0, greatest(upper(p.accepted + p.dropped), t.through + 1))) - p.accepted - p.dropped
               AS missing
    FROM store.progress p LEFT JOIN store.ledger_through t USING (edge, epoch) WHERE p.service = 'ingest'
)
SELECT k.edge, k.epoch, coalesce(k.missing::text, '{}'),
       CASE WHEN coalesce(isempty(k.missing), true) THEN ''
            WHEN k.last_at > now() - make_interval(secs => %s) THEN 'young' ELSE 'old' END,
       k.through, k.samples, k.samples_dropped,
       coalesce((SELECT sum(l.samples) FROM store.ledger l WHERE l.edge = k.edge AND l.epoch = k.epoch), 0)::bigint,
       coalesce((SELECT sum(d.samples) FROM store.dead_sample d
                 WHERE d.edge = k.edge AND d.epoch = k.epoch AND d.equipment = ''), 0)::bigint,
       coalesce((SELECT sum(c.samples) FROM store.unledgered u, unnest(u.equipment, u.samples) AS c(equipment, samples)
                 WHERE u.edge = k.edge AND u.epoch = k.epoch AND c.equipment = ''), 0)::bigint,
       coalesce((SELECT sum(n) FROM store.unledgered u, unnest(u.samples) AS n
                 WHERE u.edge = k.edge AND u.epoch = k.epoch AND u.last_seq = %s), 0)::bigint,
       (extract(epoch FROM k.first_at) * 1000000)::bigint
FROM known k ORDER BY k.edge, k.first_at
"""
