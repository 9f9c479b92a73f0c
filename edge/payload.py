"""What one MQTT payload says, by profile: values, texts. Pure; planned once per topic. Of events: edge.payload_events.

Rules, none of which loses anything else of the message:
- not JSON, or not one field of the topic in it        → refused (counted, logged, an event), nothing kept
- JSON with NaN or Infinity (which JSON does not have) → read all the same; those values are NaN, BAD_SENSOR
- a field that is missing                              → no sample of it, counted; null → NaN, BAD_SENSOR
- a wrong type, or a value that the map does not know  → NaN, BAD_DEVICE, and a refusal of that field
- no device time                                       → time of receipt; retained as well: UNCERTAIN_STALE
- a time before 2000, more than 5 minutes ahead, without an offset or unreadable
                                                       → time of receipt, UNCERTAIN_CLOCK, and a refusal of the time
- a list of entries                                    → each by these rules; an entry costs only itself

This is the exact way, a message at a time; edge.shapes reads many ordinary ones at once, with the same results.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from edge.device_time import TimeReader, shown
from edge.scaling import Scaling
from telemetry.messages import Event
from telemetry.quality import BAD_DEVICE, BAD_SENSOR, GOOD, UNCERTAIN_CLOCK, UNCERTAIN_OUT_OF_RANGE, UNCERTAIN_STALE

WHOLE: Final = 1 << 32
"""Whole JSON numbers up to here are scaled exactly. 12 and 12.0 are one number, as JSON has it."""
LARGEST: Final = 1.7e308
"""Numbers beyond mean: no value."""
TEXT_LENGTH: Final = 2_000
MISSING: Final = object()
_NAN: Final = math.nan


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something in a payload that cannot be taken. `reason` is a fixed word, `detail` for people."""

    reason: str
    detail: str


class Row(NamedTuple):
    """One sample: index into the equipment's names, µs, value, quality."""

    place: int
    time_us: int
    value: float
    quality: int


@dataclass(frozen=True, slots=True)
class Parsed:
    """What one message said."""

    rows: Sequence[Row] = ()
    texts: Sequence[tuple[str, str, int]] = ()
    """(point, text, time_us)"""
    events: Sequence[Event] = ()
    refusals: Sequence[Refusal] = ()
    missing: int = 0
    device_time_us: int | None = None
    """The device's own time, where all that the message says has one that is believed: it can be told from another."""
    clock_us: int | None = None
    """What the device's clock showed, believed or not."""
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
class Times:
    """Where a message has its time, and whose time counts."""

    path: tuple[str, ...]
    reader: TimeReader
    receipt: bool = False
    """The profile says that the time of receipt counts."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """The time of some samples."""

    time_us: int
    quality: int
    """Of those that are good otherwise."""
    device_us: int | None = None
    clock_us: int | None = None


@dataclass(slots=True)
class Reading:
    """What is gathered of one message, entry by entry."""

    rows: list[Row]
    texts: list[tuple[str, str, int]]
    refusals: list[Refusal]
    missing: int = 0

    def take(self, wanted: Field, found: Any, stamp: Stamp) -> None:
        """A field's value."""
        if wanted.place >= 0:
            value, quality, wrong = number(wanted, found)
            self.rows.append(Row(wanted.place, stamp.time_us, value, quality if quality != GOOD else stamp.quality))
            self.refusals += wrong
            return
        text = _text(found)
        if len(text) > TEXT_LENGTH:
            self.refusals.append(Refusal("text", f"{wanted.point}: expected at most {TEXT_LENGTH} characters"))
        else:
            self.texts.append((wanted.point, text, stamp.time_us))

    def take_all(self, fields: Sequence[Field], content: Any, stamp: Stamp) -> bool:
        """The fields that are there. False where none is: nothing was taken."""
        found = [(wanted, look_up(content, wanted.path)) for wanted in fields]
        there = [(wanted, value) for wanted, value in found if value is not MISSING]
        self.missing += len(found) - len(there)
        for wanted, value in there:
            self.take(wanted, value, stamp)
        return bool(there)

    def stamp(self, times: Times, found: Any, received_us: int, *, retained: bool, good: int) -> Stamp:
        """The time of what comes with `found` as its time; `good` is the quality under the device's own."""
        stale = UNCERTAIN_STALE if retained else GOOD
        if found is MISSING or found is None:
            return Stamp(received_us, stale)
        device_us, clock_us, why = times.reader.read(found, received_us)
        if times.receipt:
            return Stamp(received_us, stale, None, clock_us)
        if device_us is None:
            if why:
                self.refusals.append(Refusal("time", why))
            return Stamp(received_us, UNCERTAIN_CLOCK, None, clock_us)
        return Stamp(device_us, good, device_us, clock_us)


@dataclass(frozen=True, slots=True)
class StateTopic:
    """A topic that carries points."""

    times: Times
    fields: tuple[Field, ...]

    def read(self, payload: bytes, received_us: int, *, retained: bool, good: int = GOOD) -> Parsed:
        """What a message on this topic says. `good`: quality of a good value under the device's own time."""
        content, refusal = parse_json(payload)
        if refusal is not None:
            return Parsed(refusals=(refusal,))
        reading = Reading([], [], [])
        found = look_up(content, self.times.path)
        stamp = reading.stamp(self.times, found, received_us, retained=retained, good=good)
        if not reading.take_all(self.fields, content, stamp):
            absent = Refusal("missing-field", f"expected one of {_paths(self.fields)}, found none")
            return Parsed(refusals=(absent, *reading.refusals), missing=reading.missing, clock_us=stamp.clock_us)
        return Parsed(
            reading.rows,
            reading.texts,
            (),
            reading.refusals,
            reading.missing,
            stamp.device_us,
            stamp.clock_us,
        )

    def raw(self, content: Any) -> dict[str, Any]:
        """Point → what the content has for it, as sent; only of points that it has."""
        return _there(self.fields, content)


@dataclass(frozen=True, slots=True)
class ListTopic:
    """A topic whose messages are lists of named values, or of whole messages."""

    times: Times
    fields: tuple[Field, ...]
    path: tuple[str, ...]
    """Of the list."""
    name: tuple[str, ...] | None
    """Of an entry's name; None where entries are whole messages."""
    value: tuple[str, ...]
    time: tuple[str, ...]

    def read(self, payload: bytes, received_us: int, *, retained: bool, good: int = GOOD) -> Parsed:
        """What a message on this topic says. An empty list says nothing and is no fault."""
        content, refusal = parse_json(payload)
        if refusal is not None:
            return Parsed(refusals=(refusal,))
        entries = look_up(content, self.path)
        if not isinstance(entries, list):
            found = "nothing" if entries is MISSING else shown(entries)
            where = ".".join(self.path) or "the payload"
            return Parsed(refusals=(Refusal("missing-field", f"expected a list at {where}, found {found}"),))
        reading = Reading([], [], [])
        outer = look_up(content, self.times.path)
        named: dict[str, list[Field]] = {}
        for wanted in self.fields:
            named.setdefault(wanted.path[0], []).append(wanted)
        stamps: list[Stamp] = []
        for entry in entries:
            own = look_up(entry, self.time)
            found = outer if own is MISSING else own
            stamp = reading.stamp(self.times, found, received_us, retained=retained, good=good)
            if self._entry(reading, entry, stamp, named):
                stamps.append(stamp)
        if entries and not stamps and not reading.refusals:
            reading.refusals.append(Refusal("missing-field", f"expected an entry of {_paths(self.fields)}, found none"))
        whole = bool(stamps) and all(stamp.device_us is not None for stamp in stamps)
        clocks = [stamp.clock_us for stamp in stamps if stamp.clock_us is not None]
        return Parsed(
            reading.rows,
            reading.texts,
            (),
            reading.refusals,
            reading.missing,
            stamps[-1].device_us if whole else None,
            max(clocks, default=None),
        )

    def raw(self, content: Any) -> dict[str, Any]:
        """See StateTopic. Of several entries the last one counts."""
        found: dict[str, Any] = {}
        entries = look_up(content, self.path)
        for entry in entries if isinstance(entries, list) else ():
            if self.name is None:
                found |= _there(self.fields, entry)
            elif (value := look_up(entry, self.value)) is not MISSING:
                name = as_key(look_up(entry, self.name, None))
                found |= {wanted.point: value for wanted in self.fields if wanted.path[0] == name}
        return found

    def _entry(self, reading: Reading, entry: Any, stamp: Stamp, named: Mapping[str, Sequence[Field]]) -> bool:
        """Whether the entry said anything."""
        if not isinstance(entry, dict):
            reading.refusals.append(Refusal("wrong-type", f"expected an object in the list, found {shown(entry)}"))
            return False
        if self.name is None:
            return reading.take_all(self.fields, entry, stamp)
        meant = named.get(as_key(look_up(entry, self.name, None)), ())
        found = look_up(entry, self.value)
        if found is MISSING:
            reading.missing += len(meant)
            return False
        for wanted in meant:
            reading.take(wanted, found, stamp)
        return bool(meant)


PointTopic = StateTopic | ListTopic


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


def look_up(content: Any, path: Sequence[str], default: Any = MISSING) -> Any:
    """What lies at a path of keys and list positions, or the default."""
    for key in path:
        if isinstance(content, dict):
            content = content.get(key, MISSING)
        elif isinstance(content, list) and key.isdecimal() and int(key) < len(content):
            content = content[int(key)]
        else:
            return default
        if content is MISSING:
            return default
    return content


def number(wanted: Field, found: Any) -> tuple[float, int, list[Refusal]]:
    """(value, quality, refusals) of what was found for a point."""
    if found is None:
        return _NAN, BAD_SENSOR, []
    if wanted.map is not None:
        mapped = wanted.map.get(as_key(found))
        if mapped is None:
            wrong = Refusal("unmapped", f"{wanted.point}: expected a value of its map, found {shown(found)}")
            return _NAN, BAD_DEVICE, [wrong]
        value = mapped
    elif isinstance(found, bool):
        value = float(found)
    elif not isinstance(found, int | float):
        wrong = Refusal("wrong-type", f"{wanted.point}: expected a number, found {shown(found)}")
        return _NAN, BAD_DEVICE, [wrong]
    elif not abs(found) <= LARGEST:
        return _NAN, BAD_SENSOR, []
    else:
        raw = float(found)
        value = (wanted.whole if abs(raw) <= WHOLE and raw.is_integer() else wanted.real).apply(raw)
    if not math.isfinite(value):
        return _NAN, BAD_SENSOR, []
    return value, GOOD if wanted.low <= value <= wanted.high else UNCERTAIN_OUT_OF_RANGE, []


def as_key(found: Any) -> str:
    """A JSON value as a map spells it."""
    if isinstance(found, str):
        return found
    if isinstance(found, float) and found.is_integer():
        return str(int(found))
    return json.dumps(found)


def _there(fields: Sequence[Field], content: Any) -> dict[str, Any]:
    found = {wanted.point: look_up(content, wanted.path) for wanted in fields}
    return {point: value for point, value in found.items() if value is not MISSING}


def _paths(fields: Sequence[Field]) -> str:
    spelled: Iterator[str] = (".".join(f.path) for f in fields)
    first = [text for text, _ in zip(spelled, range(5), strict=False)]
    return ", ".join(first) + (" …" if len(fields) > 5 else "")


def _text(found: Any) -> str:
    text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
