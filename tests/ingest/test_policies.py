"""TimescaleDB's policies are what the settings say, whoever sets them, and stay as they are while these do."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from ingest.retention import apply_retention, kept
from telemetry.settings import Settings
from telemetry.store import INGEST, connect
from tests.fixtures.store import execute
from tests.fixtures.waiting import until

POLICIES = """
SELECT coalesce(c.view_name, j.hypertable_name), j.proc_name, j.schedule_interval, j.fixed_schedule,
       (coalesce(j.config ->> 'drop_after', j.config ->> 'compress_after', j.config ->> 'start_offset'))::interval,
       (j.config ->> 'end_offset')::interval, (j.config ->> 'buckets_per_batch')::int
FROM timescaledb_information.jobs j
LEFT JOIN timescaledb_information.continuous_aggregates c ON c.materialization_hypertable_name = j.hypertable_name
WHERE j.job_id >= 1000 ORDER BY 1, 2
"""


def policies(*, late: int, samples: int, minutes: int, hours: int) -> list[tuple[Any, ...]]:
    """What is to be in force for these days: refreshes within the bound on late data, the columnstore beyond them."""
    refresh, compress, drop = "policy_refresh_continuous_aggregate", "policy_compression", "policy_retention"
    day, minute = timedelta(days=1), timedelta(minutes=1)
    found: list[tuple[Any, ...]] = [
        ("sample", compress, timedelta(hours=1), True, day, None, None),
        ("sample", drop, day, True, samples * day, None, None),
    ]
    for name, every, up_to, kept_days in (
        ("sample_1m", minute, 2 * minute, minutes),
        ("sample_1h", 10 * minute, 120 * minute, hours),
    ):
        found += [
            (name, compress, timedelta(hours=12), True, (late + 2) * day, None, None),
            (name, drop, day, True, kept_days * day, None, None),
            (name, refresh, every, True, late * day, up_to, 0),
        ]
    return sorted(found, key=lambda row: row[:2])


async def test_the_policies_are_those_of_the_settings_and_change_with_them_and_only_then(
    timescale_store: Settings,
) -> None:
    first = timescale_store.model_copy(
        update={"late_bound_days": 10, "retention_days": 50, "retention_minutes_days": 60, "retention_hours_days": 70}
    )
    second = first.model_copy(update={"retention_days": 55, "retention_minutes_days": 65, "late_bound_days": 20})
    async with await connect(timescale_store, INGEST, autocommit=True) as connection:
        await apply_retention(first, connection)
        expected = policies(late=10, samples=50, minutes=60, hours=70)
        assert execute(timescale_store.store, POLICIES) == expected
        numbers = "SELECT job_id FROM timescaledb_information.jobs ORDER BY 1"
        before = execute(timescale_store.store, numbers)
        await apply_retention(first, connection)
        assert execute(timescale_store.store, numbers) == before, "what is set already keeps its place in its schedule"
        await apply_retention(second, connection)
        assert execute(timescale_store.store, POLICIES) == policies(late=20, samples=55, minutes=65, hours=70)
    assert execute(timescale_store.store, "SELECT setting ->> 'samples' FROM store.policy") == [("55 days",)]


async def test_two_workers_that_start_at_once_set_the_policies_once(timescale_store: Settings) -> None:
    waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(timescale_store.store) as first:
        first.execute("SELECT store.apply_retention(%s)", (Jsonb(kept(timescale_store)),))
        async with await connect(timescale_store, INGEST, autocommit=True) as connection:
            second = asyncio.create_task(apply_retention(timescale_store, connection))
            await until(lambda: execute(timescale_store.store, f"SELECT EXISTS ({waits})") == [(True,)])
            first.commit()
            await second
    assert len(execute(timescale_store.store, POLICIES)) == 8
