"""A record of the log, read: its headers, its content, or why it cannot be read. Pure.

Invariant: every record comes out as exactly one `Reading`; nothing raises, nothing is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from telemetry import wire
from telemetry.arrow_read import NameTables, decode_samples
from telemetry.batch import SampleBatch
from telemetry.errors import RecordError
from telemetry.log.protocol import InRecord
from telemetry.messages import DroppedRange, Event, Finding, Heartbeat, Kind, Ledger, Registry
from telemetry.names import is_name
from telemetry.position import Mark, mark

Content = (
    SampleBatch | tuple[Event, ...] | tuple[Finding, ...] | tuple[DroppedRange, ...] | Heartbeat | Registry | Ledger
)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a record, or some rows of it, cannot be stored."""

    reason: str
    """A stable slug: headers, schema-version, kind, crc, arrow, columns, json, count, future, too-old, name,
    ledger."""
    detail: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A record and what it says."""

    record: InRecord
    mark: Mark
    identity: wire.Identity | None
    """None: the headers could not be read, so the record has no place in any sequence."""
    kind: str
    """As its header says; a later version may have kinds that we do not know."""
    samples: int
    """Samples that its edge counted for it: what the header says, 0 for other kinds."""
    content: Content | Refused


class Decoder:
    """Reads records; remembers the dictionaries of names that it saw. One thread at a time."""

    def __init__(self) -> None:
        self._dictionaries = NameTables()

    def read(self, records: Sequence[InRecord]) -> list[Reading]:
        """Reads records, one answer each. A corrupt one is an answer too."""
        return [self._read(record) for record in records]

    def _read(self, record: InRecord) -> Reading:
        try:
            envelope = wire.read_envelope(record.headers)
            wire.check_crc(envelope, record.value)
            content: Content | Refused = self._content(envelope, record.value)
        except RecordError as error:
            content = Refused(error.reason, error.detail)
        identity, kind, count = _place(record.headers)
        return Reading(record, mark(record), identity, kind, count if kind == Kind.SAMPLES else 0, content)

    def _content(self, envelope: wire.Envelope, value: bytes) -> Content:
        if envelope.kind is not Kind.SAMPLES:
            return _message(envelope.kind, value)
        batch = decode_samples(value, self._dictionaries)
        if len(batch) != envelope.count:
            raise RecordError("count", f"expected {envelope.count} samples, found {len(batch)}")
        return batch


def read(records: Sequence[InRecord]) -> list[Reading]:
    """Reads records, one answer each. A corrupt one is an answer too."""
    return Decoder().read(records)


def _place(raw: Mapping[str, bytes]) -> tuple[wire.Identity | None, str, int]:
    """(identity, kind, count) of a record, also of one that is otherwise not for us: it keeps its place in its sequence."""
    try:
        identity = wire.Identity(raw["edge"].decode(), int(raw["epoch"], 16), int(raw["seq"]))
        kind, count = raw["kind"].decode(), int(raw["count"])
    except (KeyError, ValueError):
        return None, "unreadable", 0
    if not (is_name(identity.edge) and 0 <= identity.epoch < 1 << 63 and 0 <= identity.seq < 1 << 62 and count >= 0):
        return None, "unreadable", 0
    return identity, kind, count


def _message(kind: Kind, value: bytes) -> Content:
    match kind:
        case Kind.EVENTS:
            return wire.decode_events(value)
        case Kind.HEARTBEAT:
            return wire.decode_heartbeat(value)
        case Kind.REGISTRY:
            return wire.decode_registry(value)
        case Kind.LEDGER:
            return wire.decode_ledger(value)
        case Kind.DROPPED:
            return wire.decode_dropped(value)
        case Kind.FINDINGS:
            return wire.decode_findings(value)
        case Kind.SAMPLES:
            raise ValueError("samples are columns, not messages")
