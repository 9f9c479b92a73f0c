"""What every detector promises, so that the engine can drive any of them and one conformance suite can try them all.

A detector is state over arrays, indexed like the catalogue it was made from (analytics.rules). It promises:
- its input is untouched;
- chunk-invariance: however a stream of records is merged into calls of `update`, the transitions are the same;
- `restore(snapshot())` continues as if it had never stopped; the snapshot's keys are names, so a changed rule starts
  fresh and the others continue;
- bad, NaN and late readings never raise anything live; a higher score is more anomalous;
- it does not learn from what it has just called anomalous.
It sees no clock: time is what readings and heartbeats say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from telemetry.messages import Finding

Arrays = dict[str, npt.NDArray[Any]]
"""A snapshot: columns by name; names of signals and rules are columns of str."""
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """Readings in the order of the log, of signals of the catalogue. All (n,), read-only.

    signal   intp, index into the catalogue's signals
    time_us  int64, µs
    value    float64, in the point's unit
    known    bool: not bad, and a number
    record   int64: rows of one record are one reading of the equipment, taken together
    """

    signal: npt.NDArray[np.intp]
    time_us: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    known: Bool
    record: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        for column in (self.signal, self.time_us, self.value, self.known, self.record):
            column.flags.writeable = False

    def __len__(self) -> int:
        return len(self.signal)

    def take(self, index: npt.NDArray[np.intp] | Bool) -> Readings:
        """The rows at `index` (positions or a mask). Copies."""
        return Readings(
            self.signal[index], self.time_us[index], self.value[index], self.known[index], self.record[index]
        )


@dataclass(frozen=True, slots=True)
class Subject:
    """What a finding of a rule is about."""

    equipment: str
    point: str
    detector: str

    def finding(
        self,
        raised: bool,
        *,
        onset_us: int,
        time_us: int,
        score: float,
        evidence: Mapping[str, Any],
        late: bool = False,
    ) -> Finding:
        """The finding."""
        return Finding(self.equipment, self.point, self.detector, raised, onset_us, time_us, score, evidence, late)


class Detector(Protocol):
    """A detector over readings."""

    def update(self, readings: Readings) -> list[Finding]:
        """Takes readings, none of which is late. Cost is per reading, whatever the number of signals."""
        ...

    def advance(self, time_us: int, equipment: Bool) -> list[Finding]:
        """The log's time of the equipment in the mask (Q,) has reached `time_us`: ends what delays are over."""
        ...

    def lose(self, equipment: Bool) -> None:
        """Nothing is known of the equipment in the mask (Q,) until it is read again: no delay ends meanwhile."""
        ...

    def snapshot(self) -> Arrays:
        """All state, copied."""
        ...

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> list[Finding]:
        """Takes a snapshot's state for the rules that still are; returns *cleared* for raised ones that are no more."""
        ...
