"""The service on the embedded log and a real database: prompt, restartable, patient."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from pathlib import Path

import psycopg
import pytest

from analytics.service import run
from telemetry.errors import ConfigError
from telemetry.messages import Finding
from telemetry.service import Health
from telemetry.settings import Settings
from tests.analytics.line import Edge, analyzing, line, plant_file
from tests.fixtures.kafka import KafkaBroker
from tests.fixtures.store import execute
from tests.fixtures.waiting import until

RAISED = ("a", "plain", "limit:high", True)
CLEARED = ("a", "plain", "limit:high", False)


@pytest.fixture
def settings(plain_store: Settings, tmp_path: Path) -> Settings:
    """A plant, a log of its own and a migrated database."""
    return plant_file(tmp_path).model_copy(update={"store": plain_store.store})


def position(settings: Settings) -> int:
    rows = execute(settings.store, "SELECT next FROM store.log_position WHERE service = 'analyze'")
    return int(rows[0][0]) if rows else 0


async def saved(settings: Settings, next_: int) -> None:
    await until(lambda: position(settings) >= next_, what=f"the position {next_}")


async def test_a_reading_beyond_its_limit_is_raised_and_cleared_on_the_log(settings: Settings) -> None:
    async with line(settings) as it, analyzing(settings):
        await it.send(it.edge.beat(0), it.edge.samples(("a/plain", 1, 95.0), ("b/plain", 1, 20.0)))
        await it.until(lambda: it.brief() == [RAISED])
        await it.send(it.edge.samples(("a/plain", 2, 20.0)))
        await it.until(lambda: it.brief() == [RAISED, CLEARED])
        assert it.findings[0].id == it.findings[1].id
    assert [i.edge for i in it.identities] == ["analyze"] * 2
    assert [i.seq for i in it.identities] == [0, 1]


async def test_a_stopped_service_goes_on_from_its_snapshot(settings: Settings) -> None:
    async with line(settings) as it:
        async with analyzing(settings):
            await it.send(
                it.edge.beat(0), it.edge.samples(("a/delayed", 1, 95.0)), it.edge.samples(("a/plain", 1, 95.0))
            )
            await it.until(lambda: it.brief() == [RAISED])
        assert position(settings) == 3
        await it.send(it.edge.beat(4), it.edge.beat(6))
        async with analyzing(settings):
            await it.until(lambda: len(it.findings) == 2)
        assert [(f.detector, f.raised) for f in it.findings[1:]] == [("limit:high", True)]
        assert it.findings[1].point == "delayed"


async def test_after_a_crash_the_same_findings_come_again_with_the_same_ids(settings: Settings) -> None:
    async with line(settings) as it:
        await it.send(it.edge.beat(0), it.edge.samples(("a/plain", 1, 95.0)), it.edge.samples(("a/plain", 2, 1.0)))
        async with analyzing(settings):
            await it.until(lambda: it.brief() == [RAISED, CLEARED])
            await saved(settings, 3)
        first: list[Finding] = list(it.findings)
        execute(settings.store, "DELETE FROM store.log_position")
        execute(settings.store, "DELETE FROM store.snapshot")
        async with analyzing(settings):
            await it.until(lambda: len(it.findings) == 4)
        assert it.findings[2:] == first


async def test_a_snapshot_and_its_offset_are_saved_while_it_runs(settings: Settings) -> None:
    async with line(settings) as it, analyzing(settings):
        await it.send(it.edge.beat(0), it.edge.samples(("a/plain", 1, 95.0)))
        await saved(settings, 2)
        rows = execute(settings.store, "SELECT next FROM store.snapshot WHERE service = 'analyze'")
        assert rows[0][0] == position(settings)


async def test_a_corrupt_record_is_skipped_and_the_line_goes_on(settings: Settings) -> None:
    async with line(settings) as it, analyzing(settings):
        bad = it.edge.samples(("a/plain", 1, 95.0))
        await it.send(type(bad)(bad.key, bad.value[:-9], bad.headers), type(bad)(b"k", b"?", {}))
        await it.send(it.edge.samples(("a/plain", 2, 95.0)))
        await it.until(lambda: it.brief() == [RAISED])


async def test_detection_goes_on_while_the_database_is_away_and_the_snapshot_is_saved_later(settings: Settings) -> None:
    async with line(settings) as it, analyzing(settings) as health:
        await it.send(it.edge.beat(0))
        await saved(settings, 1)
        execute(settings.store, "ALTER TABLE store.snapshot RENAME TO snapshot_away")
        await it.send(it.edge.samples(("a/plain", 1, 95.0)))
        await it.until(lambda: it.brief() == [RAISED])
        await until(lambda: "store" in health.waiting_for, what="waiting for the store")
        execute(settings.store, "ALTER TABLE store.snapshot_away RENAME TO snapshot")
        await saved(settings, 2)


async def test_a_moved_offset_voids_what_is_in_memory_and_the_service_starts_again_from_the_store(
    settings: Settings,
) -> None:
    async with line(settings) as it, analyzing(settings):
        await it.send(it.edge.beat(0), it.edge.beat(1))
        await saved(settings, 2)
        execute(settings.store, "UPDATE store.log_position SET next = 1, last_crc = NULL WHERE service = 'analyze'")
        await it.send(it.edge.samples(("a/plain", 2, 95.0)))
        await saved(settings, 3)
        await it.until(lambda: len(it.findings) >= 2)
    assert {f.id for f in it.findings} == {it.findings[0].id}


async def test_a_log_that_was_replaced_is_named_and_not_read(settings: Settings, tmp_path: Path) -> None:
    async with line(settings) as it, analyzing(settings):
        await it.send(it.edge.beat(0), it.edge.beat(1))
        await saved(settings, 2)
    other = settings.model_copy(update={"state_dir": tmp_path / "other"})
    async with line(other) as it:
        stranger = Edge(epoch=99)
        await it.send(stranger.beat(0), stranger.beat(1), stranger.samples(("a/plain", 2, 95.0)))
        async with analyzing(other) as health:
            await until(lambda: "log" in health.waiting_for, what="waiting for the log")
            assert "wiped or restored" in health.waiting_for["log"]
        assert await it.told() == 0


async def test_without_a_plant_it_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="VIGIL_PLANT"):
        await run(Settings(), asyncio.Event(), Health("analyze"))


async def test_it_waits_for_a_database_and_stops_when_told(tmp_path: Path) -> None:
    settings = plant_file(tmp_path)
    async with analyzing(settings) as health:
        assert await until(lambda: "store" in health.waiting_for, what="waiting for the store")


async def test_a_silent_edge_is_raised_once_the_reader_is_abreast_and_cleared_by_its_next_heartbeat(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analytics.silence.AT_LEAST_S", 0.5)
    fast = settings.model_copy(update={"clock": "scaled:2023-11-14T22:13:20+00:00,20"})
    async with line(fast) as it, analyzing(fast):
        await it.send(it.edge.beat(0))
        await it.until(lambda: it.brief() == [("edge-1", "", "edge-silent", True)])
        await it.send(it.edge.beat(1))
        await it.until(lambda: len(it.findings) == 2)
        assert (it.findings[1].id, it.findings[1].raised) == (it.findings[0].id, False)


async def test_told_to_stop_while_the_database_hangs_it_stops_and_loses_nothing(settings: Settings) -> None:
    async with line(settings) as it:
        with psycopg.connect(settings.store) as holder:
            async with analyzing(settings):
                await it.send(it.edge.beat(0))
                await saved(settings, 1)
                holder.execute("LOCK TABLE store.snapshot IN ACCESS EXCLUSIVE MODE")
                await it.send(it.edge.samples(("a/plain", 1, 95.0)))
                await it.until(lambda: it.brief() == [RAISED])
        assert position(settings) == 1
        async with analyzing(settings):
            await it.until(lambda: len(it.findings) == 2)
        assert it.findings[1] == it.findings[0]
        assert position(settings) == 2


async def test_on_kafka_it_goes_on_from_its_snapshot_as_well(
    plain_store: Settings, kafka_broker: KafkaBroker, tmp_path: Path
) -> None:
    unit = f"k{uuid.uuid4().hex}"  # the broker's topics are shared with other tests
    settings = plant_file(tmp_path, unit).model_copy(update={"store": plain_store.store, "log": kafka_broker.url})
    edge = Edge(unit, secrets.randbits(62))
    async with line(settings) as it:

        def mine() -> list[tuple[str, bool]]:
            return [(point, raised) for equipment, point, _, raised in it.brief() if equipment == unit]

        async with analyzing(settings):
            await it.send(edge.beat(0, unit), edge.samples((f"{unit}/plain", 1, 95.0), (f"{unit}/delayed", 1, 95.0)))
            await it.until(lambda: mine() == [("plain", True)])
        await it.send(edge.beat(9, unit), edge.samples((f"{unit}/plain", 10, 5.0)))
        async with analyzing(settings):
            await it.until(lambda: mine() == [("plain", True), ("delayed", True), ("plain", False)])
