"""Limits and conditions: one machine, because a limit alarm is a condition of one term with a hysteresis.

Rules are kept in two sets: those on one signal (nearly all), where a row is an event and nothing need be carried, and
those on several, where the rows of one record are taken in the order of their times and those of one time together: a
message that changes three points at once is one reading, not three. A rule's time never runs backwards.

Bad readings: a term that is unknown lets nothing be raised or cleared, and a delay goes on but ends only at a known
reading. An `unless` term keeps its last known value; never read, it does not hold: a missing reading silences no alarm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from analytics.detectors import keys
from analytics.detectors.contract import Arrays, Bool, Readings
from analytics.detectors.latch import Latches, Transition
from analytics.kernels.compare import ROLE_NONE, ROLE_UNLESS, UNKNOWN, carry_forward, compare, conjoin
from analytics.kernels.latch import CLEARING, RAISED
from analytics.kernels.segments import expand, firsts, lasts, running_max, start_of
from analytics.rules import US_PER_S, Catalogue, Clause, Rule, comparison_code, subject_of
from telemetry.messages import Finding

Index = npt.NDArray[np.intp]


class Conditions:
    """All limits and conditions of a catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        signals = len(catalogue.signals)
        self._single = RuleSet([r for r in catalogue.rules if len(r.clauses) == 1], signals)
        self._several = RuleSet([r for r in catalogue.rules if len(r.clauses) > 1], signals)

    def update(self, readings: Readings) -> list[Finding]:
        """See Detector."""
        return self._single.update(readings) + self._several.update(readings)

    def update_late(self, readings: Readings) -> list[Finding]:
        """What late readings alone say of rules on one signal: excursions, each raised and cleared, marked late.

        Rows are taken in the order of their times; an excursion that the readings do not see end, ends with them.
        Live state is untouched. A rule that needs other signals as well is not judged in hindsight.
        """
        return self._single.hindsight(readings)

    def advance(self, time_us: int, equipment: Bool) -> list[Finding]:
        """See Detector."""
        return self._single.advance(time_us, equipment) + self._several.advance(time_us, equipment)

    def lose(self, equipment: Bool) -> None:
        """See Detector."""
        self._single.lose(equipment)
        self._several.lose(equipment)

    def snapshot(self) -> Arrays:
        """See Detector."""
        return {
            **{f"single.{k}": v for k, v in self._single.snapshot().items()},
            **{f"several.{k}": v for k, v in self._several.snapshot().items()},
        }

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> list[Finding]:
        """See Detector."""
        return [
            finding
            for prefix, rules in (("single.", self._single), ("several.", self._several))
            for finding in rules.restore({k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})
        ]


class RuleSet:
    """Rules of up to K clauses each, over S signals."""

    def __init__(self, rules: Sequence[Rule], signals: int) -> None:
        self._rules = tuple(rules)
        self._keys = tuple(r.key for r in rules)
        self._key = keys.column(self._keys)
        self._width = width = max((len(r.clauses) for r in rules), default=1)
        equipment = np.array([r.equipment for r in rules], np.intp)
        self._role = np.full((len(rules), width), ROLE_NONE, np.int8)
        for i, rule in enumerate(rules):
            self._role[i, : len(rule.clauses)] = [c.role for c in rule.clauses]
        on_us, off_us = (np.array([round(s * US_PER_S) for s in d], np.int64) for d in _delays(rules))
        self._latches = Latches(on_us, off_us, equipment, width)
        self._symbol = np.full((len(rules), width), UNKNOWN, np.int8)
        self._value = np.full((len(rules), width), np.nan)
        self._entries = _Entries(rules, signals)

    def update(self, readings: Readings) -> list[Finding]:
        """See Detector."""
        row, rule, slot, symbol = self._entries.events(readings)
        if not len(row):
            return []
        if self._width == 1:
            order = np.argsort(rule, kind="stable")
            row, rule, said, values = row[order], rule[order], symbol[order], readings.value[row[order], None]
        else:
            order = np.lexsort((readings.time_us[row], readings.record[row], rule))
            row, rule = row[order], rule[order]
            said, values = self._carry(rule, slot[order], symbol[order], readings.value[row])
            one = _together(rule, readings.record[row], readings.time_us[row])
            row, rule, said, values = row[one], rule[one], said[one], values[one]
        first = firsts(rule)
        time_us = np.maximum(
            readings.time_us[row], np.where(first, self._latches.last_us[rule], np.iinfo(np.int64).min)
        )
        return self._findings(self._latches.apply(rule, running_max(time_us, first), said, values))

    def hindsight(self, readings: Readings) -> list[Finding]:
        """See Conditions.update_late."""
        row, rule, _, symbol = self._entries.events(readings)
        if not len(row):
            return []
        order = np.lexsort((row, readings.time_us[row], rule))
        row, symbol = row[order], symbol[order]
        touched, rule = np.unique(rule[order], return_inverse=True)
        past = Latches(self._latches.on_us[touched], self._latches.off_us[touched], np.zeros(len(touched), np.intp), 1)
        time_us = readings.time_us[row]
        found = past.apply(rule, time_us, symbol, readings.value[row, None])
        end_us = time_us[lasts(firsts(rule))]
        found += [
            Transition(int(i), False, int(past.onset_us[i]), int(max(end_us[i], past.last_us[i])), past.mark[i])
            for i in past.standing()
        ]
        return self._findings([_of(t, int(touched[t.rule])) for t in found], late=True)

    def advance(self, time_us: int, equipment: Bool) -> list[Finding]:
        """See Detector."""
        return self._findings(self._latches.advance(time_us, equipment))

    def lose(self, equipment: Bool) -> None:
        """See Detector."""
        self._latches.lose(equipment)

    def snapshot(self) -> Arrays:
        """See Detector."""
        return {
            "key": self._key,
            "term_symbol": self._symbol.copy(),
            "term_value": self._value.copy(),
            **self._latches.snapshot(),
        }

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> list[Finding]:
        """See Detector."""
        mine, theirs, gone = keys.match(self._keys, arrays["key"])
        fitted = {name: _fit(column, self._width) for name, column in arrays.items() if name != "key"}
        self._symbol[mine] = fitted["term_symbol"][theirs]
        self._value[mine] = fitted["term_value"][theirs]
        self._latches.restore(fitted, mine, theirs)
        return cleared_of_gone_rules(arrays, gone)

    def _carry(self, rule: Index, slot: Index, symbol: npt.NDArray[np.int8], value: npt.NDArray[np.float64]) -> Any:
        """What each rule's terms say together at each event, and their values; remembers them for the next batch."""
        first = firsts(rule)
        said = ~((self._role[rule, slot] == ROLE_UNLESS) & (symbol == UNKNOWN))
        place = carry_forward(said, slot, start_of(first), self._width)
        here = place >= 0
        symbols = np.where(here, symbol[place], self._symbol[rule])
        values = np.where(here, value[place], self._value[rule])
        end = lasts(first)
        self._symbol[rule[end]] = symbols[end]
        self._value[rule[end]] = values[end]
        return conjoin(symbols, self._role[rule]), values

    def _findings(self, transitions: Sequence[Transition], *, late: bool = False) -> list[Finding]:
        return [
            (rule := self._rules[t.rule]).subject.finding(
                t.raised,
                onset_us=t.onset_us,
                time_us=t.time_us,
                score=1.0,
                evidence=_evidence(rule.clauses, t.values),
                late=late,
            )
            for t in transitions
        ]


class _Entries:
    """Which clauses of which rules watch each signal: rows of readings become events of rules."""

    def __init__(self, rules: Sequence[Rule], signals: int) -> None:
        pairs = [(c.signal, r, slot) for r, rule in enumerate(rules) for slot, c in enumerate(rule.clauses)]
        pairs.sort()
        clauses = [rules[r].clauses[slot] for _, r, slot in pairs]
        signal, self._rule, self._slot = (np.array([p[i] for p in pairs], np.intp) for i in range(3))
        self._count = np.bincount(signal, minlength=signals).astype(np.intp)
        self._start = np.cumsum(self._count) - self._count
        self._comparison = np.array([comparison_code(c) for c in clauses], np.int8)
        self._limit = np.array([c.limit for c in clauses], np.float64)
        self._hysteresis = np.array([c.hysteresis for c in clauses], np.float64)

    def events(self, readings: Readings) -> tuple[Index, Index, Index, npt.NDArray[np.int8]]:
        """(row, rule, slot, symbol) of every clause that a reading is of, in the order of the rows."""
        row, entry = expand(self._count[readings.signal], self._start[readings.signal])
        symbol = compare(
            readings.value[row],
            readings.known[row],
            self._comparison[entry],
            self._limit[entry],
            self._hysteresis[entry],
        )
        return row, self._rule[entry], self._slot[entry], symbol


def cleared_of_gone_rules(arrays: Mapping[str, npt.NDArray[Any]], gone: Index) -> list[Finding]:
    """*cleared* for rules that a snapshot has as raised and that are no more: nobody else would clear them."""
    phase = arrays["phase"][gone]
    key = keys.listed(arrays["key"])
    return [
        subject_of(key[i]).finding(
            False,
            onset_us=int(arrays["onset_us"][i]),
            time_us=int(arrays["last_us"][i]),
            score=0.0,
            evidence={"reason": "the rule was changed or removed"},
        )
        for i in gone[(phase == RAISED) | (phase == CLEARING)]
    ]


def _of(transition: Transition, rule: int) -> Transition:
    return Transition(rule, transition.raised, transition.onset_us, transition.time_us, transition.values)


def _together(rule: Index, record: npt.NDArray[np.int64], time_us: npt.NDArray[np.int64]) -> Bool:
    """The last of the rows of one rule, record and time: what the equipment said at that time."""
    last = np.ones(len(rule), np.bool_)
    last[:-1] = (rule[1:] != rule[:-1]) | (record[1:] != record[:-1]) | (time_us[1:] != time_us[:-1])
    return last


def _delays(rules: Sequence[Rule]) -> tuple[list[float], list[float]]:
    return [r.on_s for r in rules], [r.off_s for r in rules]


def _fit(column: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    """A (n, K') column of a snapshot as (n, K): a matched rule has the same clauses, only the padding differs."""
    if column.ndim == 1 or column.shape[1] == width:
        return column
    fill = UNKNOWN if column.dtype == np.int8 else np.nan
    fitted = np.full((len(column), width), fill, column.dtype)
    shared = min(width, column.shape[1])
    fitted[:, :shared] = column[:, :shared]
    return fitted


def _evidence(clauses: Sequence[Clause], values: npt.NDArray[np.float64]) -> dict[str, Any]:
    """What was measured: of the rule's own point, or of each point of a condition."""
    first = clauses[0]
    named = {c.point: _number(v) for c, v in zip(clauses, values.tolist(), strict=False)}
    said = {"value": _number(float(values[0])), "limit": first.limit, "condition": first.comparison.value}
    return said if len(clauses) == 1 else {**said, "values": named}


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
