"""The catalogue: a plant's signals, limits, conditions, codes and detectors, compiled into arrays once at start.

Every index of the detectors is an index of the catalogue; every name in a snapshot is a key from here. A rule's key holds
its definition, so a rule that was changed is another rule and starts fresh.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analytics.detectors.contract import Subject
from analytics.kernels.compare import COMPARISONS, ROLE_ALL, ROLE_UNLESS
from telemetry.names import signal_name
from telemetry.plant import Equipment, Plant
from telemetry.profile import (
    Comparison,
    ConditionAlarm,
    LevelDetector,
    LimitAlarm,
    PointKind,
    Scheme,
    Term,
    alarm_condition,
)

US_PER_S = 1_000_000


@dataclass(frozen=True, slots=True)
class Clause:
    """One term of a rule, on one signal."""

    signal: int
    point: str
    comparison: Comparison
    limit: float
    hysteresis: float
    role: int


@dataclass(frozen=True, slots=True)
class Rule:
    """A limit or condition: clauses and delays."""

    subject: Subject
    equipment: int
    clauses: tuple[Clause, ...]
    on_s: float
    off_s: float
    key: str


@dataclass(frozen=True, slots=True)
class Level:
    """A level detector on one signal."""

    subject: Subject
    equipment: int
    signal: int
    detector: LevelDetector
    key: str


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """What a plant's profiles ask to be watched.

    equipment, signals   names; the dictionaries give a name's index
    signal_equipment     (S,) intp
    stale_after_us       (S,) int64
    watched              (S,) bool: may become stale (texts come as events and never do)
    rules                limits and conditions
    levels               level detectors
    schemes              code schemes of each equipment, by id
    """

    equipment: Mapping[str, int]
    signals: Mapping[str, int]
    signal_equipment: npt.NDArray[np.intp]
    stale_after_us: npt.NDArray[np.int64]
    watched: npt.NDArray[np.bool_]
    rules: tuple[Rule, ...]
    levels: tuple[Level, ...]
    schemes: Mapping[str, Mapping[str, Scheme]]

    def mask(self, names: Iterator[str] | tuple[str, ...]) -> npt.NDArray[np.bool_]:
        """The equipment of these names that the plant has: (Q,) bool."""
        index = [self.equipment[n] for n in names if n in self.equipment]
        mask = np.zeros(len(self.equipment), np.bool_)
        mask[index] = True
        return mask


def compile_plant(plant: Plant) -> Catalogue:
    """The catalogue of a plant."""
    signals: dict[str, int] = {}
    owner: list[int] = []
    stale: list[int] = []
    watched: list[bool] = []
    for q, equipment in enumerate(plant.equipment):
        for name, point in equipment.profile.points.items():
            signals[signal_name(equipment.id, name)] = len(signals)
            owner.append(q)
            stale.append(round((point.stale_after_s or equipment.profile.stale_after_s) * US_PER_S))
            watched.append(point.kind is not PointKind.TEXT)
    return Catalogue(
        {e.id: q for q, e in enumerate(plant.equipment)},
        signals,
        np.array(owner, np.intp),
        np.array(stale, np.int64),
        np.array(watched, np.bool_),
        tuple(r for q, e in enumerate(plant.equipment) for r in _rules(q, e, signals)),
        tuple(level for q, e in enumerate(plant.equipment) for level in _levels(q, e, signals)),
        {e.id: e.profile.schemes for e in plant.equipment},
    )


def _rules(q: int, equipment: Equipment, signals: Mapping[str, int]) -> Iterator[Rule]:
    for point_name, point in equipment.profile.points.items():
        for name, alarm in point.alarms.items():
            yield _limit(q, equipment.id, point_name, name, alarm, signals)
    for name, condition in equipment.profile.conditions.items():
        yield _condition(q, equipment.id, name, condition, signals)


def _limit(q: int, equipment: str, point: str, name: str, alarm: LimitAlarm, signals: Mapping[str, int]) -> Rule:
    own = Clause(
        signals[signal_name(equipment, point)],
        point,
        alarm_condition(name, alarm),
        alarm.limit,
        alarm.hysteresis,
        ROLE_ALL,
    )
    subject = Subject(equipment, point, f"limit:{name}")
    clauses = (own, *_clauses(equipment, alarm.unless, ROLE_UNLESS, signals))
    return _rule(subject, q, clauses, alarm.on_delay_s, alarm.off_delay_s)


def _condition(q: int, equipment: str, name: str, alarm: ConditionAlarm, signals: Mapping[str, int]) -> Rule:
    clauses = (
        *_clauses(equipment, alarm.all, ROLE_ALL, signals),
        *_clauses(equipment, alarm.unless, ROLE_UNLESS, signals),
    )
    return _rule(Subject(equipment, "", f"condition:{name}"), q, clauses, alarm.on_delay_s, alarm.off_delay_s)


def _clauses(equipment: str, terms: tuple[Term, ...], role: int, signals: Mapping[str, int]) -> Iterator[Clause]:
    for term in terms:
        signal = signals[signal_name(equipment, term.point)]
        yield Clause(signal, term.point, term.condition, term.limit, 0.0, role)


def _rule(subject: Subject, q: int, clauses: tuple[Clause, ...], on_s: float, off_s: float) -> Rule:
    said = [(c.point, c.comparison.value, c.limit, c.hysteresis, c.role) for c in clauses]
    return Rule(subject, q, clauses, on_s, off_s, _key(subject, repr((said, on_s, off_s))))


def _levels(q: int, equipment: Equipment, signals: Mapping[str, int]) -> Iterator[Level]:
    for name, point in equipment.profile.points.items():
        for place, detector in enumerate(point.detectors):
            subject = Subject(equipment.id, name, detector.kind if place == 0 else f"{detector.kind}:{place + 1}")
            definition = detector.model_copy(update={"priority": LevelDetector().priority}).model_dump_json()
            signal = signals[signal_name(equipment.id, name)]
            yield Level(subject, q, signal, detector, _key(subject, definition))


def _key(subject: Subject, definition: str) -> str:
    digest = hashlib.blake2b(definition.encode(), digest_size=8).hexdigest()
    return "\x1f".join((subject.equipment, subject.point, subject.detector, digest))


def subject_of(key: str) -> Subject:
    """The subject of a key: for rules that are no more."""
    equipment, point, detector, _ = key.split("\x1f")
    return Subject(equipment, point, detector)


def comparison_code(clause: Clause) -> int:
    """The kernel's code of a clause's comparison."""
    return COMPARISONS[clause.comparison]
