"""Many messages at once become columns, texts and events: the Source of everything that one broker hands out.

Invariants: of each signal, rows come in the order received, whichever way a message was read; a message that was taken
before (edge.delivered) or is a retained one seen before says nothing again, and is acknowledged like any other; whatever
a payload does to its reader, it is refused and the next one is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson
import structlog

from edge import metrics
from edge.columns import Columns, join
from edge.delivered import key_of
from edge.driver import UNREADABLE, Decoded
from edge.mqtt_packets import DUP, LIMIT, QOS_1, RETAIN, TOO_LARGE
from edge.payload import Parsed, Refusal, Row
from edge.presence import Listening
from edge.shapes import NUMBERS, STRANGE, Ordinary, Shape
from edge.subscriptions import OFF, RETAINED, Memory, Messages, Subscription, skew_key
from telemetry.clock import Clock
from telemetry.messages import Event
from telemetry.quality import GOOD, UNCERTAIN_CLOCK

log = structlog.get_logger()

PART_ROWS: Final = 4_000
"""Most rows of one part: a part is never divided between records (edge.columns)."""


@dataclass(slots=True, eq=False)
class MqttSource:
    """See edge.driver.Source. What it received are Messages."""

    listening: Listening
    memory: Memory
    clock: Clock

    @property
    def sender_keeps(self) -> bool:
        """A message that is not acknowledged stays with the broker."""
        return True

    def decode(self, received: Sequence[Messages]) -> Decoded:
        """See Source."""
        work = _Decoding(self)
        for messages in received:
            at_us = messages.received_us
            for subscription, payload, head in zip(
                messages.subscriptions, messages.payloads, messages.heads, strict=True
            ):
                work.message(subscription, payload, head, at_us)
        return work.decoded()

    def kept(self, received: Messages) -> Decoded:
        """See Source: nothing of a message is given up, for its sender has it."""
        return Decoded()

    def journaled(self, received: Sequence[Messages]) -> None:
        """See Source."""
        for messages in received:
            messages.line.acknowledge(messages)


@dataclass(slots=True)
class _Decoding:
    """The messages of one call."""

    source: MqttSource
    index: int = -1
    """Of the present message."""
    ordinary: dict[Shape, tuple[Ordinary, list[Subscription]]] = field(default_factory=dict)
    rows: list[tuple[int, Subscription, Sequence[Row]]] = field(default_factory=list)
    """Of messages that were read the exact way."""
    texts: list[tuple[str, str, str, int]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    state: dict[str, str] = field(default_factory=dict)
    keys: list[bytes] = field(default_factory=list)
    kinds: list[int] = field(default_factory=lambda: [0, 0, 0])
    """Messages: new, marked as duplicates, retained."""
    known: int = 0
    missing: int = 0

    def message(self, sub: Subscription, payload: bytes, head: int, received_us: int) -> None:
        """One message, in turn."""
        self.index += 1
        self.kinds[2 if head & RETAIN else 1 if head & DUP else 0] += 1
        if (
            sub.shape is None
            or head & (RETAIN | TOO_LARGE)
            or not self._fast(sub, sub.shape, payload, head, received_us)
        ):
            self._exact(sub, payload, head, received_us)

    def _fast(self, sub: Subscription, shape: Shape, payload: bytes, head: int, received_us: int) -> bool:
        """Takes an ordinary message. False for any other."""
        try:
            content = orjson.loads(payload)
            cells = shape.values(content)
            clock_us = shape.time(content, received_us)
            said = shape.said(content) if shape.texts else ()
        except STRANGE:
            return False
        if not NUMBERS.issuperset(map(type, cells)):
            return False
        time_us, good = received_us, GOOD
        if clock_us is not None:
            if not shape.receipt:
                if head & QOS_1 and not self._is_new(sub, payload):
                    return True
                time_us, good = clock_us, _good(sub)
            self._clock(sub, head, received_us, clock_us)
        self._online(sub, None, head)
        found = self.ordinary.get(shape)
        if found is None:
            found = self.ordinary[shape] = Ordinary(shape), []
        found[0].add(self.index, cells, time_us, good)
        found[1].append(sub)
        if said:
            self.texts += [(sub.equipment, p, t, time_us) for p, t in zip(shape.text_points, said, strict=True)]
        return True

    def _exact(self, sub: Subscription, payload: bytes, head: int, received_us: int) -> None:
        parsed = _read(sub, payload, head, received_us)
        timed = parsed.device_time_us is not None or (head & RETAIN and parsed.clock_us is not None)
        if timed and not self._is_first(sub, payload, head):
            return
        if parsed.clock_us is not None:
            self._clock(sub, head, received_us, parsed.clock_us)
        self._online(sub, parsed.online, head)
        self.missing += parsed.missing
        if parsed.rows:
            self.rows.append((self.index, sub, parsed.rows))
        self.texts += [(sub.equipment, point, text, time_us) for point, text, time_us in parsed.texts]
        self.events += parsed.events
        for refusal in parsed.refusals:
            self.events += self.source.memory.complaints.about(sub.equipment, sub.name, refusal, received_us)

    def _is_first(self, sub: Subscription, payload: bytes, head: int) -> bool:
        """Whether a message with a time of its own was not taken before."""
        if head & RETAIN:
            key = key_of(sub.key_prefix, payload).hex()
            if self.source.memory.retained.get(sub.name) == key:
                self.known += 1
                return False
            self.source.memory.retained[sub.name] = self.state[RETAINED + sub.name] = key
        return not head & QOS_1 or self._is_new(sub, payload)

    def _is_new(self, sub: Subscription, payload: bytes) -> bool:
        key = key_of(sub.key_prefix, payload)
        if self.source.memory.delivered.is_new(key):
            self.keys.append(key)
            return True
        self.known += 1
        return False

    def _clock(self, sub: Subscription, head: int, received_us: int, clock_us: int) -> None:
        if head & (RETAIN | DUP):
            return
        event = sub.skew.note(received_us, clock_us)
        if event is not None:
            self.events.append(event)
            self.state[skew_key(sub.equipment)] = OFF if event.on else ""

    def _online(self, sub: Subscription, online: bool | None, head: int) -> None:
        listening = self.source.listening
        if online is not None or listening.off_s:
            listening.word(sub.equipment, self.source.clock.monotonic_s(), online, retained=bool(head & RETAIN))

    def decoded(self) -> Decoded:
        """What all of them said."""
        for what, n in zip(("new", "duplicate", "retained"), self.kinds, strict=True):
            if n:
                metrics.MESSAGES.labels(what).inc(n)
        if self.known:
            metrics.MESSAGES.labels("known").inc(self.known)
        if self.missing:
            metrics.MISSING_FIELDS.inc(self.missing)
        return Decoded(self._columns(), self.texts, self.events, state=self.state, delivered=self.keys)

    def _columns(self) -> Columns:
        made = [_ordinary(messages, subs) for messages, subs in self.ordinary.values()]
        if not self.rows:
            return join(made)
        exact, index = _exact_columns(self.rows)
        order = np.concatenate([*(np.array(m.index, np.int64) for m, _ in self.ordinary.values()), index])
        return _sorted(join([*made, exact]), order)


def _good(sub: Subscription) -> int:
    """Quality of what is good otherwise, under the device's own time."""
    return UNCERTAIN_CLOCK if sub.skew.is_off else GOOD


def _read(sub: Subscription, payload: bytes, head: int, received_us: int) -> Parsed:
    if head & TOO_LARGE:
        return Parsed(refusals=(Refusal("too-large", f"expected at most {LIMIT} bytes, found {payload.decode()}"),))
    try:
        return sub.topic.read(payload, received_us, retained=bool(head & RETAIN), good=_good(sub))
    except UNREADABLE as error:
        log.exception("payload not read", equipment=sub.equipment, topic=sub.name)
        return Parsed(refusals=(Refusal("unreadable", type(error).__name__),))


def _ordinary(messages: Ordinary, subs: Sequence[Subscription]) -> Columns:
    """One part a message."""
    places = messages.shape.places
    value, quality = messages.judge()
    return Columns(
        [sub.equipment for sub in subs],
        [sub.block for sub in subs],
        np.full(len(subs), len(places), np.int64),
        np.tile(places, len(subs)),
        np.repeat(np.array(messages.time_us, np.int64), len(places)),
        value,
        quality,
    )


def _exact_columns(found: Sequence[tuple[int, Subscription, Sequence[Row]]]) -> tuple[Columns, Any]:
    """Their columns, and (parts,) int64 which message each part is of."""
    parts = [
        (index, sub, rows[start : start + PART_ROWS])
        for index, sub, rows in found
        for start in range(0, len(rows), PART_ROWS)
    ]
    place, time_us, value, quality = zip(*chain.from_iterable(rows for _, _, rows in parts), strict=True)
    columns = Columns(
        [sub.equipment for _, sub, _ in parts],
        [sub.block for _, sub, _ in parts],
        np.array([len(rows) for _, _, rows in parts], np.int64),
        np.array(place, np.int32),
        np.array(time_us, np.int64),
        np.array(value, np.float64),
        np.array(quality, np.uint8),
    )
    return columns, np.array([index for index, _, _ in parts], np.int64)


def _sorted(columns: Columns, index: Any) -> Columns:
    """Parts in the order of `index` (parts,), stable. Copies."""
    order = np.argsort(index, kind="stable")
    counts, starts = columns.counts[order], columns.starts[order]
    rows = np.arange(len(columns)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
    return Columns(
        [columns.equipment[p] for p in order],
        [columns.blocks[p] for p in order],
        counts,
        columns.place[rows],
        columns.time_us[rows],
        columns.value[rows],
        columns.quality[rows],
    )
