"""A service's place on the log and what it has accepted, kept in the store: half of every exactly-once promise.

Per (service, partition) the store holds the next offset and who made the record before it; per (service, edge, epoch)
the set of accepted seqs. A worker moves both in the transaction of its own rows. Its order of work:

    in `assigned`       positions = await load_positions(conn, service, partitions)
                        start there: await verify_continuity(reader, partition, position), of each
    each flush, in one transaction:
                        new = await accept(conn, service, identities)        rows locked in the order of (edge, epoch)
                        … the service's own rows, of the records that are new …
                        await verify_unchanged(reader, places)               was it fetched from the same log?
                        await advance(conn, service, partition, next=…, expected=…, last=mark(record))   last of all
    OffsetMoved         roll back, drop everything in memory, start again from load_positions

Invariant: whatever is killed and whenever, a seq is in the set if and only if its rows are committed, and the offset is
at or before the first record whose rows are not. A zombie moves no offset, so it commits nothing.

Beginnings. A service with no position begins at the log's first offset. Where that is not 0, records are gone that it
never saw: it begins there, and says so, only if it never accepted anything; else it stops with LogDiscontinuity.
An operator who replaced the log on purpose sets `next` to the offset to go on at and the four last_… columns to NULL
in store.log_position; records that were accepted before are recognised by the sets and not stored twice.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import structlog
from psycopg.types.multirange import Int8Multirange, Multirange
from psycopg.types.range import Range

from telemetry.errors import LogDiscontinuity, OffsetMoved, RecordError
from telemetry.log.protocol import Bounds, InRecord, Partition, Reader
from telemetry.names import is_name
from telemetry.seqset import SeqSet
from telemetry.wire import Identity, read_envelope

log = structlog.get_logger()

Connection = psycopg.AsyncConnection[Any]

MAX_INT8: Final = 2**63 - 1
MAX_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class Mark:
    """A record, as it is recognised when it is read again."""

    identity: Identity | None
    """None: its headers could not be read."""
    crc: int
    """CRC-32 of the value as it was read, whatever its header says."""

    def __str__(self) -> str:
        who = "unreadable headers"
        if self.identity is not None:
            who = f"edge {self.identity.edge} epoch {self.identity.epoch:016x} seq {self.identity.seq}"
        return f"{who} crc {self.crc:08x}"


@dataclass(frozen=True, slots=True)
class Position:
    """A service's place in a partition, as the store has it."""

    next: int
    """Offset of the first record not yet processed; what `advance` expects."""
    last: Mark | None
    """The record at next − 1. None: none yet, or an operator set the position."""
    begun: bool
    """Whether the service ever accepted a record, of any partition."""


def identity_of(record: InRecord) -> Identity | None:
    """Who made a record; None where its headers cannot be read, or say what the store cannot hold (a set aside record)."""
    try:
        identity = read_envelope(record.headers).identity
    except RecordError:
        return None
    fits = (
        is_name(identity.edge)
        and len(identity.edge) <= MAX_NAME
        and 0 <= identity.epoch <= MAX_INT8
        and 0 <= identity.seq < MAX_INT8
    )
    return identity if fits else None


def mark(record: InRecord) -> Mark:
    """What a record is recognised by."""
    return Mark(identity_of(record), zlib.crc32(record.value))


async def load_positions(
    connection: Connection, service: str, partitions: Sequence[Partition]
) -> dict[Partition, Position]:
    """The place of a service in each of the partitions; `next` 0 where it has none. Raises psycopg.Error."""
    cursor = await connection.execute(
        "SELECT topic, partition, next, last_edge, last_epoch, last_seq, last_crc FROM store.log_position"
        " WHERE service = %s",
        (service,),
    )
    known = {
        Partition(topic, number): (next_, _mark_of(edge, epoch, seq, crc))
        for topic, number, next_, edge, epoch, seq, crc in await cursor.fetchall()
    }
    cursor = await connection.execute("SELECT EXISTS (SELECT FROM store.progress WHERE service = %s)", (service,))
    row = await cursor.fetchone()
    begun = bool(row and row[0])
    return {p: Position(*known.get(p, (0, None)), begun) for p in partitions}


async def verify_continuity(reader: Reader, partition: Partition, position: Position) -> int:
    """The offset to go on at: `position.next`, or the log's first where the service is new on a trimmed log.

    Compares the record before it with the one that was processed. Raises LogDiscontinuity that names topic, partition,
    offset, what was expected and what was found; LogUnavailable. It reads the log beside the group's place, so
    it may be called from inside Assignment.assigned.
    """
    bounds = await reader.bounds(partition)
    if position.next == 0:
        return _begin(partition, position, bounds)
    if not bounds.first <= position.next <= bounds.end:
        what = "was wiped or restored" if position.next > bounds.end else "was trimmed"
        raise _broken(
            partition,
            position.next,
            f"the log {what}",
            f"an offset in {bounds.first}..{bounds.end}, which it holds",
            f"our next offset {position.next}",
        )
    if position.last is None or bounds.first == position.next:
        return position.next  # an operator set it, or everything before it is trimmed: nothing to compare
    record = await reader.read_at(partition, position.next - 1)
    found = mark(record) if record is not None else "no record"
    if found != position.last:
        raise _broken(partition, position.next - 1, "the log was wiped or restored", str(position.last), str(found))
    return position.next


async def verify_unchanged(reader: Reader, places: Mapping[Partition, tuple[int, Mark]]) -> None:
    """Compares the record before each place (its `next`, and who is there) with the one that was processed.

    For what was fetched while nobody noticed that the log was replaced: Kafka goes on at the same offset of a topic that
    was deleted, made anew and has grown past it. Called after the fetch and before the commit, it lets nothing of
    another log in. What was trimmed meanwhile is no fault. Raises LogDiscontinuity; LogUnavailable.
    """
    for partition, (next_, last) in places.items():
        record = await reader.read_at(partition, next_ - 1)
        if record is None and (await reader.bounds(partition)).first >= next_:
            continue
        found = mark(record) if record is not None else "no record"
        if found != last:
            raise _broken(partition, next_ - 1, "the log was wiped or restored", str(last), str(found))


async def advance(
    connection: Connection, service: str, partition: Partition, *, expected: int, next: int, last: Mark | None
) -> None:
    """Moves the offset by compare-and-set: the last statement before COMMIT. Raises OffsetMoved; psycopg.Error.

    `expected` is the `next` that was loaded or last moved to, `last` the mark of the record at `next` − 1.
    """
    identity = last.identity if last else None
    values = {
        "service": service,
        "topic": partition.topic,
        "partition": partition.number,
        "expected": expected,
        "next": next,
        "edge": identity.edge if identity else None,
        "epoch": identity.epoch if identity else None,
        "seq": identity.seq if identity else None,
        "crc": last.crc if last else None,
    }
    cursor = await connection.execute(_BEGIN if expected == 0 else _MOVE, values)
    if cursor.rowcount != 1:
        raise OffsetMoved(
            f"{service}: {partition.topic}/{partition.number}: expected next offset {expected}, found another: "
            "another worker has this partition"
        )


async def accept(
    connection: Connection,
    service: str,
    identities: Sequence[Identity],
    *,
    samples: Sequence[int] | None = None,
    also: Collection[tuple[str, int]] = (),
) -> list[bool]:
    """Which records are new to the service, one answer each, in order; puts those into its sets.

    A record given twice is new once. `samples` are their sample counts, added up where the record is new. The rows of
    (edge, epoch) stay locked, taken in that order, until the transaction ends; so do those of `also`, further epochs
    that the caller books for, where there is one. Raises psycopg.Error.
    """
    if not identities and not also:
        return []
    sets = await _locked_sets(connection, service, sorted({(i.edge, i.epoch) for i in identities}), also)
    added: dict[tuple[str, int], SeqSet] = {key: SeqSet() for key in sets}
    counts = dict.fromkeys(sets, 0)
    new = []
    for identity, count in zip(identities, samples or [0] * len(identities), strict=True):
        key = (identity.edge, identity.epoch)
        fresh = identity.seq not in sets[key] and added[key].add(identity.seq)
        counts[key] += count if fresh else 0
        new.append(fresh)
    async with connection.cursor() as cursor:
        await cursor.executemany(
            "UPDATE store.progress SET accepted = accepted + %s, samples = samples + %s, last_at = now()"
            " WHERE service = %s AND edge = %s AND epoch = %s",
            [(multirange(s), counts[key], service, *key) for key, s in added.items() if s],
        )
    return new


def multirange(seqs: SeqSet) -> Int8Multirange:
    """A set as the database's int8multirange."""
    return Int8Multirange([Range(first, end, "[)") for first, end in seqs.ranges()])


def seqset(value: Multirange[int]) -> SeqSet:
    """A database's int8multirange (canonical: [first, end)) as a set."""
    return SeqSet(_bounds(value))


def _bounds(value: Multirange[int]) -> Iterable[tuple[int, int]]:
    for part in value:
        if part.lower is None or part.upper is None:
            raise ValueError(f"expected a bounded set of seqs, found {value}")
        yield part.lower, part.upper


async def _locked_sets(
    connection: Connection, service: str, keys: Sequence[tuple[str, int]], also: Collection[tuple[str, int]]
) -> Mapping[tuple[str, int], SeqSet]:
    values = {"service": service, "edges": [k[0] for k in keys], "epochs": [k[1] for k in keys]}
    await connection.execute(
        "INSERT INTO store.progress (service, edge, epoch) SELECT %(service)s, k.edge, k.epoch"
        " FROM unnest(%(edges)s::text[], %(epochs)s::bigint[]) AS k(edge, epoch) ORDER BY 2, 3 ON CONFLICT DO NOTHING",
        values,
    )
    wanted = [*{*keys, *also}]
    values |= {"edges": [k[0] for k in wanted], "epochs": [k[1] for k in wanted]}
    cursor = await connection.execute(
        "SELECT p.edge, p.epoch, p.accepted FROM store.progress p"
        " JOIN unnest(%(edges)s::text[], %(epochs)s::bigint[]) AS k(edge, epoch)"
        " ON p.edge = k.edge AND p.epoch = k.epoch WHERE p.service = %(service)s"
        " ORDER BY p.edge, p.epoch FOR UPDATE OF p",
        values,
    )
    return {(edge, epoch): seqset(accepted) for edge, epoch, accepted in await cursor.fetchall()}


def _begin(partition: Partition, position: Position, bounds: Bounds) -> int:
    if bounds.first == 0:
        return 0
    if position.begun:
        raise _broken(
            partition, 0, "the log was trimmed below records never processed", "first offset 0", f"{bounds.first}"
        )
    log.warning(
        "log begins late: records before it were trimmed and never seen by this service",
        topic=partition.topic,
        partition=partition.number,
        first=bounds.first,
    )
    return bounds.first


def _broken(partition: Partition, offset: int, what: str, expected: str, found: str) -> LogDiscontinuity:
    return LogDiscontinuity(
        f"{partition.topic}/{partition.number} offset {offset}: {what}: expected {expected}, found {found}; "
        "if this is meant, set the position in store.log_position (docs/positions.md)"
    )


def _mark_of(edge: str | None, epoch: int | None, seq: int | None, crc: int | None) -> Mark | None:
    if crc is None:
        return None
    identity = Identity(edge, epoch, seq) if edge is not None and epoch is not None and seq is not None else None
    return Mark(identity, crc)


_MOVE = """
UPDATE store.log_position
SET next = %(next)s, last_edge = %(edge)s, last_epoch = %(epoch)s, last_seq = %(seq)s, last_crc = %(crc)s, moved_at = now()
WHERE service = %(service)s AND topic = %(topic)s AND partition = %(partition)s AND next = %(expected)s
"""
_BEGIN = """
INSERT INTO store.log_position AS p (service, topic, partition, next, last_edge, last_epoch, last_seq, last_crc)
VALUES (%(service)s, %(topic)s, %(partition)s, %(next)s, %(edge)s, %(epoch)s, %(seq)s, %(crc)s)
ON CONFLICT (service, topic, partition) DO UPDATE
SET next = %(next)s, last_edge = %(edge)s, last_epoch = %(epoch)s, last_seq = %(seq)s, last_crc = %(crc)s, moved_at = now()
WHERE p.next = %(expected)s
"""
