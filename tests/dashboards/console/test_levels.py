"""Charts of long periods are made of minutes and hours: extremes, gaps and bad readings are in them all the same."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest

from dashboards.console.levels import BINS, PER_BUCKET, RAW_UP_TO, plan
from dashboards.console.samples import buckets_query
from ingest.aggregates import refresh
from telemetry.settings import Settings
from telemetry.store import INGEST, connect
from tests.dashboards.console.conftest import RunningConsole, running_console
from tests.dashboards.console.seed import Seed, units, utc_now
from tests.fixtures.store import execute, fresh_database

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
START = utc_now().replace(hour=0, minute=0, second=0, microsecond=0) - 9 * DAY
GAP = (30 * HOUR, 33 * HOUR)
BAD = (50 * HOUR, 50 * HOUR + 90 * MINUTE)
NEVER = (datetime.min.replace(tzinfo=UTC),) * 2

Reading = tuple[datetime, float | None, int]


def readings() -> list[Reading]:
    """Eight days, one in 20 s, a spike now and then, a gap, bad and infinite readings."""
    random = np.random.default_rng(11)
    n = 8 * 86_400 // 20
    value = np.round(random.normal(60, 1, n), 3)
    spikes = random.integers(0, n, 40)
    value[spikes] += random.choice([-45.0, 45.0], 40)
    rows: list[Reading] = []
    for number in range(n):
        at = timedelta(seconds=20 * number + int(number % 7))
        if not GAP[0] <= at < GAP[1]:
            bad = BAD[0] <= at < BAD[1]
            rows.append((START + at, None if bad else float(value[number]), 24 if bad else 192))
    rows[100] = (rows[100][0], float("inf"), 192)
    return rows


ROWS = readings()


@pytest.fixture(scope="module", params=["plain", "timescale"])
def charted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningConsole]:
    """A console on a store with these readings of boiler-04/fan_speed, their minutes and hours kept."""
    url = (
        request.getfixturevalue("plain_server").url
        if request.param == "plain"
        else request.getfixturevalue("timescale_url")
    )
    with fresh_database(url) as database:
        with psycopg.connect(database) as connection:
            seed = Seed(connection, now=utc_now())
            seed.register()
            seed.unit(next(unit for unit in units() if unit.id == "boiler-04"))
            fill(connection)
        keep(database, timescale=request.param == "timescale")
        with running_console(database, tmp_path_factory.mktemp("console")) as console:
            yield console


def fill(connection: psycopg.Connection[Any]) -> None:
    connection.execute("SELECT store.ensure_sample_partitions(%s, %s)", (START, START + 9 * DAY))
    row = connection.execute("SELECT signal_id FROM store.signal WHERE name = 'boiler-04/fan_speed'").fetchone()
    assert row is not None
    with connection.cursor().copy("COPY store.sample (signal_id, time, value, quality) FROM STDIN") as copy:
        for line in ROWS:
            copy.write_row((row[0], *line))


def keep(database: str, *, timescale: bool) -> None:
    """Brings minutes and hours up to date."""
    if timescale:
        for view in ("sample_1m", "sample_1h"):
            execute(database, f"CALL refresh_continuous_aggregate('store.{view}', NULL, NULL)")
        return

    async def work() -> None:
        async with await connect(Settings(store=database), INGEST, autocommit=True) as connection:
            await refresh(connection, int(utc_now().timestamp() * 1e6), kept_days=90)

    asyncio.run(work())


def ask(console: RunningConsole, first: datetime, end: datetime, max_points: int) -> dict[str, Any]:
    with console.client() as client:
        query = {"point": "fan_speed", "from": first.isoformat(), "to": end.isoformat(), "max_points": str(max_points)}
        answer = client.get("/api/v1/equipment/boiler-04/samples", params=query)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def good(first: datetime, end: datetime) -> list[tuple[datetime, float]]:
    return [(t, v) for t, v, _ in ROWS if first <= t < end and v is not None and np.isfinite(v)]


@pytest.mark.parametrize(
    ("first", "end", "max_points", "level"),
    [
        (START, START + 2 * HOUR, 60, "samples"),
        (START + timedelta(seconds=17), START + 8 * DAY, 600, "samples_1m"),
        (START + timedelta(minutes=7, seconds=3), START + 8 * DAY - timedelta(minutes=11), 300, "samples_1h"),
        (START, START + DAY, 2_000, "samples_1m"),
    ],
)
def test_a_charts_buckets_keep_their_extremes_whatever_they_are_made_of(
    charted: RunningConsole, first: datetime, end: datetime, max_points: int, level: str
) -> None:
    answer = ask(charted, first, end, max_points)
    items = answer["items"]
    assert answer["level"] == level
    assert max_points / 8 < len(items) <= max_points
    times = [datetime.fromisoformat(item["time"]) for item in items]
    assert times == sorted(times)
    found = plan(first, end, max_points=max_points, oldest=NEVER)
    assert answer["bucket_s"] == found.width.total_seconds()
    drawn: dict[int, set[float]] = {}
    for time, item in zip(times, items, strict=True):
        if item["value"] is not None:
            drawn.setdefault((time - found.origin) // found.width, set()).add(item["value"])
    expected: dict[int, list[float]] = {}
    for time, value in good(first, end):
        expected.setdefault((time - found.origin) // found.width, []).append(value)
    assert drawn == {bucket: {min(values), max(values)} for bucket, values in expected.items()}


@pytest.mark.parametrize("max_points", [300, 600])
def test_no_line_is_drawn_over_what_was_not_read_or_is_bad(charted: RunningConsole, max_points: int) -> None:
    answer = ask(charted, START, START + 8 * DAY, max_points)
    width = timedelta(seconds=answer["bucket_s"])
    nulls = [
        (datetime.fromisoformat(item["time"]) - START, item["quality"])
        for item in answer["items"]
        if item["value"] is None
    ]
    gap = [at for at, word in nulls if word == "no_reading"]
    assert len(gap) == 1
    assert GAP[0] <= gap[0] <= GAP[0] + width
    bad = [at for at, word in nulls if word == "bad"]
    assert any(BAD[0] - width < at < BAD[1] for at in bad)
    inside = [
        item
        for item in answer["items"]
        if GAP[0] + width <= datetime.fromisoformat(item["time"]) - START < GAP[1] - width
    ]
    assert inside == []


def test_few_readings_of_a_long_period_come_as_they_are(charted: RunningConsole) -> None:
    """After the last of the week's readings there are 60 in 20 minutes; the period is two days."""
    first = START + 8 * DAY - 20 * MINUTE
    answer = ask(charted, first, first + 2 * DAY, 600)
    assert (answer["bucket_s"], answer["level"]) == (None, "samples")
    assert [item["value"] for item in answer["items"]] == [v for t, v, _ in ROWS if t >= first]


def test_a_long_period_reads_no_readings_but_at_its_ends(charted: RunningConsole) -> None:
    found = plan(START + timedelta(seconds=17), START + 8 * DAY, max_points=600, oldest=NEVER)
    assert [(piece.level, piece.end - piece.first) for piece in found.pieces] == [
        (0, timedelta(seconds=43)),
        (1, 8 * DAY - MINUTE),
    ]
    query, parameters = buckets_query(found, 1)
    with psycopg.connect(charted.store_url) as connection:
        rows = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}".encode(), parameters).fetchone()
    assert rows is not None
    most = max(_rows_of(rows[0][0]["Plan"], "_hyper_1_", "sample_2"))
    assert most <= 10, "of raw rows only those of 43 s and of what is not kept yet"


def _rows_of(node: dict[str, Any], *names: str) -> Iterator[float]:
    """Rows that scans of raw samples gave, and 0."""
    yield 0
    relation = str(node.get("Relation Name", ""))
    if relation.startswith(names):
        yield node["Actual Rows"] * node["Actual Loops"]
    for child in node.get("Plans", ()):
        yield from _rows_of(child, *names)


def test_where_readings_are_not_kept_any_more_their_minutes_and_hours_are_drawn(charted: RunningConsole) -> None:
    execute(
        charted.store_url,
        """INSERT INTO store.policy (setting) VALUES ('{"samples": "8 days", "samples_1m": "12 days"}')""",
    )
    try:
        with charted.client() as client:
            assert client.get("/healthz").status_code == 200
        answer = ask(charted, START + 5 * HOUR, START + 8 * HOUR, 60)
        assert answer["level"] == "samples_1m"
        values = [value for _, value in good(START + 5 * HOUR, START + 8 * HOUR)]
        drawn = [item["value"] for item in answer["items"] if item["value"] is not None]
        assert (min(drawn), max(drawn)) == (min(values), max(values))
        execute(
            charted.store_url, """UPDATE store.policy SET setting = '{"samples": "1 day", "samples_1m": "2 days"}'"""
        )
        answer = ask(charted, START + 5 * HOUR, START + 8 * HOUR, 6)
        assert answer["level"] == "samples_1h"
        drawn = [item["value"] for item in answer["items"] if item["value"] is not None]
        assert (min(drawn), max(drawn)) == (min(values), max(values))
    finally:
        execute(charted.store_url, "DELETE FROM store.policy")


def test_a_plan_covers_its_period_once_in_few_buckets_of_whole_bins() -> None:
    random = np.random.default_rng(2)
    lengths = [timedelta(seconds=1), HOUR, RAW_UP_TO + MINUTE, DAY, 30 * DAY, 400 * DAY]
    for length, max_points, _ in itertools.product(lengths, (6, 100, 2_000, 10_000), range(6)):
        first = START + timedelta(microseconds=int(random.integers(0, 10**12)))
        oldest = (
            first + length * float(random.uniform(-1, 2)),
            first + length * float(random.uniform(-3, 0)),
        )
        found = plan(first, first + length, max_points=max_points, oldest=oldest)
        assert found.pieces[0].first <= first < first + length <= found.pieces[-1].end
        assert all(a.end == b.first for a, b in itertools.pairwise(found.pieces))
        assert all(piece.first < piece.end for piece in found.pieces)
        assert len(found.pieces) <= 5
        if found.level:
            size = BINS[found.level]
            assert found.width % size == timedelta(0)
            assert found.origin <= first
        buckets = (found.pieces[-1].end - timedelta(microseconds=1) - found.origin) // found.width + 1
        assert buckets <= max(max_points // PER_BUCKET, 2)
        for piece in found.pieces:
            if piece.level:
                bins = (piece.end - piece.first) / BINS[piece.level]
                assert bins == round(bins)
        if found.level and found.pieces[0].level == 0:
            assert first >= oldest[0], "what is not kept any more is not asked for"
