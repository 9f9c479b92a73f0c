"""`vigil deadletter`: what was refused and why; and putting it in after all, exactly once.

Invariant: a replay is one transaction a letter: rows in, dead counts down, the letter marked. A letter that is marked is
never replayed again; what is still not acceptable stays, and the report says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, LiteralString

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from ingest.accounts import NOBODY, Accounts, booked_epochs
from ingest.aggregates import note_late
from ingest.copying import copy_rows
from ingest.decode import Reading, Refused, read
from ingest.events import FromEdge, insert_events, upsert_findings
from ingest.flush import NOTHING, Prepared, batches, prepare
from ingest.latest import write_latest
from ingest.ledgers import impossible
from ingest.refused import DeadLetter, book_dead, cells_of, rows_of
from ingest.register import apply_registry
from ingest.signals import SignalTable
from ingest.transaction import SERVICE
from ingest.validate import Bounds, bounds_at
from ingest.writer import POISON, is_poison
from telemetry.arrow_read import decode_samples
from telemetry.batch import SampleBatch, concatenate
from telemetry.log.protocol import InRecord, Partition
from telemetry.messages import DroppedRange, Event, Finding, Ledger, Registry
from telemetry.position import accept
from telemetry.settings import Settings
from telemetry.store import INGEST, connect, migrated

Connection = psycopg.AsyncConnection[Any]

ROWS_ONLY: Final = frozenset({"future", "too-old", "name"})
"""Reasons for which a letter holds the failing rows of a record whose other rows are stored."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter in the store, as it is listed."""

    dead_letter_id: int
    at: datetime
    topic: str
    partition: int
    offset: int
    edge: str | None
    epoch: int | None
    seq: int | None
    reason: str
    detail: str
    samples: int

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "id": self.dead_letter_id,
            "at": self.at.isoformat(),
            "source": f"{self.topic}/{self.partition}/{self.offset}",
            "edge": self.edge,
            "epoch": None if self.epoch is None else f"{self.epoch:016x}",
            "seq": self.seq,
            "reason": self.reason,
            "detail": self.detail,
            "samples": self.samples,
        }

    def __str__(self) -> str:
        return (
            f"{self.dead_letter_id}  {self.at:%Y-%m-%d %H:%M:%S}  {self.topic}/{self.partition}/{self.offset}  "
            f"edge {self.edge or '?'} seq {'?' if self.seq is None else self.seq}  {self.samples} samples  "
            f"{self.reason}: {self.detail}"
        )


@dataclass(slots=True)
class ReplayReport:
    """What became of the letters that were named."""

    replayed: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    """Letter → why it is still not acceptable, or cannot be replayed at all."""
    rows: int = 0

    def __str__(self) -> str:
        lines = [f"{len(self.replayed)} replayed, {self.rows} samples stored, {len(self.refused)} refused"]
        return "\n".join(lines + [f"  {number}: {why}" for number, why in self.refused.items()])


async def list_dead_letters(settings: Settings) -> list[Letter]:
    """What was refused and has not been replayed, oldest first. Raises StoreError."""
    async with (
        migrated(settings),
        await connect(settings, INGEST) as connection,
        connection.cursor(row_factory=class_row(Letter)) as cursor,
    ):
        await cursor.execute(
            'SELECT dead_letter_id, at, topic, partition, "offset", edge, epoch, seq, reason, detail, samples'
            " FROM store.dead_letter WHERE replayed_at IS NULL ORDER BY dead_letter_id"
        )
        return await cursor.fetchall()


async def replay_dead_letters(settings: Settings, numbers: Sequence[int] | None) -> ReplayReport:
    """Replays letters by number, or all that wait (None). Raises StoreError."""
    chosen = [letter.dead_letter_id for letter in await list_dead_letters(settings)] if numbers is None else numbers
    report = ReplayReport()
    async with (
        migrated(settings),
        await connect(settings, INGEST, autocommit=True) as connection,
        await connect(settings, INGEST, autocommit=True) as side,
    ):
        replay = _Replay(settings, connection, side)
        for number in chosen:
            await replay.one(number, report)
    return report


class _Replay:
    """The replay of letters, one transaction each."""

    def __init__(self, settings: Settings, connection: Connection, side: Connection) -> None:
        self._settings = settings
        self._connection = connection
        self._side = side
        self._signals = SignalTable()

    async def one(self, number: int, report: ReplayReport) -> None:
        """Replays one letter."""
        stored = NOTHING
        try:
            async with self._connection.transaction():
                stored = await self._put(number)
        except _StillRefused as error:
            report.refused[number] = str(error)
            return
        except (*POISON, psycopg.ProgrammingError) as error:
            if not is_poison(error):
                raise
            report.refused[number] = f"content: {type(error).__name__}: {error}"
            return
        report.replayed.append(number)
        report.rows += len(stored.rows)
        await write_latest(self._side, stored.latest)

    async def _put(self, number: int) -> Prepared:
        reading, reason, known = await self._letter(number)
        content = reading.content
        if isinstance(content, Refused):
            raise _StillRefused(f"{content.reason}: {content.detail}")
        new = await self._first_time(reading)
        if not known and not new:
            raise _StillRefused("its sequence number is stored already")
        stored = NOTHING
        left: list[DeadLetter] = []
        if isinstance(content, SampleBatch):
            stored = await self._samples(reading, content, reason if known else None)
            left = list(stored.dead)
            if left and not len(stored.rows):
                raise _StillRefused(f"{left[0].refused.reason}: {left[0].refused.detail}")
        else:
            await self._apply(reading)
        await self._settle(number, reading, left)
        return stored

    async def _letter(self, number: int) -> tuple[Reading, str, bool]:
        """The letter, locked and read; and whether its place in its sequence was taken when it was set aside."""
        cursor = await self._connection.execute(
            'SELECT topic, partition, "offset", key, headers, value, reason, seq IS NOT NULL FROM store.dead_letter'
            " WHERE dead_letter_id = %s AND replayed_at IS NULL FOR UPDATE",
            (number,),
        )
        row = await cursor.fetchone()
        if row is None:
            raise _StillRefused("no such letter, or replayed already")
        topic, partition, offset, key, headers, value, reason, known = row
        raw = {name: text.encode("latin-1") for name, text in headers.items()}
        record = InRecord(Partition(topic, partition), offset, self._settings.the_clock.now_us(), key, value, raw)
        return read([record])[0], reason, known

    async def _first_time(self, reading: Reading) -> bool:
        """Takes its place in its sequence. Until the end nobody else changes the books of the epochs that it speaks of."""
        identity = reading.identity
        if identity is None:
            return True
        also = sorted({*booked_epochs(identity.edge, reading.content)})
        if also:  # a row for each, or who books first for one of them would not be held off
            async with self._connection.cursor() as cursor:
                await cursor.executemany(_HOLD, also)
        return (await accept(self._connection, SERVICE, [identity], samples=[reading.samples], also=also))[0]

    async def _samples(self, reading: Reading, batch: SampleBatch, reason: str | None) -> Prepared:
        """Rows in, books corrected. `reason` None: the record's sequence number is only taken now."""
        dictionaries = await self._signals.resolve(self._side, [batch.names])
        stored = prepare(batches([reading], dictionaries), self._bounds())
        if len(stored.rows):
            await self._side.execute(
                "SELECT store.ensure_sample_partitions(to_timestamp(%s), to_timestamp(%s))",
                (stored.first_us // 1_000_000, stored.last_us // 1_000_000 + 1),
            )
        await copy_rows(self._connection, stored.rows, direct=False)
        await note_late(self._connection, stored.rows, first_us=stored.first_us)
        if reading.identity is not None:
            left = _added(stored.dead)
            accounts = Accounts()
            if reason in ROWS_ONLY:
                gone = {
                    c: (n - left.get(c, (0, 0))[0], s - left.get(c, (0, 0))[1]) for c, (n, s) in cells_of(batch).items()
                }
                await book_dead(self._connection, reading.identity, gone, sign=-1)
            else:
                if reason is not None:  # it was booked whole, of unknown equipment
                    await book_dead(self._connection, reading.identity, {NOBODY: (reading.samples, 0)}, sign=-1)
                    accounts.stored(reading.identity, {NOBODY: -reading.samples})
                await book_dead(self._connection, reading.identity, left, sign=1)
                for identity, counts in stored.cells:
                    accounts.samples(identity, counts)
            await accounts.write(self._connection)
        return stored

    def _bounds(self) -> Bounds:
        """Replay is an operator's decision: what is old may go in as long as retention keeps it."""
        return bounds_at(self._settings.the_clock.now_us(), late_bound_days=self._settings.retention_days)

    async def _apply(self, reading: Reading) -> None:
        content, edge = reading.content, reading.identity.edge if reading.identity else ""
        accounts = Accounts()
        events: list[FromEdge] = []
        if isinstance(content, Registry):
            if content.time_us > self._bounds().newest_us:
                raise _StillRefused("future: the registry is of a time that has not come")
            events += await apply_registry(self._connection, content)
        elif isinstance(content, Ledger):
            if (why := impossible(content, reading.identity)) is not None:
                raise _StillRefused(f"ledger: {why}")
            accounts.ledger(content)
        elif isinstance(content, tuple):
            events += [FromEdge(item, edge) for item in content if isinstance(item, Event)]
            await upsert_findings(self._connection, [item for item in content if isinstance(item, Finding)])
            accounts.dropped(edge, [item for item in content if isinstance(item, DroppedRange)])
        await accounts.write(self._connection)
        await insert_events(self._connection, events)

    async def _settle(self, number: int, reading: Reading, left: Sequence[DeadLetter]) -> None:
        """Marks the letter; rows of it that are still refused become what is left of it."""
        if not left:
            await self._connection.execute(_MARK, (number,))
            return
        rest = left[0] if len(left) == 1 else _together(reading, left)
        await self._connection.execute(
            _REST,
            {
                "id": number,
                "reason": rest.refused.reason,
                "detail": rest.refused.detail,
                "samples": rest.samples,
                "value": rest.value,
                "headers": Jsonb({k: v.decode("latin-1") for k, v in rest.headers.items()}),
            },
        )


class _StillRefused(Exception):
    """Rolls the letter's transaction back; the text says why."""


def _added(letters: Sequence[DeadLetter]) -> dict[tuple[str, int], tuple[int, int]]:
    total: dict[tuple[str, int], tuple[int, int]] = {}
    for letter in letters:
        for cell, (samples, checksum) in letter.cells.items():
            known = total.get(cell, (0, 0))
            total[cell] = (known[0] + samples, known[1] + checksum)
    return total


def _together(reading: Reading, letters: Sequence[DeadLetter]) -> DeadLetter:
    """Rows refused for several reasons, as one letter under the first."""
    return rows_of(reading, concatenate([decode_samples(letter.value) for letter in letters]), letters[0].refused)


_HOLD: Final[LiteralString] = (
    "INSERT INTO store.progress (service, edge, epoch) VALUES ('ingest', %s, %s) ON CONFLICT DO NOTHING"
)
_MARK: Final[LiteralString] = "UPDATE store.dead_letter SET replayed_at = clock_timestamp() WHERE dead_letter_id = %s"
_REST: Final[LiteralString] = """
UPDATE store.dead_letter SET reason = %(reason)s, detail = %(detail)s, samples = %(samples)s, value = %(value)s,
       headers = %(headers)s
WHERE dead_letter_id = %(id)s
"""
