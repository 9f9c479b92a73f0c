"""MQTT payloads: what each says, and the table of bad ones with what is kept of them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.complaints import Complaints
from edge.payload import Parsed, Refusal, StateTopic
from edge.payload_events import EventTopic, OnlineTopic
from edge.topics import make_topics
from telemetry.clock import time_us
from telemetry.messages import Event
from telemetry.quality import BAD_DEVICE, BAD_SENSOR, GOOD, UNCERTAIN_CLOCK, UNCERTAIN_OUT_OF_RANGE, UNCERTAIN_STALE
from telemetry.wire import decode_events, encode_events
from tests.edge.profiles import NOW_US, make_profile

RECEIVED = time_us("2026-01-01T00:00:10Z")
AT = time_us("2026-01-01T00:00:00Z")
PROFILE = make_profile(
    {
        "speed": {"mqtt": {"scale": 0.1}, "range": {"low": 0, "high": 3}},
        "door": {"mqtt": {"path": "doors.0.state", "map": {"open": 1, "closed": 0, "true": 1, "2": 2}}},
        "flag": {"mqtt": {}},
        "label": {"kind": "text", "mqtt": {}},
        "other": {"mqtt": {"topic": "other", "path": "v"}},
    },
    mqtt={"online_topic": "connection"},
)
MADE = make_topics("e", PROFILE)
TOPICS = MADE.by_name
GOOD_MESSAGE: dict[str, Any] = {
    "time": "2026-01-01T00:00:00Z",
    "values": {"speed": 12, "flag": True, "label": "A7"},
    "doors": [{"state": "open"}],
}


def state(content: Any, *, retained: bool = False, topic: str = "state") -> Parsed:
    reader = TOPICS[topic]
    assert isinstance(reader, StateTopic)
    payload = content if isinstance(content, bytes) else json.dumps(content).encode()
    return reader.read(payload, RECEIVED, retained=retained)


def events(content: Any, *, retained: bool = False) -> Parsed:
    reader = TOPICS["event"]
    assert isinstance(reader, EventTopic)
    return reader.read(json.dumps(content).encode(), RECEIVED, retained=retained)


def values(parsed: Parsed) -> dict[str, tuple[float, int]]:
    return {MADE.block.names[row.place].partition("/")[2]: (row.value, row.quality) for row in parsed.rows}


def times(parsed: Parsed) -> set[int]:
    return {row.time_us for row in parsed.rows}


def qualities(parsed: Parsed) -> set[int]:
    return {row.quality for row in parsed.rows}


def reasons(parsed: Parsed) -> list[str]:
    return [refusal.reason for refusal in parsed.refusals]


def test_a_good_message_gives_each_point_at_the_devices_time() -> None:
    said = state(GOOD_MESSAGE)
    assert values(said) == {"speed": (1.2, GOOD), "door": (1.0, GOOD), "flag": (1.0, GOOD)}
    assert times(said) == {AT}
    assert said.texts == [("label", "A7", AT)]
    assert (said.refusals, said.missing, said.device_time_us) == ([], 0, AT)


def test_topics_of_one_equipment_share_one_block_of_names() -> None:
    assert [MADE.block.names[row.place] for row in state({"v": 1}, topic="other").rows] == ["e/other"]
    assert len(MADE.block.names) == 4


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T08:00:00+08:00",
        "2026-01-01T00:00:00.000Z",
        1767225600,
        1767225600000,
        1767225600000000,
        1767225600.0,
    ],
)
def test_device_times_are_iso_8601_with_any_offset_or_a_number_since_1970(text: Any) -> None:
    assert state({**GOOD_MESSAGE, "time": text}).device_time_us == AT


BAD_TIMES = {
    "a clock that was never set": "1970-01-01T00:00:12Z",
    "the year 1970 as a number": 12,
    "the year 1999": "1999-12-31T23:59:59Z",
    "more than 5 minutes ahead": "2026-01-01T00:05:11Z",
    "a time without its offset": "2026-01-01T00:00:00",
    "a time that is a word": "yesterday",
    "a time that is an object": {"s": 1},
    "a time that is true": True,
    "a time beyond all calendars": 1e300,
    "a time beyond the calendar": "9999-12-31T23:59:59-23:59",
}


@pytest.mark.parametrize("rule", BAD_TIMES)
def test_a_time_that_cannot_be_believed_is_replaced_by_the_receipts_and_marked(rule: str) -> None:
    said = state({**GOOD_MESSAGE, "time": BAD_TIMES[rule]})
    assert reasons(said) == ["time"]
    assert times(said) == {RECEIVED}
    assert qualities(said) == {UNCERTAIN_CLOCK}
    assert values(said)["speed"][0] == 1.2, "the value is kept"
    assert said.device_time_us is None


def test_five_minutes_ahead_is_still_believed() -> None:
    assert reasons(state({**GOOD_MESSAGE, "time": "2026-01-01T00:05:10Z"})) == []


def test_without_a_device_time_it_is_the_time_of_receipt_and_a_retained_message_is_stale() -> None:
    content = {"values": {"speed": 1}}
    fresh, old = state(content), state(content, retained=True)
    assert times(fresh) == {RECEIVED}
    assert qualities(fresh) == {GOOD}
    assert qualities(old) == {UNCERTAIN_STALE}


# rule → (values in place of the good ones, point, its quality, refusals, whether its value is kept)
BAD_FIELDS: dict[str, tuple[dict[str, Any], str, int | None, list[str]]] = {
    "null means no value": ({"values": {"speed": None, "flag": 1}}, "speed", BAD_SENSOR, []),
    "a word is no number": ({"values": {"speed": "12", "flag": 1}}, "speed", BAD_DEVICE, ["wrong-type"]),
    "an object is no number": ({"values": {"speed": {}, "flag": 1}}, "speed", BAD_DEVICE, ["wrong-type"]),
    "a list is no number": ({"values": {"speed": [1], "flag": 1}}, "speed", BAD_DEVICE, ["wrong-type"]),
    "a number too large for a double is no value": ({"values": {"speed": 10**400, "flag": 1}}, "speed", BAD_SENSOR, []),
    "a word that the map does not know is bad": ({"doors": [{"state": "ajar"}]}, "door", BAD_DEVICE, ["unmapped"]),
    "a number that the map does not know is bad": ({"doors": [{"state": 7}]}, "door", BAD_DEVICE, ["unmapped"]),
    "a field that is missing gives no sample": ({"values": {"flag": 1}}, "speed", None, []),
    "a path through what is no object gives no sample": ({"doors": "shut"}, "door", None, []),
    "a list that is too short gives no sample": ({"doors": []}, "door", None, []),
}


@pytest.mark.parametrize("rule", BAD_FIELDS)
def test_a_bad_field_costs_itself_and_nothing_else(rule: str) -> None:
    change, point, quality, expected = BAD_FIELDS[rule]
    said = state({**GOOD_MESSAGE, **change})
    got = values(said)
    assert reasons(said) == expected
    if quality is None:
        assert point not in got
        assert said.missing >= 1
    else:
        assert math.isnan(got[point][0])
        assert got[point][1] == quality
    assert got["flag"] == (1.0, GOOD)


def test_nan_is_not_json_but_the_rest_of_the_message_is_read() -> None:
    said = state(
        b'{"time": "2026-01-01T00:00:00Z", "values": {"speed": NaN, "flag": Infinity}, "doors": [{"state": true}]}'
    )
    got = values(said)
    assert got["door"] == (1.0, GOOD)
    assert {n: q for n, (v, q) in got.items() if math.isnan(v)} == {"speed": BAD_SENSOR, "flag": BAD_SENSOR}


@pytest.mark.parametrize(
    "payload", [b"", b"not json", b"{", b'{"values": ', b"\xff\xfe\x00", b"[" * 100_000, b'{"values": {"speed": 01}}']
)
def test_what_is_not_json_is_refused(payload: bytes) -> None:
    said = state(payload)
    assert reasons(said) == ["not-json"]
    assert said.rows == ()


@pytest.mark.parametrize("content", [{}, [], 7, None, "text", {"values": 3}, {"value": {"speed": 1}}])
def test_a_message_without_one_field_of_its_topic_is_refused(content: Any) -> None:
    said = state(content)
    assert "missing-field" in reasons(said)
    assert "values.speed" in said.refusals[0].detail


def test_a_text_without_end_is_refused_and_the_rest_kept() -> None:
    said = state({"values": {"label": "x" * 2001, "flag": 1}})
    assert reasons(said) == ["text"]
    assert said.texts == []
    assert values(said) == {"flag": (1.0, GOOD)}


def test_values_outside_their_range_are_kept_and_uncertain() -> None:
    assert values(state({"values": {"speed": 31}})) == {"speed": (3.1, UNCERTAIN_OUT_OF_RANGE)}


def test_maps_are_spelled_as_json_spells() -> None:
    for word, value in (("open", 1.0), ("closed", 0.0), (True, 1.0), (2, 2.0), (2.0, 2.0)):
        assert values(state({"doors": [{"state": word}]})) == {"door": (value, GOOD)}


def test_an_event_keeps_its_scheme_code_state_time_and_attributes() -> None:
    said = events({"time": "2026-01-01T00:00:00Z", "scheme": "gbt24476-2017", "code": "4", "state": "on", "floor": 3})
    assert said.events == (Event("e", AT, "gbt24476-2017", "4", True, {"floor": 3}),)
    assert not said.refusals


def test_several_events_may_come_in_one_message_and_a_bad_one_costs_only_itself() -> None:
    good = {"scheme": "s", "code": 4, "state": "off"}
    said = events([good, {"scheme": "s"}, good])
    assert [(e.code, e.on, e.time_us) for e in said.events] == [("4", False, RECEIVED)] * 2
    assert reasons(said) == ["code"]


BAD_EVENTS: dict[str, tuple[Any, str]] = {
    "no scheme": ({"code": "4", "state": "on"}, "scheme"),
    "a scheme that is Vigil's own": ({"scheme": "vigil", "code": "4", "state": "on"}, "scheme"),
    "the scheme of texts": ({"scheme": "text", "code": "4", "state": "on"}, "scheme"),
    "a scheme with blanks": ({"scheme": "a b", "code": "4", "state": "on"}, "scheme"),
    "no code": ({"scheme": "s", "state": "on"}, "code"),
    "an empty code": ({"scheme": "s", "code": "", "state": "on"}, "code"),
    "a code without end": ({"scheme": "s", "code": "4" * 65, "state": "on"}, "code"),
    "a code that is true": ({"scheme": "s", "code": True, "state": "on"}, "code"),
    "no state": ({"scheme": "s", "code": "4"}, "state"),
    "a state of another kind": ({"scheme": "s", "code": "4", "state": "maybe"}, "state"),
    "no object": ("4", "wrong-type"),
    "a number that JSON readers cannot hold": (
        {"scheme": "s", "code": "4", "state": "on", "n": 10**400},
        "attributes",
    ),
    "attributes that would fill a record": (
        {"scheme": "s", "code": "4", "state": "on", "n": "x" * 9000},
        "attributes",
    ),
    "a NUL, which no database keeps": ({"scheme": "s", "code": "4", "state": "on", "n": "a\0b"}, "attributes"),
    "a NUL in the code": ({"scheme": "s", "code": "4\0", "state": "on"}, "attributes"),
    "a whole number beyond 64 bits": ({"scheme": "s", "code": "4", "state": "on", "n": 2**63}, "attributes"),
    "half of a surrogate pair": ({"scheme": "s", "code": "4", "state": "on", "n": "\ud800"}, "attributes"),
}


@pytest.mark.parametrize("rule", BAD_EVENTS)
def test_an_event_that_is_none_is_refused_with_its_reason(rule: str) -> None:
    content, reason = BAD_EVENTS[rule]
    said = events(content)
    assert reasons(said) == [reason]
    assert said.events == ()


def test_an_event_with_a_time_that_cannot_be_believed_is_kept_with_what_the_device_said() -> None:
    said = events({"time": "1970-01-01T00:00:00Z", "scheme": "s", "code": "4", "state": "on"})
    assert said.events == (Event("e", RECEIVED, "s", "4", True, {"device_time": "1970-01-01T00:00:00Z"}),)
    assert reasons(said) == ["time"]


def test_a_retained_event_counts_only_with_a_time_of_its_own() -> None:
    bare = {"scheme": "s", "code": "4", "state": "on"}
    assert reasons(events(bare, retained=True)) == ["retained-event"]
    assert len(events({**bare, "time": "2025-01-01T00:00:00Z"}, retained=True).events) == 1


@pytest.mark.parametrize(
    ("payload", "online"),
    [
        (b"ONLINE", True),
        (b'"OFFLINE"', False),
        (b'{"connectionState": "CONNECTIONBROKEN"}', False),
        (b'{"state": "ONLINE"}', True),
        (b"true", True),
        (b'{"online": false}', False),
    ],
)
def test_the_last_will_says_on_or_off(payload: bytes, online: bool) -> None:
    reader = TOPICS["connection"]
    assert isinstance(reader, OnlineTopic)
    assert reader.read(payload, RECEIVED, retained=True) == Parsed(online=online)


@pytest.mark.parametrize("payload", [b"", b"perhaps", b"{}", b"[]", b"3", b"\xff"])
def test_a_last_will_that_says_neither_is_refused(payload: bytes) -> None:
    said = TOPICS["connection"].read(payload, RECEIVED, retained=True)
    assert reasons(said) == ["online"]
    assert said.online is None


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["time", "values", "speed", "doors", "state", "scheme", "code", "v", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(JSON | st.binary(max_size=40), st.booleans(), st.sampled_from(sorted(TOPICS)))
def test_no_payload_breaks_its_reader_and_whatever_comes_of_it_can_be_journaled(
    content: Any, retained: bool, topic: str
) -> None:
    payload = content if isinstance(content, bytes) else json.dumps(content).encode()
    said = TOPICS[topic].read(payload, RECEIVED, retained=retained)
    complaints = [e for r in said.refusals for e in Complaints().about("e", topic, r, RECEIVED)]
    texts = [Event("e", at, "text", point, True, {"value": text}) for point, text, at in said.texts]
    made = [*said.events, *complaints, *texts]
    assert len(decode_events(encode_events(made).value)) == len(made), "the record can be read again"
    assert max(times(said), default=0) <= RECEIVED + 300_000_000
    assert all(math.isfinite(row.value) or (math.isnan(row.value) and not row.quality & 0xC0) for row in said.rows)


def test_a_complaint_is_told_when_it_begins_and_then_once_a_minute_with_how_often() -> None:
    complaints = Complaints()
    refusal = Refusal("not-json", "detail")
    told = [complaints.about("e", "state", refusal, NOW_US + n * 1_000_000) for n in range(130)]
    assert [(n, e[0].attributes["times"]) for n, e in enumerate(told) if e] == [(0, 1), (60, 60), (120, 60)]
    assert told[0][0].scheme == "vigil"
    assert told[0][0].code == "mqtt-payload"
    assert complaints.about("other", "state", refusal, NOW_US), "each equipment has its own"
