"""What a replay of dead letters leaves behind is what there would be, had the record been stored when it came."""

from __future__ import annotations

import pytest

from ingest import audit as auditing
from ingest.aggregates import MINUTE_US
from ingest.audit import audit
from ingest.deadletters import list_dead_letters, replay_dead_letters
from telemetry import wire
from telemetry.batch import concatenate, from_rows
from telemetry.clock import iso
from telemetry.ledger import HOUR_US
from telemetry.log.protocol import TELEMETRY, OutRecord
from telemetry.messages import DroppedCell, DroppedRange, Event, Finding
from telemetry.settings import Settings
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, count, ingesting, now_us, producing, until_stored
from tests.ingest.test_deadletter_replays import now_readable, of_version
from tests.ingest.test_deadletters import DAY_US
from tests.ingest.test_kept_aggregates import HOUR, oracle, refreshed, shown
from tests.ingest.test_register import equipment, plant


async def set_aside(store: Settings, *records: OutRecord, edge: Edge) -> None:
    """Stores what the edge sends, with these as records of a version that nobody reads."""
    async with ingesting(store):
        await edge.send(*(of_version(record, b"2.0") for record in records))
        await edge.send_ledger()
        through = "SELECT upper(accepted) FROM store.progress WHERE service = 'ingest'"
        await until(lambda: execute(store.store, through) == [(edge.seq,)], what="all of it is read")


async def test_rows_of_a_whole_letter_that_are_still_refused_stay_in_the_books_as_dead(plain_store: Settings) -> None:
    """Two of twelve are older than retention keeps, or ahead of time."""
    now = now_us()
    odd = from_rows([("a/y", now - 200 * DAY_US, 7.0, 192), ("a/y", now + HOUR_US, 8.0, 192)])
    async with producing(plain_store) as producer:
        edge = Edge(producer)
        await set_aside(plain_store, edge.samples(concatenate([batch(["a/x"]), odd])), edge=edge)
    assert (await audit(plain_store)).dead == 12
    now_readable(plain_store)
    report = await replay_dead_letters(plain_store, None)
    assert (report.rows, count(plain_store)) == (10, 10)
    (rest,) = await list_dead_letters(plain_store)
    assert rest.samples == 2
    verdict = await audit(plain_store)
    assert (verdict.dead, verdict.stored, verdict.lost, verdict.doubled) == (2, 10, 0, 0)


async def test_minutes_and_hours_that_were_kept_already_are_made_again_for_replayed_rows(plain_store: Settings) -> None:
    first = batch(["a/x", "a/y"], samples=90, start_us=HOUR, step_us=MINUTE_US)
    later = batch(["a/x"], samples=40, start_us=HOUR + 30_000_000, step_us=MINUTE_US, value=100.0)
    async with producing(plain_store) as producer:
        edge = Edge(producer)
        async with ingesting(plain_store):
            await edge.send_samples(first)
            await until_stored(plain_store, edge)
        await set_aside(plain_store, edge.samples(later), edge=edge)
    await refreshed(plain_store, now_us())
    assert shown(plain_store, "samples_1h") == oracle([first], HOUR_US)
    now_readable(plain_store)
    assert (await replay_dead_letters(plain_store, None)).rows == 40
    await refreshed(plain_store, now_us())
    for view, bin_us in (("samples_1m", MINUTE_US), ("samples_1h", HOUR_US)):
        assert shown(plain_store, view) == oracle([first, later], bin_us), view


async def test_a_record_whose_place_is_only_taken_by_its_replay_is_counted_before_the_ledger_covers_it(
    plain_store: Settings,
) -> None:
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge = Edge(producer)
        record = edge.samples(batch(["a/x"]))
        await producer.send(TELEMETRY, [OutRecord(record.key, record.value, {**record.headers, "epoch": b"soon"})])
        await edge.send_samples(batch(["a/y"]))
        accepted = "SELECT samples FROM store.progress WHERE service = 'ingest'"
        await until(lambda: execute(plain_store.store, accepted) == [(10,)], what="what came behind it")
        execute(
            plain_store.store,
            "UPDATE store.dead_letter SET headers = headers || jsonb_build_object('epoch', %s::text)",
            (f"{edge.epoch:016x}",),
        )
        assert (await replay_dead_letters(plain_store, None)).rows == 10
        assert execute(plain_store.store, accepted) == [(20,)]
        verdict = await audit(plain_store)
        assert (verdict.journaled, verdict.stored, verdict.lost, verdict.doubled) == (20, 20, 0, 0)
        await edge.send_ledger()
        await until_stored(plain_store, edge)
    verdict = await audit(plain_store)
    assert (verdict.journaled, verdict.stored, verdict.lost, verdict.doubled) == (20, 20, 0, 0)
    assert {line.checksum for line in verdict.equipment} == {"same"}


async def test_events_findings_and_drops_of_a_letter_are_there_after_its_replay(
    plain_store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = Finding("a", "x", "limit:high", True, HOUR, HOUR + 5, 1.0, {"value": 3})
    async with producing(plain_store) as producer:
        edge = Edge(producer)
        edge.counted.append(gone := batch(["a/x"], start_us=HOUR))  # journaled, and dropped by the spool
        dropped = DroppedRange(edge.epoch, 0, 0, len(gone), (DroppedCell("a", HOUR, len(gone)),))
        edge.seq = 1
        await set_aside(
            plain_store,
            edge.record(wire.encode_events([Event("a", HOUR, "gbt24476-2017", "4", True, {})])),
            edge.record(wire.encode_findings([finding])),
            edge.record(wire.encode_dropped([dropped])),
            edge=edge,
        )
    monkeypatch.setattr(auditing, "HOLE_YOUNG_S", 0.0)
    before = await audit(plain_store)
    assert (before.lost, before.dropped) == (10, 0)
    now_readable(plain_store)
    assert len((await replay_dead_letters(plain_store, None)).replayed) == 3
    assert execute(plain_store.store, "SELECT code FROM events WHERE scheme <> 'vigil'") == [("4",)]
    assert execute(plain_store.store, "SELECT id FROM findings") == [(finding.id,)]
    after = await audit(plain_store)
    assert (after.lost, after.dropped, after.doubled) == (0, 10, 0)


async def test_a_registry_of_the_future_goes_in_when_its_time_has_come_and_not_before(plain_store: Settings) -> None:
    now = now_us()
    async with producing(plain_store) as producer, ingesting(plain_store):
        edge = Edge(producer)
        await edge.send_registry(plant(equipment("b-1")), time_us=now + 20 * MINUTE_US)
        await until_stored(plain_store, edge)
    still = await replay_dead_letters(plain_store, None)
    assert [why.partition(":")[0] for why in still.refused.values()] == ["future"]
    assert execute(plain_store.store, "SELECT count(*) FROM equipment") == [(0,)]
    start = iso(now - HOUR_US).replace("Z", "+00:00")
    later = plain_store.model_copy(update={"clock": f"scaled:{start},2"})
    assert len((await replay_dead_letters(later, None)).replayed) == 1
    assert execute(plain_store.store, "SELECT id FROM equipment") == [("b-1",)]
