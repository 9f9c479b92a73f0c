"""The alerting service on a real store, a real log and a real receiver, in good times and bad."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import sql

from alerting.service import run
from ingest.migrate import migrate
from telemetry.errors import ConfigError
from telemetry.service import Health
from telemetry.settings import Settings
from telemetry.store import ALERT, connect
from tests.alerting.line import acknowledge, alarm, alerting, finding, history, outcome, producing, rows
from tests.fixtures.kafka import KafkaBroker
from tests.fixtures.receiver import Receiver
from tests.fixtures.store import StoreServer
from tests.fixtures.waiting import until


async def test_a_finding_becomes_an_alarm_that_is_told_acknowledged_and_closed(
    store: Settings, receiver: Receiver
) -> None:
    settings = store.model_copy(update={"webhook_url": receiver.url})
    found = finding()
    async with producing(settings) as analytics, alerting(settings):
        await analytics.publish(found)
        assert (await alarm(settings, found.id))["state"] == "unacknowledged"
        await acknowledge(settings, found.id, "k1")
        assert await outcome(settings, "k1") == "done"
        await analytics.publish(finding(raised=False))
        await alarm(settings, found.id, "normal")

        async def told() -> bool:
            return receiver.transitions(found.id) == ["raise", "acknowledge", "clear"]

        await until(told)
    assert await history(settings, found.id) == [
        ("raise", "normal", "unacknowledged", "analytics"),
        ("acknowledge", "unacknowledged", "acknowledged", "Li"),
        ("clear", "acknowledged", "normal", "analytics"),
    ]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    """A database server of the test's own, not started."""
    server = StoreServer("plain")
    yield server
    server.remove()


async def test_it_waits_for_a_database_that_is_down_not_migrated_or_killed_and_loses_nothing(
    server: StoreServer, tmp_path: Path
) -> None:
    settings = Settings(store=server.url, state_dir=tmp_path / "state")
    first, second = finding(), finding("lift-2")

    async with producing(settings) as analytics, alerting(settings) as health:

        async def waits_for(what: str) -> None:
            async def said() -> bool:
                return what in health.waiting_for

            await until(said)

        await waits_for("store")
        server.start()
        await waits_for("schema")
        await analytics.publish(first)
        await migrate(settings)
        await alarm(settings, first.id)
        server.kill()
        await analytics.publish(second)
        await waits_for("commands")
        server.start()
        await alarm(settings, second.id)
        await acknowledge(settings, first.id, "k1", notify=False)
        assert await outcome(settings, "k1") == "done"

        async def ready() -> bool:
            return not health.waiting_for

        await until(ready)
    assert len(await history(settings, first.id)) == 2
    assert len(await history(settings, second.id)) == 1


async def test_a_frozen_instance_that_holds_an_alarm_is_ended(plain_store: Settings) -> None:
    found = finding()
    async with producing(plain_store) as analytics, alerting(plain_store):
        await analytics.publish(found)
        await alarm(plain_store, found.id)
        frozen = await connect(plain_store, ALERT)
        try:
            await frozen.execute("SELECT 1 FROM alarm.alarm FOR UPDATE")
            await acknowledge(plain_store, found.id, "k1")
            assert await outcome(plain_store, "k1") == "done"
            told = "SELECT attributes FROM public.events WHERE code = 'frozen-worker-terminated'"
            assert [e["attributes"] for e in await rows(plain_store, told)] == [{"backend": frozen.info.backend_pid}]
        finally:
            await frozen.close()


async def test_two_instances_share_the_work_and_each_finding_counts_once(plain_store: Settings) -> None:
    found = [finding(f"lift-{n}") for n in range(30)]
    async with producing(plain_store) as analytics, alerting(plain_store):
        await analytics.send(*(analytics.record([f]) for f in found[:10]))
        async with alerting(plain_store):
            await analytics.send(*(analytics.record([f]) for f in found[10:20]))
            await alarm(plain_store, found[19].id)
        await analytics.send(*(analytics.record([f]) for f in found[20:]))
        await alarm(plain_store, found[-1].id)
    counts = await rows(plain_store, "SELECT count(*) AS n, count(DISTINCT alarm_id) AS alarms FROM alarm.history")
    assert counts == [{"n": 30, "alarms": 30}]


async def test_a_webhook_that_is_not_safe_stops_it_before_it_begins(plain_store: Settings) -> None:
    settings = plain_store.model_copy(update={"webhook_url": "http://example.com/"})
    with pytest.raises(ConfigError, match="VIGIL_WEBHOOK_URL: expected https"):
        await run(settings, asyncio.Event(), Health("alert"))


async def test_its_role_may_not_rewrite_history_nor_read_samples(plain_store: Settings) -> None:
    found = finding()
    async with producing(plain_store) as analytics, alerting(plain_store):
        await analytics.publish(found)
        await alarm(plain_store, found.id)
    connection = await connect(plain_store, ALERT, autocommit=True)
    try:
        for statement in ("UPDATE alarm.history SET note = 'x'", "DELETE FROM alarm.alarm", "TABLE store.sample"):
            with pytest.raises(Exception, match="permission denied"):
                await connection.execute(sql.SQL(statement))
    finally:
        await connection.close()


async def test_on_kafka_it_goes_on_where_the_database_is(plain_store: Settings, kafka_broker: KafkaBroker) -> None:
    """Other tests of the session may have left findings there: they become alarms of this database, too."""
    settings = plain_store.model_copy(update={"log": kafka_broker.url})
    first, second = finding("kafka-1"), finding("kafka-2")
    epoch = secrets.randbits(63)
    async with producing(settings, epoch=epoch) as analytics:
        async with alerting(settings):
            await analytics.publish(first)
            await alarm(settings, first.id)
        await analytics.publish(second)
        async with alerting(settings) as health:
            await alarm(settings, second.id)
            await analytics.publish(finding("kafka-1", raised=False))
            await alarm(settings, first.id, "returned_unacknowledged")
            assert not health.waiting_for
    assert [len(await history(settings, f.id)) for f in (first, second)] == [2, 1]
