"""What an alarm is called, how urgent it is and what to do about it, from the profiles: one source for both languages.

Invariant: every finding gets a text and a priority, whatever it says: what no profile knows is named as unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alerting import phrases
from alerting.phrases import Phrases, Words, words
from telemetry.messages import Finding
from telemetry.plant import Equipment
from telemetry.profile import AlarmText, Code, LimitAlarm, Point, Priority, Profile


@dataclass(frozen=True, slots=True)
class Known:
    """An equipment as the catalogue knows it."""

    profile: Profile
    name: Words


@dataclass(frozen=True, slots=True)
class Entry:
    """What is said of one alarm."""

    priority: Priority
    text: Words
    consequence: Words
    action: Words
    equipment_class: str
    """Empty where the equipment is unknown."""


@dataclass(slots=True)
class Catalogue:
    """Texts by (equipment, point, detector). Grows when an equipment of another plant file is learned."""

    known: dict[str, Known] = field(default_factory=dict)

    @classmethod
    def of(cls, equipment: Iterable[Equipment]) -> Catalogue:
        """The catalogue of a plant."""
        return cls(
            {e.id: Known(e.profile, words(e.entry.name) if e.entry.name else Words(e.id, e.id)) for e in equipment}
        )

    def describe(self, finding: Finding) -> Entry:
        """What is said of the alarm that this finding raises."""
        known = self.known.get(finding.equipment)
        profile = known.profile if known else None
        worded = _worded(profile, finding)
        return Entry(
            worded.priority,
            worded.text,
            worded.consequence,
            worded.action,
            profile.equipment_class if profile else "",
        )


def _worded(profile: Profile | None, finding: Finding) -> Phrases:
    kind, _, name = finding.detector.partition(":")
    point = profile.points.get(finding.point) if profile else None
    match kind:
        case "limit" if point is not None and name in point.alarms:
            return _of_limit(point, point.alarms[name], finding.evidence)
        case "condition" if profile is not None and name in profile.conditions:
            return _of_profile(profile.conditions[name], phrases.NOTHING)
        case "code":
            scheme, _, code = name.partition("/")
            return _of_code(profile, scheme, code)
        case "stale":
            return _filled(phrases.STALE, point=_point_name(point, finding))
        case "comms-loss":
            return phrases.COMMS_LOSS
        case "edge-silent":
            return _filled(phrases.EDGE_SILENT, edge=_same(str(finding.evidence.get("edge", finding.equipment))))
        case "level":
            return _of_level(point, name, finding)
        case _:
            return _filled(phrases.UNKNOWN_DETECTOR, detector=_same(finding.detector))


def _of_profile(alarm: AlarmText, suffix: Words) -> Phrases:
    return Phrases(alarm.priority, _joined(words(alarm.text), suffix), words(alarm.consequence), words(alarm.action))


def _of_limit(point: Point, alarm: LimitAlarm, evidence: Mapping[str, Any]) -> Phrases:
    value = _number(evidence.get("value"))
    if value is None:
        return _of_profile(alarm, phrases.NOTHING)
    if point.enum:
        return _of_profile(alarm, _fill(phrases.VALUE_IN_BRACKETS, point=words(point.name), value=shown(point, value)))
    limit = _number(evidence.get("limit"))
    return _of_profile(
        alarm,
        _fill(
            phrases.VALUE_AND_LIMIT_IN_BRACKETS,
            point=words(point.name),
            value=shown(point, value),
            limit=shown(point, alarm.limit if limit is None else limit),
        ),
    )


def _of_code(profile: Profile | None, scheme: str, code: str) -> Phrases:
    said = {"scheme": _same(scheme), "code": _same(code)}
    known = profile.schemes.get(scheme) if profile else None
    meaning: Code | None = known.codes.get(code) if known else None
    if meaning is None:
        return _filled(phrases.UNKNOWN_CODE, **said)
    return Phrases(
        meaning.priority or phrases.UNKNOWN_CODE.priority,
        _joined(words(meaning.name), _fill(phrases.CODE_IN_BRACKETS, **said)),
        words(meaning.consequence),
        words(meaning.action),
    )


def _of_level(point: Point | None, place: str, finding: Finding) -> Phrases:
    """Of the point's first level detector, `level`, or of its second, `level:2`, and so on."""
    worded = _filled(phrases.LEVEL, point=_point_name(point, finding))
    index = int(place) - 1 if place.isdecimal() else 0
    if point is None or not 0 <= index < len(point.detectors):
        return worded
    value = _number(finding.evidence.get("value"))
    suffix = phrases.NOTHING
    if value is not None:
        suffix = _fill(phrases.VALUE_IN_BRACKETS, point=words(point.name), value=shown(point, value))
    priority = point.detectors[index].priority
    return Phrases(priority, _joined(worded.text, suffix), worded.consequence, worded.action)


def shown(point: Point, value: float) -> Words:
    """A value of a point as people read it: its word where it has one, else a number with the unit."""
    if value.is_integer() and int(value) in point.enum:
        return words(point.enum[int(value)])
    return _same(f"{value:.6g} {point.unit}".strip())


def _point_name(point: Point | None, finding: Finding) -> Words:
    return words(point.name) if point else _same(finding.point or finding.equipment)


def _filled(worded: Phrases, **said: Words) -> Phrases:
    return Phrases(worded.priority, _fill(worded.text, **said), worded.consequence, worded.action)


def _fill(pattern: Words, **said: Words) -> Words:
    return Words(
        pattern.zh.format(**{k: w.zh for k, w in said.items()}),
        pattern.en.format(**{k: w.en for k, w in said.items()}),
    )


def _joined(text: Words, suffix: Words) -> Words:
    return Words(text.zh + suffix.zh, text.en + suffix.en)


def _same(word: str) -> Words:
    return Words(word, word)


def _number(item: object) -> float | None:
    return float(item) if isinstance(item, int | float) and not isinstance(item, bool) else None
