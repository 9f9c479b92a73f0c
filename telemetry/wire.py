"""How records look on the log. Samples are Arrow IPC streams, the signal dictionary-encoded by name; the rest is JSON.

Headers of every record (all UTF-8 text):

    schema   "1.0"; a reader takes any 1.x and refuses another major version
    kind     telemetry.messages.Kind
    edge     who made it (for findings: the analytics worker)
    epoch    16 hex digits: random for each opening of a spool, 63 bits
    seq      decimal, from 0, without holes within an epoch
    count    decimal, rows in the value
    crc      8 hex digits: CRC-32 (zlib) of the value

The value of `samples` has columns signal (dictionary<int32, utf8>), time (timestamp[us, UTC]), value (float64),
quality (uint8); its buffers are compressed with LZ4, as Arrow does it. Any reader of Arrow can take it; extra columns of
a later 1.x are ignored.

Samples are written here with numpy alone and read by telemetry.arrow_read, which needs pyarrow: an edge only writes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from telemetry import plain
from telemetry.arrow_stream import write_stream
from telemetry.batch import SampleBatch
from telemetry.errors import RecordError
from telemetry.messages import DroppedCell, DroppedRange, Event, Finding, Heartbeat, Kind, Ledger, LedgerEntry, Registry
from telemetry.name_block import NameBlock, name_block
from telemetry.names import NAME_PATTERN
from telemetry.packed import pack, unpack

SCHEMA_MAJOR: Final = 1
SCHEMA_VERSION: Final = "1.0"

_KINDS: Final = frozenset(kind.value for kind in Kind)
_COUNT: Final = (re.compile(r"[0-9]{1,18}"), "a decimal number")
_VERSION: Final = re.compile(rf"{SCHEMA_MAJOR}\.[0-9]{{1,9}}")
_HEADERS: Final = {
    "schema": (_VERSION, "1.x"),
    "kind": (re.compile(r"(?s).*"), "a kind"),
    "edge": (re.compile(NAME_PATTERN.removeprefix("^").removesuffix("$")), "a name of [a-z0-9_.-]+"),
    "epoch": (re.compile(r"[0-7][0-9a-f]{15}"), "63 bits in 16 hex digits"),
    "seq": _COUNT,
    "count": _COUNT,
    "crc": (re.compile(r"[0-9a-f]{8}"), "8 hex digits"),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who made a record, and its place in what they made. Fixed when it is journaled, never again."""

    edge: str
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Envelope:
    """A record's headers, read."""

    schema: str
    kind: Kind
    identity: Identity
    count: int
    crc: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """A record's value, ready to be journaled."""

    kind: Kind
    count: int
    crc: int
    value: bytes


def headers(identity: Identity, encoded: Encoded) -> dict[str, bytes]:
    """The headers of a record."""
    return {
        "schema": SCHEMA_VERSION.encode(),
        "kind": encoded.kind.value.encode(),
        "edge": identity.edge.encode(),
        "epoch": f"{identity.epoch:016x}".encode(),
        "seq": str(identity.seq).encode(),
        "count": str(encoded.count).encode(),
        "crc": f"{encoded.crc:08x}".encode(),
    }


def read_envelope(raw: Mapping[str, bytes]) -> Envelope:
    """The headers, read. Raises RecordError: `headers`, `schema-version` or `kind`."""
    try:
        text = {name: raw[name].decode() for name in _HEADERS}
    except (KeyError, UnicodeDecodeError) as error:
        raise RecordError("headers", f"missing or unreadable header: {error!r}") from error
    if not _VERSION.fullmatch(text["schema"]):
        raise RecordError("schema-version", f"expected {SCHEMA_MAJOR}.x, found {text['schema']!r:.40}")
    for name, (pattern, spelled) in _HEADERS.items():
        if not pattern.fullmatch(text[name]):
            raise RecordError("headers", f"{name}: expected {spelled}, found {text[name]!r:.40}")
    if text["kind"] not in _KINDS:
        raise RecordError("kind", f"expected one of {', '.join(Kind)}, found {text['kind']!r:.40}")
    identity = Identity(text["edge"], int(text["epoch"], 16), int(text["seq"]))
    return Envelope(text["schema"], Kind(text["kind"]), identity, int(text["count"]), int(text["crc"], 16))


def check_crc(envelope: Envelope, value: bytes) -> None:
    """Raises RecordError `crc` when the value is not what was journaled."""
    found = zlib.crc32(value)
    if found != envelope.crc:
        raise RecordError("crc", f"expected {envelope.crc:08x}, found {found:08x}")


def encode_columns(
    blocks: Sequence[NameBlock],
    signal: npt.NDArray[np.int32],
    time_us: npt.NDArray[np.int64],
    value: npt.NDArray[np.float64],
    quality: npt.NDArray[np.uint8],
) -> Encoded:
    """The record of some samples: columns (n,), `signal` an index into the blocks' names end to end.

    Raises ValueError as telemetry.arrow_stream.write_stream does.
    """
    return _encoded(Kind.SAMPLES, len(signal), write_stream(blocks, signal, time_us, value, quality))


def encode_samples(batch: SampleBatch) -> Encoded:
    """The record of a sample batch. Makes its names' block anew: who has it at hand calls `encode_columns`."""
    return encode_columns([name_block(batch.names)], batch.signal, batch.time_us, batch.value, batch.quality)


def encode_events(events: Sequence[Event]) -> Encoded:
    """The record of some events."""
    return _json(Kind.EVENTS, len(events), [asdict(e) for e in events])


def decode_events(value: bytes) -> tuple[Event, ...]:
    """The events of a record. Raises RecordError `json`."""
    return tuple(plain.read(Event, row) for row in plain.rows(value))


def encode_findings(findings: Sequence[Finding]) -> Encoded:
    """The record of some findings."""
    return _json(Kind.FINDINGS, len(findings), [asdict(f) for f in findings])


def decode_findings(value: bytes) -> tuple[Finding, ...]:
    """The findings of a record. Raises RecordError `json`."""
    return tuple(plain.read(Finding, row) for row in plain.rows(value))


def encode_heartbeat(heartbeat: Heartbeat) -> Encoded:
    """The record of a heartbeat."""
    row = {
        "edge": heartbeat.edge,
        "time_us": heartbeat.time_us,
        "equipments": heartbeat.equipments,
        "unreachable": heartbeat.unreachable,
    }  # asdict would copy each of a thousand names, every second
    return _json(Kind.HEARTBEAT, 1, row)


def decode_heartbeat(value: bytes) -> Heartbeat:
    """The heartbeat of a record. Raises RecordError `json`."""
    return plain.read(Heartbeat, plain.row(value))


def encode_registry(registry: Registry) -> Encoded:
    """The record of an edge's registry. A large `plant` travels packed (telemetry.packed)."""
    row = {
        "edge": registry.edge,
        "time_us": registry.time_us,
        "plant": pack(registry.plant),
    }  # asdict would copy it all
    return _json(Kind.REGISTRY, 1, row)


def decode_registry(value: bytes) -> Registry:
    """The registry of a record. Raises RecordError `json`."""
    row = plain.row(value)
    return plain.read(Registry, {**row, "plant": unpack(row["plant"])} if "plant" in row else row)


def encode_ledger(ledger: Ledger) -> Encoded:
    """The record of ledger increments. Checksums travel as text: JSON readers lose bits of 64."""
    # A thousand entries every five seconds: `asdict` would cost 16 times as much.
    entries = [
        {"equipment": e.equipment, "hour_us": e.hour_us, "samples": e.samples, "checksum": str(e.checksum)}
        for e in ledger.entries
    ]
    row = {"edge": ledger.edge, "epoch": ledger.epoch, "through": ledger.through, "entries": entries}
    return _json(Kind.LEDGER, 1, row)


def decode_ledger(value: bytes) -> Ledger:
    """The ledger of a record. Raises RecordError `json`."""
    row = plain.row(value)
    entries = row.pop("entries", None)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise RecordError("json", "Ledger.entries: expected a list of objects")
    return replace(plain.read(Ledger, {**row, "entries": []}), entries=_ledger_entries(entries))


def _ledger_entries(rows: Sequence[Mapping[str, Any]]) -> tuple[LedgerEntry, ...]:
    """Column by column: those of a large fleet are as many as all its records' rows by the hundred."""
    equipment = plain.column("LedgerEntry.equipment", str, rows)
    hour_us = plain.column("LedgerEntry.hour_us", int, rows)
    samples = plain.column("LedgerEntry.samples", int, rows)
    checksum = map(_checksum, plain.column("LedgerEntry.checksum", str, rows))
    return tuple(map(LedgerEntry, equipment, hour_us, samples, checksum))


def _checksum(text: str) -> int:
    if not (text.isdigit() and text.isascii() and len(text) <= 20 and (number := int(text)) < 1 << 64):
        raise RecordError("json", f"LedgerEntry.checksum: expected 64 bits as decimal text, found {text!r:.40}")
    return number


def encode_dropped(ranges: Sequence[DroppedRange]) -> Encoded:
    """The record of what the spool dropped by policy."""
    return _json(Kind.DROPPED, len(ranges), [asdict(r) for r in ranges])


def decode_dropped(value: bytes) -> tuple[DroppedRange, ...]:
    """The dropped ranges of a record. Raises RecordError `json`."""
    return tuple(map(_dropped_range, plain.rows(value)))


def _dropped_range(row: Mapping[str, Any]) -> DroppedRange:
    cells = row.get("cells", [])
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise RecordError("json", "DroppedRange.cells: expected a list of objects")
    found = plain.read(DroppedRange, {**row, "cells": []})
    return replace(found, cells=tuple(plain.read(DroppedCell, cell) for cell in cells))


def _encoded(kind: Kind, count: int, value: bytes) -> Encoded:
    return Encoded(kind, count, zlib.crc32(value), value)


def _json(kind: Kind, count: int, content: Any) -> Encoded:
    return _encoded(kind, count, orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))
