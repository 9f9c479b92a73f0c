"""Units: the fleet page by page, one unit with all that is known of it, its readings and events."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BeforeValidator

from dashboards.console import cursor as cursors
from dashboards.console import models, reads, samples
from dashboards.console.context import Console, Cursor, EquipmentId, Here
from dashboards.console.levels import LEVELS
from dashboards.console.problems import Problem

router = APIRouter(prefix="/api/v1", tags=["equipment"])

RECENT_ALARMS: Final = 20
RECENT_EVENTS: Final = 50
DEFAULT_PERIOD: Final = timedelta(hours=1)


def _plus(text: Any) -> Any:
    """A `+` of an offset that came unescaped is a blank after decoding."""
    return text.replace(" ", "+") if isinstance(text, str) and "T" in text else text


Time = Annotated[AwareDatetime, BeforeValidator(_plus)]


@router.get("/equipment", response_model=models.EquipmentPage)
async def list_equipment(
    console: Here,
    area: Annotated[str | None, Query(max_length=64, description="This area and all below it.")] = None,
    equipment_class: Annotated[str | None, Query(alias="class", max_length=64)] = None,
    q: Annotated[str | None, Query(max_length=100, description="Part of id, name, address or registration.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Cursor = None,
) -> models.EquipmentPage:
    """The units of an area and a class, by id, each with its connection, active alarms and key readings."""
    after = cursors.decode(cursor, str)[0] if cursor else None
    found = await reads.equipment_page(
        console.store,
        console.now(),
        console.codes.order,
        area=area,
        equipment_class=equipment_class,
        search=_storable(q),
        after=after,
        limit=limit + 1,
    )
    following = cursors.encode(found[limit - 1].id) if len(found) > limit else None
    return models.EquipmentPage(items=found[:limit], next=following)


@router.get("/latest", response_model=models.ReadingPage)
async def list_latest(
    console: Here,
    equipment: Annotated[list[str] | None, Query(max_length=500, description="Only these units.")] = None,
    area: Annotated[str | None, Query(max_length=64, description="This area and all below it.")] = None,
    equipment_class: Annotated[str | None, Query(alias="class", max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=5_000)] = 1_000,
    cursor: Cursor = None,
) -> models.ReadingPage:
    """The latest reading of every point, by unit and point."""
    after = None
    if cursor:
        unit, point = cursors.decode(cursor, str, str)
        after = (unit, point)
    found = await reads.latest_page(
        console.store,
        equipments=None if equipment is None else [_storable(name) or "" for name in equipment],
        area=_storable(area),
        equipment_class=_storable(equipment_class),
        after=after,
        limit=limit + 1,
    )
    last = found[limit - 1] if len(found) > limit else None
    following = cursors.encode(last.equipment, last.point) if last else None
    return models.ReadingPage(items=found[:limit], next=following)


@router.get("/equipment/{id}", response_model=models.EquipmentDetail)
async def read_equipment(console: Here, id: EquipmentId) -> models.EquipmentDetail:
    """One unit: its points with limits and latest values, whom to call, its alarms and events."""
    unit = await _known(console, id)
    events = await reads.events(console.store, equipment_id=id, before=None, limit=RECENT_EVENTS)
    recent = await reads.alarm_page(console.store, active=False, equipments=[id], limit=RECENT_ALARMS)
    return models.EquipmentDetail(
        equipment=unit,
        points=await reads.points(console.store, console.codes.order, unit.profile, id),
        alarms=await reads.alarm_page(console.store, active=True, equipments=[id], limit=reads.MAX_ACTIVE),
        recent_alarms=recent,
        events=[await console.codes.event(console.store, row) for row in events],
    )


@router.get("/equipment/{id}/samples", response_model=models.SamplePage)
async def read_samples(
    console: Here,
    id: EquipmentId,
    point: Annotated[str, Query(pattern=r"^[a-z0-9_.-]{1,64}$")],
    first: Annotated[Time | None, Query(alias="from", description="Default: an hour before `to`.")] = None,
    end: Annotated[Time | None, Query(alias="to", description="Not included. Default: now.")] = None,
    max_points: Annotated[
        int | None, Query(ge=samples.MIN_POINTS, le=10_000, description="Thin to so many, extremes kept.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Of a page, where `max_points` is not given.")] = 5_000,
    cursor: Cursor = None,
) -> models.SamplePage:
    """Readings of one point, oldest first: all of them page by page, or thinned to `max_points`."""
    until = end or console.now() + timedelta(microseconds=1)
    since = first or until - DEFAULT_PERIOD
    if since >= until:
        raise Problem(422, "invalid-request", "from: expected a time before `to`")
    signal = await samples.signal_of(console.store, id, point, console.now())
    if signal is None:
        await _known(console, id)
        raise Problem(404, "unknown-point", f"{id!r} has no point {point!r}")
    span = samples.Span(signal, since, until)
    if max_points is None:
        return await _raw_page(console, span, cursor, limit)
    found = await samples.thinned(console.store, span, max_points=max_points)
    return models.SamplePage(items=found.items, next=None, bucket_s=found.bucket_s, level=found.level)


@router.get("/equipment/{id}/alarms", response_model=models.AlarmPage)
async def read_alarms_of(
    console: Here, id: EquipmentId, limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> models.AlarmPage:
    """The newest alarms of a unit, active or not."""
    await _known(console, id)
    items = await reads.alarm_page(console.store, active=False, equipments=[id], limit=limit)
    return models.AlarmPage(items=items, next=None)


@router.get("/events", response_model=models.EventPage)
async def list_events(
    console: Here,
    equipment: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Cursor = None,
) -> models.EventPage:
    """Events, newest first: of one unit, or of all."""
    before = None
    if cursor:
        at, event_id = cursors.decode(cursor, str, int)
        before = (_moment(at), event_id)
    rows = await reads.events(console.store, equipment_id=_storable(equipment), before=before, limit=limit + 1)
    items = [await console.codes.event(console.store, row) for row in rows[:limit]]
    following = cursors.encode(items[-1].time, items[-1].id) if len(rows) > limit else None
    return models.EventPage(items=items, next=following)


async def _raw_page(console: Console, span: samples.Span, cursor: str | None, limit: int) -> models.SamplePage:
    after, skip = None, 0
    if cursor:
        at, skip = cursors.decode(cursor, str, int)
        after = _moment(at)
    items = await samples.raw(console.store, span, after=after, skip=skip, limit=limit + 1)
    following = None
    if len(items) > limit:
        items = items[:limit]
        same = sum(item.time == items[-1].time for item in items)
        following = cursors.encode(items[-1].time, same + (skip if items[0].time == items[-1].time == after else 0))
    return models.SamplePage(items=items, next=following, bucket_s=None, level=LEVELS[0])


async def _known(console: Console, equipment_id: str) -> models.Equipment:
    unit = await reads.equipment(console.store, console.now(), console.codes.order, equipment_id)
    if unit is None:
        raise Problem(404, "unknown-equipment", f"no equipment {equipment_id!r} is in the register")
    return unit


def _storable(text: str | None) -> str | None:
    """The database takes no NUL in a text."""
    return text.replace("\x00", "") if text else None


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Problem(422, "invalid-request", "cursor: expected the `next` of an earlier answer")
    return moment
