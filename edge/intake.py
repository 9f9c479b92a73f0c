"""What becomes of what drivers received, once for all of them: decoded by source, code and string points made events,
counters made totals, thinned by exception, joined and encoded. On the journal's thread, for a whole commit at once.

Invariant: `prepare` is called once for everything received, in order; what it returns is journaled whole or tried again,
never prepared again, because codes, counters and thinning remember what went through them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edge.codes import Changes
from edge.columns import Columns, encode, join
from edge.driver import Decoded, Source
from edge.ledger import Increments, count
from telemetry.messages import Event
from telemetry.wire import Encoded, encode_events

RECORD_EVENTS: Final = 100
"""Drivers keep an event below 9 kB (edge.payload), so that so many fit into a record."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A commit, ready to be journaled."""

    records: Sequence[Encoded]
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
    _merged: dict[str, str] = field(default_factory=dict)

    def prepare(self, received: Sequence[tuple[Source, Any]]) -> Prepared:
        """Everything that was received since the last time."""
        by_source: dict[Source, list[Any]] = {}
        for source, thing in received:
            by_source.setdefault(source, []).append(thing)
        decoded = [source.decode(things) for source, things in by_source.items()]
        state: dict[str, str] = {}
        columns = self._stages(join([d.columns for d in decoded]), state)
        events = [*(event for d in decoded for event in d.events), *self._events(columns, decoded, state)]
        for one in decoded:
            state.update(one.state)
        records = encode(columns)
        records += [encode_events(events[i : i + RECORD_EVENTS]) for i in range(0, len(events), RECORD_EVENTS)]
        records += [record for d in decoded for record in d.records]
        delivered = b"".join(key for d in decoded for key in d.delivered)
        return Prepared(records, count(columns), state, delivered, list(by_source.items()), len(columns), len(events))

    def _stages(self, columns: Columns, state: dict[str, str]) -> Columns:
        return columns

    def _events(self, columns: Columns, decoded: Sequence[Decoded], state: dict[str, str]) -> list[Event]:
        """Events of code and string points."""
        events, changed = self.changes.of_values(columns)
        state.update(changed)
        more, changed = self.changes.of_texts([text for d in decoded for text in d.texts])
        state.update(changed)
        return [*events, *more]
