"""The figures: what a query takes in the server, by its own clock, and what a request takes over HTTP on loopback."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import psycopg

from benchmarks.machine import cpu_s
from benchmarks.reading.fill import POINTS, Filled
from dashboards.console.levels import plan
from dashboards.console.reads import LATEST_PAGE
from dashboards.console.samples import buckets_query

RUNS: Final = 15
"""Of each query and request; the first one warms up and does not count."""
LIMIT_MS: Final = 50.0
MAX_POINTS: Final = 2_000
NEVER: Final = (datetime.min.replace(tzinfo=UTC),) * 2
DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Figure:
    """The median and the best of the runs; `limit_ms` None: told for comparison."""

    name: str
    median_ms: float
    best_ms: float
    limit_ms: float | None
    note: str

    @property
    def above(self) -> bool:
        """Whether the median misses the limit."""
        return self.limit_ms is not None and self.median_ms > self.limit_ms

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name,
            "median_ms": round(self.median_ms, 2),
            "best_ms": round(self.best_ms, 2),
            "limit_ms": self.limit_ms,
            "above": self.above,
            "note": self.note,
        }


def server_figures(url: str, filled: Filled) -> list[Figure]:
    """By EXPLAIN (ANALYZE, TIMING OFF): planning and execution together, rows not sent; CPU of the server's process."""
    end = datetime.fromtimestamp(filled.end_s, UTC)
    signal = filled.signals // 2 + 1
    with psycopg.connect(url, autocommit=True, options="-c timezone=UTC") as connection:
        figures = [
            _explained(connection, "latest: all points of 10,000 equipments", "SELECT * FROM latest", {}, LIMIT_MS),
            _explained(
                connection,
                "latest: a page of 1,000",
                LATEST_PAGE + "ORDER BY l.equipment, l.point LIMIT 1000",
                {},
                LIMIT_MS,
            ),
            _explained(
                connection,
                "latest: the points of one equipment",
                "SELECT * FROM latest WHERE equipment = 'unit-05000'",
                {},
                None,
            ),
        ]
        for name, period, limit in (
            ("a day of one point", DAY, LIMIT_MS),
            ("all of one point", timedelta(seconds=filled.end_s - filled.first_s), LIMIT_MS),
            ("4 hours of one point, from readings", timedelta(hours=4), LIMIT_MS),
        ):
            made = plan(end - period, end, max_points=MAX_POINTS, oldest=NEVER)
            query, parameters = buckets_query(made, signal)
            figures.append(_explained(connection, f"{name}, at most 2,000 drawn", query, parameters, limit))
        figures.append(_explained(connection, "a day of one point, all readings", _RAW, _day(end, signal), None))
        figures.append(
            _explained(connection, "a day of one point, 180 s buckets of readings", _OF_RAW, _day(end, signal), None)
        )
        figures.append(
            _explained(connection, "a day of one point by minutes (board's query)", _BOARD, _day(end, signal), LIMIT_MS)
        )
    return figures


def over_http(client: httpx.Client, filled: Filled) -> list[Figure]:
    """The same as a page asks for it: request to the whole answer."""
    end = datetime.fromtimestamp(filled.end_s, UTC)
    unit, point = divmod(filled.signals // 2, POINTS)
    of_unit = f"/api/v1/equipment/unit-{unit:05}"
    chart = {"point": f"p{point}", "to": end.isoformat(), "max_points": MAX_POINTS}
    asked: Sequence[tuple[str, str, Mapping[str, Any], float | None]] = (
        ("GET latest, a page of 1,000", "/api/v1/latest", {"limit": 1_000}, None),
        ("GET latest of 100 equipments", "/api/v1/latest", {"equipment": [f"unit-{n:05}" for n in range(100)]}, None),
        ("GET a day of one point", f"{of_unit}/samples", chart | {"from": (end - DAY).isoformat()}, None),
        ("GET 4 hours of one point", f"{of_unit}/samples", chart | {"from": (end - DAY / 6).isoformat()}, None),
        (
            "GET a page of 5,000 readings",
            f"{of_unit}/samples",
            {"point": f"p{point}", "from": (end - DAY).isoformat()},
            None,
        ),
        ("GET one unit with its points", of_unit, {}, None),
    )
    return [_requested(client, *what) for what in asked]


def _explained(
    connection: psycopg.Connection[Any], name: str, query: str, parameters: Mapping[str, Any], limit_ms: float | None
) -> Figure:
    took, rows = [], 0
    pid = connection.info.backend_pid
    spent = cpu_s(pid)
    for _ in range(RUNS):
        cursor = connection.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {query}".encode(), parameters or None)
        ((answer,),) = cursor.fetchall()
        took.append(answer[0]["Planning Time"] + answer[0]["Execution Time"])
        rows = int(answer[0]["Plan"]["Actual Rows"])
    return _figure(f"server: {name}", took, limit_ms, f"{rows} rows, {(cpu_s(pid) - spent) / RUNS * 1e3:.0f} ms CPU")


def _requested(client: httpx.Client, name: str, path: str, query: Mapping[str, Any], limit_ms: float | None) -> Figure:
    took, note = [], ""
    for _ in range(RUNS):
        began = time.perf_counter()
        answer = client.get(path, params=dict(query))
        content = answer.content
        took.append((time.perf_counter() - began) * 1_000)
        answer.raise_for_status()
        said = answer.json()
        items = said.get("items", said.get("points", []))
        note = f"{len(items)} items, {len(content) // 1_000} kB" + (f", of {said['level']}" if "level" in said else "")
    return _figure(f"HTTP: {name}", took, limit_ms, note)


def _figure(name: str, took: Sequence[float], limit_ms: float | None, note: str) -> Figure:
    return Figure(name, statistics.median(took[1:]), min(took[1:]), limit_ms, note)


def _day(end: datetime, signal: int) -> dict[str, Any]:
    return {"first": end - DAY, "end": end, "signal": signal}


_RAW: Final = """
SELECT time, value, quality FROM samples WHERE signal_id = %(signal)s AND time >= %(first)s AND time < %(end)s ORDER BY time
"""
_OF_RAW: Final = """
SELECT date_bin('180 seconds', time, %(first)s), min(value), max(value) FROM samples
WHERE signal_id = %(signal)s AND time >= %(first)s AND time < %(end)s GROUP BY 1
"""
_BOARD: Final = """
SELECT time, avg, min, max FROM samples_1m
WHERE signal_id = ANY (ARRAY(SELECT signal_id FROM signals WHERE signal_id = %(signal)s)) AND time >= %(first)s
  AND time < %(end)s ORDER BY time
"""
