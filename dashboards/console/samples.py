"""A point's readings over a period: as they are, page by page, or thinned so that a chart of N points loses no peak.

Thinning keeps, of every bucket, the least and the greatest reading with their own times, in one pass in the database; of
long periods it reads the kept minutes or hours (`levels`), and the times are those of the minute or hour. Nothing is
interpolated, and no line may be drawn over what was not read: a bucket with bad readings gives a null, and so does the
first of neighbouring buckets without any reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString

from dashboards.console import models
from dashboards.console.levels import LEVELS, PER_BUCKET, Name, Piece, Plan, plan
from dashboards.console.store import Row, Store
from telemetry import quality

MIN_POINTS: Final = 2 * PER_BUCKET
NOT_BAD: Final = "not_bad"
"""Quality of what comes from minutes and hours: they cover good and uncertain readings."""
NO_READING: Final = "no_reading"
"""Quality of the null where nothing was read."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A point as the store numbers it, and since when its readings and minutes are kept in full."""

    signal_id: int
    oldest: tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Span:
    """The readings asked for: of one signal, first ≤ time < end."""

    signal: Signal
    first: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Thinned:
    """A chart's readings; `bucket_s` None: all there are. `level` is what the buckets were made of."""

    items: list[models.Sample]
    bucket_s: float | None
    level: Name


async def signal_of(store: Store, equipment: str, point: str, now: datetime) -> Signal | None:
    """The signal of a point, if there is one."""
    row = await store.row(_SIGNAL, {"equipment": equipment, "point": point, "now": now})
    return Signal(row["signal_id"], (row["samples"], row["minutes"])) if row else None


async def raw(store: Store, span: Span, *, after: datetime | None, skip: int, limit: int) -> list[models.Sample]:
    """Up to `limit` readings, oldest first: from `after` on without the first `skip` of that very time."""
    found = await store.rows(_RAW, _parameters(span) | {"first": after or span.first, "skip": skip, "limit": limit})
    return [models.Sample(**_sample(row["time"], row["value"], row["quality"])) for row in found]


async def thinned(store: Store, span: Span, *, max_points: int) -> Thinned:
    """At most `max_points` readings that keep every bucket's extremes. Readings that are few enough come as they are."""
    made = plan(span.first, span.end, max_points=max_points, oldest=span.signal.oldest)
    query, parameters = buckets_query(made, span.signal.signal_id)
    found = await store.rows(query, parameters)
    readings = sum(int(row["readings"]) for row in found)
    if readings <= max_points:
        few = await raw(store, span, after=None, skip=0, limit=max_points + 1)
        if readings <= len(few) <= max_points:  # else they are not kept any more, or there are more by now
            return Thinned(few, None, LEVELS[0])
    return Thinned(_items(found, made.width), made.width.total_seconds(), LEVELS[made.level])


def buckets_query(made: Plan, signal_id: int) -> tuple[LiteralString, dict[str, Any]]:
    """The query of a plan's buckets with its parameters: one row a bucket that has readings, by time.

    Columns bucket, least and greatest ([value, µs since 1970] or null), quality (the worst that is not bad; null from
    minutes and hours), bad_at and bad_quality (of the bad readings, the first and the worst), readings (how many).
    """
    parameters: dict[str, Any] = {"signal": signal_id, "width": made.width, "origin": made.origin}
    parts: list[LiteralString] = []
    for number, piece in zip(_NUMBERS, made.pieces, strict=False):
        parts.append(_READ[piece.level].replace("#", number))
        parameters |= _bounds(number, piece)
    return _BUCKETS.replace("#pieces", " UNION ALL ".join(parts)), parameters


def _bounds(number: str, piece: Piece) -> dict[str, Any]:
    return {f"first{number}": piece.first, f"end{number}": piece.end}


def _items(rows: Sequence[Row], width: timedelta) -> list[models.Sample]:
    """What is drawn: of every bucket what it keeps, and a null where buckets without any reading begin."""
    samples: list[Row] = []
    for number, row in enumerate(rows):
        if number and row["bucket"] - rows[number - 1]["bucket"] > width:
            samples.append({"time": rows[number - 1]["bucket"] + width, "value": None, "quality": NO_READING})
        samples += _bucket(row)
    return [models.Sample(**sample) for sample in samples]


def _bucket(row: Row) -> list[Row]:
    """The readings kept of one bucket, oldest first. Their quality is the bucket's worst."""
    word = NOT_BAD if row["quality"] is None else quality.name(row["quality"])
    kept = {}
    for pair in (row["least"], row["greatest"]):
        if pair is not None:
            value, time_us = pair
            kept[time_us, value] = {"time": _moment(time_us), "value": value, "quality": word}
    samples = list(kept.values())
    if row["bad_at"] is not None:
        samples.append({"time": row["bad_at"], "value": None, "quality": quality.name(row["bad_quality"])})
    return sorted(samples, key=lambda sample: sample["time"])


def _moment(time_us: float) -> datetime:
    return datetime.fromisoformat("1970-01-01T00:00:00+00:00") + timedelta(microseconds=round(time_us))


def _sample(time: datetime, value: float | None, code: int) -> Row:
    bad = code & quality.MAJOR_MASK == 0
    return {"time": time, "value": None if bad else value, "quality": quality.name(code)}


def _parameters(span: Span) -> Row:
    return {"signal": span.signal.signal_id, "first": span.first, "end": span.end}


_NUMBERS: Final[tuple[LiteralString, ...]] = ("0", "1", "2", "3", "4")
"""A period has at most five pieces: readings, minutes, hours, minutes, readings."""
_SIGNAL: Final[LiteralString] = """
SELECT g.signal_id,
       %(now)s - coalesce((SELECT kept FROM public.retention WHERE class = 'samples'), interval '100 years') AS samples,
       %(now)s - coalesce((SELECT kept FROM public.retention WHERE class = 'samples_1m'), interval '100 years') AS minutes
FROM public.signals g WHERE g.equipment = %(equipment)s AND g.point = %(point)s
"""
_RAW: Final[LiteralString] = """
SELECT time, value, quality FROM public.samples
WHERE signal_id = %(signal)s AND time >= %(first)s AND time < %(end)s
ORDER BY time, quality, value OFFSET %(skip)s LIMIT %(limit)s
"""
# 192 are the bits of telemetry.quality that say bad; 0 is bad without a reason.
_READ: Final[tuple[LiteralString, ...]] = (
    """SELECT time, CASE WHEN good THEN value END AS low, CASE WHEN good THEN value END AS high, quality,
               CASE WHEN good THEN quality END AS good_quality, NOT good AS bad, 1 AS readings
        FROM (SELECT time, value, quality,
                     coalesce(quality & 192 <> 0 AND value > '-Infinity' AND value < 'Infinity', false) AS good
              FROM public.samples WHERE signal_id = %(signal)s AND time >= %(first#)s AND time < %(end#)s) r""",
    """SELECT time, min AS low, max AS high, 0::smallint, NULL::smallint, count_bad > 0, count + count_bad
        FROM public.samples_1m WHERE signal_id = %(signal)s AND time >= %(first#)s AND time < %(end#)s""",
    """SELECT time, min AS low, max AS high, 0::smallint, NULL::smallint, count_bad > 0, count + count_bad
        FROM public.samples_1h WHERE signal_id = %(signal)s AND time >= %(first#)s AND time < %(end#)s""",
)
# min and max over (value, µs) keep an extreme's own time without a sort; µs of today fit in a float64 exactly.
_BUCKETS: Final[LiteralString] = """
SELECT date_bin(%(width)s, time, %(origin)s) AS bucket,
       min(ARRAY[low, date_part('epoch', time) * 1e6]) FILTER (WHERE low IS NOT NULL) AS least,
       max(ARRAY[high, date_part('epoch', time) * 1e6]) FILTER (WHERE high IS NOT NULL) AS greatest,
       min(good_quality) AS quality, min(time) FILTER (WHERE bad) AS bad_at,
       min(quality) FILTER (WHERE bad) AS bad_quality, sum(readings)::bigint AS readings
FROM (#pieces) p (time, low, high, quality, good_quality, bad, readings)
GROUP BY 1 ORDER BY 1
"""
