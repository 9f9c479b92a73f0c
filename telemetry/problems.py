"""What can be wrong between the keys of a profile, found on plain data so that one mistake never hides another.

The functions take a profile as its file says it (or as `model_dump(by_alias=True, exclude_unset=True)` gives it), skip
over whatever has the wrong type (the models report that), and yield every `Problem` with its path.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TypeGuard

from pydantic_core import PydanticCustomError

from telemetry.wording import nearest, shown

PROBLEMS: Final = "vigil_problems"
"""Type of the pydantic error that carries `Problem`s as ctx["problems"]."""

NAMED_CONDITIONS: Final = ("high", "high_high", "low", "low_low")
"""Alarms whose name says how they compare."""

REGISTERS: Final = {
    "bool": 1, "u16": 1, "i16": 1, "u32": 2, "i32": 2, "f32": 2, "u64": 4, "i64": 4, "f64": 4,
    "bcd16": 1, "bcd32": 2, "bcd64": 4,
}  # fmt: skip
"""Registers that a value of each type takes; a string says its own length."""

REPORTS: Final = ("deadband", "deadband_percent", "swinging_door")
"""Ways to report by exception."""

WHOLE: Final = frozenset({"u16", "i16", "u32", "i32", "u64", "i64"})
"""Types whose bits are a whole number."""

BCD: Final = frozenset({"bcd16", "bcd32", "bcd64"})
"""Types of four bits a decimal digit."""

BIT_TABLES: Final = frozenset({"coil", "discrete"})
"""Tables of bits, not of registers."""

Path = tuple[str, ...]
Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong between several keys: `path` of keys and indices, as text."""

    path: Path
    expected: str
    found: str


def refuse(problems: Iterator[Problem]) -> None:
    """Raises all problems at once as one pydantic error; without any, nothing happens."""
    if listed := tuple(problems):
        text = "; ".join(f"{'.'.join(p.path)}: expected {p.expected}, found {p.found}" for p in listed)
        raise PydanticCustomError(PROBLEMS, "{text}", {"text": text, "problems": listed})


def profile_problems(profile: Raw, *, touched: Collection[str] | None = None) -> Iterator[Problem]:
    """Everything wrong between the keys of a profile; of its points, only the touched ones where they are given."""
    points = dict(mappings(profile, "points"))
    for name, point in points.items() if touched is None else [(n, points[n]) for n in touched if n in points]:
        yield from _prefixed(("points", name), _point_problems(point, points))
        yield from _prefixed(("points", name), _order_problems(point))
        yield from _prefixed(("points", name, "modbus"), _place_problems(point, profile))
        yield from _prefixed(("points", name, "modbus"), _counter_problems(point))
    yield from _device_problems(mapping(profile, "modbus"))
    yield from _report_problems(profile, points)
    for name, condition in mappings(profile, "conditions"):
        for key in ("all", "unless"):
            yield from _prefixed(("conditions", name), _term_problems(condition, key, points))
    yield from _code_point_problems(profile, points)
    yield from _topic_problems(profile, points)


def alarm_problems(point: Raw) -> Iterator[Problem]:
    """Limit alarms of a point that do not say how they compare."""
    for name, alarm in mappings(point, "alarms"):
        if alarm.get("condition") is None and name not in NAMED_CONDITIONS:
            yield Problem(
                ("alarms", name, "condition"),
                f"above, below, equals or not_equals (only {', '.join(NAMED_CONDITIONS)} have one by their name)",
                "nothing",
            )


def _point_problems(point: Raw, points: Raw) -> Iterator[Problem]:
    if point.get("modbus") is None and point.get("mqtt") is None:
        yield Problem((), "modbus or mqtt, to say where the point lies", "neither")
    yield from alarm_problems(point)
    for name, alarm in mappings(point, "alarms"):
        yield from _prefixed(("alarms", name), _term_problems(alarm, "unless", points))


def _order_problems(point: Raw) -> Iterator[Problem]:
    """Numbers of a point that contradict one another, and texts treated as numbers."""
    span = mapping(point, "range")
    low, high = _number(span.get("low")), _number(span.get("high"))
    if low is not None and high is not None and low >= high:
        yield Problem(("range", "high"), f"more than the low end, {low:g}", f"{high:g}")
    limits = {name: _number(a.get("limit")) for name, a in mappings(point, "alarms") if a.get("condition") is None}
    for under, over in pairwise(("low_low", "low", "high", "high_high")):
        least, most = limits.get(under), limits.get(over)
        if least is not None and most is not None and least > most:
            yield Problem(("alarms", over, "limit"), f"at least the limit of {under}, {least:g}", f"{most:g}")
    is_text, kind = point.get("kind") == "text", mapping(point, "modbus").get("type")
    if kind is not None and is_text != (kind == "string"):
        yield Problem(
            ("kind",), "text for a point of type string, and only there", str(point.get("kind", "measurement"))
        )
    if is_text and (point.get("alarms") or point.get("detectors")):
        yield Problem(("kind",), "a number, for alarms and detectors to watch", "text")


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _term_problems(holder: Raw, key: str, points: Raw) -> Iterator[Problem]:
    for i, term in items(holder, key):
        yield from _known((key, i, "point"), term.get("point"), points, "point")


def _code_point_problems(profile: Raw, points: Raw) -> Iterator[Problem]:
    schemes = dict(mappings(profile, "schemes"))
    for i, code_point in items(profile, "code_points"):
        yield from _known(("code_points", i, "point"), code_point.get("point"), points, "point")
        yield from _known(("code_points", i, "scheme"), code_point.get("scheme"), schemes, "scheme")


def _topic_problems(profile: Raw, points: Raw) -> Iterator[Problem]:
    """Topics that no device can publish to, and topics of events or of the last will that carry points as well."""
    places = [(name, mapping(point, "mqtt").get("topic", "state")) for name, point in points.items() if "mqtt" in point]
    for name, topic in places:
        if isinstance(topic, str) and (not topic.strip("/") or set(topic) & set("#+")):
            yield Problem(
                ("points", name, "mqtt", "topic"), "a topic without wildcards, below the prefix", shown(topic)
            )
    taken = {topic: f"the topic of point {name}" for name, topic in places if isinstance(topic, str)}
    device = mapping(profile, "mqtt")
    for key, default in (("event_topic", "event"), ("online_topic", None)):
        topic = device.get(key, default)
        if isinstance(topic, str) and topic in taken:
            yield Problem(("mqtt", key), "a topic of its own", f"{topic}, {taken[topic]} too")
        elif isinstance(topic, str):
            taken[topic] = f"the {key}"


def _known(path: Path, name: Any, known: Raw, what: str) -> Iterator[Problem]:
    if isinstance(name, str) and name not in known:
        yield Problem(path, f"a {what} of this profile, {nearest(name, known)}", shown(name))


def _place_problems(point: Raw, profile: Raw) -> Iterator[Problem]:
    """A point in registers that must not be touched, longer than one request, or before the first address."""
    place, device = mapping(point, "modbus"), mapping(profile, "modbus")
    first, table = place.get("address"), place.get("table", "holding")
    kind = place.get("type", "u16")
    length = place.get("length") if kind == "string" else REGISTERS.get(kind if isinstance(kind, str) else "")
    if not _is_whole(first) or not _is_whole(length) or not isinstance(table, str):
        return
    last = first + length - 1
    for low, high in (*_ranges(device.get("illegal")), *_ranges(mapping(device, "illegal_by_table").get(table))):
        if first <= high and last >= low:
            yield Problem(("address",), f"an address outside the illegal range {low}–{high}", _span(first, last))
    most = mapping(device, "max_per_table").get(table, 1 if table in BIT_TABLES else device.get("max_registers", 125))
    if _is_whole(most) and length > most:
        yield Problem(
            ("length" if kind == "string" else "type",), f"at most the {most} registers of one request", str(length)
        )
    if first == 0 and device.get("address_base") == 1:
        yield Problem(("address",), "an address from 1 on, as address_base is 1", "0")


def _counter_problems(point: Raw) -> Iterator[Problem]:
    """A counter that wraps: of a whole type that holds `wrap`, and of kind counter."""
    place = mapping(point, "modbus")
    wrap, step, kind = place.get("wrap"), place.get("max_step"), place.get("type", "u16")
    if step is not None and wrap is None:
        yield Problem(("wrap",), "the count at which the counter begins again, beside max_step", "nothing")
    if wrap is None:
        return
    if point.get("kind") != "counter":
        yield Problem(("wrap",), "kind counter, of a point that wraps", shown(point.get("kind", "measurement")))
    if not isinstance(kind, str) or kind not in REGISTERS:
        return
    if kind not in WHOLE | BCD:
        yield Problem(("wrap",), "an integer or BCD type, of a point that wraps", kind)
    elif _is_whole(wrap) and wrap > (most := _counts(kind, place)):
        yield Problem(("wrap",), f"at most {most}, the counts of {kind}", str(wrap))
    if _is_whole(wrap) and _is_whole(step) and step >= wrap:
        yield Problem(("max_step",), f"less than wrap, {wrap}", str(step))


def _counts(kind: str, place: Raw) -> int:
    """How many values from 0 on a type, or a field of its bits, can hold."""
    width = 16 * REGISTERS[kind]
    if kind in BCD:
        return int(10 ** (width // 4))
    bits = place.get("bits", 1)
    if place.get("bit") is not None and _is_whole(bits):
        return int(2**bits)
    return int(2 ** (width - kind.startswith("i")))


def _device_problems(device: Raw) -> Iterator[Problem]:
    """Limits of a table that no Modbus request can have, and ranges that are none."""
    for table, most in mapping(device, "max_per_table").items():
        possible = 2000 if table in BIT_TABLES else 125
        if _is_whole(most) and not 1 <= most <= possible:
            yield Problem(("modbus", "max_per_table", table), f"1..{possible}", str(most))
    lists: list[tuple[Path, Any]] = [(("modbus", "illegal"), device.get("illegal"))]
    lists += [(("modbus", "illegal_by_table", t), pairs) for t, pairs in mapping(device, "illegal_by_table").items()]
    for path, pairs in lists:
        for i, pair in enumerate(pairs if isinstance(pairs, (list, tuple)) else ()):
            if _is_range(pair) and not 0 <= pair[0] <= pair[1] <= 65535:
                yield Problem((*path, str(i)), "[first, last] in 0..65535, in this order", _span(*pair))


def _ranges(pairs: Any) -> Iterator[tuple[int, int]]:
    for pair in pairs if isinstance(pairs, (list, tuple)) else ():
        if _is_range(pair):
            yield pair[0], pair[1]


def _is_range(pair: Any) -> bool:
    return isinstance(pair, (list, tuple)) and len(pair) == 2 and all(map(_is_whole, pair))


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _report_problems(profile: Raw, points: Raw) -> Iterator[Problem]:
    """Reports by exception that are none or several, that look stale, or that stand where every reading counts."""
    reported = {name: point for name, point in points.items() if isinstance(point.get("report"), Mapping)}
    named = dict(_named(profile, points)) if reported else {}
    for name, point in reported.items():
        path, report = ("points", name, "report"), point["report"]
        ways = [way for way in REPORTS if report.get(way) is not None]
        if len(ways) != 1:
            yield Problem(path, f"exactly one of {', '.join(REPORTS)}", ", ".join(ways) or "none")
        beat, stale, whose = report.get("heartbeat_s", 600.0), point.get("stale_after_s"), "the point"
        if stale is None:
            stale, whose = profile.get("stale_after_s", 10.0), "the profile"
        if _number(beat) is not None and _number(stale) is not None and beat >= stale:
            expected = f"less than stale_after_s of {whose}, {stale:g} (a heartbeat later than that would look stale)"
            yield Problem(
                (*path, "heartbeat_s"), expected, f"{beat:g}" + ("" if "heartbeat_s" in report else ", the default")
            )
        for why in (*_uncuttable(point), *([named[name]] if name in named else [])):
            yield Problem(path, "none where every reading counts (alarms, states, events)", why)


def _uncuttable(point: Raw) -> Iterator[str]:
    place = mapping(point, "modbus")
    if (kind := point.get("kind")) in ("state", "text"):
        yield f"one on a {kind}"
    elif place.get("type") == "bool" or (place.get("bit") is not None and place.get("bits", 1) == 1):
        yield "one on a bit"
    if point.get("alarms"):
        yield "one on a point with alarms"
    if point.get("detectors"):
        yield "one on a point with detectors"


def _named(profile: Raw, points: Raw) -> Iterator[tuple[str, str]]:
    """Points that alarms of several points or codes are made of, and which."""
    holders = [(f"condition {name}", condition) for name, condition in mappings(profile, "conditions")]
    holders += [(f"alarm {n}.{a}", alarm) for n, point in points.items() for a, alarm in mappings(point, "alarms")]
    for what, holder in holders:
        for key in ("all", "unless"):
            for _, term in items(holder, key):
                if isinstance(name := term.get("point"), str):
                    yield name, f"one on a point that {what} names"
    for _, code_point in items(profile, "code_points"):
        if isinstance(name := code_point.get("point"), str):
            yield name, "one on a code point"


def _span(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}–{last}"


def _prefixed(prefix: Path, problems: Iterator[Problem]) -> Iterator[Problem]:
    return (Problem((*prefix, *p.path), p.expected, p.found) for p in problems)


def mapping(raw: Raw, key: str) -> Raw:
    """The mapping under `key`; empty when it is anything else."""
    value = raw.get(key)
    return value if isinstance(value, Mapping) else {}


def mappings(raw: Raw, key: str) -> Iterator[tuple[str, Raw]]:
    """The mappings in the mapping under `key`, by name."""
    return ((name, item) for name, item in mapping(raw, key).items() if isinstance(item, Mapping))


def items(raw: Raw, key: str) -> Iterator[tuple[str, Raw]]:
    """The mappings in the list under `key`, by index as text."""
    listed = raw.get(key)
    pairs = enumerate(listed) if isinstance(listed, (list, tuple)) else ()
    return ((str(i), item) for i, item in pairs if isinstance(item, Mapping))
