"""Readings and events whose time is µs since boot (edge.stamps), as they wait in the spool for the clock to be set.

Invariant: what is released holds the same rows in the same order; only times change, all by the same offset, and where
that is an estimate, quality: good and uncertain readings become UNCERTAIN_CLOCK, events get the attribute `clock`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import orjson

from edge.columns import Columns, encode
from edge.ledger import Increments, count
from edge.stamps import Offset
from telemetry.messages import Event, Kind
from telemetry.name_block import name_block
from telemetry.quality import UNCERTAIN_CLOCK, is_bad
from telemetry.wire import Encoded, decode_events, encode_events

_ARRAYS: Final = (("place", np.int32), ("time_us", np.int64), ("value", np.float64), ("quality", np.uint8))
_LENGTH: Final = 8


@dataclass(frozen=True, slots=True)
class Provisional:
    """Some rows or events, all of provisional times, ready to be held in the spool."""

    kind: Kind
    """SAMPLES or EVENTS."""
    count: int
    value: bytes
    first_us: int
    """Its earliest time, µs since boot."""


@dataclass(frozen=True, slots=True)
class Released:
    """What was held, as it goes to the log."""

    records: Sequence[Encoded]
    increments: Increments
    last_us: int
    """Its latest time."""


def provisional_samples(columns: Columns) -> Provisional:
    """Rows to be held: (n,) with n ≥ 1, every `time_us` below edge.stamps.SET_US. Copies."""
    blocks = {id(block): block for block in columns.blocks}
    place_of = {key: place for place, key in enumerate(blocks)}
    names = [list(block.names) for block in blocks.values()]
    head = orjson.dumps(
        {
            "equipment": list(columns.equipment),
            "block": [place_of[id(block)] for block in columns.blocks],
            "blocks": names,
            "counts": columns.counts.tolist(),
        }
    )
    body = b"".join(getattr(columns, name).astype(kind).tobytes() for name, kind in _ARRAYS)
    value = len(head).to_bytes(_LENGTH, "little") + head + body
    return Provisional(Kind.SAMPLES, len(columns), value, int(columns.time_us.min()))


def provisional_events(events: Sequence[Event]) -> Provisional:
    """Events to be held: at least one, every `time_us` below edge.stamps.SET_US."""
    return Provisional(Kind.EVENTS, len(events), encode_events(events).value, min(e.time_us for e in events))


def release(kind: Kind, value: bytes, offset: Offset, *, newest_us: int | None = None) -> Released:
    """What was held, with its times made wall times.

    `newest_us`: where an estimate would be later than this, all of it is moved back so that its last time is this.
    """
    if kind is Kind.SAMPLES:
        return _samples(unpack(value), offset, newest_us)
    events = decode_events(value)
    moved_us = _moved(max(e.time_us for e in events), offset, newest_us)
    told: dict[str, Any] = {} if offset.exact else {"clock": "estimated"}
    known = [replace(e, time_us=e.time_us + moved_us, attributes={**e.attributes, **told}) for e in events]
    return Released([encode_events(known)], {}, max(e.time_us for e in known))


def unpack(value: bytes) -> Columns:
    """The columns that `provisional_samples` packed. Blocks are made anew."""
    end = _LENGTH + int.from_bytes(value[:_LENGTH], "little")
    head = orjson.loads(value[_LENGTH:end])
    blocks = [name_block(names) for names in head["blocks"]]
    counts = np.array(head["counts"], np.int64)
    n = int(counts.sum())
    found: dict[str, Any] = {}
    for name, kind in _ARRAYS:
        found[name] = np.frombuffer(value, kind, n, end)
        end += found[name].nbytes
    return Columns(head["equipment"], [blocks[place] for place in head["block"]], counts, **found)


def _samples(held: Columns, offset: Offset, newest_us: int | None) -> Released:
    time_us = held.time_us + _moved(int(held.time_us.max()), offset, newest_us)
    doubtful = ~is_bad(held.quality) & (not offset.exact)
    known = replace(held, time_us=time_us, quality=np.where(doubtful, np.uint8(UNCERTAIN_CLOCK), held.quality))
    return Released(encode(known), count(known), int(time_us.max()))


def _moved(last_us: int, offset: Offset, newest_us: int | None) -> int:
    if newest_us is None:
        return offset.us
    return min(offset.us, newest_us - last_us)
