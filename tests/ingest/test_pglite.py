"""The schema's TimescaleDB flavour on a real TimescaleDB that every machine with Node has: migrations, aggregates, roles.

Rows come by INSERT: COPY, Direct Compress and two connections at once are the native server's (test_samples.py).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from ingest.migrate import migrate, migrations
from telemetry.settings import Settings
from telemetry.store import READER, SCHEMA_VERSION
from tests.fixtures.pglite import SOURCE, WasmTimescale
from tests.ingest.test_migrate import ALLOWED, DENIED

HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(
    hours=72
)  # its day is over, so the columnstore's policy takes it
RAW, LATE = timedelta(days=90), timedelta(days=30)

Rows = list[tuple[Any, ...]]


def rows(server: WasmTimescale, sql: str, values: tuple[Any, ...] = ()) -> Rows:
    with server.connect() as connection:
        cursor = connection.execute(sql.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def signal(server: WasmTimescale, equipment: str) -> int:
    """Its number; the point is called x."""
    sql = "INSERT INTO store.signal (name, equipment, point, name_hash) VALUES (%s, %s, 'x', %s) RETURNING signal_id"
    ((number,),) = rows(server, sql, (f"{equipment}/x", equipment, hash(equipment)))
    return int(number)


def insert(server: WasmTimescale, signal_id: int, samples: list[tuple[float, float | None, int]]) -> None:
    """Samples as (seconds after HOUR, value, quality)."""
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO store.sample VALUES (%s, %s, %s, %s)",
            [(signal_id, HOUR + timedelta(seconds=at), value, quality) for at, value, quality in samples],
        )


def aggregate(server: WasmTimescale, view: str, equipment: str) -> Rows:
    sql = f"SELECT time, avg, min, max, count, count_bad, last FROM {view} WHERE equipment = %s ORDER BY time"  # noqa: S608
    return rows(server, sql, (equipment,))


def refresh(server: WasmTimescale) -> None:
    for view in ("sample_1m", "sample_1h"):
        rows(server, f"CALL refresh_continuous_aggregate('store.{view}', NULL, NULL)")


def test_every_migration_of_the_timescale_flavour_is_applied(wasm_timescale: WasmTimescale) -> None:
    applied = rows(wasm_timescale, "SELECT version, name, sha256 FROM store_meta.migration ORDER BY version")
    assert applied == [(m.version, m.name, m.sha256) for m in migrations(timescale=True)]
    assert applied[-1][0] == SCHEMA_VERSION


async def test_a_second_migration_applies_nothing(wasm_timescale: WasmTimescale) -> None:
    assert await migrate(Settings(store=wasm_timescale.url)) == []


def test_samples_are_a_hypertable_of_days_in_the_columnstore_by_signal_and_time(wasm_timescale: WasmTimescale) -> None:
    assert rows(
        wasm_timescale,
        "SELECT h.compression_enabled, d.column_name, d.time_interval, s.segmentby, s.orderby"
        " FROM timescaledb_information.hypertables h"
        " JOIN timescaledb_information.dimensions d USING (hypertable_schema, hypertable_name)"
        " JOIN timescaledb_information.hypertable_columnstore_settings s ON s.hypertable = 'store.sample'::regclass"
        " WHERE (h.hypertable_schema, h.hypertable_name) = ('store', 'sample')",
    ) == [(True, "time", timedelta(days=1), "signal_id", '"time"')]


def test_no_unique_index_and_no_trigger_of_ours_turns_direct_compress_off(wasm_timescale: WasmTimescale) -> None:
    insert(wasm_timescale, signal(wasm_timescale, "chunk"), [(0, 1.0, 192)])
    tables = "SELECT 'store.sample'::regclass UNION SELECT show_chunks('store.sample')"
    unique = f"SELECT indexrelid::regclass FROM pg_index WHERE indisunique AND indrelid IN ({tables})"  # noqa: S608
    assert rows(wasm_timescale, unique) == []
    triggers = f"SELECT DISTINCT tgfoid::regproc::text FROM pg_trigger WHERE NOT tgisinternal AND tgrelid IN ({tables})"  # noqa: S608
    assert all(name.startswith("_timescaledb_functions.") for (name,) in rows(wasm_timescale, triggers))


def test_only_good_finite_values_are_aggregated_before_and_after_a_refresh(wasm_timescale: WasmTimescale) -> None:
    x = signal(wasm_timescale, "mixed")
    insert(
        wasm_timescale,
        x,
        [(1, 10.0, 192), (2, 20.0, 64), (3, None, 24), (4, 99.0, 0), (5, float("inf"), 192), (6, float("nan"), 192)],
    )
    expected = [(HOUR, 15.0, 10.0, 20.0, 2, 4, 20.0)]
    for view in ("samples_1m", "samples_1h"):
        assert aggregate(wasm_timescale, view, "mixed") == expected, f"{view}, from the rows"
    refresh(wasm_timescale)
    for view in ("samples_1m", "samples_1h"):
        assert aggregate(wasm_timescale, view, "mixed") == expected, f"{view}, materialised"


def test_a_refresh_corrects_minutes_and_hours_for_late_rows(wasm_timescale: WasmTimescale) -> None:
    x = signal(wasm_timescale, "late")
    insert(wasm_timescale, x, [(30.0 * n, float(n), 192) for n in range(240)])  # two hours
    refresh(wasm_timescale)
    insert(wasm_timescale, x, [(3_599.0, 1_000.0, 192), (7_000.0, -5.0, 192)])
    refresh(wasm_timescale)
    minutes = {row[0]: row[1:] for row in aggregate(wasm_timescale, "samples_1m", "late")}
    assert len(minutes) == 120
    assert minutes[HOUR] == (0.5, 0.0, 1.0, 2, 0, 1.0)
    assert minutes[HOUR + timedelta(minutes=59)] == (
        pytest.approx((118 + 119 + 1_000) / 3),
        118.0,
        1_000.0,
        3,
        0,
        1_000.0,
    )
    assert minutes[HOUR + timedelta(minutes=116)] == (pytest.approx((232 + 233 - 5) / 3), -5.0, 233.0, 3, 0, -5.0)
    first, second = aggregate(wasm_timescale, "samples_1h", "late")
    assert first == (HOUR, pytest.approx((sum(range(120)) + 1_000) / 121), 0.0, 1_000.0, 121, 0, 1_000.0)
    assert second[1:] == (pytest.approx((sum(range(120, 240)) - 5) / 121), -5.0, 239.0, 121, 0, 239.0)


def test_the_policies_keep_aggregates_right_for_late_rows_in_the_columnstore(wasm_timescale: WasmTimescale) -> None:
    """Chunk into the columnstore, rows late into it, then the jobs as production has them."""
    x = signal(wasm_timescale, "columns")
    insert(wasm_timescale, x, [(float(n), float(n), 192) for n in range(600)])
    rows(wasm_timescale, "SELECT store.apply_retention(%s, %s)", (RAW, LATE))
    run_jobs(wasm_timescale, "policy_refresh%")
    run_jobs(wasm_timescale, "policy_compression")
    compressed = (
        "SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = 'sample' AND is_compressed"
    )
    assert rows(wasm_timescale, compressed)[0][0] >= 1
    insert(wasm_timescale, x, [(250.5 + 5 * n, 10_000.0 + n, 192) for n in range(100)])
    mine = "FROM samples WHERE equipment = 'columns'"
    times = [row[0] for row in rows(wasm_timescale, f"SELECT time {mine} ORDER BY time")]
    assert len(times) == 700
    assert times == sorted(times)
    assert rows(wasm_timescale, f"SELECT max(time), last(value, time) {mine}") == [
        (HOUR + timedelta(seconds=745.5), 10_099.0)
    ]
    assert rows(wasm_timescale, f"SELECT value {mine} ORDER BY time DESC LIMIT 1") == [(10_099.0,)]
    run_jobs(wasm_timescale, "policy_refresh%")
    ((_, _, lowest, highest, count, bad, last),) = aggregate(wasm_timescale, "samples_1h", "columns")
    assert (lowest, highest, count, bad, last) == (0.0, 10_099.0, 700, 0, 10_099.0)


def test_the_policies_are_as_they_are_written_down(wasm_timescale: WasmTimescale) -> None:
    rows(wasm_timescale, "SELECT store.apply_retention(%s, %s)", (RAW, LATE))
    found = rows(
        wasm_timescale,
        "SELECT proc_name, hypertable_name, schedule_interval, fixed_schedule,"
        " config - 'hypertable_id' - 'mat_hypertable_id'"
        " FROM timescaledb_information.jobs WHERE config ? 'hypertable_id' OR config ? 'mat_hypertable_id'"
        " ORDER BY 1, 2",
    )
    refresh = {"start_offset": "30 days", "buckets_per_batch": 0}
    minute, hour, day = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
    assert found == [
        ("policy_compression", "sample", hour, True, {"compress_after": "1 day"}),
        ("policy_compression", "sample_1h", 12 * hour, True, {"compress_after": "32 days"}),
        ("policy_compression", "sample_1m", 12 * hour, True, {"compress_after": "32 days"}),
        ("policy_refresh_continuous_aggregate", "sample_1h", 10 * minute, True, refresh | {"end_offset": "02:00:00"}),
        ("policy_refresh_continuous_aggregate", "sample_1m", minute, True, refresh | {"end_offset": "00:02:00"}),
        ("policy_retention", "sample", day, True, {"drop_after": "90 days"}),
        ("policy_retention", "sample_1h", day, True, {"drop_after": "3660 days"}),
        ("policy_retention", "sample_1m", day, True, {"drop_after": "400 days"}),
    ]


def run_jobs(server: WasmTimescale, name: str) -> None:
    """The jobs of that name, in the order in which they were made: minutes before hours."""
    jobs = rows(server, "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name LIKE %s ORDER BY 1", (name,))
    assert jobs
    for (number,) in jobs:
        rows(server, f"CALL run_job({number})")


def test_raw_retention_must_be_longer_than_the_bound_on_late_data(wasm_timescale: WasmTimescale) -> None:
    with wasm_timescale.connect() as connection, pytest.raises(psycopg.errors.RaiseException, match="must be longer"):
        connection.execute("SELECT store.apply_retention(%s, %s)", (LATE, LATE))


def test_roles_may_do_their_own_work_and_nothing_else(wasm_timescale: WasmTimescale) -> None:
    with wasm_timescale.connect() as connection:
        for role, statement in ALLOWED:
            connection.execute(f"SET ROLE {role}".encode())
            with connection.transaction(force_rollback=True):
                connection.execute(statement.encode())
        for role, statement in [*DENIED, (READER, "SELECT FROM store.sample_1m")]:
            connection.execute(f"SET ROLE {role}".encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_the_server_takes_a_statement_that_comes_in_pieces(wasm_timescale: WasmTimescale) -> None:
    text = "x" * 300_000
    assert rows(wasm_timescale, f"SELECT length('{text}')") == [(300_000,)]
    assert rows(wasm_timescale, "SELECT %s::text", (text,)) == [(text,)]


def test_a_session_finds_nothing_of_the_one_before(wasm_timescale: WasmTimescale) -> None:
    with wasm_timescale.connect() as connection:
        connection.execute("SET ROLE vigil_reader")
        connection.execute("SET timezone = 'Asia/Shanghai'")
    assert rows(wasm_timescale, "SELECT current_user::text, current_setting('timezone')") == [("postgres", "GMT")]


def test_what_npm_fetches_is_pinned_by_hash_and_names_no_registry() -> None:
    text = (SOURCE / "package-lock.json").read_text(encoding="utf-8")
    packages = {name: entry for name, entry in json.loads(text)["packages"].items() if name}
    assert packages
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert "://" not in text
