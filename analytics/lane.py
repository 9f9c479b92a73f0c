"""One partition as the worker holds it: its engine, its place on the log, and the records that it makes of a fetch.

Invariant: everything before `next` is in the engine; everything before `saved` is in the store's snapshot, and the record
before it is what `place` knows it by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from analytics import metrics
from analytics.engine import Engine
from telemetry.arrow_read import decode_samples
from telemetry.batch import SampleBatch
from telemetry.errors import RecordError
from telemetry.log.protocol import InRecord
from telemetry.messages import Event, Finding, Heartbeat, Kind
from telemetry.position import Mark, Position, mark
from telemetry.wire import Identity, check_crc, decode_events, decode_heartbeat, read_envelope

log = structlog.get_logger()

Content = SampleBatch | Heartbeat | tuple[Event, ...]
_KINDS = (Kind.SAMPLES, Kind.EVENTS, Kind.HEARTBEAT)


@dataclass(frozen=True, slots=True)
class Found:
    """Findings of one edge's records: they go to the log under its key, so that its equipment keeps its order."""

    edge: str
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class Lane:
    """A partition that is ours."""

    engine: Engine
    position: Position
    saved: int
    next: int
    last: Mark | None
    saved_last: Mark | None
    """The record at `saved` − 1."""
    verified: bool = False
    dirty: bool = False
    """The engine changed without a record (an edge that went silent)."""
    heard: list[str] = field(default_factory=list)
    """Edges whose heartbeat came in the last fetch."""
    owed: list[Found] = field(default_factory=list)
    """Found but not yet durable on the log."""

    def take(self, records: Sequence[InRecord], *, now_us: int) -> None:
        """Records in their order. A record that cannot be read is counted and skipped: ingest sets it aside."""
        self.heard.clear()
        merged = _Merged(self, now_us)
        for record in records:
            try:
                self._record(record, merged)
            except RecordError as error:
                metrics.REFUSED.labels(error.reason).inc()
                log.warning("record skipped", offset=record.offset, reason=error.reason, detail=error.detail)
        merged.flush()
        self.next = records[-1].offset + 1
        self.last = mark(records[-1])

    @property
    def place(self) -> tuple[int, Mark] | None:
        """What the log is recognised by: the offset of the snapshot, and the record before it. None: nothing to compare."""
        return None if self.saved_last is None else (self.saved, self.saved_last)

    def owe(self, edge: str, findings: Sequence[Finding]) -> None:
        """Findings to be published."""
        if findings:
            self.owed.append(Found(edge, tuple(findings)))

    def _record(self, record: InRecord, merged: _Merged) -> None:
        envelope = read_envelope(record.headers)
        if envelope.kind not in _KINDS:
            return
        check_crc(envelope, record.value)
        content = _decode(envelope.kind, record.value)
        merged.source(envelope.identity)
        if not self.engine.accept(envelope.identity):
            metrics.DUPLICATES.inc()
            return
        metrics.RECORDS.labels(envelope.kind.value).inc()
        merged.take(content)


class _Merged:
    """Consecutive sample records of one (edge, epoch) are judged in one pass; anything in between ends the pass."""

    def __init__(self, lane: Lane, now_us: int) -> None:
        self._lane, self._now_us = lane, now_us
        self._source = ("", 0)
        self._batches: list[SampleBatch] = []

    def source(self, identity: Identity) -> None:
        """The next record is of this identity."""
        if self._source != (identity.edge, identity.epoch):
            self.flush()
            self._source = (identity.edge, identity.epoch)

    def take(self, content: Content) -> None:
        """Takes what a record holds."""
        if isinstance(content, SampleBatch):
            self._batches.append(content)
            return
        self.flush()
        edge = self._source[0]
        if isinstance(content, Heartbeat):
            self._lane.heard.append(content.edge)
            self._lane.owe(edge, self._lane.engine.heartbeat(content, now_us=self._now_us))
        else:
            self._lane.owe(edge, self._lane.engine.events(edge, content, now_us=self._now_us))

    def flush(self) -> None:
        """Judges the batches that wait."""
        if self._batches:
            batches, self._batches = self._batches, []
            metrics.SAMPLES.inc(sum(map(len, batches)))
            edge = self._source[0]
            self._lane.owe(edge, self._lane.engine.samples(edge, batches, now_us=self._now_us))


def _decode(kind: Kind, value: bytes) -> Content:
    """What a record holds, its fields of the right types. Raises RecordError."""
    if kind is Kind.SAMPLES:
        return decode_samples(value)
    if kind is Kind.EVENTS:
        events = decode_events(value)
        for e in events:
            _expect(
                all(isinstance(text, str) for text in (e.equipment, e.scheme, e.code))
                and _is_time(e.time_us)
                and isinstance(e.on, bool)
                and isinstance(e.attributes, dict),
                e,
            )
        return events
    beat = decode_heartbeat(value)
    _expect(
        isinstance(beat.edge, str)
        and _is_time(beat.time_us)
        and all(isinstance(name, str) for name in beat.equipments)
        and isinstance(beat.unreachable, dict)
        and all(_is_time(since) for since in beat.unreachable.values()),
        beat,
    )
    return beat


def _is_time(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 61


def _expect(fits: bool, found: object) -> None:
    if not fits:
        raise RecordError("fields", f"expected fields of the types of telemetry.messages, found {found!r}"[:500])
