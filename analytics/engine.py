"""One partition's detection: messages in, findings out, all state inside, nothing of the outside world.

Used by the worker on the log, and by anything that judges recorded data. The same messages in the same order give the
same findings, whatever was cut, stopped and restored in between.

Time: an edge's heartbeats are the log's time of its equipment. A reading more than AHEAD_US before that is not believed,
one older than the bound on late data neither; one behind its signal's newest is late and touches no live state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from analytics import snapshot as snapshots
from analytics.accepted import Accepted
from analytics.detectors import keys
from analytics.detectors.codes import Codes
from analytics.detectors.conditions import Conditions
from analytics.detectors.contract import Readings, Subject
from analytics.detectors.latch import NEVER_US
from analytics.detectors.level import Levels
from analytics.detectors.presence import Presence
from analytics.kernels.segments import in_order
from analytics.owners import Owners
from analytics.rules import US_PER_S, Catalogue
from telemetry.batch import SampleBatch
from telemetry.messages import Event, Finding, Heartbeat
from telemetry.quality import is_bad
from telemetry.wire import Identity

AHEAD_US: Final = 5 * 60 * US_PER_S
OLD_US: Final = 30 * 86_400 * US_PER_S
"""Default of settings.late_bound_days."""
EDGE_SILENT: Final = "edge-silent"


@dataclass(slots=True)
class Edge:
    """What is known of an edge."""

    time_us: int
    """The log's time: its newest heartbeat."""
    equipments: tuple[str, ...] = ()
    silent_us: int = NEVER_US
    """Onset of the edge-silent finding that stands."""


class Engine:
    """The detectors of a plant, over one partition."""

    def __init__(self, catalogue: Catalogue, *, old_us: int = OLD_US) -> None:
        """`old_us`: readings so far behind the log's time are not judged."""
        self._catalogue = catalogue
        self._old_us = old_us
        self._names = keys.column(tuple(catalogue.signals))
        self._last_us = np.full(len(catalogue.signals), NEVER_US, np.int64)
        self._conditions = Conditions(catalogue)
        self._levels = Levels(catalogue)
        self._presence = Presence(catalogue)
        self._codes = Codes(catalogue)
        self._accepted = Accepted()
        self._owners = Owners()
        self.edges: dict[str, Edge] = {}
        self.counts: Counter[str] = Counter()
        """Rows that were not judged live, by why: late, unregistered, future, old; of
        events: late_event, implausible_event; old_heartbeat. The owner may take and clear it."""

    def accept(self, identity: Identity) -> bool:
        """Whether a record is new. A new epoch of an edge means that nobody was looking for a while."""
        if not self._accepted.knows(identity) and identity.edge in self.edges:
            mask = self._catalogue.mask(self.edges[identity.edge].equipments)
            self._presence.restarted(mask)
            self._conditions.lose(mask)
            self._levels.lose(mask)
        return self._accepted.take(identity)

    def samples(self, edge: str, batches: Sequence[SampleBatch], *, now_us: int) -> list[Finding]:
        """Takes the batches of consecutive records of an edge. `now_us` bounds times before its first heartbeat."""
        readings = self._readings(edge, batches, now_us)
        live, newest_us, signal = in_order(self._last_us, readings.signal, readings.time_us)
        self._last_us[signal] = newest_us
        late: list[Finding] = []
        if not live.all():
            self.counts["late"] += int(len(live) - live.sum())
            late = self._conditions.update_late(readings.take(~live))
            readings = readings.take(live)
        found = self._presence.update(readings) + self._conditions.update(readings) + self._levels.update(readings)
        return _in_time(found) + _in_time(late)

    def events(self, edge: str, events: Iterable[Event], *, now_us: int) -> list[Finding]:
        """Takes the events of a record."""
        horizon_us = self._now(edge, now_us) + AHEAD_US
        told = list(events)
        plausible = [e for e in told if self._oldest(edge) <= e.time_us <= horizon_us]
        found = self._codes.update(plausible)
        self.counts["implausible_event"] += len(told) - len(plausible)
        self.counts["late_event"] += self._codes.late
        self._codes.late = 0
        return found

    def heartbeat(self, beat: Heartbeat, *, now_us: int) -> list[Finding]:
        """Takes a heartbeat: the log's time of its edge advances. One from the future is not believed.

        One of before the log's time, back-filled after an outage, says nothing of who answers now.
        """
        if beat.time_us > now_us + AHEAD_US:
            self.counts["future"] += 1
            return []
        edge = self.edges.setdefault(beat.edge, Edge(beat.time_us))
        found = self._heard(beat, edge)
        if beat.time_us < edge.time_us:
            self.counts["old_heartbeat"] += 1
            return found
        beat = self._owners.own(beat)
        edge.time_us = max(edge.time_us, beat.time_us)
        edge.equipments = tuple(beat.equipments)
        presence, answers, lost = self._presence.heartbeat(beat)
        self._conditions.lose(lost)
        self._levels.lose(lost)
        found += presence
        found += self._conditions.advance(beat.time_us, answers)
        found += self._levels.advance(beat.time_us, answers)
        found += self._codes.advance(beat.time_us, answers)
        return _in_time(found)

    def silence(self, name: str, *, now_us: int) -> list[Finding]:
        """Somebody with a clock says that this edge has gone silent. Nothing if that is known."""
        edge = self.edges[name]
        if edge.silent_us != NEVER_US:
            return []
        edge.silent_us = edge.time_us
        self._owners.lists(name, ())
        evidence = {"last_heartbeat_us": edge.time_us, "equipment": len(edge.equipments)}
        return [
            Subject(name, "", EDGE_SILENT).finding(
                True, onset_us=edge.silent_us, time_us=max(now_us, edge.time_us), score=1.0, evidence=evidence
            )
        ]

    def capture(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """All state, copied, for `snapshot.pack`: may be packed elsewhere while this goes on."""
        parts = self._parts()
        arrays = {f"{part}.{k}": v for part, detector in parts.items() for k, v in detector.snapshot().items()}
        arrays["engine.signal"] = self._names
        arrays["engine.last_us"] = self._last_us.copy()
        edges = {name: [e.time_us, list(e.equipments), e.silent_us] for name, e in self.edges.items()}
        return arrays, {"edges": edges, "accepted": self._accepted.plain()}

    def snapshot(self) -> bytes:
        """All state as bytes."""
        return snapshots.pack(*self.capture())

    def restore(self, data: bytes) -> list[Finding]:
        """Takes a snapshot; returns *cleared* for what was raised by rules that are no more. Raises RecordError."""
        arrays, plain = snapshots.unpack(data)
        mine, theirs, _ = keys.match(tuple(self._catalogue.signals), arrays["engine.signal"])
        self._last_us[mine] = arrays["engine.last_us"][theirs]
        self.edges = {name: Edge(t, tuple(listed), silent) for name, (t, listed, silent) in plain["edges"].items()}
        self._owners = Owners({n: () if e.silent_us != NEVER_US else e.equipments for n, e in self.edges.items()})
        self._accepted.restore(plain["accepted"])
        return [
            finding
            for part, detector in self._parts().items()
            for finding in detector.restore(
                {k.removeprefix(f"{part}."): v for k, v in arrays.items() if k.startswith(f"{part}.")}
            )
        ]

    def _parts(self) -> Mapping[str, Conditions | Levels | Presence | Codes]:
        return {
            "conditions": self._conditions,
            "levels": self._levels,
            "presence": self._presence,
            "codes": self._codes,
        }

    def _now(self, edge: str, now_us: int) -> int:
        return self.edges[edge].time_us if edge in self.edges else now_us

    def _oldest(self, edge: str) -> int:
        return max(0, self.edges[edge].time_us - self._old_us) if edge in self.edges else 0

    def _readings(self, edge: str, batches: Sequence[SampleBatch], now_us: int) -> Readings:
        index = self._catalogue.signals
        tables = [np.fromiter(map(index.get, b.names, repeat(-1)), np.intp, len(b.names)) for b in batches]
        signal = np.concatenate([t[b.signal] for t, b in zip(tables, batches, strict=True)])
        time_us = np.concatenate([b.time_us for b in batches])
        value = np.concatenate([b.value for b in batches])
        known = ~is_bad(np.concatenate([b.quality for b in batches])) & ~np.isnan(value)
        record = np.repeat(np.arange(len(batches)), [len(b) for b in batches])
        registered, future = signal >= 0, time_us > self._now(edge, now_us) + AHEAD_US
        old = time_us < self._oldest(edge)
        for why, rows in (("unregistered", ~registered), ("future", future), ("old", old)):
            if rows.any():
                self.counts[why] += int(rows.sum())
        keep = registered & ~future & ~old
        readings = Readings(signal, time_us, value, known, record)
        return readings if keep.all() else readings.take(keep)

    def _heard(self, beat: Heartbeat, edge: Edge) -> list[Finding]:
        if edge.silent_us == NEVER_US:
            return []
        onset, edge.silent_us = edge.silent_us, NEVER_US
        return [
            Subject(beat.edge, "", EDGE_SILENT).finding(
                False, onset_us=onset, time_us=max(beat.time_us, onset), score=1.0, evidence={}
            )
        ]


def _in_time(findings: list[Finding]) -> list[Finding]:
    """By time, each rule's own order kept."""
    return sorted(findings, key=lambda f: f.time_us)
