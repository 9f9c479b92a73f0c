"""One flush is one transaction: who is new, their rows, the books, and, last before COMMIT, the offsets.

Invariant (design.md, promise 1): a record's rows are committed if and only if its seq is in the accepted set, and the
offset is moved by compare-and-set in the same transaction, so a zombie that lost its partition commits nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from ingest.accounts import Accounts, booked_epochs
from ingest.aggregates import note_late
from ingest.copying import copy_rows
from ingest.decode import Content, Reading, Refused
from ingest.events import FromEdge, insert_events, own_event, upsert_findings
from ingest.flush import Batch, Prepared, prepare
from ingest.ledgers import impossible
from ingest.online import Online, Seen, write_online
from ingest.refused import DeadLetter, insert_dead, whole
from ingest.register import apply_registry
from ingest.validate import Bounds
from telemetry.batch import SampleBatch
from telemetry.log.protocol import Partition
from telemetry.messages import DroppedRange, Event, Finding, Heartbeat, Ledger, Registry
from telemetry.position import accept, advance

Connection = psycopg.AsyncConnection[Any]

SERVICE: Final = "ingest"
DIRECT_COMPRESS_ROWS: Final = 10.0
"""Rows a signal and day, from which on Direct Compress beats plain COPY (docs/ingest.md has the measurement)."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A flush, ready for its transaction."""

    readings: Sequence[Reading]
    batches: Sequence[Batch]
    prepared: Prepared
    """Of all batches; made again where some turn out to be known already."""
    bounds: Bounds


@dataclass(slots=True)
class Outcome:
    """What a committed flush did."""

    prepared: Prepared
    records: int = 0
    duplicates: int = 0
    events: int = 0
    dead: list[DeadLetter] = field(default_factory=list)
    own_events: list[FromEdge] = field(default_factory=list)
    direct: bool = False


async def write(
    connection: Connection, job: Job, expected: Mapping[Partition, int], *, online: Online, timescale: bool
) -> Outcome:
    """Commits a flush. `expected`: the offset at which each partition of it stands.

    Raises OffsetMoved, psycopg.Error: nothing was committed, or it is not known: start again.
    """
    async with connection.transaction():
        new = await _accept(connection, job.readings)
        fresh = [reading for reading, is_new in zip(job.readings, new, strict=True) if is_new]
        prepared = await _prepared_for(job, fresh)
        outcome = Outcome(prepared, records=len(fresh), duplicates=len(new) - len(fresh))
        outcome.direct = timescale and prepared.rows_per_segment >= DIRECT_COMPRESS_ROWS
        await copy_rows(connection, prepared.rows, direct=outcome.direct)
        if not timescale:
            await note_late(connection, prepared.rows, first_us=prepared.first_us)
        await _apply(connection, fresh, outcome, online=online, newest_us=job.bounds.newest_us)
        await _advance(connection, job, expected)
    return outcome


async def _accept(connection: Connection, readings: Sequence[Reading]) -> list[bool]:
    """Which records are new. One whose headers cannot be read has no place in a set and is always new."""
    placed = [reading for reading in readings if reading.identity is not None]
    identities = [reading.identity for reading in placed if reading.identity is not None]
    also = {
        key for reading, of in zip(placed, identities, strict=True) for key in booked_epochs(of.edge, reading.content)
    }
    samples = [reading.samples for reading in placed]
    answers = iter(await accept(connection, SERVICE, identities, samples=samples, also=also))
    return [next(answers) if reading.identity is not None else True for reading in readings]


async def _prepared_for(job: Job, fresh: Sequence[Reading]) -> Prepared:
    if len(fresh) == len(job.readings):
        return job.prepared
    wanted = {id(reading) for reading in fresh}
    return await asyncio.to_thread(prepare, [b for b in job.batches if id(b.reading) in wanted], job.bounds)


async def _apply(
    connection: Connection,
    fresh: Sequence[Reading],
    outcome: Outcome,
    *,
    online: Online,
    newest_us: int,
) -> None:
    """Everything but the rows of samples."""
    accounts, seen = Accounts(), Seen()
    for identity_of, counts in outcome.prepared.cells:
        accounts.samples(identity_of, counts)
    events: list[FromEdge] = []
    findings: list[Finding] = []
    dead = [*outcome.prepared.dead]
    for reading in fresh:
        content, identity = _checked(reading, newest_us), reading.identity
        if isinstance(content, Refused) or identity is None:
            refused = content if isinstance(content, Refused) else Refused("headers", "an impossible identity")
            letter = whole(reading, refused)
            dead.append(letter)
            if identity is not None:
                accounts.stored(identity, {cell: count for cell, (count, _) in letter.cells.items()})
            continue
        match content:
            case SampleBatch():
                pass  # prepared.cells
            case Heartbeat():
                online.hear(content, identity.epoch, seen, newest_us=newest_us)
            case Ledger():
                accounts.ledger(content)
            case Registry():
                events += await apply_registry(connection, content)
            case _:
                events += [FromEdge(item, identity.edge) for item in content if isinstance(item, Event)]
                findings += [item for item in content if isinstance(item, Finding)]
                dropped = [item for item in content if isinstance(item, DroppedRange)]
                accounts.dropped(identity.edge, dropped)
                events += [_dropped_event(identity.edge, item, reading) for item in dropped]
    await insert_dead(connection, dead)
    await accounts.write(connection)
    await write_online(connection, seen)
    await upsert_findings(connection, findings)
    await insert_events(connection, [*events, *seen.events])
    outcome.dead, outcome.events, outcome.own_events = dead, len(events), [*seen.events]


def _checked(reading: Reading, newest_us: int) -> Content | Refused:
    """The content; refused is a registry of the future, or every later one would be taken for an older one, and a ledger
    that no edge can have written, or it would settle what it does not cover."""
    content = reading.content
    if isinstance(content, Registry) and content.time_us > newest_us:
        return Refused("future", f"a registry: expected a time of at most {newest_us} µs, found {content.time_us}")
    if isinstance(content, Ledger) and (why := impossible(content, reading.identity)) is not None:
        return Refused("ledger", why)
    return content


async def _advance(connection: Connection, job: Job, expected: Mapping[Partition, int]) -> None:
    last = {reading.record.partition: reading for reading in job.readings}
    for partition in sorted(last):
        reading = last[partition]
        await advance(
            connection,
            SERVICE,
            partition,
            expected=expected[partition],
            next=reading.record.offset + 1,
            last=reading.mark,
        )


def _dropped_event(edge: str, dropped: DroppedRange, reading: Reading) -> FromEdge:
    return own_event(
        "range-dropped",
        edge,
        reading.record.appended_us,
        epoch=f"{dropped.epoch:016x}",
        first=dropped.first,
        last=dropped.last,
        samples=dropped.samples,
    )
