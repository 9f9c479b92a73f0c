"""What plain PostgreSQL's own retention drops, and when: a day, a month, a year that is over for as long as is kept of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from ingest.retention import apply_retention, kept
from telemetry.settings import Settings
from telemetry.store import INGEST, connect
from tests.fixtures.store import execute
from tests.fixtures.waiting import until

NOW = datetime.now(UTC)
DAY = (NOW - timedelta(days=200)).replace(hour=0, minute=0, second=0, microsecond=0)
PARTS = {
    "samples": ("sample", f"sample_{DAY:%Y%m%d}", DAY, DAY + timedelta(days=1)),
    "samples_1m": ("sample_1m", "sample_1m_202403", datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC)),
    "samples_1h": ("sample_1h", "sample_1h_2015", datetime(2015, 1, 1, tzinfo=UTC), datetime(2016, 1, 1, tzinfo=UTC)),
}
"""Class → (table, partition, its beginning, its end)."""
ANOTHER_CLOCK = ("UTC", "Asia/Shanghai", "America/Los_Angeles")


def make(store: Settings, name: str) -> None:
    """The partition of a class, empty; everything counts as aggregated."""
    table, part, first, end = PARTS[name]
    if name == "samples":
        execute(store.store, "SELECT store.ensure_sample_partitions(%s, %s)", (first, first))
    else:
        execute(store.store, "SELECT store.ensure_aggregate_partition(%s, %s, %s, %s)", (table, part, first, end))
    aggregated(store, minutes=NOW, hours=NOW)
    assert there(store, name)


def aggregated(store: Settings, *, minutes: datetime | str, hours: datetime | str) -> None:
    execute(store.store, "UPDATE store.aggregated SET minutes_to = %s, hours_to = %s", (minutes, hours))


def there(store: Settings, name: str) -> bool:
    return execute(store.store, "SELECT to_regclass(%s) IS NOT NULL", (f"store.{PARTS[name][1]}",)) == [(True,)]


def apply(store: Settings, days: dict[str, timedelta], *, zone: str = "UTC") -> None:
    """Retention by a session of that zone: of a class `days`, and of what it is made of; of the others for ever."""
    keep = kept(store) | dict.fromkeys(PARTS, "9000 days") | {n: f"{d.total_seconds()} s" for n, d in days.items()}
    if "samples_1m" in days:
        keep |= {"samples": keep["samples_1m"]}
    if "samples_1h" in days:
        keep |= dict.fromkeys(PARTS, keep["samples_1h"])
    execute(store.store, "SELECT set_config('timezone', %s, false), store.apply_retention(%s)", (zone, Jsonb(keep)))


@pytest.mark.parametrize("zone", ANOTHER_CLOCK)
@pytest.mark.parametrize("name", PARTS)
def test_a_part_goes_when_its_end_is_as_old_as_is_kept_and_not_before_whatever_the_sessions_zone(
    plain_store: Settings, name: str, zone: str
) -> None:
    make(plain_store, name)
    age = NOW - PARTS[name][3]
    apply(plain_store, {name: age + timedelta(hours=1)}, zone=zone)
    assert there(plain_store, name)
    apply(plain_store, {name: age - timedelta(hours=1)}, zone=zone)
    assert not there(plain_store, name)


@pytest.mark.parametrize("zone", ANOTHER_CLOCK)
def test_a_day_goes_when_its_last_minute_is_aggregated_whatever_the_hours_are(plain_store: Settings, zone: str) -> None:
    make(plain_store, "samples")
    end = PARTS["samples"][3]
    for minutes, goes in ((end - timedelta(minutes=1), False), (end, True)):
        aggregated(plain_store, minutes=minutes, hours="-infinity")
        apply(plain_store, {"samples": timedelta(days=90)}, zone=zone)
        assert there(plain_store, "samples") is not goes


@pytest.mark.parametrize("name", ["samples_1m", "samples_1h"])
def test_minutes_and_hours_wait_for_no_aggregation(plain_store: Settings, name: str) -> None:
    make(plain_store, name)
    aggregated(plain_store, minutes="-infinity", hours="-infinity")
    apply(plain_store, {name: timedelta(days=400)})
    assert not there(plain_store, name)


async def test_what_is_in_force_is_one_setting_that_changes_with_the_settings_and_only_then(
    plain_store: Settings,
) -> None:
    changed = plain_store.model_copy(update={"retention_days": 55.0})
    in_force = "SELECT setting ->> 'samples', xmin::text FROM store.policy"
    async with await connect(plain_store, INGEST, autocommit=True) as connection:
        await apply_retention(plain_store, connection)
        [first] = execute(plain_store.store, in_force)
        await apply_retention(plain_store, connection)
        assert execute(plain_store.store, in_force) == [first], "not written again"
        await apply_retention(changed, connection)
    assert [setting for setting, _ in execute(plain_store.store, in_force)] == ["55 days"]
    assert first[0] == "90 days"


async def test_two_workers_that_start_at_once_wait_for_one_another(plain_store: Settings) -> None:
    waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
    with psycopg.connect(plain_store.store) as first:
        first.execute("SELECT store.apply_retention(%s)", (Jsonb(kept(plain_store)),))
        async with await connect(plain_store, INGEST, autocommit=True) as connection:
            second = asyncio.create_task(apply_retention(plain_store, connection))
            await until(lambda: execute(plain_store.store, f"SELECT EXISTS ({waits})") == [(True,)])
            first.commit()
            await second
    assert len(execute(plain_store.store, "SELECT 1 FROM store.policy")) == 1


@pytest.mark.parametrize(
    ("raw", "minutes", "hours"),
    [
        ("90 days", "400 days", "3660 days"),
        ("500 days", "500 days", "3660 days"),
        ("4000 days", "4000 days", "4000 days"),
    ],
)
def test_who_says_raw_and_late_only_as_ingest_once_did_sets_the_rest_by_default(
    plain_store: Settings, raw: str, minutes: str, hours: str
) -> None:
    execute(plain_store.store, "SELECT store.apply_retention(%s, '40 days')", (raw,))
    expected: dict[str, Any] = {"samples": raw, "late": "40 days", "samples_1m": minutes, "samples_1h": hours}
    assert execute(plain_store.store, "SELECT setting FROM store.policy") == [(expected,)]
