"""What edges dropped is forgotten with the ledger of its hours, and the audit says the same before and after."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from ingest.audit import audit
from ingest.audit_report import AuditReport
from ingest.deadletters import replay_dead_letters
from ingest.retention import DAY_US, prune
from telemetry import wire
from telemetry.ledger import HOUR_US
from telemetry.messages import DroppedCell, DroppedRange, Ledger
from telemetry.settings import Settings
from telemetry.store import INGEST, connect
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, ingesting, now_us, producing

HOUR = (now_us() // HOUR_US - 1) * HOUR_US
LONG_AGO = HOUR - 120 * DAY_US
"""Its ledger goes, too (90 days and a week)."""
NOT_YET = HOUR - 96 * DAY_US


async def pruned(store: Settings, *, rows: int = 5_000) -> int:
    async with await connect(store, INGEST, autocommit=True) as connection:
        return await prune(store, connection, rows=rows)


async def journal(store: Settings, *dropped: tuple[tuple[int, ...], int], lost: int = 0) -> Edge:
    """10 samples stored, and each range (hours of 10 samples each, and how many more of which nobody says what) journaled
    and dropped; the further ones, and those that are lost, are of the hour of the stored ones."""
    async with producing(store) as producer, ingesting(store):
        edge = Edge(producer)
        ranges = []
        for hours, unknown in dropped:
            edge.counted += [batch(["a/x"], start_us=hour) for hour in hours]
            if unknown:
                edge.counted.append(batch(["a/more"], start_us=HOUR, samples=unknown))
            cells = tuple(DroppedCell("a", hour, 10) for hour in hours)
            ranges.append(DroppedRange(edge.epoch, edge.seq, edge.seq, 10 * len(hours) + unknown, cells))
            edge.seq += 1
        if lost:
            edge.counted.append(batch(["a/lost"], start_us=HOUR, samples=lost))
        await edge.send_samples(batch(["a/x"], start_us=HOUR))
        await edge.send_dropped(*ranges)
        await edge.send_ledger()
        seqs = "SELECT accepted + dropped = int8multirange(int8range(0, %s)) FROM store.progress"
        await until(lambda: execute(store.store, seqs, (edge.seq,)) == [(True,)], what="all of it is stored")
    return edge


def verdict(report: AuditReport) -> tuple[int, ...]:
    return (report.journaled, report.stored, report.lost, report.doubled, report.in_flight, report.dead)


def kept(store: Settings) -> list[tuple[int, ...]]:
    """What is told of drops by cell, and what their edge said in all."""
    by_cell = "SELECT coalesce(sum(n), 0)::int FROM store.unledgered, unnest(samples) AS n"
    return execute(store.store, f"SELECT ({by_cell}), samples_dropped::int FROM store.progress")  # noqa: S608


@pytest.mark.parametrize(
    ("began", "hours"),
    [pytest.param("130 days", 2, id="a long run"), pytest.param("0", 0, id="a wrong clock, whose ledger stays")],
)
async def test_drops_of_hours_that_are_long_gone_are_forgotten_and_explain_no_other_hour(
    store: Settings, began: str, hours: int
) -> None:
    await journal(store, ((LONG_AGO,), 0), ((LONG_AGO, LONG_AGO + HOUR_US), 3), ((HOUR + HOUR_US,), 0), lost=2)
    execute(store.store, "UPDATE store.progress SET first_at = now() - %s::interval", (began,))
    before = await audit(store)
    assert verdict(before) == (25, 10, 2, 0, 0, 0)
    assert kept(store) == [(40, 43)]
    assert await pruned(store, rows=1) == 2 + hours, "two ranges, and the ledger of their hours"
    assert kept(store) == [(10, 13)]
    after = await audit(store)
    assert verdict(after) == verdict(before)
    assert (before.dropped, after.dropped) == (43, 13)
    assert execute(store.store, "SELECT dropped::text FROM store.progress") == [("{[0,3)}",)]
    assert await pruned(store) == 0


async def test_a_range_is_kept_while_one_of_its_hours_is(plain_store: Settings) -> None:
    await journal(plain_store, ((LONG_AGO, NOT_YET), 0), ((NOT_YET,), 0))
    execute(plain_store.store, "UPDATE store.progress SET first_at = now() - interval '130 days'")
    before = await audit(plain_store)
    assert await pruned(plain_store) == 1, "an hour of the ledger"
    assert kept(plain_store) == [(30, 30)]
    assert verdict(await audit(plain_store)) == verdict(before)


async def test_drops_that_come_when_their_hours_are_long_gone_are_forgotten_before_their_ledger_comes(
    plain_store: Settings,
) -> None:
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge = Edge(producer)
        edge.counted.append(batch(["a/x"], start_us=LONG_AGO))
        edge.seq = 1
        await edge.send_dropped(DroppedRange(edge.epoch, 0, 0, 10, (DroppedCell("a", LONG_AGO, 10),)))
        await until(lambda: kept(plain_store) == [(20, 10)], what="dropped, and not in the ledger yet")
        assert await pruned(plain_store) == 1
        assert (await audit(plain_store)).clean
        await edge.send_ledger()
        await until(lambda: kept(plain_store) == [(0, 0)], what="the ledger covers it")
    assert (await audit(plain_store)).clean


@pytest.mark.parametrize("through", [(1 << 63) - 1, 1 << 62])
async def test_a_ledger_that_covers_more_than_there_can_be_is_set_aside_and_takes_no_drops_with_it(
    plain_store: Settings, through: int
) -> None:
    """Also one of an earlier run, which its edge's next one sends; replayed, they are refused again."""
    edge = await journal(plain_store, ((HOUR + HOUR_US,), 3))
    before = await audit(plain_store)
    assert kept(plain_store) == [(10, 13)]
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge.producer = producer
        later = Edge(producer)
        broken = wire.encode_ledger(Ledger(edge.name, edge.epoch, through, ()))
        await edge.send(edge.record(broken))
        await later.send(later.record(broken))
        letters = "SELECT reason, seq, detail LIKE %s FROM store.dead_letter ORDER BY dead_letter_id"
        refused = [("ledger", edge.seq - 1, True), ("ledger", 0, True)]
        found = (f"through: %found {through}",)
        await until(lambda: execute(plain_store.store, letters, found) == refused, what="two letters")
        assert sorted(kept(plain_store)) == [(10, 0), (10, 13)], "of the next run, and of this one"
        assert verdict(await audit(plain_store)) == verdict(before)
        report = await replay_dead_letters(plain_store, None)
        assert [why.startswith("ledger: through: ") for why in report.refused.values()] == [True, True]
        await edge.send_samples(batch(["a/x"], start_us=HOUR))
        await edge.send_ledger()
        seqs = "SELECT (accepted + dropped)::text FROM store.progress WHERE epoch = %s"
        all_of_it = [(f"{{[0,{edge.seq})}}",)]
        await until(
            lambda: execute(plain_store.store, seqs, (edge.epoch,)) == all_of_it, what="the next ones are stored"
        )
    assert sorted(kept(plain_store)) == [(10, 0), (10, 13)]
    after = await audit(plain_store)
    assert (after.clean, after.journaled) == (True, before.journaled + 10)


async def waiting(store: Settings, sessions: int) -> None:
    statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    await until(lambda: execute(store.store, statement) == [(sessions,)], what=f"{sessions} wait")


async def test_two_workers_that_prune_at_the_same_time_take_a_sum_once(plain_store: Settings) -> None:
    await journal(plain_store, ((LONG_AGO,), 0), ((HOUR,), 0))
    with psycopg.connect(plain_store.store) as flush:
        flush.execute("SELECT FROM store.progress FOR UPDATE")
        both = asyncio.gather(pruned(plain_store), pruned(plain_store))
        await waiting(plain_store, 2)
        flush.rollback()
        async with asyncio.timeout(20):
            assert sorted(await both) == [0, 1]
    assert kept(plain_store) == [(10, 10)]


async def test_pruning_waits_for_no_flush_for_long_and_holds_nothing_meanwhile(plain_store: Settings) -> None:
    await journal(plain_store, ((LONG_AGO,), 0))
    with psycopg.connect(plain_store.store) as flush:
        flush.execute("SELECT FROM store.progress FOR UPDATE")
        pruning = asyncio.create_task(pruned(plain_store))
        await waiting(plain_store, 1)
        flush.execute("SELECT FROM store.unledgered FOR UPDATE NOWAIT")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            async with asyncio.timeout(20):
                await pruning
    assert kept(plain_store) == [(10, 10)]
