"""Records that cannot be read or applied are found by halving, at little cost, and nothing else is held up or refused."""

from __future__ import annotations

import asyncio
import math
import secrets
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from ingest import pace, transaction, writer
from ingest.audit import audit
from ingest.service import run
from ingest.transaction import Job, Outcome
from telemetry import wire
from telemetry.log.protocol import OutRecord
from telemetry.messages import Event, Heartbeat, Kind, Registry
from telemetry.service import Health
from telemetry.settings import Settings
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, count, ingesting, now_us, producing
from tests.ingest.test_register import plant

RECORDS = 10_000


class Counting:
    """Counts a worker's transactions, and how many records each took; gathers long before the first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.failed = 0
        write = transaction.write

        async def counted(connection: Any, job: Job, expected: Any, **rest: Any) -> Outcome:
            self.sizes.append(len(job.readings))
            try:
                return await write(connection, job, expected, **rest)
            except Exception:
                self.failed += 1
                raise

        monkeypatch.setattr(writer, "write", counted)
        monkeypatch.setattr(pace, "YOUNG_S", 1.5)
        monkeypatch.setattr(pace, "OLD_S", 1.5)
        monkeypatch.setattr(pace, "FETCH_RECORDS", RECORDS)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


@pytest.fixture
async def edge(plain_store: Settings) -> AsyncIterator[Edge]:
    async with producing(plain_store) as producer:
        yield Edge(producer)


def poison(edge: Edge) -> OutRecord:
    """A registry that can be read, and whose content makes no sense."""
    return edge.record(wire.encode_registry(Registry(edge.name, now_us(), {"site": {}, "areas": []})))


def unreadable(edge: Edge) -> OutRecord:
    value = b'{"edge": "edge-1", "time_us": "noon", "equipments": ["a"], "unreachable": {}}'
    return edge.record(wire.Encoded(Kind.HEARTBEAT, 1, zlib.crc32(value), value))


def nested_event(depth: int) -> wire.Encoded:
    """An event whose attributes are an object in an object, `depth` times: more than a writer in Python can make."""
    value = (
        b'[{"equipment":"a","time_us":1,"scheme":"x","code":"y","on":true,"attributes":'
        + b'{"a":' * depth
        + b"1"
        + b"}" * depth
        + b"}]"
    )
    return wire.Encoded(Kind.EVENTS, 1, zlib.crc32(value), value)


def area(name: Any) -> dict[str, Any]:
    return {"id": name, "level": "city", "name": {"zh": "x", "en": "x"}, "parent": None}


def registry(*areas: dict[str, Any]) -> wire.Encoded:
    return wire.encode_registry(Registry("edge-1", now_us(), {**plant(), "areas": list(areas)}))


def event(equipment: str) -> wire.Encoded:
    return wire.encode_events([Event(equipment, now_us(), "x", "y", True, {})])


LONG = "".join(f"{n:05d}" for n in range(2_000)) + secrets.token_hex(20_000)
"""Longer than any index of PostgreSQL takes, and not to be compressed."""


async def stored_with(
    store: Settings, edge: Edge, records: list[OutRecord], *, letters: int
) -> list[tuple[str, int, int]]:
    """Sends, waits until all is stored or set aside; the dead letters as (reason, seq, offset)."""
    for first in range(0, len(records), 1000):
        await edge.send(*records[first : first + 1000])
    with capture_logs():  # rendering a traceback of so many records takes minutes
        async with ingesting(store):
            await until(
                lambda: (
                    execute(store.store, "SELECT accepted::text FROM store.progress WHERE edge = %s", (edge.name,))
                    == [(f"{{[0,{edge.seq})}}",)]
                ),
                within_s=60,
                what="all is accepted",
            )
    found = execute(store.store, 'SELECT reason, seq, "offset" FROM store.dead_letter ORDER BY seq')
    assert len(found) == letters
    return found


async def test_one_poison_record_among_ten_thousand_costs_about_twice_log2_transactions(
    plain_store: Settings, edge: Edge, counting: Counting
) -> None:
    good = batch(["a/x", "a/y"], samples=2)
    records = [edge.samples(good) for _ in range(RECORDS // 3)] + [poison(edge)]
    records += [edge.samples(good) for _ in range(RECORDS - len(records))]
    records.append(edge.ledger())
    letters = await stored_with(plain_store, edge, records, letters=1)
    assert letters == [("content", RECORDS // 3, RECORDS // 3)]
    assert count(plain_store) == (RECORDS - 1) * 4
    assert (await audit(plain_store)).clean
    depth = math.ceil(math.log2(RECORDS))
    assert max(counting.sizes) > RECORDS // 2, "most of it was one flush"
    assert counting.failed <= depth + 1, counting.sizes
    assert sum(counting.sizes) <= 4 * RECORDS, "records are not written over and over"


async def test_several_poison_records_in_one_flush_are_each_found_and_all_the_others_stored(
    plain_store: Settings, edge: Edge, counting: Counting
) -> None:
    good = batch(["a/x"], samples=5)
    bad = {0, 1, 100, 255, 256, 511}
    records = [poison(edge) if n in bad else edge.samples(good) for n in range(512)]
    records += [unreadable(edge), edge.samples(good), edge.ledger()]
    letters = await stored_with(plain_store, edge, records, letters=7)
    assert [(reason, seq) for reason, seq, _ in letters] == [*(("content", n) for n in sorted(bad)), ("json", 512)]
    assert count(plain_store) == (513 - len(bad)) * 5
    assert (await audit(plain_store)).clean
    assert counting.failed <= len(bad) * 10, counting.sizes


async def test_a_record_that_no_worker_can_apply_is_set_aside_whole_with_its_source(
    plain_store: Settings, edge: Edge
) -> None:
    good, bad = edge.samples(batch(["a/x"])), poison(edge)
    await stored_with(plain_store, edge, [good, bad], letters=1)
    rows = execute(
        plain_store.store,
        'SELECT topic, partition, "offset", edge, epoch, seq, reason, key, value, headers FROM store.dead_letter',
    )
    headers = {name: text.decode() for name, text in bad.headers.items()}
    source = ("vigil.telemetry", 0, 1, "edge-1", edge.epoch, 1, "content")
    assert rows == [(*source, bad.key, bad.value, headers)]


@pytest.mark.parametrize(
    ("rule", "content"),
    [
        ("a name that is an object", lambda: registry(area({"x": 1}))),
        ("a name longer than an index takes", lambda: registry(area(LONG))),
        ("a name with NUL", lambda: registry(area("a\0b"))),
        ("a level that nobody has heard of", lambda: registry(area("a") | {"level": "moon"})),
        ("a number beyond 64 bits", lambda: registry(area("a") | {"parent": 2**63})),
        ("equipment with a name longer than an index takes", lambda: event(LONG)),
        ("attributes nested deeper than Python goes", lambda: nested_event(1_000)),
    ],
)
async def test_whatever_a_record_says_it_is_set_aside_and_the_next_goes_in(
    plain_store: Settings, edge: Edge, rule: str, content: Callable[[], wire.Encoded]
) -> None:
    records = [edge.record(content()), edge.samples(batch(["a/x"], samples=3)), edge.ledger()]
    letters = await stored_with(plain_store, edge, records, letters=1)
    assert [seq for _, seq, _ in letters] == [0], rule
    assert (await audit(plain_store)).clean


async def test_a_record_of_samples_whose_names_the_store_cannot_take_is_set_aside_alone(
    plain_store: Settings, edge: Edge, counting: Counting
) -> None:
    """It fails before its flush has a transaction, while names are resolved."""
    records = [edge.samples(batch([f"a/x{n}", f"a/{LONG}"] if n == 5 else [f"a/x{n}"])) for n in range(16)]
    records.append(edge.ledger())
    letters = await stored_with(plain_store, edge, records, letters=1)
    assert letters == [("content", 5, 5)]
    assert (count(plain_store), counting.failed) == (150, 0)
    report = await audit(plain_store)
    assert (report.dead, report.lost, report.doubled) == (20, 0, 0)


async def test_what_an_edge_said_beside_a_poison_record_is_stored_although_its_first_attempt_was_rolled_back(
    plain_store: Settings, edge: Edge, counting: Counting
) -> None:
    """The attempt has heard the heartbeat; what it heard is forgotten with its transaction."""
    heartbeat = edge.record(wire.encode_heartbeat(Heartbeat(edge.name, now_us(), ("a",), {})))
    await stored_with(plain_store, edge, [heartbeat, poison(edge)], letters=1)
    assert max(counting.sizes) == 2, "both were in one attempt"
    assert execute(plain_store.store, "SELECT equipment, online FROM store.equipment_online") == [("a", True)]


async def test_a_right_that_the_login_lacks_is_no_records_fault(plain_store: Settings, edge: Edge) -> None:
    """Ingest ends, and says why; with the right again everything goes in."""
    execute(plain_store.store, "REVOKE INSERT ON store.event FROM vigil_ingest")
    records = [edge.samples(batch(["a/x"])), edge.record(event("a")), edge.ledger()]
    await edge.send(*records)
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(20):
            await run(plain_store, asyncio.Event(), Health("ingest"))
    assert caught.group_contains(psycopg.errors.InsufficientPrivilege)
    execute(plain_store.store, "GRANT INSERT ON store.event TO vigil_ingest")
    assert execute(plain_store.store, "SELECT count(*) FROM store.log_position") == [(0,)]
    await stored_with(plain_store, edge, [], letters=0)
    assert count(plain_store) == 10
    assert execute(plain_store.store, "SELECT count(*) FROM events WHERE scheme = 'x'") == [(1,)]
