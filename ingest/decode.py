"""A record of the log, read: its headers, its content, or why it cannot be read. Pure.

Invariant: every record comes out as exactly one `Reading`; nothing raises, nothing is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from telemetry import wire
from telemetry.batch import SampleBatch
from telemetry.errors import RecordError
from telemetry.log.protocol import InRecord
from telemetry.messages import DroppedRange, Event, Finding, Heartbeat, Kind, Ledger, Registry
from telemetry.position import Mark, mark

Content = (
    SampleBatch | tuple[Event, ...] | tuple[Finding, ...] | tuple[DroppedRange, ...] | Heartbeat | Registry | Ledger
)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a record, or some rows of it, cannot be stored."""

    reason: str
    """A stable slug: headers, schema-version, kind, crc, arrow, columns, json, count, future, too-old, name."""
    detail: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A record and what it says."""

    record: InRecord
    mark: Mark
    envelope: wire.Envelope | None
    """None: the headers could not be read, so the record has no place in any sequence."""
    content: Content | Refused

    @property
    def samples(self) -> int:
        """Samples that its edge counted for it: what the header says, 0 for other kinds."""
        envelope = self.envelope
        return envelope.count if envelope is not None and envelope.kind is Kind.SAMPLES else 0


def read(records: Sequence[InRecord]) -> list[Reading]:
    """Reads records, one answer each. A corrupt one is an answer too."""
    return [_read(record) for record in records]


def _read(record: InRecord) -> Reading:
    envelope = None
    try:
        envelope = wire.read_envelope(record.headers)
        wire.check_crc(envelope, record.value)
        content = _content(envelope, record.value)
    except RecordError as error:
        return Reading(record, mark(record), envelope, Refused(error.reason, error.detail))
    return Reading(record, Mark(envelope.identity, envelope.crc), envelope, content)


def _content(envelope: wire.Envelope, value: bytes) -> Content:
    match envelope.kind:
        case Kind.SAMPLES:
            batch = wire.decode_samples(value)
            if len(batch) != envelope.count:
                raise RecordError("count", f"expected {envelope.count} samples, found {len(batch)}")
            return batch
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
