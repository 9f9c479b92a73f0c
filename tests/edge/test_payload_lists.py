"""Messages that are lists: of named values, and of whole messages with a time each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge.payload import ListTopic, Parsed
from edge.topics import make_topics
from telemetry.clock import time_us
from telemetry.quality import BAD_DEVICE, GOOD, UNCERTAIN_CLOCK
from tests.edge.profiles import make_profile

AT = time_us("2026-01-01T00:00:00Z")
RECEIVED = AT + 10_000_000
POINTS: dict[str, dict[str, Any]] = {
    "temperature": {"mqtt": {"path": "temp.1", "scale": 0.1}},
    "state": {"mqtt": {"path": "7", "map": {"on": 1, "off": 0}}},
    "level": {"mqtt": {}},
    "label": {"kind": "text", "mqtt": {}},
}
NAMED = make_profile(
    POINTS, mqtt={"lists": {"state": {"path": "data.params", "name": "id", "value": "v", "time": "ts"}}}
)
RECORDS = make_profile(
    {"a": {"mqtt": {}}, "b": {"mqtt": {"path": "b"}}}, mqtt={"time_path": "at", "lists": {"state": {"path": "records"}}}
)


def read(profile: Any, content: Any) -> Parsed:
    topic = make_topics("e", profile).by_name["state"]
    assert isinstance(topic, ListTopic)
    return topic.read(json.dumps(content).encode(), RECEIVED, retained=False)


def rows(profile: Any, said: Parsed) -> list[tuple[str, float, float, int]]:
    """(point, seconds after AT, value, quality)."""
    names = make_topics("e", profile).block.names
    return [(names[r.place].partition("/")[2], (r.time_us - AT) / 1e6, r.value, r.quality) for r in said.rows]


def test_named_values_go_to_the_points_of_their_names_at_their_own_times() -> None:
    params = [
        {"id": "temp.1", "v": 215, "ts": "2026-01-01T00:00:01Z"},
        {"id": 7, "v": "on", "ts": "2026-01-01T00:00:02Z"},
        {"id": "label", "v": "B2"},
        {"id": "nobody's", "v": 1},
        {"id": "level", "v": 3},
    ]
    said = read(NAMED, {"time": "2026-01-01T00:00:05Z", "data": {"params": params}})
    assert rows(NAMED, said) == [("temperature", 1.0, 21.5, GOOD), ("state", 2.0, 1.0, GOOD), ("level", 5.0, 3.0, GOOD)]
    assert said.texts == [("label", "B2", AT + 5_000_000)]
    assert (said.refusals, said.missing) == ([], 0)
    assert said.device_time_us is not None


def test_one_point_may_come_several_times_in_one_message() -> None:
    params = [{"id": "level", "v": n, "ts": f"2026-01-01T00:00:0{n}Z"} for n in range(3)]
    said = read(NAMED, {"data": {"params": params}})
    assert rows(NAMED, said) == [("level", float(n), float(n), GOOD) for n in range(3)]


def test_entries_without_a_time_have_the_messages_or_the_receipts() -> None:
    said = read(NAMED, {"data": {"params": [{"id": "level", "v": 1}]}})
    assert rows(NAMED, said) == [("level", 10.0, 1.0, GOOD)]
    assert said.device_time_us is None, "it cannot be told from another"


def test_a_bad_entry_costs_only_itself() -> None:
    params = [
        7,
        {"id": "level"},
        {"v": 1},
        {"id": "state", "v": 0},
        {"id": 7, "v": "ajar"},
        {"id": "level", "v": 2, "ts": "never"},
    ]
    said = read(NAMED, {"data": {"params": params}})
    assert [r.reason for r in said.refusals] == ["wrong-type", "unmapped", "time"]
    assert said.missing == 1
    kept = rows(NAMED, said)
    assert [(p, q) for p, _, _, q in kept] == [("state", BAD_DEVICE), ("level", UNCERTAIN_CLOCK)]
    assert said.device_time_us is None


@pytest.mark.parametrize("content", [{}, {"data": {}}, {"data": {"params": {"id": "level", "v": 1}}}, 7, [[]]])
def test_a_message_without_its_list_is_refused(content: Any) -> None:
    assert [r.reason for r in read(NAMED, content).refusals] == ["missing-field"]


def test_a_list_of_names_that_nobody_knows_is_refused_and_an_empty_one_says_nothing() -> None:
    [refusal] = read(NAMED, {"data": {"params": [{"id": "x", "v": 1}]}}).refusals
    assert refusal.reason == "missing-field"
    assert "temp.1" in refusal.detail
    empty = read(NAMED, {"data": {"params": []}})
    assert (list(empty.refusals), list(empty.rows)) == ([], [])


def test_records_are_read_as_messages_of_their_own() -> None:
    records = [
        {"at": "2026-01-01T00:00:01Z", "values": {"a": 1}, "b": 2},
        {"at": "2026-01-01T00:00:02Z", "values": {"a": 3}},
        {"b": 4},
        {"at": "2026-01-01T00:00:04Z"},
    ]
    said = read(RECORDS, {"at": "2026-01-01T00:00:09Z", "records": records})
    assert rows(RECORDS, said) == [
        ("a", 1.0, 1.0, GOOD),
        ("b", 1.0, 2.0, GOOD),
        ("a", 2.0, 3.0, GOOD),
        ("b", 9.0, 4.0, GOOD),
    ]
    assert said.missing == 4
    assert said.refusals == []


def test_the_payload_itself_may_be_the_list() -> None:
    profile = make_profile({"a": {"mqtt": {"path": "a"}}}, mqtt={"lists": {"state": {}}})
    said = read(profile, [{"time": "2026-01-01T00:00:01Z", "a": 1}, {"time": "2026-01-01T00:00:02Z", "a": 2}])
    assert rows(profile, said) == [("a", 1.0, 1.0, GOOD), ("a", 2.0, 2.0, GOOD)]
    assert said.device_time_us is not None
