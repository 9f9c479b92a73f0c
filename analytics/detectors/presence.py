"""Who answers: comms-loss of an equipment, and staleness of a signal. Both are decided at heartbeats, on the log's time.

A heartbeat says which equipment its edge reads and which of it does not answer. Staleness is judged only over an unbroken
stretch in which the edge lives and the equipment answers: a service that was down, an edge that restarted or a device
that came back flags nothing until its signals had their time anew. A signal that was never read is not stale: it was
never there to miss. Comms-loss takes the place of staleness.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from analytics.detectors import keys
from analytics.detectors.contract import Arrays, Bool, Readings, Subject
from analytics.detectors.latch import NEVER_US
from analytics.kernels.segments import expand
from analytics.rules import US_PER_S, Catalogue
from telemetry.messages import Finding, Heartbeat
from telemetry.names import split_signal

Index = npt.NDArray[np.intp]
Int64 = npt.NDArray[np.int64]

STALE: Final = "stale"
COMMS_LOSS: Final = "comms-loss"
STRETCH_GAP_US: Final = 10 * US_PER_S
"""Heartbeats further apart than this are not one stretch: nobody was looking in between."""


class Presence:
    """Comms-loss of Q equipments, staleness of S signals."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._equipment = tuple(catalogue.equipment)
        self._signals = tuple(catalogue.signals)
        self._names = {"equipment": keys.column(self._equipment), "signal": keys.column(self._signals)}
        self._of = np.argsort(catalogue.signal_equipment, kind="stable")  # signals, those of one equipment together
        self._count = np.bincount(catalogue.signal_equipment, minlength=len(self._equipment)).astype(np.intp)
        self._start = np.cumsum(self._count) - self._count
        q, s = len(self._equipment), len(self._signals)
        self._lost_us = np.full(q, NEVER_US, np.int64)  # onset of the comms-loss that stands
        self._heard_us = np.full(q, NEVER_US, np.int64)  # newest heartbeat that lists it
        self._since_us = np.full(q, NEVER_US, np.int64)  # begin of the stretch in which it answers
        self._read_us = np.full(s, NEVER_US, np.int64)  # newest reading
        self._stale_us = np.full(s, NEVER_US, np.int64)  # onset of the staleness that stands

    def update(self, readings: Readings) -> list[Finding]:
        """Readings, good or bad, end the staleness of their signals."""
        again = np.nonzero(self._stale_us[readings.signal] != NEVER_US)[0]
        _, earliest = np.unique(readings.signal[again], return_index=True)
        found = [
            self._fresh(int(readings.signal[i]), int(readings.time_us[i]), {"value": _number(readings, i)})
            for i in again[np.sort(earliest)].tolist()
        ]
        np.maximum.at(self._read_us, readings.signal, readings.time_us)
        return found

    def heartbeat(self, beat: Heartbeat) -> tuple[list[Finding], Bool, Bool]:
        """Takes a heartbeat. Returns findings, which equipment answers, and which has just been lost: (Q,) bool each.

        Costs per signal of the edge's own equipment.
        """
        silent = self._catalogue.mask(tuple(beat.unreachable))
        answers = self._catalogue.mask(beat.equipments) & ~silent
        here, gone = np.nonzero(answers)[0], np.nonzero(silent)[0]
        broken = beat.time_us - self._heard_us[here] > STRETCH_GAP_US
        lost = self._lost_us[here] != NEVER_US
        self._since_us[here[broken | lost | (self._since_us[here] == NEVER_US)]] = beat.time_us
        for listed in (here, gone):
            self._heard_us[listed] = np.maximum(self._heard_us[listed], beat.time_us)
        newly = gone[self._lost_us[gone] == NEVER_US]
        found = [*self._lose(newly, beat), *self._find(here[lost], beat), *self._stale(here, beat.time_us)]
        return found, answers, _mask(newly, len(self._equipment))

    def restarted(self, equipment: Bool) -> None:
        """The edge of these began anew: their stretch begins with its next heartbeat."""
        self._since_us[equipment] = NEVER_US

    def snapshot(self) -> Arrays:
        """See Detector."""
        return {
            **self._names,
            **{name: getattr(self, f"_{name}").copy() for name in (*_OF_EQUIPMENT, *_OF_SIGNAL)},
        }

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> list[Finding]:
        """See Detector."""
        mine, theirs, gone = keys.match(self._equipment, arrays["equipment"])
        for name in _OF_EQUIPMENT:
            getattr(self, f"_{name}")[mine] = arrays[name][theirs]
        mine, theirs, lapsed = keys.match(self._signals, arrays["signal"])
        for name in _OF_SIGNAL:
            getattr(self, f"_{name}")[mine] = arrays[name][theirs]
        units, names = keys.listed(arrays["equipment"]), keys.listed(arrays["signal"])
        equipment = ((Subject(units[i], "", COMMS_LOSS), int(arrays["lost_us"][i])) for i in gone)
        signals = ((Subject(*split_signal(names[i]), STALE), int(arrays["stale_us"][i])) for i in lapsed)
        return [
            subject.finding(
                False, onset_us=onset, time_us=onset, score=0.0, evidence={"reason": "no longer in the plant"}
            )
            for subject, onset in (*equipment, *signals)
            if onset != NEVER_US
        ]

    def _lose(self, newly: Index, beat: Heartbeat) -> Iterator[Finding]:
        for q in newly.tolist():
            name = self._equipment[q]
            onset = min(max(beat.unreachable[name], int(self._since_us[q])), beat.time_us)  # it answered until then
            self._lost_us[q] = onset
            yield Subject(name, "", COMMS_LOSS).finding(
                True, onset_us=onset, time_us=beat.time_us, score=1.0, evidence={"edge": beat.edge}
            )
        signals = self._signals_of(newly)
        for s in signals[self._stale_us[signals] != NEVER_US].tolist():
            yield self._fresh(s, beat.time_us, {"reason": "comms-loss of the equipment"})

    def _find(self, back: Index, beat: Heartbeat) -> Iterator[Finding]:
        for q in back.tolist():
            onset, self._lost_us[q] = int(self._lost_us[q]), NEVER_US
            yield Subject(self._equipment[q], "", COMMS_LOSS).finding(
                False, onset_us=onset, time_us=beat.time_us, score=1.0, evidence={"edge": beat.edge}
            )

    def _stale(self, here: Index, time_us: int) -> Iterator[Finding]:
        s = self._signals_of(here)
        s = s[self._catalogue.watched[s] & (self._read_us[s] != NEVER_US) & (self._stale_us[s] == NEVER_US)]
        begin = np.maximum(self._read_us[s], self._since_us[self._catalogue.signal_equipment[s]])
        onset = begin + self._catalogue.stale_after_us[s]
        due = onset < time_us
        self._stale_us[s[due]] = onset[due]
        for signal, onset_us in zip(s[due].tolist(), onset[due].tolist(), strict=True):
            yield Subject(*split_signal(self._signals[signal]), STALE).finding(
                True, onset_us=onset_us, time_us=time_us, score=1.0, evidence={"last_us": int(self._read_us[signal])}
            )

    def _signals_of(self, equipment: Index) -> Index:
        _, entry = expand(self._count[equipment], self._start[equipment])
        signals: Index = self._of[entry]
        return signals

    def _fresh(self, s: int, time_us: int, evidence: dict[str, Any]) -> Finding:
        onset = int(self._stale_us[s])
        self._stale_us[s] = NEVER_US
        return Subject(*split_signal(self._signals[s]), STALE).finding(
            False, onset_us=onset, time_us=max(time_us, onset), score=1.0, evidence=evidence
        )


_OF_EQUIPMENT: Final = ("lost_us", "heard_us", "since_us")
_OF_SIGNAL: Final = ("read_us", "stale_us")


def _mask(index: Index, n: int) -> Bool:
    mask = np.zeros(n, np.bool_)
    mask[index] = True
    return mask


def _number(readings: Readings, row: int) -> float | None:
    value = float(readings.value[row])
    return value if np.isfinite(value) else None
