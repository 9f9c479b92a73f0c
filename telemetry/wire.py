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
quality (uint8). Any reader of Arrow can take it; extra columns of a later 1.x are ignored.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, TypeVar

import numpy as np
import orjson
import pyarrow as pa

from telemetry.batch import SampleBatch, concatenate
from telemetry.errors import RecordError
from telemetry.messages import DroppedRange, Event, Finding, Heartbeat, Kind, Ledger, LedgerEntry, Registry

T = TypeVar("T")

SCHEMA_MAJOR: Final = 1
SCHEMA_VERSION: Final = "1.0"

_ARROW_SCHEMA: Final = pa.schema(
    [
        ("signal", pa.dictionary(pa.int32(), pa.utf8())),
        ("time", pa.timestamp("us", tz="UTC")),
        ("value", pa.float64()),
        ("quality", pa.uint8()),
    ]
)


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
        schema = raw["schema"].decode()
        identity = Identity(raw["edge"].decode(), int(raw["epoch"], 16), int(raw["seq"]))
        count, crc, kind = int(raw["count"]), int(raw["crc"], 16), raw["kind"].decode()
    except (KeyError, ValueError) as error:
        raise RecordError("headers", f"missing or unreadable header: {error!r}") from error
    if schema.partition(".")[0] != str(SCHEMA_MAJOR):
        raise RecordError("schema-version", f"expected {SCHEMA_MAJOR}.x, found {schema}")
    try:
        return Envelope(schema, Kind(kind), identity, count, crc)
    except ValueError as error:
        raise RecordError("kind", f"expected one of {', '.join(Kind)}, found {kind!r}") from error


def check_crc(envelope: Envelope, value: bytes) -> None:
    """Raises RecordError `crc` when the value is not what was journaled."""
    found = zlib.crc32(value)
    if found != envelope.crc:
        raise RecordError("crc", f"expected {envelope.crc:08x}, found {found:08x}")


def encode_samples(batch: SampleBatch) -> Encoded:
    """The record of a sample batch."""
    signal = pa.DictionaryArray.from_arrays(pa.array(batch.signal), pa.array(batch.names, pa.utf8()))
    table = pa.record_batch(
        [
            signal,
            pa.array(batch.time_us).cast(pa.timestamp("us", tz="UTC")),
            pa.array(batch.value),
            pa.array(batch.quality),
        ],
        schema=_ARROW_SCHEMA,
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _ARROW_SCHEMA) as writer:
        writer.write_batch(table)
    return _encoded(Kind.SAMPLES, len(batch), sink.getvalue().to_pybytes())


def decode_samples(value: bytes) -> SampleBatch:
    """The sample batch of a record; NULL values become NaN. Raises RecordError `arrow` or `columns`."""
    try:
        with pa.ipc.open_stream(value) as reader:
            batches = [_batch(b) for b in reader]
    except RecordError:
        raise
    except (pa.ArrowException, ValueError, OSError, TypeError) as error:
        raise RecordError("arrow", str(error)) from error
    return concatenate(batches)


def _batch(table: pa.RecordBatch) -> SampleBatch:
    try:
        columns = [table.column(name) for name in ("signal", "time", "value", "quality")]
    except KeyError as error:
        raise RecordError("columns", f"expected signal, time, value, quality, found {table.schema.names}") from error
    signal, time, value, quality = columns
    if not pa.types.is_dictionary(signal.type):
        signal = signal.dictionary_encode()
    if signal.null_count or time.null_count or quality.null_count:
        raise RecordError("columns", "signal, time and quality may not be null")
    index = signal.indices.cast(pa.int32()).to_numpy(zero_copy_only=False)
    stamps = time.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return SampleBatch(
        tuple(signal.dictionary.to_pylist()),
        index,
        stamps,
        value.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64, copy=False),
        quality.cast(pa.uint8()).to_numpy(zero_copy_only=False),
    )


def encode_events(events: Sequence[Event]) -> Encoded:
    """The record of some events."""
    return _json(Kind.EVENTS, len(events), [asdict(e) for e in events])


def decode_events(value: bytes) -> tuple[Event, ...]:
    """The events of a record. Raises RecordError `json`."""
    return tuple(_read(Event, row) for row in _rows(value))


def encode_findings(findings: Sequence[Finding]) -> Encoded:
    """The record of some findings."""
    return _json(Kind.FINDINGS, len(findings), [asdict(f) for f in findings])


def decode_findings(value: bytes) -> tuple[Finding, ...]:
    """The findings of a record. Raises RecordError `json`."""
    return tuple(_read(Finding, row) for row in _rows(value))


def encode_heartbeat(heartbeat: Heartbeat) -> Encoded:
    """The record of a heartbeat."""
    return _json(Kind.HEARTBEAT, 1, asdict(heartbeat))


def decode_heartbeat(value: bytes) -> Heartbeat:
    """The heartbeat of a record. Raises RecordError `json`."""
    row = _object(value)
    return _read(Heartbeat, {**row, "equipments": tuple(row.get("equipments", ()))})


def encode_registry(registry: Registry) -> Encoded:
    """The record of an edge's registry."""
    return _json(Kind.REGISTRY, 1, asdict(registry))


def decode_registry(value: bytes) -> Registry:
    """The registry of a record. Raises RecordError `json`."""
    return _read(Registry, _object(value))


def encode_ledger(ledger: Ledger) -> Encoded:
    """The record of ledger increments. Checksums travel as text: JSON readers lose bits of 64."""
    row = asdict(ledger)
    row["entries"] = [{**entry, "checksum": str(entry["checksum"])} for entry in row["entries"]]
    return _json(Kind.LEDGER, 1, row)


def decode_ledger(value: bytes) -> Ledger:
    """The ledger of a record. Raises RecordError `json`."""
    row = _object(value)
    try:
        entries = tuple(_read(LedgerEntry, {**e, "checksum": int(e["checksum"])}) for e in row.pop("entries"))
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError("json", f"ledger entries: {error!r}") from error
    return _read(Ledger, {**row, "entries": entries})


def encode_dropped(ranges: Sequence[DroppedRange]) -> Encoded:
    """The record of what the spool dropped by policy."""
    return _json(Kind.DROPPED, len(ranges), [asdict(r) for r in ranges])


def decode_dropped(value: bytes) -> tuple[DroppedRange, ...]:
    """The dropped ranges of a record. Raises RecordError `json`."""
    return tuple(_read(DroppedRange, row) for row in _rows(value))


def _encoded(kind: Kind, count: int, value: bytes) -> Encoded:
    return Encoded(kind, count, zlib.crc32(value), value)


def _json(kind: Kind, count: int, content: Any) -> Encoded:
    return _encoded(kind, count, orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))


def _parse(value: bytes) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise RecordError("json", str(error)) from error


def _rows(value: bytes) -> list[dict[str, Any]]:
    rows = _parse(value)
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise RecordError("json", f"expected a list of objects, found {type(rows).__name__}")
    return rows


def _object(value: bytes) -> dict[str, Any]:
    row = _parse(value)
    if not isinstance(row, dict):
        raise RecordError("json", f"expected an object, found {type(row).__name__}")
    return row


def _read(kind: type[T], row: Mapping[str, Any]) -> T:
    """A dataclass from a row; keys of a later minor version are ignored."""
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    try:
        return kind(**{key: item for key, item in row.items() if key in known})
    except TypeError as error:
        raise RecordError("json", str(error)) from error
