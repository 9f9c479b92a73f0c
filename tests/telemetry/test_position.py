"""A service's place and its sets, on a real database and a real log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest

from telemetry.errors import LogDiscontinuity, OffsetMoved
from telemetry.log import open_log
from telemetry.log.protocol import FINDINGS, Bounds, InRecord, OutRecord, Partition
from telemetry.messages import Finding
from telemetry.position import (
    Mark,
    Position,
    accept,
    advance,
    identity_of,
    load_positions,
    mark,
    multirange,
    seqset,
    verify_continuity,
)
from telemetry.seqset import SeqSet
from telemetry.settings import Settings
from telemetry.store import ALERT, OWNER, connect
from telemetry.wire import Identity, encode_findings, headers

P = Partition(FINDINGS, 0)


@pytest.fixture
async def sessions(plain_store: Settings) -> AsyncIterator[tuple[psycopg.AsyncConnection[Any], ...]]:
    """Two sessions of one service, under its role."""
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(2):
            connection = await connect(plain_store, ALERT, autocommit=True)
            stack.push_async_callback(connection.close)
            found.append(connection)
        yield tuple(found)


def of(*seqs: int, edge: str = "e", epoch: int = 7) -> list[Identity]:
    return [Identity(edge, epoch, seq) for seq in seqs]


async def held(connection: psycopg.AsyncConnection[Any], epoch: int = 7) -> list[tuple[int, int]]:
    cursor = await connection.execute("SELECT accepted FROM store.progress WHERE epoch = %s", (epoch,))
    row = await cursor.fetchone()
    assert row is not None
    return list(seqset(row[0]).ranges())


async def test_a_record_is_new_once_whatever_the_order(sessions: tuple[psycopg.AsyncConnection[Any], ...]) -> None:
    one, _ = sessions
    assert await accept(one, "alert", of(5, 0, 1, 1, 7)) == [True, True, True, False, True]
    assert await accept(one, "alert", of(6, 5, 2, 0)) == [True, False, True, False]
    assert await held(one) == [(0, 3), (5, 8)]


async def test_epochs_edges_and_services_have_sets_of_their_own(
    sessions: tuple[psycopg.AsyncConnection[Any], ...],
) -> None:
    one, _ = sessions
    mixed = [*of(0), *of(0, epoch=8), *of(0, edge="f", epoch=2**63 - 1)]
    assert await accept(one, "alert", mixed) == [True, True, True]
    assert await accept(one, "analyze", mixed) == [True, True, True]
    assert await accept(one, "alert", mixed) == [False, False, False]


async def test_samples_are_counted_once(sessions: tuple[psycopg.AsyncConnection[Any], ...]) -> None:
    one, _ = sessions
    await accept(one, "alert", of(0, 1, 1), samples=[10, 20, 20])
    await accept(one, "alert", of(1, 2), samples=[20, 5])
    cursor = await one.execute("SELECT samples FROM store.progress")
    assert await cursor.fetchone() == (35,)


async def test_what_was_rolled_back_is_new_again(sessions: tuple[psycopg.AsyncConnection[Any], ...]) -> None:
    one, _ = sessions
    async with one.transaction(force_rollback=True):
        assert await accept(one, "alert", of(0)) == [True]
    assert await accept(one, "alert", of(0)) == [True]


async def test_of_two_workers_one_accepts_a_record(sessions: tuple[psycopg.AsyncConnection[Any], ...]) -> None:
    one, two = sessions
    async with one.transaction():
        assert await accept(one, "alert", of(0, 1)) == [True, True]
        other = asyncio.create_task(accept(two, "alert", of(1, 2)))
        done, _ = await asyncio.wait({other}, timeout=0.2)
        assert not done, "the second worker waits for the first one's locks"
    assert await asyncio.wait_for(other, 5) == [False, True]


async def test_an_epoch_stays_locked_until_the_transaction_ends_though_nothing_was_new(
    sessions: tuple[psycopg.AsyncConnection[Any], ...],
) -> None:
    one, two = sessions
    await accept(one, "alert", of(0))
    async with one.transaction():
        assert await accept(one, "alert", of(0)) == [False]
        other = asyncio.create_task(accept(two, "alert", of(1)))
        done, _ = await asyncio.wait({other}, timeout=0.2)
        assert not done, "the second worker waits for the first one's locks"
        assert await accept(one, "alert", of(1)) == [True]
    assert await asyncio.wait_for(other, 5) == [False]


async def test_workers_that_take_many_edges_in_any_order_do_not_deadlock(
    sessions: tuple[psycopg.AsyncConnection[Any], ...],
) -> None:
    one, two = sessions
    forward = [i for n in range(30) for i in of(0, 1, edge=f"e{n}")]

    async def work(connection: psycopg.AsyncConnection[Any], identities: Sequence[Identity]) -> int:
        async with connection.transaction():
            return sum(await accept(connection, "alert", identities))

    async with asyncio.timeout(10):
        taken = await asyncio.gather(work(one, forward), work(two, forward[::-1]))
    assert sum(taken) == 60


async def test_the_offset_moves_only_from_where_it_is_expected(
    sessions: tuple[psycopg.AsyncConnection[Any], ...],
) -> None:
    one, _ = sessions
    last = Mark(Identity("e", 2**63 - 1, 4), 2**32 - 1)
    assert await load_positions(one, "alert", [P]) == {P: Position(0, None, False)}
    await advance(one, "alert", P, expected=0, next=5, last=last)
    with pytest.raises(OffsetMoved, match=r"vigil.findings/0: expected next offset 0"):
        await advance(one, "alert", P, expected=0, next=6, last=None)
    with pytest.raises(OffsetMoved):
        await advance(one, "alert", P, expected=4, next=6, last=None)
    assert await load_positions(one, "alert", [P]) == {P: Position(5, last, False)}
    await advance(one, "alert", P, expected=5, next=9, last=Mark(None, 1))
    assert (await load_positions(one, "alert", [P]))[P].last == Mark(None, 1)


async def test_a_position_that_is_gone_is_not_made_anew_in_silence(
    sessions: tuple[psycopg.AsyncConnection[Any], ...],
) -> None:
    one, _ = sessions
    with pytest.raises(OffsetMoved):
        await advance(one, "alert", P, expected=5, next=6, last=None)


async def test_a_zombie_commits_nothing(sessions: tuple[psycopg.AsyncConnection[Any], ...]) -> None:
    zombie, heir = sessions
    await accept(heir, "alert", of(0))
    async with heir.transaction():
        await accept(heir, "alert", of(1))
        await advance(heir, "alert", P, expected=0, next=2, last=None)

    async def flush() -> None:
        async with zombie.transaction():
            await accept(zombie, "alert", of(9))
            await advance(zombie, "alert", P, expected=0, next=1, last=None)

    with pytest.raises(OffsetMoved):
        await flush()
    assert await held(heir) == [(0, 2)]


async def test_two_beginners_cannot_both_begin(sessions: tuple[psycopg.AsyncConnection[Any], ...]) -> None:
    one, two = sessions
    async with one.transaction():
        await advance(one, "alert", P, expected=0, next=1, last=None)
        second = asyncio.create_task(advance(two, "alert", P, expected=0, next=1, last=None))
        await asyncio.wait({second}, timeout=0.1)
    with pytest.raises(OffsetMoved):
        await asyncio.wait_for(second, 5)


def test_a_set_goes_to_the_database_and_back() -> None:
    told = SeqSet([(0, 3), (5, 6)])
    assert seqset(multirange(told)) == told
    assert not multirange(SeqSet())


class Held:
    """A reader of a partition that holds these records from `first` on."""

    def __init__(self, first: int, records: Sequence[InRecord]) -> None:
        self.first = first
        self.records = {first + n: record for n, record in enumerate(records)}

    async def bounds(self, partition: Partition) -> Bounds:
        return Bounds(self.first, self.first + len(self.records))

    async def read_at(self, partition: Partition, offset: int) -> InRecord | None:
        return self.records.get(offset)

    async def fetch(self, *, max_records: int, max_wait_s: float) -> Sequence[InRecord]:
        raise NotImplementedError

    async def seek(self, partition: Partition, offset: int) -> None:
        raise NotImplementedError

    async def lag(self) -> int:
        raise NotImplementedError

    async def homes(self, topic: str, keys: Sequence[bytes]) -> Sequence[Partition]:
        raise NotImplementedError

    async def commit(self, positions: Mapping[Partition, int]) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


def record(seq: int, value: bytes = b"v", changed: Mapping[str, bytes] | None = None) -> InRecord:
    encoded = encode_findings([Finding("lift-1", "", "stale", True, seq, seq, 1.0, {})])
    raw = {**headers(Identity("e", 7, seq), encoded), **(changed or {})}
    return InRecord(P, seq, 0, b"", value, raw)


THREE = [record(n, bytes([n])) for n in range(3)]


@pytest.mark.parametrize(
    ("rule", "first", "records", "position", "expected"),
    [
        ("a new service begins at the beginning", 0, THREE, Position(0, None, False), 0),
        ("a new service begins late on a trimmed log", 4, THREE, Position(0, None, False), 4),
        ("a service goes on where it was", 0, THREE, Position(2, mark(THREE[1]), True), 2),
        ("a service goes on at the end", 0, THREE, Position(3, mark(THREE[2]), True), 3),
        ("all before it may be trimmed", 2, THREE[2:], Position(2, mark(THREE[1]), True), 2),
        ("an idle log may be trimmed to its end", 3, [], Position(3, mark(THREE[2]), True), 3),
        ("an operator may set the position", 0, THREE, Position(2, None, True), 2),
    ],
)
async def test_a_log_that_continues_is_gone_on_with(
    rule: str, first: int, records: Sequence[InRecord], position: Position, expected: int
) -> None:
    assert await verify_continuity(Held(first, records), P, position) == expected, rule


@pytest.mark.parametrize(
    ("rule", "first", "records", "position", "message"),
    [
        (
            "records trimmed below an old service are named",
            3,
            [],
            Position(0, None, True),
            "trimmed below records never processed: expected first offset 0, found 3",
        ),
        ("a wiped log is shorter", 0, [], Position(2, mark(THREE[1]), True), r"offset 2: .*wiped or restored.* 0\.\.0"),
        ("a trimmed log has lost records", 2, THREE[2:], Position(1, mark(THREE[0]), True), r"was trimmed.* 2\.\.3"),
        (
            "another record at the place is a restored log",
            0,
            THREE,
            Position(2, Mark(Identity("other", 9, 1), 5), True),
            "offset 1: .*expected edge other epoch 0000000000000009 seq 1 crc 00000005, found edge e .* seq 1 crc",
        ),
        (
            "the same identity with another value is another record",
            0,
            THREE,
            Position(2, Mark(Identity("e", 7, 1), 5), True),
            "crc 00000005, found .* crc",
        ),
    ],
)
async def test_a_log_that_does_not_continue_is_named(
    rule: str, first: int, records: Sequence[InRecord], position: Position, message: str
) -> None:
    with pytest.raises(LogDiscontinuity, match=f"vigil.findings/0 .*{message}"):
        await verify_continuity(Held(first, records), P, position)


async def test_a_missing_record_before_the_place_is_named() -> None:
    reader = Held(0, THREE)
    del reader.records[1]
    reader.first = 0

    async def bounds(partition: Partition) -> Bounds:
        return Bounds(0, 3)

    reader.bounds = bounds  # type: ignore[method-assign]
    with pytest.raises(LogDiscontinuity, match="found no record"):
        await verify_continuity(reader, P, Position(2, mark(THREE[1]), True))


@pytest.mark.parametrize(
    ("rule", "changed"),
    [
        ("no seq", {"seq": b"x"}),
        ("a name that is none", {"edge": b"a b\0"}),
        ("a name too long for an index", {"edge": b"a" * 65}),
        ("a negative seq", {"seq": b"-1"}),
        ("more than 63 bits", {"epoch": b"f" * 16}),
    ],
)
def test_a_record_that_no_set_can_hold_has_no_identity_but_is_recognised(rule: str, changed: dict[str, bytes]) -> None:
    odd = record(1, b"abc", changed)
    assert identity_of(odd) is None, rule
    assert mark(odd) == Mark(None, 0x352441C2)  # CRC-32 of "abc"


async def test_a_real_log_that_was_wiped_is_noticed(plain_store: Settings) -> None:
    """The position of a first log's records does not fit a second log that grew just as long."""
    positions: dict[Partition, Position] = {}
    for generation in range(2):
        settings = plain_store.model_copy(update={"state_dir": plain_store.state_dir / str(generation)})
        log = open_log(settings)
        try:
            await log.ensure_topics([FINDINGS])
            producer = await log.producer()
            for seq in range(3):
                encoded = encode_findings([Finding("lift-1", "", "stale", True, seq, seq, 1.0, {})])
                raw = headers(Identity("e", generation, seq), encoded)
                await producer.send(FINDINGS, [OutRecord(b"k", encoded.value, raw)])
            await producer.close()
            started = Started(positions)
            started.reader = await log.reader("alert", [FINDINGS], started)
            try:
                if generation == 0:
                    last = (await started.reader.fetch(max_records=10, max_wait_s=5))[-1]
                    positions[last.partition] = Position(last.offset + 1, mark(last), True)
                else:
                    with pytest.raises(LogDiscontinuity, match="expected edge e epoch 0000000000000000 seq 2"):
                        await started.reader.fetch(max_records=10, max_wait_s=5)
            finally:
                await started.reader.close()
        finally:
            await log.close()


class Started:
    """Starts each partition where its verified position says."""

    def __init__(self, positions: Mapping[Partition, Position]) -> None:
        self.positions = positions
        self.reader: Any = None

    async def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        fresh = Position(0, None, False)
        return {p: await verify_continuity(self.reader, p, self.positions.get(p, fresh)) for p in partitions}

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        return


async def test_the_owner_sees_what_the_role_wrote(
    plain_store: Settings, sessions: tuple[psycopg.AsyncConnection[Any], ...]
) -> None:
    await accept(sessions[0], "alert", of(0))
    owner = await connect(plain_store, OWNER, autocommit=True)
    try:
        assert await held(owner) == [(0, 1)]
    finally:
        await owner.close()
