"""What an MQTT payload says, by profile: values, events, on or off. Pure; planned once per topic.

Rules, none of which loses anything else of the message:
- not JSON, or not one field of the topic in it        → refused (counted, logged, an event), nothing kept
- JSON with NaN or Infinity (which JSON does not have) → read all the same; those values are NaN, BAD_SENSOR
- a field that is missing                              → no sample of it, counted; null → NaN, BAD_SENSOR
- a wrong type, or a value that the map does not know  → NaN, BAD_DEVICE, and a refusal of that field
- no device time                                       → time of receipt; retained as well: UNCERTAIN_STALE
- a time before 2000, more than 5 minutes ahead, without an offset or unreadable
                                                       → time of receipt, UNCERTAIN_CLOCK, and a refusal of the time
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import orjson

from edge.scaling import Scaling, real_scaling, whole_scaling
from telemetry.batch import EMPTY, SampleBatch
from telemetry.errors import RecordError
from telemetry.messages import TEXT_SCHEME, VIGIL_SCHEME, Event
from telemetry.names import is_name, signal_name
from telemetry.plain import parse
from telemetry.profile import MqttPoint, PointKind, Profile
from telemetry.quality import BAD_DEVICE, BAD_SENSOR, GOOD, UNCERTAIN_CLOCK, UNCERTAIN_OUT_OF_RANGE, UNCERTAIN_STALE

AHEAD_US: Final = 300_000_000
"""A device's time further ahead than this is not believed."""
EARLIEST_US: Final = 946_684_800_000_000
"""2000-01-01: a clock before it was never set."""
WHOLE: Final = 1 << 32
"""Whole JSON numbers up to here are scaled exactly."""
CODE_LENGTH: Final = 64
ATTRIBUTES_BYTES: Final = 8_192
"""Most that an event may carry beside its code, as JSON: a log's record has a bound, and an event shares it."""
TEXT_LENGTH: Final = 2_000
_MISSING: Final = object()
_NAN: Final = math.nan


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something in a payload that cannot be taken. `reason` is a fixed word, `detail` for people."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """What one message said."""

    batch: SampleBatch = EMPTY
    texts: tuple[tuple[str, str, int], ...] = ()
    events: tuple[Event, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    missing: int = 0
    device_time_us: int | None = None
    """The device's own time, where it is believed."""
    online: bool | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """A point in a payload."""

    point: str
    place: int
    """Index into the equipment's names; −1 for a text."""
    path: tuple[str, ...]
    map: Mapping[str, float] | None
    whole: Scaling
    real: Scaling
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class StateTopic:
    """A topic that carries points."""

    equipment: str
    names: tuple[str, ...]
    time_path: tuple[str, ...]
    fields: tuple[Field, ...]

    def read(self, payload: bytes, received_us: int, *, retained: bool) -> Parsed:
        """What a message on this topic says."""
        content, refusal = parse_json(payload)
        if refusal is not None:
            return Parsed(refusals=(refusal,))
        time_us, stamp, refusals, device_us = self._time(content, received_us, retained=retained)
        rows: list[tuple[int, float, int]] = []
        texts: list[tuple[str, str, int]] = []
        missing = 0
        for wanted in self.fields:
            found = look_up(content, wanted.path)
            if found is _MISSING:
                missing += 1
            elif wanted.place < 0:
                text = _text(found)
                if len(text) > TEXT_LENGTH:
                    refusals.append(Refusal("text", f"{wanted.point}: expected at most {TEXT_LENGTH} characters"))
                else:
                    texts.append((wanted.point, text, time_us))
            else:
                value, quality, wrong = number(wanted, found)
                rows.append((wanted.place, value, quality if quality != GOOD else stamp))
                refusals += wrong
        if missing == len(self.fields):
            absent = Refusal("missing-field", f"expected one of {_paths(self.fields)}, found none")
            return Parsed(refusals=(absent, *refusals), missing=missing)
        batch = self._batch(rows, time_us) if rows else EMPTY
        return Parsed(batch, tuple(texts), (), tuple(refusals), missing, device_us)

    def _time(self, content: Any, received_us: int, *, retained: bool) -> tuple[int, int, list[Refusal], int | None]:
        """(time of the samples, quality of the good ones, refusals, the device's time if it counts)."""
        found = look_up(content, self.time_path)
        if found is _MISSING or found is None:
            return received_us, UNCERTAIN_STALE if retained else GOOD, [], None
        device_us, why = read_time(found, received_us)
        if device_us is None:
            return received_us, UNCERTAIN_CLOCK, [Refusal("time", why)], None
        return device_us, GOOD, [], device_us

    def _batch(self, rows: Sequence[tuple[int, float, int]], time_us: int) -> SampleBatch:
        place, value, quality = zip(*rows, strict=True)
        return SampleBatch(
            self.names,
            np.array(place, np.int32),
            np.full(len(rows), time_us, np.int64),
            np.array(value, np.float64),
            np.array(quality, np.uint8),
        )


@dataclass(frozen=True, slots=True)
class EventTopic:
    """A topic that carries events: one object or a list of them."""

    equipment: str

    def read(self, payload: bytes, received_us: int, *, retained: bool) -> Parsed:
        """What a message on this topic says. A retained event needs a time of its own: it may be of any age."""
        content, refusal = parse_json(payload)
        if refusal is not None:
            return Parsed(refusals=(refusal,))
        events, refusals = [], []
        for item in content if isinstance(content, list) else [content]:
            event, wrong = self._event(item, received_us, retained=retained)
            events += event
            refusals += wrong
        return Parsed(events=tuple(events), refusals=tuple(refusals))

    def _event(self, item: Any, received_us: int, *, retained: bool) -> tuple[list[Event], list[Refusal]]:
        if not isinstance(item, dict):
            return [], [Refusal("wrong-type", f"expected an object, found {_shown(item)}")]
        rest = dict(item)
        scheme, code, state = rest.pop("scheme", None), rest.pop("code", None), rest.pop("state", None)
        found = rest.pop("time", None)
        if isinstance(code, int) and not isinstance(code, bool):
            code = str(code)
        if not isinstance(scheme, str) or not is_name(scheme) or scheme in (VIGIL_SCHEME, TEXT_SCHEME):
            return [], [Refusal("scheme", f"expected a code scheme of the device's own, found {_shown(scheme)}")]
        if not isinstance(code, str) or not code or len(code) > CODE_LENGTH:
            return [], [Refusal("code", f"expected a code of 1 to {CODE_LENGTH} characters, found {_shown(code)}")]
        if state not in ("on", "off"):
            return [], [Refusal("state", f"expected on or off, found {_shown(state)}")]
        if (wrong := _unkeepable([code, rest, found])) is not None:
            return [], [wrong]
        if found is None:
            if retained:
                return [], [Refusal("retained-event", "a retained event without a time of its own")]
            return [Event(self.equipment, received_us, scheme, code, state == "on", rest)], []
        time_us, why = read_time(found, received_us)
        if time_us is None:
            rest["device_time"] = found
            return [Event(self.equipment, received_us, scheme, code, state == "on", rest)], [Refusal("time", why)]
        return [Event(self.equipment, time_us, scheme, code, state == "on", rest)], []


@dataclass(frozen=True, slots=True)
class OnlineTopic:
    """The topic of the last will: a bare word, or an object with it in `connectionState`, `state` or `online`."""

    equipment: str
    words: Mapping[str, bool]

    def read(self, payload: bytes, received_us: int, *, retained: bool) -> Parsed:
        """What a message on this topic says."""
        content, refusal = parse_json(payload)
        word = payload.decode("utf-8", "replace").strip() if refusal else content
        if isinstance(word, dict):
            word = next((word[key] for key in ("connectionState", "state", "online") if key in word), None)
        online = self.words.get(_key(word))
        if online is None and isinstance(word, bool):
            online = word
        if online is None:
            return Parsed(
                refusals=(Refusal("online", f"expected one of {', '.join(self.words)}, found {_shown(word)}"),)
            )
        return Parsed(online=online)


Topic = StateTopic | EventTopic | OnlineTopic


@dataclass(slots=True)
class _Building:
    names: list[str] = field(default_factory=list)
    topics: dict[str, list[Field]] = field(default_factory=dict)


def make_topics(equipment: str, profile: Profile) -> dict[str, Topic]:
    """The topics of one equipment, below its prefix, and how each is read."""
    building = _Building()
    for name, point in profile.points.items():
        if point.mqtt is not None:
            text = point.kind is PointKind.TEXT
            place = -1 if text else len(building.names)
            if not text:
                building.names.append(signal_name(equipment, name))
            building.topics.setdefault(point.mqtt.topic, []).append(
                _field(name, place, point.mqtt, point.range.low, point.range.high)
            )
    names, time_path = tuple(building.names), _path(profile.mqtt.time_path)
    topics: dict[str, Topic] = {
        topic: StateTopic(equipment, names, time_path, tuple(fields)) for topic, fields in building.topics.items()
    }
    if profile.mqtt.event_topic is not None:
        topics.setdefault(profile.mqtt.event_topic, EventTopic(equipment))
    if profile.mqtt.online_topic is not None:
        topics.setdefault(profile.mqtt.online_topic, OnlineTopic(equipment, profile.mqtt.online_map))
    return topics


def parse_json(payload: bytes) -> tuple[Any, Refusal | None]:
    """The content, or why there is none. NaN and Infinity, which JSON does not know, are read all the same."""
    try:
        return orjson.loads(payload), None
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(payload), None
    except (ValueError, RecursionError) as error:
        return None, Refusal("not-json", f"expected JSON, found {payload[:40]!r}: {type(error).__name__}")


def look_up(content: Any, path: Sequence[str], default: Any = _MISSING) -> Any:
    """What lies at a path of keys and list positions, or the default."""
    for key in path:
        if isinstance(content, dict):
            content = content.get(key, _MISSING)
        elif isinstance(content, list) and key.isdecimal() and int(key) < len(content):
            content = content[int(key)]
        else:
            return default
        if content is _MISSING:
            return default
    return content


def number(wanted: Field, found: Any) -> tuple[float, int, list[Refusal]]:
    """(value, quality, refusals) of what was found for a point."""
    if found is None:
        return _NAN, BAD_SENSOR, []
    if wanted.map is not None:
        mapped = wanted.map.get(_key(found))
        if mapped is None:
            return (
                _NAN,
                BAD_DEVICE,
                [Refusal("unmapped", f"{wanted.point}: expected a value of its map, found {_shown(found)}")],
            )
        value = mapped
    elif isinstance(found, bool) or not isinstance(found, int | float):
        if not isinstance(found, bool):
            return (
                _NAN,
                BAD_DEVICE,
                [Refusal("wrong-type", f"{wanted.point}: expected a number, found {_shown(found)}")],
            )
        value = float(found)
    elif abs(found) > 1.7e308:
        return _NAN, BAD_SENSOR, []
    else:
        exact = isinstance(found, int) and abs(found) <= WHOLE
        value = (wanted.whole if exact else wanted.real).apply(found)
    if not math.isfinite(value):
        return _NAN, BAD_SENSOR, []
    return value, GOOD if wanted.low <= value <= wanted.high else UNCERTAIN_OUT_OF_RANGE, []


def read_time(found: Any, received_us: int) -> tuple[int | None, str]:
    """µs since 1970 of a device's time (ISO 8601 with offset, or seconds, ms or µs since 1970), or None and why not."""
    time_us = _time_us(found)
    if time_us is None:
        return None, f"expected ISO 8601 with an offset or a number since 1970, found {_shown(found)}"
    if time_us < EARLIEST_US:
        return None, f"expected a clock that was set, found {_shown(found)}"
    if time_us > received_us + AHEAD_US:
        return None, f"expected no more than 5 minutes ahead of the receipt, found {_shown(found)}"
    return time_us, ""


def _time_us(found: Any) -> int | None:
    if isinstance(found, str):
        try:
            moment = datetime.fromisoformat(found)
            delta = moment - datetime(1970, 1, 1, tzinfo=UTC)  # TypeError without an offset
        except (ValueError, TypeError, OverflowError):
            return None
        return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) < 1e18:
        return None
    for limit, to_us in ((1e11, 1_000_000), (1e14, 1_000)):
        if abs(found) < limit:
            return round(found * to_us)
    return round(found)


def _field(name: str, place: int, point: MqttPoint, low: float, high: float) -> Field:
    path = _path(point.path) if point.path is not None else ("values", name)
    whole = whole_scaling(point.scale, point.offset, largest=WHOLE)
    return Field(name, place, path, point.map, whole, real_scaling(point.scale, point.offset), low, high)


def _path(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(".") if part)


def _paths(fields: Sequence[Field]) -> str:
    shown = [".".join(f.path) for f in fields]
    return ", ".join(shown[:5]) + (" …" if len(shown) > 5 else "")


def _unkeepable(content: Any) -> Refusal | None:
    """Why an event cannot be kept: a record of it could not be written, or not be read, or would be too large."""
    try:
        written = orjson.dumps(content)
        parse(written)
    except (TypeError, RecordError) as error:
        return Refusal("attributes", f"expected what a record can hold, found {error}")
    if len(written) > ATTRIBUTES_BYTES:
        return Refusal("attributes", f"expected at most {ATTRIBUTES_BYTES} bytes, found {len(written)}")
    return None


def _key(found: Any) -> str:
    """A JSON value as a map spells it."""
    if isinstance(found, str):
        return found
    if isinstance(found, float) and found.is_integer():
        return str(int(found))
    return json.dumps(found)


def _text(found: Any) -> str:
    text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _shown(found: Any) -> str:
    shown = repr(found)
    return shown if len(shown) <= 60 else shown[:60] + "…"
