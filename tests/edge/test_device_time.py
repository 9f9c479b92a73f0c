"""How devices spell time: with the profile's zone and pattern, and what is never taken for a time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.device_time import make_time_reader
from edge.payload import StateTopic
from edge.topics import make_topics
from telemetry.clock import time_us
from telemetry.quality import GOOD, UNCERTAIN_CLOCK
from tests.edge.profiles import NOW_US, make_profile

AT = time_us("2026-01-01T00:00:00Z")
SPELLINGS: dict[str, tuple[str | None, str | None, Any]] = {
    "an offset wins over the zone": ("America/New_York", None, "2026-01-01T08:00:00+08:00"),
    "a zone for times without an offset": ("Asia/Shanghai", None, "2026-01-01T08:00:00"),
    "a blank between date and time": ("Asia/Shanghai", None, "2026-01-01 08:00:00"),
    "a zone in its summer": ("Europe/Berlin", None, "2026-01-01T01:00:00"),
    "the vendor's own pattern": ("Asia/Shanghai", "%Y%m%d%H%M%S", "20260101080000"),
    "a pattern with an offset of its own": (None, "%d/%m/%Y %H:%M:%S %z", "01/01/2026 08:00:00 +0800"),
    "ISO where the pattern does not fit": (None, "%Y%m%d%H%M%S", "2026-01-01T00:00:00Z"),
    "a number where a pattern is set": (None, "%Y%m%d%H%M%S", 1767225600),
    "seconds in quotes": (None, None, "1767225600"),
    "milliseconds in quotes": (None, None, "1767225600000"),
    "microseconds in quotes": (None, None, "1767225600000000"),
}


@pytest.mark.parametrize("rule", SPELLINGS)
def test_a_time_is_read_as_the_profile_says_it_is_spelled(rule: str) -> None:
    zone, pattern, spelled = SPELLINGS[rule]
    assert make_time_reader(zone, pattern).to_us(spelled) == AT


STRANGE = ["20260101080000", "2026-01-01T08:00:00", "08:00", "", "12345", "٠١٢٣٤٥٦٧٨٩", True, [], {}, 1e18, None]


@pytest.mark.parametrize("spelled", STRANGE)
def test_without_zone_or_pattern_such_a_time_is_not_understood_or_not_believed(spelled: Any) -> None:
    assert make_time_reader(None, None).read(spelled, NOW_US)[0] is None


def test_microseconds_are_exact() -> None:
    reader = make_time_reader(None, None)
    assert reader.to_us("2026-01-01T00:00:00.123457Z") == AT + 123_457
    assert reader.to_us(1767225600.25) == AT + 250_000


def test_an_hour_that_comes_twice_is_its_first() -> None:
    reader = make_time_reader("Europe/Berlin", None)
    assert reader.to_us("2026-10-25T02:30:00") == time_us("2026-10-25T00:30:00Z")


PATTERNS = st.sampled_from([None, "%Y%m%d%H%M%S"])


@given(st.text() | st.integers() | st.floats() | st.booleans(), st.sampled_from([None, "Asia/Shanghai"]), PATTERNS)
def test_whatever_a_device_calls_time_is_one_or_none(spelled: Any, zone: str | None, pattern: str | None) -> None:
    found = make_time_reader(zone, pattern).to_us(spelled)
    assert found is None or isinstance(found, int)


def test_the_profile_says_how_time_is_spelled() -> None:
    points: dict[str, dict[str, dict[str, str]]] = {"x": {"mqtt": {}}}
    profile = make_profile(
        points, mqtt={"time_zone": "Asia/Shanghai", "time_format": "%Y/%m/%d %H:%M:%S", "time_path": "head.ts"}
    )
    topic = make_topics("e", profile).by_name["state"]
    assert isinstance(topic, StateTopic)
    said = topic.read(b'{"head": {"ts": "2026/01/01 08:00:00"}, "values": {"x": 1}}', AT, retained=False)
    assert [(row.time_us, row.quality) for row in said.rows] == [(AT, GOOD)]
    bare = make_topics("e", make_profile(points)).by_name["state"]
    said = bare.read(b'{"time": "2026/01/01 08:00:00", "values": {"x": 1}}', AT, retained=False)
    assert [(row.time_us, row.quality) for row in said.rows] == [(AT, UNCERTAIN_CLOCK)]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"time_zone": "Asia/Shangai"}, "time_zone: expected an IANA time zone"),
        ({"time_format": "%H:%M"}, "time_format: expected a pattern of strptime"),
        ({"time_format": "%Y-%m-%d %Q"}, "time_format: expected a pattern of strptime"),
        ({"max_skew_s": 301}, "max_skew_s"),
        ({"lists": {"event": {}}}, "lists.event: expected a topic of points"),
    ],
)
def test_a_profile_that_spells_no_time_is_refused(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make_profile({"x": {"mqtt": {}}}, mqtt=keys)
