"""Records of the log as findings to act on: read, checked against what the database can hold, the rest set aside.

Invariant: whatever a record holds, reading it never raises: what cannot be used is named by a stable reason, for the
dead letters, and of a record with some bad findings the good ones are used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from telemetry.errors import RecordError
from telemetry.log.protocol import InRecord
from telemetry.messages import Finding, Kind
from telemetry.names import is_name
from telemetry.position import MAX_NAME, identity_of
from telemetry.wire import Identity, check_crc, decode_findings, read_envelope

MAX_TIME_US: Final = 4_102_444_800_000_000
"""2100-01-01: no condition begins later."""
MAX_DETECTOR: Final = 200
MAX_EVIDENCE_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Rejected:
    """What of a record is set aside, and why."""

    reason: str
    detail: str
    value: bytes
    findings: int


@dataclass(frozen=True, slots=True)
class Reading:
    """A record, read."""

    record: InRecord
    identity: Identity | None
    """None: its headers cannot be read, so it is in no set."""
    findings: tuple[Finding, ...] = ()
    rejected: tuple[Rejected, ...] = ()


def read(record: InRecord) -> Reading:
    """The findings of a record. Other kinds of record are none of alerting's: no findings, nothing rejected."""
    identity = identity_of(record)
    try:
        envelope = read_envelope(record.headers)
        if identity is None:
            raise RecordError("headers", f"expected a name and numbers of 63 bits, found {envelope.identity}")
        if envelope.kind is not Kind.FINDINGS:
            return Reading(record, identity)
        check_crc(envelope, record.value)
        rows = _rows(record.value)
    except RecordError as error:
        return Reading(record, identity, (), (Rejected(error.reason, error.detail, record.value, 0),))
    good, rejected = [], []
    for row in rows:
        match _read(row):
            case Finding() as finding:
                good.append(finding)
            case Rejected() as why:
                rejected.append(why)
    return Reading(record, identity, tuple(good), tuple(rejected))


def _rows(value: bytes) -> list[bytes]:
    """The findings of a record, each as a record's value of its own. Raises RecordError `json`."""
    try:
        rows = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise RecordError("json", str(error)) from error
    if not isinstance(rows, list):
        raise RecordError("json", f"expected a list of objects, found {type(rows).__name__}")
    return [orjson.dumps([row]) for row in rows]


def _read(row: bytes) -> Finding | Rejected:
    try:
        (finding,) = decode_findings(row)
    except RecordError as error:
        return Rejected(error.reason, error.detail, row, 1)
    wrong = fault(finding)
    return Rejected("finding", wrong, row, 1) if wrong else finding


def fault(finding: Finding) -> str | None:
    """What is wrong with a finding, or None. Types are checked, too: JSON may hold anything."""
    for name, is_good, expected in (
        ("equipment", _is_name, "a name of [a-z0-9_.-]+"),
        ("point", lambda v: v == "" or _is_name(v), "empty or a name of [a-z0-9_.-]+"),
        ("detector", _is_label, f"1 to {MAX_DETECTOR} printable characters"),
        ("raised", lambda v: isinstance(v, bool), "true or false"),
        ("late", lambda v: isinstance(v, bool), "true or false"),
        ("onset_us", _is_time, "µs between 1970 and 2100"),
        ("time_us", _is_time, "µs between 1970 and 2100"),
        ("score", _is_finite, "a finite number"),
        ("evidence", _is_evidence, f"an object of at most {MAX_EVIDENCE_BYTES} bytes without U+0000"),
    ):
        value = getattr(finding, name)
        if not is_good(value):
            return f"{name}: expected {expected}, found {str(value)[:100]!r}"
    return None


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_NAME and is_name(value)


def _is_label(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_DETECTOR and value.isprintable()


def _is_time(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_TIME_US


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_evidence(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    try:
        encoded: bytes = orjson.dumps(dict(value))
    except TypeError:
        return False
    return len(encoded) <= MAX_EVIDENCE_BYTES and b"\\u0000" not in encoded
