"""A point's readings over a period: as they are, page by page, or thinned so that a chart of N points loses no peak.

Thinning keeps, of every bucket, the least and the greatest reading with their own times, in one pass in the database.
Nothing is interpolated: an empty bucket gives nothing, and a bucket with bad readings gives one null, which breaks the
line.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from dashboards.console import models
from dashboards.console.store import Row, Store
from telemetry import quality

PER_BUCKET: Final = 3
"""Least, greatest, and a null for bad readings."""
MIN_POINTS: Final = 2 * PER_BUCKET


@dataclass(frozen=True, slots=True)
class Span:
    """The readings asked for: of one point, first ≤ time < end."""

    equipment: str
    point: str
    first: datetime
    end: datetime


async def raw(store: Store, span: Span, *, after: datetime | None, skip: int, limit: int) -> list[models.Sample]:
    """Up to `limit` readings, oldest first: from `after` on without the first `skip` of that very time."""
    found = await store.rows(
        """SELECT time, value, quality FROM public.samples
           WHERE equipment = %(equipment)s AND point = %(point)s AND time >= %(first)s AND time < %(end)s
           ORDER BY time, quality, value OFFSET %(skip)s LIMIT %(limit)s""",
        _parameters(span) | {"first": after or span.first, "skip": skip, "limit": limit},
    )
    return [models.Sample(**_sample(row["time"], row["value"], row["quality"])) for row in found]


async def thinned(store: Store, span: Span, *, max_points: int) -> tuple[list[models.Sample], float | None]:
    """At most `max_points` readings that keep every bucket's extremes, and the bucket's width in seconds.

    Readings that are few enough come as they are, with no width.
    """
    few = await raw(store, span, after=None, skip=0, limit=max_points + 1)
    if len(few) <= max_points:
        return few, None
    width = (span.end - span.first) / max(1, max_points // PER_BUCKET) + timedelta(microseconds=1)
    found = await store.rows(_BUCKETS, _parameters(span) | {"width": width, "good": quality.MAJOR_MASK})
    samples = [sample for row in found for sample in _bucket(row)]
    return samples, width.total_seconds()


# min and max over (value, µs) keep an extreme's own time without a sort; µs of today fit in a float64 exactly.
_BUCKETS: Final = """
WITH kept AS (
    SELECT date_bin(%(width)s, time, %(first)s) AS bucket, time, value, quality,
           CASE WHEN value IS NOT NULL AND quality & %(good)s <> 0 AND value NOT IN ('NaN', 'Infinity', '-Infinity')
                THEN ARRAY[value, extract(epoch FROM time)::float8 * 1e6] END AS pair
    FROM public.samples
    WHERE equipment = %(equipment)s AND point = %(point)s AND time >= %(first)s AND time < %(end)s
)
SELECT bucket, min(pair) AS least, max(pair) AS greatest, min(quality) FILTER (WHERE pair IS NOT NULL) AS quality,
       min(time) FILTER (WHERE pair IS NULL) AS bad_at, min(quality) FILTER (WHERE pair IS NULL) AS bad_quality
FROM kept GROUP BY bucket ORDER BY bucket
"""


def _bucket(row: Row) -> list[models.Sample]:
    """The readings kept of one bucket, oldest first. Their quality is the bucket's worst."""
    kept = {}
    for pair in (row["least"], row["greatest"]):
        if pair is not None:
            value, time_us = pair
            kept[time_us, value] = _sample(_moment(time_us), value, row["quality"])
    samples = list(kept.values())
    if row["bad_at"] is not None:
        samples.append(_sample(row["bad_at"], None, row["bad_quality"]))
    return [models.Sample(**s) for s in sorted(samples, key=lambda s: s["time"])]


def _moment(time_us: float) -> datetime:
    return datetime.fromisoformat("1970-01-01T00:00:00+00:00") + timedelta(microseconds=round(time_us))


def _sample(time: datetime, value: float | None, code: int) -> Row:
    bad = code & quality.MAJOR_MASK == 0
    return {"time": time, "value": None if bad else value, "quality": quality.name(code)}


def _parameters(span: Span) -> Row:
    return {"equipment": span.equipment, "point": span.point, "first": span.first, "end": span.end}
