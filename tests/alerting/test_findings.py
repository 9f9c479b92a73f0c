from __future__ import annotations

from typing import Any

import pytest

from alerting.findings import read
from telemetry.log.protocol import FINDINGS, InRecord, OutRecord, Partition
from telemetry.messages import Kind
from telemetry.wire import encode_findings
from tests.alerting.line import finding, raw

GOOD = finding()


def come(out: OutRecord) -> InRecord:
    return InRecord(Partition(FINDINGS, 0), 0, 0, out.key, out.value, out.headers)


def test_a_record_is_read() -> None:
    reading = read(come(raw(encode_findings([GOOD]).value, 3)))
    assert (reading.findings, reading.rejected) == ((GOOD,), ())
    assert reading.identity is not None
    assert reading.identity.seq == 3


def test_another_kind_of_record_is_none_of_alertings() -> None:
    reading = read(come(raw(b"[]", 0, {"kind": Kind.EVENTS.value.encode()})))
    assert (reading.findings, reading.rejected, reading.identity is not None) == ((), (), True)


@pytest.mark.parametrize(
    ("rule", "record", "reason", "placed"),
    [
        ("not JSON", raw(b"{", 0), "json", True),
        ("not a list", raw(b"{}", 0), "json", True),
        ("a value that is not what was journaled", raw(b"[]", 0, {"crc": b"00000001"}), "crc", True),
        ("a major version of tomorrow", raw(b"[]", 0, {"schema": b"2.0"}), "schema-version", False),
        ("a kind of tomorrow", raw(b"[]", 0, {"kind": b"dreams"}), "kind", False),
        ("no seq", raw(b"[]", 0, {"seq": b""}), "headers", False),
        ("a maker that is no name", raw(b"[]", 0, {"edge": b"a\0b"}), "headers", False),
    ],
)
def test_what_cannot_be_read_is_rejected_whole_with_its_reason(
    rule: str, record: OutRecord, reason: str, placed: bool
) -> None:
    reading = read(come(record))
    assert [(r.reason, r.value) for r in reading.rejected] == [(reason, record.value)], rule
    assert (reading.findings, reading.identity is not None) == ((), placed), rule


@pytest.mark.parametrize(
    ("rule", "field", "value"),
    [
        ("a name with a space", "equipment", "lift 1"),
        ("a name too long for an index", "equipment", "a" * 65),
        ("a name that is a number", "equipment", 7),
        ("a point with a slash", "point", "a/b"),
        ("no detector", "detector", ""),
        ("a detector with a control character", "detector", "a\nb"),
        ("a detector without end", "detector", "a" * 201),
        ("raised as text", "raised", "yes"),
        ("late as a number", "late", 1),
        ("a time as text", "time_us", "now"),
        ("a time before 1970", "onset_us", -1),
        ("a time after 2100", "time_us", 10**16),
        ("a time that is true", "time_us", True),
        ("a score that is missing", "score", None),
        ("evidence that is a list", "evidence", [1]),
        ("evidence with a character that no database holds", "evidence", {"text": "a\0b"}),
        ("evidence without end", "evidence", {"text": "x" * 70_000}),
    ],
)
def test_a_bad_finding_is_rejected_by_itself_and_its_field_is_named(rule: str, field: str, value: Any) -> None:
    bad = finding("lift-2")
    object.__setattr__(bad, field, value)
    reading = read(come(raw(encode_findings([GOOD, bad, GOOD]).value, 0)))
    assert reading.findings == (GOOD, GOOD), rule
    (rejected,) = reading.rejected
    assert rejected.reason in ("finding", "json")
    assert field in rejected.detail or "NUL" in rejected.detail, rule
    assert rejected.value == encode_findings([bad]).value


@pytest.mark.parametrize(("rule", "row"), [("a row that is no object", b"1"), ("a row without its fields", b"{}")])
def test_a_row_that_is_no_finding_is_rejected_by_itself(rule: str, row: bytes) -> None:
    good = encode_findings([GOOD]).value
    reading = read(come(raw(good[:-1] + b"," + row + b"]", 0)))
    assert reading.findings == (GOOD,), rule
    assert [(r.reason, r.value) for r in reading.rejected] == [("json", b"[" + row + b"]")], rule
