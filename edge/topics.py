"""The topics of an equipment by its profile, and how each is read. Made once.

Invariant: a point lies in exactly one topic, so what one signal says comes in the order of that topic's messages.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.device_time import make_time_reader
from edge.payload import WHOLE, Field, ListTopic, PointTopic, StateTopic, Times
from edge.payload_events import EventTopic, OnlineTopic
from edge.scaling import real_scaling, whole_scaling
from telemetry.name_block import NameBlock, name_block
from telemetry.names import signal_name
from telemetry.profile import MqttDefaults, MqttPoint, PointKind, Profile

Topic = PointTopic | EventTopic | OnlineTopic


@dataclass(frozen=True, slots=True)
class Topics:
    """What one equipment says, and where."""

    block: NameBlock
    """Its signals; one block for all its topics."""
    by_name: dict[str, Topic]
    """By the name below the equipment's prefix."""


def make_topics(equipment: str, profile: Profile) -> Topics:
    """The topics of one equipment, below its prefix, and how each is read."""
    names: list[str] = []
    fields: dict[str, list[Field]] = {}
    for name, point in profile.points.items():
        if point.mqtt is None:
            continue
        place = -1 if point.kind is PointKind.TEXT else len(names)
        if place >= 0:
            names.append(signal_name(equipment, name))
        field = _field(name, place, point.mqtt, profile.mqtt, (point.range.low, point.range.high))
        fields.setdefault(point.mqtt.topic, []).append(field)
    by_name: dict[str, Topic] = {topic: _points(topic, listed, profile.mqtt) for topic, listed in fields.items()}
    reader = make_time_reader(profile.mqtt.time_zone, profile.mqtt.time_format)
    if profile.mqtt.event_topic is not None:
        by_name.setdefault(profile.mqtt.event_topic, EventTopic(equipment, reader, profile.mqtt.clock == "receipt"))
    if profile.mqtt.online_topic is not None:
        by_name.setdefault(profile.mqtt.online_topic, OnlineTopic(profile.mqtt.online_map))
    return Topics(name_block(names), by_name)


def _points(topic: str, fields: list[Field], defaults: MqttDefaults) -> PointTopic:
    reader = make_time_reader(defaults.time_zone, defaults.time_format)
    times = Times(dotted(defaults.time_path), reader, defaults.clock == "receipt")
    listed = defaults.lists.get(topic)
    if listed is None:
        return StateTopic(times, tuple(fields))
    name = dotted(listed.name) if listed.name is not None else None
    own = dotted(listed.time) if listed.time is not None else times.path
    return ListTopic(times, tuple(fields), dotted(listed.path), name, dotted(listed.value), own)


def _field(name: str, place: int, point: MqttPoint, defaults: MqttDefaults, bounds: tuple[float, float]) -> Field:
    listed = defaults.lists.get(point.topic)
    if listed is not None and listed.name is not None:
        path: tuple[str, ...] = (point.path if point.path is not None else name,)
    else:
        path = dotted(point.path) if point.path is not None else ("values", name)
    whole = whole_scaling(point.scale, point.offset, largest=WHOLE)
    return Field(name, place, path, point.map, whole, real_scaling(point.scale, point.offset), *bounds)


def dotted(text: str) -> tuple[str, ...]:
    """A path as a profile writes it."""
    return tuple(part for part in text.split(".") if part)
