"""The wire format: any reader of Arrow takes it, any later 1.x is taken, and no bytes whatever raise but RecordError."""

from __future__ import annotations

import math
import random
import resource
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from telemetry import arrow_read, wire
from telemetry.arrow_read import decode_samples
from telemetry.batch import EMPTY, SampleBatch, from_rows
from telemetry.errors import RecordError
from telemetry.messages import DroppedCell, DroppedRange, Event, Finding, Heartbeat, Kind, Ledger, LedgerEntry, Registry
from telemetry.wire import Identity, check_crc, encode_samples, headers, read_envelope

T0 = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
BATCH = from_rows(
    [
        ("lift-1/speed", T0, 1.5, 192),
        ("lift-1/door", T0 + 1, math.nan, 24),
        ("lift-1/speed", T0 + 2, -0.0, 64),
        ("boiler-7/pressure", -1, math.inf, 192),
    ]
)
GOOD = headers(Identity("edge-1", 0x0123456789ABCDEF, 42), encode_samples(BATCH))


def table(**columns: pa.Array) -> bytes:
    """A stream as another writer would make it."""
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def columns(**other: pa.Array) -> dict[str, pa.Array]:
    return {
        "signal": pa.array(["a/x", "a/y"]).dictionary_encode(),
        "time": pa.array([T0, T0 + 1], pa.timestamp("us", tz="UTC")),
        "value": pa.array([1.0, None]),
        "quality": pa.array([192, 0], pa.uint8()),
        **other,
    }


def test_any_reader_of_arrow_takes_a_record_of_samples() -> None:
    with pa.ipc.open_stream(encode_samples(BATCH).value) as reader:
        read = reader.read_all()
    assert read.schema.equals(
        pa.schema(
            [
                ("signal", pa.dictionary(pa.int32(), pa.utf8())),
                ("time", pa.timestamp("us", tz="UTC")),
                ("value", pa.float64()),
                ("quality", pa.uint8()),
            ]
        )
    )
    assert read["signal"].to_pylist() == ["lift-1/speed", "lift-1/door", "lift-1/speed", "boiler-7/pressure"]
    assert read["time"].cast(pa.int64()).to_pylist() == [T0, T0 + 1, T0 + 2, -1]
    assert read["value"].to_pylist()[0] == 1.5
    assert math.isnan(read["value"].to_pylist()[1]), "NaN travels as NaN, not as null"
    assert math.copysign(1, read["value"].to_pylist()[2]) == -1
    assert read["quality"].to_pylist() == [192, 24, 64, 192]


def test_the_headers_are_text_as_documented() -> None:
    value = encode_samples(BATCH).value
    expected = {
        "schema": b"1.0",
        "kind": b"samples",
        "edge": b"edge-1",
        "epoch": b"0123456789abcdef",
        "seq": b"42",
        "count": b"4",
        "crc": f"{zlib.crc32(value):08x}".encode(),
    }
    assert expected == GOOD
    envelope = read_envelope(GOOD)
    assert (envelope.kind, envelope.identity, envelope.count) == (
        Kind.SAMPLES,
        Identity("edge-1", 0x0123456789ABCDEF, 42),
        4,
    )
    check_crc(envelope, value)


names = st.text("abz09_.-/", min_size=1, max_size=8)
rows = st.tuples(
    names,
    st.integers(-(2**63), 2**63 - 1),
    st.floats(width=64, allow_nan=True, allow_infinity=True),
    st.integers(0, 255),
)


@given(st.lists(rows, max_size=50))
@example([("a/b", 0, math.nan, 0), ("a/b", 0, -0.0, 0), ("a/c", 0, -math.inf, 255)])
def test_samples_come_back_bit_for_bit(sent: list[tuple[str, int, float, int]]) -> None:
    batch = from_rows(sent)
    read = decode_samples(encode_samples(batch).value)
    assert read.names == batch.names
    for name in ("signal", "time_us", "quality"):
        assert np.array_equal(getattr(read, name), getattr(batch, name))
    assert read.value.tobytes() == batch.value.tobytes()


def test_no_samples_at_all_are_a_record_too() -> None:
    assert len(decode_samples(encode_samples(EMPTY).value)) == 0


def test_a_reader_takes_a_later_minor_version_with_columns_that_it_does_not_know() -> None:
    value = table(**columns(), extra=pa.array([{"deep": [1, 2]}, None]))
    read = decode_samples(value)
    assert [read.names[i] for i in read.signal] == ["a/x", "a/y"]
    assert math.isnan(read.value[1]), "null is NaN"
    assert read_envelope({**GOOD, "schema": b"1.17", "new": b"header"}).schema == "1.17"


@pytest.mark.parametrize(
    "other",
    [
        {"signal": pa.array(["a/x", "a/y"])},
        {"signal": pa.array(["a/x", "a/y"], pa.large_utf8())},
        {"signal": pa.DictionaryArray.from_arrays(pa.array([3, 1], pa.int8()), pa.array(["a/y", "a/y", "q", "a/x"]))},
        {"time": pa.array([T0 // 1000, T0 // 1000], pa.timestamp("ms", tz="Asia/Shanghai"))},
        {"value": pa.array([1, None], pa.int16())},
        {"value": pa.array([1, 0], pa.float32())},
        {"quality": pa.array([192, 0], pa.int64())},
    ],
)
def test_other_writers_may_use_other_widths(other: dict[str, pa.Array]) -> None:
    read = decode_samples(table(**columns(**other)))
    assert [read.names[i] for i in read.signal] == ["a/x", "a/y"]
    assert len(set(read.names)) == len(read.names)
    assert read.time_us[0] == T0
    assert read.value[0] == 1.0
    assert read.quality.tolist() == [192, 0]


@pytest.mark.parametrize(
    ("other", "reason", "said"),
    [
        ({"signal": pa.array(["a/x", None]).dictionary_encode()}, "columns", "signal: may not be null"),
        (
            {"signal": pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a/x", None]))},
            "columns",
            "signal: ",
        ),
        ({"signal": pa.array([1, 2])}, "columns", "signal: expected dictionary"),
        ({"signal": pa.array([1, 2]).dictionary_encode()}, "columns", "signal: expected dictionary"),
        ({"time": pa.array([T0, None], pa.timestamp("us", tz="UTC"))}, "columns", "time: may not be null"),
        ({"time": pa.array([T0, T0], pa.timestamp("us"))}, "columns", "time: expected timestamp"),
        ({"time": pa.array([T0, T0])}, "columns", "time: expected timestamp"),
        ({"time": pa.array([2**60, 0], pa.timestamp("s", tz="UTC"))}, "arrow", "out of bounds"),
        ({"value": pa.array(["1", "2"])}, "columns", "value: expected double"),
        ({"value": pa.nulls(2)}, "columns", "value: expected double"),
        ({"quality": pa.array([192, 256])}, "arrow", "256"),
        ({"quality": pa.array([192, None], pa.uint8())}, "columns", "quality: may not be null"),
    ],
)
def test_what_is_no_sample_is_refused_with_its_reason(other: dict[str, pa.Array], reason: str, said: str) -> None:
    with pytest.raises(RecordError, match=said) as caught:
        decode_samples(table(**columns(**other)))
    assert caught.value.reason == reason


def test_a_missing_and_a_doubled_column_are_refused() -> None:
    with pytest.raises(RecordError, match="columns: expected signal, time, value, quality once each"):
        decode_samples(table(signal=pa.array(["a/x"]), time=pa.array([1])))
    batch = pa.record_batch([*columns().values(), pa.array([1, 2])], names=[*columns(), "value"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(RecordError, match="once each"):
        decode_samples(bytes(sink.getvalue()))


def test_indices_beyond_the_dictionary_are_refused() -> None:
    signal = pa.DictionaryArray.from_arrays(pa.array([0, 7], pa.int32()), pa.array(["a/x"]), safe=False)
    with pytest.raises(RecordError, match="arrow"):
        decode_samples(table(**columns(signal=signal)))


def test_a_dictionary_whose_offsets_lead_out_of_its_bytes_is_refused() -> None:
    good = table(**columns())
    place = good.index(struct.pack("<3i", 0, 3, 6))
    bad = good[: place + 8] + struct.pack("<i", 1 << 30) + good[place + 12 :]
    assert decode_samples(good).names == ("a/x", "a/y")
    with pytest.raises(RecordError, match="arrow"):
        decode_samples(bad)


def test_a_dictionary_whose_offsets_run_backwards_is_refused() -> None:
    good = table(**columns())
    place = good.index(struct.pack("<3i", 0, 3, 6))
    with pytest.raises(RecordError, match="arrow"):
        decode_samples(good[:place] + struct.pack("<3i", 0, 5, 3) + good[place + 12 :])


def test_more_rows_than_a_record_can_hold_are_refused() -> None:
    rows = arrow_read.MAX_ROWS + 1
    batch = pa.record_batch(
        {
            "signal": pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array(["a/x"])),
            "time": pa.array(np.zeros(rows, np.int64)).cast(pa.timestamp("us", tz="UTC")),
            "value": pa.array(np.zeros(rows)),
            "quality": pa.array(np.zeros(rows, np.uint8)),
        }
    )
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    assert len(sink.getvalue()) < 100_000
    with pytest.raises(RecordError, match="at most"):
        decode_samples(bytes(sink.getvalue()))


def refused(read: Callable[[Any], object], value: Any) -> RecordError | None:
    """The refusal, if it was refused; every other exception comes out."""
    try:
        read(value)
    except RecordError as error:
        return error
    return None


def raises_nothing_but_record_error(read: Callable[[bytes], object], value: bytes) -> None:
    refusal = refused(read, value)
    assert refusal is None or (refusal.reason in {"arrow", "columns", "json"} and len(str(refusal)) < 2000)


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_no_bytes_raise_but_record_error(value: bytes) -> None:
    for read in DECODERS.values():
        raises_nothing_but_record_error(read, value)


def test_a_truncated_record_is_refused_wherever_it_ends() -> None:
    value = encode_samples(BATCH).value
    for end in range(len(value)):
        raises_nothing_but_record_error(decode_samples, value[:end])
    with pytest.raises(RecordError):
        decode_samples(value[: len(value) // 2])
    with pytest.raises(RecordError):
        decode_samples(b"")


@given(seed=st.integers(0, 2**32), flips=st.integers(1, 8))
@settings(max_examples=400, deadline=None)
def test_a_mutated_record_is_read_or_refused_and_costs_no_absurd_memory(seed: int, flips: int) -> None:
    chance = random.Random(seed)
    compressed = pa.ipc.IpcWriteOptions(compression="lz4")
    sink = pa.BufferOutputStream()
    batch = pa.record_batch(columns())
    with pa.ipc.new_stream(sink, batch.schema, options=compressed) as writer:
        writer.write_batch(batch)
    for original in (encode_samples(BATCH).value, bytes(sink.getvalue())):
        value = bytearray(original)
        for _ in range(flips):
            value[chance.randrange(len(value))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        raises_nothing_but_record_error(decode_samples, bytes(value))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20, "KiB"


@pytest.mark.parametrize(
    ("header", "value", "reason"),
    [
        ("schema", b"2.0", "schema-version"),
        ("schema", b"10.0", "schema-version"),
        ("schema", b"1", "schema-version"),
        ("kind", b"gossip", "kind"),
        ("kind", b"\xff", "headers"),
        ("edge", b"", "headers"),
        ("edge", b"Edge 1", "headers"),
        ("edge", b"edge-1\n", "headers"),
        ("edge", b"edge\x00", "headers"),
        ("epoch", b"ffffffffffffffff", "headers"),
        ("epoch", b"12", "headers"),
        ("seq", b"-1", "headers"),
        ("seq", b"1_0", "headers"),
        ("seq", b" 1", "headers"),
        ("seq", "٣".encode(), "headers"),
        ("seq", b"9" * 19, "headers"),
        ("count", b"many", "headers"),
        ("crc", b"xyz", "headers"),
        ("crc", b"-1234567", "headers"),
    ],
)
def test_a_header_that_is_not_as_documented_is_refused(header: str, value: bytes, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        read_envelope({**GOOD, header: value})
    assert caught.value.reason == reason


@pytest.mark.parametrize("header", list(GOOD))
def test_a_missing_header_is_refused(header: str) -> None:
    with pytest.raises(RecordError, match=f"headers: missing or unreadable header.*{header}"):
        read_envelope({name: value for name, value in GOOD.items() if name != header})


@given(st.dictionaries(st.sampled_from(list(GOOD)), st.binary(max_size=20)))
def test_no_headers_raise_but_record_error(raw: Mapping[str, bytes]) -> None:
    refusal = refused(read_envelope, {**GOOD, **raw})
    assert refusal is None or refusal.reason in {"headers", "schema-version", "kind"}


def test_a_wrong_checksum_is_refused() -> None:
    with pytest.raises(RecordError, match="crc: expected") as caught:
        check_crc(read_envelope(GOOD), encode_samples(BATCH).value + b"\0")
    assert caught.value.reason == "crc"


EVENT = Event("lift-1", T0, "gbt24476-2017", "4", True, {"text": "困人", "n": 1.5, "deep": {"list": [1, None]}})
FINDING = Finding("lift-1", "speed", "limit:high", True, T0, T0 + 5, 1.0, {"value": 2.5}, late=True)
HEARTBEAT = Heartbeat("edge-1", T0, ("lift-1", "lift-2"), {"lift-2": T0 - 5})
REGISTRY = Registry("edge-1", T0, {"site": {"id": "minhang"}, "equipment": []})
LEDGER = Ledger("edge-1", 2**63 - 1, 41, (LedgerEntry("lift-1", T0, 100, 2**64 - 1),))
DROPPED = (DroppedRange(7, 0, 41, 8200), DroppedRange(7, 50, 50, 3, (DroppedCell("lift-1", T0, 2),)))

ENCODED: dict[str, tuple[wire.Encoded, object]] = {
    "samples": (encode_samples(BATCH), BATCH),
    "events": (wire.encode_events([EVENT]), (EVENT,)),
    "findings": (wire.encode_findings([FINDING]), (FINDING,)),
    "heartbeat": (wire.encode_heartbeat(HEARTBEAT), HEARTBEAT),
    "registry": (wire.encode_registry(REGISTRY), REGISTRY),
    "ledger": (wire.encode_ledger(LEDGER), LEDGER),
    "dropped": (wire.encode_dropped(DROPPED), DROPPED),
}
DECODERS: dict[str, Callable[[bytes], object]] = {
    "samples": decode_samples,
    "events": wire.decode_events,
    "findings": wire.decode_findings,
    "heartbeat": wire.decode_heartbeat,
    "registry": wire.decode_registry,
    "ledger": wire.decode_ledger,
    "dropped": wire.decode_dropped,
}


def test_every_kind_of_record_has_a_codec() -> None:
    assert set(ENCODED) == set(DECODERS) == {kind.value for kind in Kind}


@pytest.mark.parametrize("kind", [k for k in ENCODED if k != "samples"])
def test_what_is_no_samples_comes_back_as_it_was(kind: str) -> None:
    encoded, original = ENCODED[kind]
    assert encoded.kind.value == kind
    assert DECODERS[kind](encoded.value) == original


@pytest.mark.parametrize("kind", [k for k in ENCODED if k != "samples"])
def test_keys_of_a_later_minor_version_are_ignored(kind: str) -> None:
    encoded, original = ENCODED[kind]
    content = orjson.loads(encoded.value)
    for row in content if isinstance(content, list) else [content]:
        row["later"] = {"x": 1}
    assert DECODERS[kind](orjson.dumps(content)) == original


def mutations(content: Any) -> list[Any]:
    """The content with each of its values in turn replaced by what it may not be."""
    others: list[Any] = [None, True, -1, 1.5, "", "a\0b", [], {}, [1], {"a": None}, 2**63]
    if isinstance(content, dict):
        changed = [{**content, key: other} for key in content for other in mutations(content[key])]
        return others + changed + [{k: v for k, v in content.items() if k != key} for key in content]
    if isinstance(content, list):
        return others + [[other, *content[1:]] for other in (mutations(content[0]) if content else [])]
    return others


@pytest.mark.parametrize("kind", [k for k in ENCODED if k != "samples"])
def test_values_of_another_type_are_refused_and_never_leave_the_decoder(kind: str) -> None:
    encoded, original = ENCODED[kind]
    read = DECODERS[kind]
    contents = list(map(orjson.dumps, mutations(orjson.loads(encoded.value))))
    refusals = [refused(read, content) for content in contents]
    assert {r.reason for r in refusals if r} == {"json"}
    assert len([r for r in refusals if r]) > 20
    for content, refusal in zip(contents, refusals, strict=True):
        if refusal is None:
            same_types(read(content), original)


def same_types(result: Any, original: Any) -> None:
    results, originals = ((x if isinstance(x, tuple) else (x,)) for x in (result, original))
    for one, like in zip(results, originals, strict=False):
        for name in one.__dataclass_fields__:
            assert isinstance(getattr(one, name), type(getattr(like, name))), f"{name}: {getattr(one, name)!r}"


def test_a_nul_is_refused_wherever_it_hides() -> None:
    event = {"equipment": "a", "time_us": 1, "scheme": "s", "code": "c", "on": True}
    for attributes in ({"a": "x\0"}, {"x\0": 1}, {"a": [{"b": ["\0"]}]}):
        with pytest.raises(RecordError, match="NUL"):
            wire.decode_events(orjson.dumps([{**event, "attributes": attributes}]))


def test_a_nul_is_refused_in_a_long_list_of_names_and_in_a_key_of_a_later_version() -> None:
    row = {"edge": "e", "time_us": 1, "equipments": ["a", "b"], "unreachable": {}}
    for more in ({"equipments": ["a", "b\0"]}, {"unreachable": {"a\0": 1}}, {"later": ["\0"]}, {"later\0": 1}):
        with pytest.raises(RecordError, match="NUL"):
            wire.decode_heartbeat(orjson.dumps({**row, **more}))
    with pytest.raises(RecordError, match="json"):  # a raw one is no JSON
        wire.decode_heartbeat(orjson.dumps(row).replace(b'"b"', b'"\0"'))


def test_a_text_that_spells_a_nul_out_holds_none() -> None:
    row = {"edge": "e", "time_us": 1, "equipments": [r"\u0000"], "unreachable": {}}
    assert wire.decode_heartbeat(orjson.dumps(row)).equipments == (r"\u0000",)


@pytest.mark.parametrize("number", [1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("nest", ["[%d]", '{"a":[1,%d]}', '{"a":{"b":%d}}', '["a",%d]'])
def test_a_whole_number_beyond_64_bits_is_refused_however_deep_it_lies(number: int, nest: str) -> None:
    event = '[{"equipment":"a","time_us":1,"scheme":"s","code":"c","on":true,"attributes":{"x":%s}}]'
    with pytest.raises(RecordError, match="64 bits"):
        wire.decode_events((event % (nest % number)).encode())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("equipment", 7),
        ("hour_us", "7"),
        ("hour_us", True),
        ("samples", 7.0),
        ("checksum", 7),
        ("checksum", ""),
        ("checksum", "-1"),
        ("checksum", "1" * 21),
        ("checksum", str(1 << 64)),
        ("checksum", "²"),
        ("checksum", "٣"),
        ("checksum", None),
    ],
)
def test_a_ledger_with_one_wrong_entry_is_refused_by_the_name_of_the_field(field: str, value: object) -> None:
    entry = {"equipment": "a", "hour_us": 1, "samples": 2, "checksum": "3"}
    ledger = {"edge": "e", "epoch": 1, "through": 1, "entries": [entry, {**entry, field: value}]}
    with pytest.raises(RecordError, match=rf"LedgerEntry\.{field}"):
        wire.decode_ledger(orjson.dumps(ledger))
    del ledger["entries"][1][field]  # type: ignore[index]
    with pytest.raises(RecordError, match=rf"LedgerEntry\.{field}: expected \w+, found nothing"):
        wire.decode_ledger(orjson.dumps(ledger))


def test_a_deep_nest_is_refused_and_not_followed() -> None:
    with pytest.raises(RecordError, match="json"):
        wire.decode_registry(b'{"plant":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_a_whole_number_is_a_score_too() -> None:
    row = {**orjson.loads(wire.encode_findings([FINDING]).value)[0], "score": 1}
    (finding,) = wire.decode_findings(orjson.dumps([row]))
    assert isinstance(finding.score, float)


def test_arrays_that_were_read_cannot_be_written_to() -> None:
    batch: SampleBatch = decode_samples(encode_samples(BATCH).value)
    for array in (batch.signal, batch.time_us, batch.value, batch.quality):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_drops_of_an_edge_that_does_not_say_of_what_are_read() -> None:
    value = b'[{"epoch":7,"first":0,"last":41,"samples":8200}]'
    assert wire.decode_dropped(value) == (DroppedRange(7, 0, 41, 8200),)


@pytest.mark.parametrize("cells", [b"3", b"[3]", b'[{"equipment":"a"}]', b'[{"equipment":1,"hour_us":0,"samples":1}]'])
def test_drops_whose_cells_are_no_cells_are_refused(cells: bytes) -> None:
    with pytest.raises(RecordError, match="json"):
        wire.decode_dropped(b'[{"epoch":7,"first":0,"last":41,"samples":8200,"cells":' + cells + b"}]")
