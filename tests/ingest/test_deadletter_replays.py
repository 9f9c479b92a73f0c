"""A replay of dead letters is exactly once, also when it is killed in its middle, run twice at once, or comes late."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from structlog.testing import capture_logs

from ingest.audit import audit
from ingest.deadletters import list_dead_letters, replay_dead_letters
from telemetry import wire
from telemetry.log.protocol import OutRecord
from telemetry.messages import Kind, Ledger
from telemetry.settings import Settings
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, count, ingesting, ledger_entries, producing, until_stored
from tests.ingest.test_poison import LONG, area, registry
from vigil.processes import die_with_parent

HELD = """
import asyncio, sys
from ingest import deadletters
from telemetry.settings import Settings

settle = deadletters._Replay._settle

async def held(*arguments):
    await settle(*arguments)
    print("held", flush=True)
    sys.stdin.readline()

deadletters._Replay._settle = held
print(asyncio.run(deadletters.replay_dead_letters(Settings(store=sys.argv[1]), None)).replayed, flush=True)
"""
"""A replay that waits for a word after each letter, before its COMMIT."""


def of_version(record: OutRecord, version: bytes) -> OutRecord:
    return OutRecord(record.key, record.value, {**record.headers, "schema": version})


def now_readable(store: Settings) -> None:
    """As if the code had learned the version meanwhile."""
    execute(store.store, """UPDATE store.dead_letter SET headers = headers || '{"schema": "1.0"}'""")


async def two_letters(store: Settings) -> Edge:
    """Two records of a later version, 10 samples each, set aside; another stored; the ledger of all."""
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        records = [edge.samples(batch([f"a/{point}"])) for point in "xyz"]
        await edge.send(of_version(records[0], b"2.0"), of_version(records[1], b"2.1"), records[2])
        await edge.send_ledger()
        await until_stored(store, edge)
    return edge


@contextmanager
def held_replay(store: Settings) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, store.store],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent(signal.SIGKILL),
        cwd=Path(__file__).parents[2],
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


async def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        return (await asyncio.to_thread(process.stdout.readline)).strip()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


async def test_a_newer_major_version_is_set_aside_whole_and_goes_in_once_the_code_reads_it(store: Settings) -> None:
    edge = await two_letters(store)
    letters = await list_dead_letters(store)
    assert [(x.reason, x.samples, x.seq, x.offset) for x in letters] == [
        ("schema-version", 10, 0, 0),
        ("schema-version", 10, 1, 1),
    ]
    values = execute(store.store, "SELECT value FROM store.dead_letter ORDER BY dead_letter_id")
    assert values == [(record.value,) for record in edge.sent[:2]]
    assert (await audit(store)).dead == 20
    now_readable(store)
    assert (await replay_dead_letters(store, None)).rows == 20
    assert count(store) == 30
    report = await audit(store)
    assert (report.clean, report.dead) == (True, 0)


async def test_a_replay_killed_in_the_middle_has_done_a_letter_whole_or_not_at_all(store: Settings) -> None:
    await two_letters(store)
    now_readable(store)
    with held_replay(store) as process:
        assert await said(process) == "held"
        go_on(process)
        assert await said(process) == "held", "the second letter's rows are written, not committed"
    assert count(store) == 20
    assert len(await list_dead_letters(store)) == 1
    assert (await audit(store)).dead == 10
    assert (await replay_dead_letters(store, None)).rows == 10
    assert count(store) == 30
    assert (await audit(store)).clean


async def test_of_two_replays_at_the_same_time_each_letter_goes_in_by_one(plain_store: Settings) -> None:
    await two_letters(plain_store)
    now_readable(plain_store)
    with held_replay(plain_store) as process:
        assert await said(process) == "held"
        second = asyncio.create_task(replay_dead_letters(plain_store, None))
        done, _ = await asyncio.wait({second}, timeout=0.3)
        assert not done, "the second waits for the first one's letter"
        go_on(process)
        first_letters = [await said(process)]
        if first_letters == ["held"]:
            go_on(process)
            first_letters = [await said(process)]
        async with asyncio.timeout(20):
            report = await second
    assert count(plain_store) == 30
    assert sorted([*orjson.loads(first_letters[0]), *report.replayed]) == [1, 2]
    assert "replayed already" in report.refused[1]
    assert (await audit(plain_store)).clean


async def test_one_letter_that_still_makes_no_sense_keeps_no_other_out(plain_store: Settings) -> None:
    async with producing(plain_store) as producer:
        edge = Edge(producer)
        odd = [edge.record(registry(area(name))) for name in ({"x": 1}, LONG)]
        await edge.send(*odd, of_version(edge.samples(batch(["a/x"])), b"2.0"))
        with capture_logs():  # rendering their tracebacks takes seconds
            async with ingesting(plain_store):
                await until_stored(plain_store, edge)
    now_readable(plain_store)
    report = await replay_dead_letters(plain_store, None)
    assert (len(report.refused), report.rows, count(plain_store)) == (2, 10, 10)
    assert all(why.startswith("content: ") for why in report.refused.values())


async def test_a_ledger_that_was_set_aside_counts_when_it_is_replayed_behind_later_ones(plain_store: Settings) -> None:
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge = Edge(producer)
        await edge.send(edge.samples(batch(["a/x"])), of_version(edge.ledger(), b"2.0"))
        await edge.send(edge.samples(batch(["a/x"])), edge.ledger())
        await until_stored(plain_store, edge)
    now_readable(plain_store)
    assert (await replay_dead_letters(plain_store, None)).refused == {}
    report = await audit(plain_store)
    assert (report.journaled, report.stored, report.lost, report.doubled) == (20, 20, 0, 0)


async def test_a_newer_minor_version_is_read_and_what_it_adds_is_passed_over(plain_store: Settings) -> None:
    """A further header, a further field in JSON."""
    more = b'[{"equipment":"a","time_us":1795000000000000,"scheme":"x","code":"y","on":true,"attributes":{},"mood":"sunny"}]'
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge = Edge(producer)
        event = edge.record(wire.Encoded(Kind.EVENTS, 1, zlib.crc32(more), more))
        for record in (event, edge.samples(batch(["a/x"]))):
            later = of_version(record, b"1.7")
            await edge.send(OutRecord(later.key, later.value, {**later.headers, "weather": b"fine"}))
        await until_stored(plain_store, edge)
    assert count(plain_store) == 10
    assert execute(plain_store.store, "SELECT equipment, code FROM events") == [("a", "y")]
    assert await list_dead_letters(plain_store) == []


# ---- what is left of an edge's earlier run comes under the epoch of the next one


def ledger_of(earlier: Edge, later: Edge) -> OutRecord:
    """The ledger of an edge's earlier run, as its next one sends it."""
    content = Ledger(earlier.name, earlier.epoch, earlier.seq - 1, ledger_entries(earlier.counted))
    return later.record(wire.encode_ledger(content))


async def until_booked_or_waiting(store: Settings, booked: str) -> None:
    """Until the flush is either in or waits for the replay; held for less than an ingest session may hold others up."""
    waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    await until(lambda: bool(execute(store.store, f"{waits} UNION ALL ({booked})")), what="booked, or waits")


async def assert_all_stands_in_the_books_once(store: Settings) -> None:
    """Ten samples, which the ledger covers; nothing else is owed."""
    assert execute(store.store, "SELECT count(*) FROM store.unledgered") == [(0,)]
    report = await audit(store)
    assert (report.journaled, report.stored, report.dead, report.lost, report.doubled) == (10, 10, 0, 0, 0)


async def test_a_letter_replayed_while_the_ledger_of_its_edges_earlier_run_is_booked_stands_in_no_books_twice(
    store: Settings,
) -> None:
    async with producing(store) as producer, ingesting(store):
        edge, next_run = Edge(producer), Edge(producer)
        await edge.send(of_version(edge.samples(batch(["a/x"])), b"2.0"))
        await until_stored(store, edge)
        now_readable(store)
        with held_replay(store) as process:
            assert await said(process) == "held"
            await next_run.send(ledger_of(edge, next_run))
            await until_booked_or_waiting(store, "SELECT 1 FROM store.ledger_through")
            go_on(process)
            assert await said(process) == "[1]"
        await until_stored(store, next_run)
    await assert_all_stands_in_the_books_once(store)


async def test_samples_of_an_earlier_run_that_come_while_its_ledger_is_replayed_stand_in_no_books_twice(
    plain_store: Settings,
) -> None:
    """The very first ones of that run, also: nothing of it is known before."""
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge, next_run = Edge(producer), Edge(producer)
        late = edge.samples(batch(["a/x"]))
        await next_run.send(of_version(ledger_of(edge, next_run), b"2.0"))
        await until_stored(plain_store, next_run)
        now_readable(plain_store)
        with held_replay(plain_store) as process:
            assert await said(process) == "held"
            assert execute(plain_store.store, "SELECT count(*) FROM ingest_progress") == [(1,)]
            await edge.send(late)
            await until_booked_or_waiting(plain_store, "SELECT 1 FROM store.unledgered")
            go_on(process)
            assert await said(process) == "[1]"
        await until_stored(plain_store, edge)
    await assert_all_stands_in_the_books_once(plain_store)


async def test_a_ledger_of_a_run_of_which_nothing_came_makes_no_line_of_progress_for_it(plain_store: Settings) -> None:
    """Its samples may still come behind the next run's; until then its progress would have no end."""
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge, next_run = Edge(producer), Edge(producer)
        edge.samples(batch(["a/x"]))
        await next_run.send(ledger_of(edge, next_run))
        await until_stored(plain_store, next_run)
    assert execute(plain_store.store, "SELECT epoch, missing::text FROM ingest_progress") == [(next_run.epoch, "{}")]
    assert execute(plain_store.store, "SELECT epoch, through FROM store.ledger_through") == [(edge.epoch, 0)]
