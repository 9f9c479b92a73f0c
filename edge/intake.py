"""What becomes of what drivers received, once for all of them: decoded by source, code and string points made events,
counters made totals, thinned by exception, joined and encoded. On the journal's thread, for a whole commit at once.

Invariant: `prepare` is called once for everything received, in order; what it returns is journaled whole or tried again,
never prepared again, because codes, counters and thinning remember what went through them. What thinning holds back after
it is in its state: with every commit, all that was received is durable, whether reported, suppressed or held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from edge import metrics
from edge.codes import Changes, make_changes
from edge.columns import RECORD_BYTES, Columns, encode, join
from edge.counters import Counters, Wrapping
from edge.driver import UNREADABLE, Decoded, Source
from edge.held import held_equipment, held_key, read_held, spell_held
from edge.ledger import Increments, count
from edge.provisional import Provisional, provisional_events, provisional_samples
from edge.report import Policy, Reporter
from edge.stamps import SET_US
from telemetry.messages import Event
from telemetry.name_block import NameBlock
from telemetry.names import split_signal
from telemetry.plant import Equipment
from telemetry.profile import Point
from telemetry.wire import Encoded, encode_events

log = structlog.get_logger()

SHOWN: Final = 2_000
"""Most characters of a reading in the log."""
RECORD_EVENTS: Final = 100
"""Drivers keep an event below 9 kB (edge.payload_events), so so many about fill a record."""
LOOK_US: Final = 10_000_000
SILENT_US: Final = 60_000_000
"""A reading that is held back goes out when its signal has been silent so long, looked at every LOOK_US of sample time."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A commit, ready to be journaled."""

    records: Sequence[Encoded]
    provisional: Sequence[Provisional]
    increments: Increments
    state: Mapping[str, str]
    delivered: bytes
    """Message keys, 16 bytes each, end to end."""
    received: Sequence[tuple[Source, Sequence[Any]]]
    samples: int
    events: int


@dataclass(slots=True, eq=False)
class Intake:
    """The stages between decoding and the spool."""

    changes: Changes
    counters: Counters
    reporter: Reporter = field(default_factory=Reporter)
    _special: dict[str, Equipment] = field(default_factory=dict)
    """Equipment with points that are counters which wrap, or that report by exception."""
    _blocks: dict[str, dict[int, NameBlock]] = field(default_factory=dict)
    """Of that equipment: the blocks that counters and reporter know."""
    _looked_us: int = 0
    _left: list[Columns] = field(default_factory=list)
    """Held back of equipment that is gone, or by an earlier run."""
    _changed: set[str] = field(default_factory=set)
    """Equipment of which the state says what is held back no more."""
    _holding: set[str] = field(default_factory=set)
    """Equipment of which something may be held back."""

    def mind(self, gone: Sequence[Equipment], new: Sequence[Equipment]) -> None:
        """Which equipment is read no more, and which from now on."""
        for one in gone:
            self.changes.forget(one.id)
            self._special.pop(one.id, None)
            for block in self._blocks.pop(one.id, {}).values():
                self.counters.forget(block)
                self._left.append(self.reporter.forget(block))
            if one.id in self._holding:
                self._changed.add(one.id)
                self._holding.discard(one.id)
        for one in new:
            self.changes.watch(one.id, one.profile)
            if any(_wrapping(one, p) is not None or p.report is not None for p in one.profile.points.values()):
                self._special[one.id] = one
            if any(p.report is not None and p.report.swinging_door is not None for p in one.profile.points.values()):
                self._holding.add(one.id)

    def held(self) -> Decoded:
        """What report by exception holds back. It is held no more, once this is journaled."""
        left, self._left = self._left, []
        columns = join([*left, self.reporter.flush()])
        return Decoded(thinned=columns, state={held_key(equipment): "" for equipment in columns.equipment})

    def prepare(self, received: Sequence[tuple[Source, Any]], *, apart: bool = False) -> Prepared:
        """Everything that was received since the last time. `apart`: it may be journaled after what comes later, or what came
        before may; then it has nothing of other equipment with it (what that holds back goes out next time).
        """
        by_source: dict[Source, list[Any]] = {}
        for source, thing in received:
            by_source.setdefault(source, []).append(thing)
        decoded = [one for source, things in by_source.items() for one in _decoded(source, things)]
        state: dict[str, str] = {}
        raw = join([d.columns for d in decoded])
        replaced = self._meet(raw)
        counted = self.counters.count(raw)
        read = counted.columns
        events = [event for d in decoded for event in d.events]
        events += [*counted.events, *self._events(read, decoded, state)]
        state.update(counted.state)
        for one in decoded:
            state.update(one.state)
        left, changed = ([], set()) if apart else (self._left, self._changed)
        columns = join([*left, *replaced, *(d.thinned for d in decoded), self._thin(read, apart=apart)])
        if not apart:
            self._left, self._changed = [], set()
        if self._holding or changed:
            state.update(self._kept((self._holding & {*read.equipment, *columns.equipment}) | changed))
        columns, events, provisional = _provisional(columns, events)
        records = encode(columns)
        for i in range(0, len(events), RECORD_EVENTS):
            records += _encoded(events[i : i + RECORD_EVENTS])
        records += [record for d in decoded for record in d.records]
        delivered = b"".join(key for d in decoded for key in d.delivered)
        return Prepared(
            records,
            provisional,
            count(columns),
            state,
            delivered,
            list(by_source.items()),
            len(columns),
            len(events),
        )

    def _meet(self, columns: Columns) -> list[Columns]:
        """Blocks that are new are made known to counters and reporter; what those that they replace held back."""
        replaced: list[Columns] = []
        if not self._special:
            return replaced
        for equipment, block in zip(columns.equipment, columns.blocks, strict=True):
            one = self._special.get(equipment)
            if one is not None and id(block) not in self._blocks.get(equipment, {}):
                same = [old for old in self._blocks.get(equipment, {}).values() if set(old.names) == set(block.names)]
                self._blocks.setdefault(equipment, {})[id(block)] = block
                # What was read by the plant file before may have a point that the profile no longer has.
                points = [one.profile.points.get(split_signal(signal)[1]) for signal in block.names]
                self.counters.add(block, [None if point is None else _wrapping(one, point) for point in points])
                self.reporter.add(block, [None if point is None else _policy(point) for point in points])
                # Another plan reads the same signals. Not while some are still of the old one.
                replaced += [self._forget(equipment, old) for old in same if not any(b is old for b in columns.blocks)]
        return replaced

    def _forget(self, equipment: str, block: NameBlock) -> Columns:
        del self._blocks[equipment][id(block)]
        self.counters.forget(block)
        return self.reporter.forget(block)

    def _thin(self, columns: Columns, *, apart: bool) -> Columns:
        """Report by exception, where any equipment asks for it."""
        if not self._special:
            return columns
        before = self.reporter.counts.suppressed
        thinned = [self.reporter.thin(columns)]
        metrics.SUPPRESSED.inc(max(self.reporter.counts.suppressed - before, 0))
        newest_us = int(columns.time_us.max()) if len(columns) else 0
        if (
            newest_us >= self._looked_us + LOOK_US and not apart
        ):  # signals that fell silent: nothing else would let go what is held
            self._looked_us = newest_us
            thinned.append(self.reporter.flush(newest_us - SILENT_US))
        if len(columns) and int(columns.time_us.min()) < SET_US:  # these times mean nothing after a reboot
            thinned.append(self.reporter.flush(SET_US - 1))
        return join(thinned)

    def _kept(self, several: Iterable[str]) -> dict[str, str]:
        """The state that says what is held back of some equipment."""
        return {
            held_key(equipment): spell_held(
                [(block, self.reporter.holds(block)) for block in self._blocks.get(equipment, {}).values()]
            )
            for equipment in several
        }

    def _events(self, columns: Columns, decoded: Sequence[Decoded], state: dict[str, str]) -> list[Event]:
        """Events of code and string points."""
        events, changed = self.changes.of_values(columns)
        state.update(changed)
        more, changed = self.changes.of_texts([text for d in decoded for text in d.texts])
        state.update(changed)
        return [*events, *more]


def make_intake(state: Mapping[str, str]) -> Intake:
    """From what was kept with the readings (Spool.state): codes and counters go on, what was held back is reported."""
    made = Intake(make_changes(state), Counters(state))
    made._left.append(read_held(state))
    made._changed.update(held_equipment(state))
    return made


def _decoded(source: Source, things: Sequence[Any]) -> list[Decoded]:
    """What they said. None should be unreadable; one that is must cost only itself, each time it comes.

    Not where the sender keeps it: that source remembers what it decoded, and refuses a message by itself (edge.mqtt_decode).
    """
    if source.sender_keeps:
        return [source.decode(things)]
    try:
        return [source.decode(things)]
    except UNREADABLE:
        if len(things) > 1:
            return [one for thing in things for one in _decoded(source, [thing])]
        metrics.UNREADABLE.inc()
        log.exception("reading set aside: it cannot be decoded", reading=repr(things[0])[:SHOWN])
        return [source.kept(things[0])]


def _encoded(events: Sequence[Event]) -> list[Encoded]:
    """Records of events: few large ones, of about RECORD_BYTES at most, for what was learned of a device may be long."""
    record = encode_events(events)
    if len(record.value) <= RECORD_BYTES or len(events) == 1:
        return [record]
    half = len(events) // 2
    return [*_encoded(events[:half]), *_encoded(events[half:])]


def _provisional(columns: Columns, events: list[Event]) -> tuple[Columns, list[Event], list[Provisional]]:
    """What can be sent, and what waits for the clock to be set (edge.stamps)."""
    provisional: list[Provisional] = []
    early = columns.time_us < SET_US
    if early.any():
        provisional.append(provisional_samples(columns.keep(early)))
        columns = columns.keep(~early)
    waiting = [event for event in events if event.time_us < SET_US]
    if waiting:
        provisional.append(provisional_events(waiting))
        events = [event for event in events if event.time_us >= SET_US]
    return columns, events, provisional


def _wrapping(equipment: Equipment, point: Point) -> Wrapping | None:
    """How a counter counts; None for any other point. Only registers wrap: what MQTT says are totals."""
    place = point.modbus
    if place is None or place.wrap is None or not equipment.address.is_modbus:
        return None
    bounds = point.range
    return Wrapping(place.wrap, place.largest_step, place.scale, place.offset, bounds.low, bounds.high)


def _policy(point: Point) -> Policy | None:
    report = point.report
    if report is None:
        return None
    return Policy(report.deadband, report.deadband_percent, report.swinging_door, report.heartbeat_s)
