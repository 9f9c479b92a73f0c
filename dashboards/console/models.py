"""What the API answers. Times are ISO 8601 in UTC; texts are {"zh", "en"}; a bad reading's value is null."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

Connection = Literal["online", "offline", "silent", "unknown"]
Level = Literal["samples", "samples_1m", "samples_1h"]
Priority = Literal["critical", "high", "medium", "low"]


class Text(BaseModel):
    """A text in both languages."""

    zh: str
    en: str


class Party(BaseModel):
    """An organisation that stands for the equipment, with its telephone."""

    id: str
    name: Text
    phone: str


class Area(BaseModel):
    """An area of supervision."""

    id: str
    parent: str | None
    level: str
    name: Text
    equipment: int = Field(description="Units in it and in the areas below.")


class EquipmentClass(BaseModel):
    """A class of equipment that is in the register."""

    id: str
    name: Text
    equipment: int


class Limit(BaseModel):
    """A limit that an alarm watches, for drawing."""

    name: str
    condition: str
    limit: float
    priority: str


class Reading(BaseModel):
    """A point's latest value."""

    equipment: str
    point: str
    time: datetime | None
    value: float | None = Field(description="Null where the reading is bad or there is none.")
    quality: str | None = Field(description="good, or a word for what is wrong; null: never read.")
    text: Text | None = Field(None, description="The value's enum text, or the text of a text point.")


class Point(Reading):
    """A point with what the profile says of it."""

    name: Text
    kind: str
    unit: str
    group: str
    enum: dict[str, Text]
    low: float | None
    high: float | None
    limits: list[Limit]


class Alarm(BaseModel):
    """An alarm's present state, with the parties as they were when it was raised."""

    id: str
    equipment: str
    equipment_name: Text | None
    address: str
    equipment_class: str = Field(serialization_alias="class")
    area: str | None
    area_name: Text | None
    owner: Party | None
    user: Party | None
    maintainer: Party | None
    point: str
    point_name: Text | None
    detector: str
    state: str
    active: bool = Field(description="Not back to normal, or not acknowledged yet.")
    priority: Priority
    text: Text
    consequence: Text | None
    action: Text | None
    onset: datetime
    raised_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    acknowledge_note: str | None
    cleared_at: datetime | None
    late: bool
    evidence: dict[str, Any]
    revision: int = Field(description="Grows with every transition.")


class Transition(BaseModel):
    """One entry of an alarm's history."""

    at: datetime
    transition: str
    from_state: str
    to_state: str
    actor: str
    reason: str
    note: str


class AlarmDetail(Alarm):
    """An alarm with its history."""

    history: list[Transition]


class AlarmSummary(BaseModel):
    """The active alarms of one unit, in short."""

    active: int
    unacknowledged: int
    worst: Alarm | None = Field(description="The most urgent, newest among equals.")


class EventItem(BaseModel):
    """Something that a device, or Vigil itself, says happened."""

    id: int
    equipment: str
    time: datetime
    scheme: str
    code: str
    name: Text | None = Field(description="What the profile's scheme calls this code.")
    state: Literal["on", "off"]
    attributes: dict[str, Any]


class Equipment(BaseModel):
    """A unit on one line."""

    id: str
    equipment_class: str = Field(serialization_alias="class")
    class_name: Text
    name: Text
    profile: str
    model: str
    area: str | None
    area_name: Text | None
    address: str
    status: str | None
    registration_code: str | None
    owner: Party | None
    user: Party | None
    maintainer: Party | None
    edge: str
    connection: Connection
    since: datetime | None = Field(description="Of the present connection state.")
    position: tuple[float, float] | None = Field(description="Latitude, longitude.")
    alarms: AlarmSummary
    key_points: list[Point]


class EquipmentDetail(BaseModel):
    """All that is known of a unit now."""

    equipment: Equipment
    points: list[Point]
    alarms: list[Alarm]
    recent_alarms: list[Alarm]
    events: list[EventItem]


class Sample(BaseModel):
    """One reading. A null value is a break in the line: a bad reading, or (`no_reading`) none for a while."""

    time: datetime
    value: float | None
    quality: str


class EquipmentPage(BaseModel):
    """A page of units by id."""

    items: list[Equipment]
    next: str | None


class ReadingPage(BaseModel):
    """A page of latest readings by equipment and point."""

    items: list[Reading]
    next: str | None


class AlarmPage(BaseModel):
    """A page of alarms, newest first."""

    items: list[Alarm]
    next: str | None


class EventPage(BaseModel):
    """A page of events, newest first."""

    items: list[EventItem]
    next: str | None


class SamplePage(BaseModel):
    """Readings of one point, oldest first."""

    items: list[Sample]
    next: str | None
    bucket_s: float | None = Field(description="Where down-sampled: least and greatest of every so many seconds.")
    level: Level = Field(description="What it was made of: the readings, or of long periods their minutes or hours.")


class AreaPage(BaseModel):
    """All areas."""

    items: list[Area]
    next: None = None


class ClassPage(BaseModel):
    """All classes."""

    items: list[EquipmentClass]
    next: None = None


class Summary(BaseModel):
    """The whole fleet in numbers."""

    equipment: int
    connections: dict[Connection, int]
    alarms: dict[Priority, int] = Field(description="Active ones by priority.")
    unacknowledged: int
    at: datetime


class Acknowledge(BaseModel):
    """Who has seen the alarm, and what they say of it."""

    by: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80, pattern=r"^[^\x00-\x1f]*$")
    ]
    note: Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000, pattern=r"^[^\x00]*$")] = ""


class Acknowledged(BaseModel):
    """What became of an acknowledge."""

    outcome: Literal["done", "accepted"] = Field(description="accepted: written down, not handled by alerting yet.")
    alarm: Alarm


class SessionRequest(BaseModel):
    """Log-in by the console's token."""

    token: Annotated[str, StringConstraints(max_length=512)]


class SessionState(BaseModel):
    """Whether a log-in is needed and there."""

    needed: bool
    authorised: bool
