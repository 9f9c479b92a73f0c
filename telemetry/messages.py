"""What travels on the log besides samples: events, heartbeats, the registry, the ledger, drops and findings.

All of an edge's records share one stream and one (epoch, seq) sequence, whatever their kind, so that a reader sees
them in the order in which the edge made them. Times are µs since 1970-01-01 UTC.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

VIGIL_SCHEME: Final = "vigil"
"""The code scheme of Vigil's own events: losses, conflicts, discontinuities. See docs/events.md."""
TEXT_SCHEME: Final = "text"
"""The code scheme of string points: the code is the point, attributes.value the text, sent when it changes."""


class Kind(StrEnum):
    """The kinds of record, as the header `kind` spells them."""

    SAMPLES = "samples"
    EVENTS = "events"
    HEARTBEAT = "heartbeat"
    REGISTRY = "registry"
    LEDGER = "ledger"
    DROPPED = "dropped"
    FINDINGS = "findings"


@dataclass(frozen=True, slots=True)
class Event:
    """Something a device (or Vigil itself) says happened: always (scheme, code), never a bare code."""

    equipment: str
    time_us: int
    scheme: str
    code: str
    on: bool
    """True: begins, or is momentary. False: ends."""
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """An edge says that it lives, and what it cannot reach. The log's time advances by these."""

    edge: str
    time_us: int
    equipments: tuple[str, ...]
    """All equipment that this edge owns and has started to read."""
    unreachable: Mapping[str, int]
    """Equipment that does not answer → since when (µs). Everything else answers."""


@dataclass(frozen=True, slots=True)
class Registry:
    """What an edge reads: the part of its plant file that the register needs. `plant` is plain data (telemetry.plant)."""

    edge: str
    time_us: int
    plant: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """Samples journaled for one equipment in one hour of sample time, since the last ledger record of this epoch.

    `checksum` is the sum modulo 2^64 of telemetry.ledger.row_hashes of those samples: independent of order.
    """

    equipment: str
    hour_us: int
    samples: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """Increments of an edge's ledger; they cover the records of `epoch` up to and including seq `through`."""

    edge: str
    epoch: int
    through: int
    entries: tuple[LedgerEntry, ...]


@dataclass(frozen=True, slots=True)
class DroppedCell:
    """Samples of one equipment in one hour of sample time, among those that were dropped."""

    equipment: str
    hour_us: int
    samples: int


@dataclass(frozen=True, slots=True)
class DroppedRange:
    """Records [first, last] of (edge, epoch) that the spool's policy dropped, and how many samples they held."""

    epoch: int
    first: int
    last: int
    samples: int
    cells: tuple[DroppedCell, ...] = ()
    """Of what the samples were. Fewer than `samples` where that is not known: of records that cannot be read, and of those
    that were dropped by an edge that did not say it yet."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule or detector found. A replay makes the same id, so nothing is raised twice."""

    equipment: str
    point: str
    """Empty where the finding is of the equipment as a whole."""
    detector: str
    """limit:NAME · condition:NAME · code:SCHEME/CODE · stale · comms-loss · edge-silent · level …"""
    raised: bool
    onset_us: int
    """When the condition began, by sample time: part of the id."""
    time_us: int
    """When it was raised (after the on-delay) or cleared, by the log's time."""
    score: float
    """0–1, higher is more anomalous; 1.0 for rules."""
    evidence: Mapping[str, Any]
    late: bool = False
    """From a back-fill pass: notified only if still active."""

    @property
    def id(self) -> str:
        """Hash of (equipment, point, detector, onset): 32 hex digits."""
        text = "\x1f".join((self.equipment, self.point, self.detector, str(self.onset_us)))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
