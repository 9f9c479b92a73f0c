"""What cannot be stored is set aside with its reason, holds up nothing, and goes in later exactly once."""

from __future__ import annotations

import zlib
from typing import Any

import pytest

from ingest.audit import audit
from ingest.deadletters import list_dead_letters, replay_dead_letters
from telemetry import wire
from telemetry.arrow_read import decode_samples
from telemetry.batch import from_rows
from telemetry.clock import iso
from telemetry.log.protocol import TELEMETRY, OutRecord
from telemetry.messages import Kind, Registry
from telemetry.settings import Settings
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, count, ingesting, now_us, producing, until_stored

DAY_US = 86_400_000_000


async def test_of_a_batch_only_the_failing_rows_are_set_aside(store: Settings) -> None:
    now = now_us()
    rows = [
        ("a/x", now, 1.0, 192),
        ("a/x", now + 600_000_000, 2.0, 192),
        ("a/x", now - 31 * DAY_US, 3.0, 192),
        ("not a name", now, 4.0, 192),
        ("a/y", now, 5.0, 192),
    ]
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(from_rows(rows))
        await until_stored(store, edge)
        assert sorted(execute(store.store, "SELECT value FROM samples")) == [(1.0,), (5.0,)]
        await until(lambda: execute(store.store, "SELECT count(*) FROM latest") == [(2,)])
    letters = execute(store.store, "SELECT reason, samples, value, edge, seq FROM store.dead_letter ORDER BY reason")
    assert [(reason, n, edge, seq) for reason, n, _, edge, seq in letters] == [
        ("future", 1, "edge-1", 0),
        ("name", 1, "edge-1", 0),
        ("too-old", 1, "edge-1", 0),
    ]
    kept = [decode_samples(value) for _, _, value, _, _ in letters]
    assert [(b.names, b.value.tolist()) for b in kept] == [
        (("a/x",), [2.0]),
        (("not a name",), [4.0]),
        (("a/x",), [3.0]),
    ]


def _crc(record: OutRecord) -> OutRecord:
    return OutRecord(record.key, record.value[:-40] + b"corrupt!" + record.value[-32:], record.headers)


def _headers(record: OutRecord) -> OutRecord:
    return OutRecord(record.key, record.value, {**record.headers, "epoch": b"soon"})


def _later_version(record: OutRecord) -> OutRecord:
    return OutRecord(record.key, record.value, {**record.headers, "schema": b"2.0"})


def _unknown_kind(record: OutRecord) -> OutRecord:
    return OutRecord(record.key, record.value, {**record.headers, "kind": b"weather"})


def _miscounted(record: OutRecord) -> OutRecord:
    return OutRecord(record.key, record.value, {**record.headers, "count": b"11"})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_crc, "crc"),
        (_headers, "headers"),
        (_later_version, "schema-version"),
        (_unknown_kind, "kind"),
        (_miscounted, "count"),
    ],
)
async def test_a_record_that_cannot_be_read_is_kept_whole_and_the_next_goes_on(
    plain_store: Settings, spoil: Any, reason: str
) -> None:
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge = Edge(producer)
        bad = spoil(edge.samples(batch(["a/x"])))
        await edge.send(bad)
        await edge.send_samples(batch(["a/y"], samples=3))
        await until(lambda: count(plain_store) == 3)
        rows = execute(plain_store.store, "SELECT reason, key, value, headers FROM store.dead_letter")
        assert [(r, k, v) for r, k, v, _ in rows] == [(reason, bad.key, bad.value)]
        assert rows[0][3] == {name: text.decode() for name, text in bad.headers.items()}


async def test_a_record_whose_content_makes_no_sense_never_stops_the_line(plain_store: Settings) -> None:
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge = Edge(producer)
        good = [edge.samples(batch(["a/x"])) for _ in range(3)]
        heartbeat = b'{"edge": "edge-1", "time_us": "noon", "equipments": ["a"], "unreachable": {}}'
        poison = [
            edge.record(wire.Encoded(Kind.HEARTBEAT, 1, zlib.crc32(heartbeat), heartbeat)),
            edge.record(wire.encode_registry(Registry("edge-1", now_us(), {"site": {}, "areas": []}))),
        ]
        await edge.send(*good, *poison, edge.samples(batch(["a/x"])))
        await until_stored(plain_store, edge)
        assert count(plain_store) == 40
        letters = execute(plain_store.store, "SELECT reason, seq FROM store.dead_letter ORDER BY seq")
        assert letters == [("json", 3), ("content", 4)]


async def test_rows_that_were_ahead_of_time_go_in_once_their_time_has_come(store: Settings) -> None:
    now = now_us()
    rows = [("a/x", now, 1.0, 192), ("a/x", now + 600_000_000, 2.0, 192), ("a/z", now + 600_000_000, 9.0, 0)]
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(from_rows(rows))
        await edge.send_ledger()
        await until_stored(store, edge)
    (letter,) = await list_dead_letters(store)
    assert (letter.reason, letter.samples) == ("future", 2)
    still = await replay_dead_letters(store, None)
    assert list(still.refused) == [letter.dead_letter_id]
    assert count(store) == 1

    # A clock that began an hour ago at twice the speed reads an hour ahead.
    start = iso(now - 3_600_000_000).replace("Z", "+00:00")
    later = store.model_copy(update={"clock": f"scaled:{start},2"})
    report = await replay_dead_letters(later, None)
    assert (report.replayed, report.rows, report.refused) == ([letter.dead_letter_id], 2, {})
    assert count(store) == 3
    again = await replay_dead_letters(later, [letter.dead_letter_id])
    assert again.refused == {letter.dead_letter_id: "no such letter, or replayed already"}
    assert count(store) == 3
    verdict = await audit(later)
    assert (verdict.clean, verdict.dead, verdict.stored) == (True, 0, 3)
    assert await list_dead_letters(later) == []
    assert execute(store.store, "SELECT value FROM latest WHERE point = 'x'") == [(2.0,)]


async def test_of_a_letter_only_what_is_acceptable_now_goes_in(store: Settings) -> None:
    now = now_us()
    old = [("a/x", now - days * DAY_US, float(days), 192) for days in (31, 60, 120)]
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send_samples(from_rows(old))
        await edge.send_ledger()
        await until_stored(store, edge)
    (letter,) = await list_dead_letters(store)
    report = await replay_dead_letters(store, [letter.dead_letter_id])
    assert (report.rows, count(store)) == (2, 2)
    (rest,) = await list_dead_letters(store)
    assert (rest.dead_letter_id, rest.samples, rest.reason) == (letter.dead_letter_id, 1, "too-old")
    assert (await audit(store)).as_json() | {"edges": [], "equipment": []} == {
        "journaled": 3, "stored": 2, "dropped": 0, "dead": 1, "in_flight": 0, "lost": 0, "doubled": 0,
        "edges": [], "equipment": [],
    }  # fmt: skip


async def test_a_record_of_a_later_version_goes_in_when_this_code_can_read_it(store: Settings) -> None:
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        await edge.send(_later_version(edge.samples(batch(["a/x"]))))
        await edge.send_ledger()
        await until_stored(store, edge)
    assert (await audit(store)).dead == 10
    (letter,) = await list_dead_letters(store)
    still = await replay_dead_letters(store, None)
    assert "schema-version" in still.refused[letter.dead_letter_id]
    execute(store.store, """UPDATE store.dead_letter SET headers = headers || '{"schema": "1.7"}'""")
    report = await replay_dead_letters(store, None)
    assert (report.rows, count(store)) == (10, 10)
    assert (await audit(store)).clean


async def test_a_letter_without_a_readable_place_is_put_in_only_if_its_place_is_free(plain_store: Settings) -> None:
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge = Edge(producer)
        record = edge.samples(batch(["a/x"]))
        await producer.send(TELEMETRY, [_headers(record), record])
        await until_stored(plain_store, edge)
    (letter,) = await list_dead_letters(plain_store)
    execute(
        plain_store.store,
        "UPDATE store.dead_letter SET headers = headers || jsonb_build_object('epoch', %s::text)",
        (f"{edge.epoch:016x}",),
    )
    report = await replay_dead_letters(plain_store, None)
    assert report.refused == {letter.dead_letter_id: "its sequence number is stored already"}
    assert count(plain_store) == 10
