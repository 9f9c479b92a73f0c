"""Many MQTT messages at once: with the results of one at a time, in order, and none of them twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.driver import Decoded
from edge.mqtt_decode import MqttSource
from edge.mqtt_packets import DUP, QOS_1, RETAIN, TOO_LARGE
from edge.presence import Listening
from edge.subscriptions import Memory, Messages, Subscription, make_memory, subscribe
from telemetry.clock import SystemClock, iso
from telemetry.profile import Profile
from telemetry.quality import BAD_SENSOR, GOOD, UNCERTAIN_CLOCK, UNCERTAIN_STALE
from tests.edge.profiles import NOW_US, make_equipment, make_profile

MAP = {"open": 1, "shut": 0, "true": 1, "false": 0, "2": 2, "-3": -3}
PROFILE = make_profile(
    {
        "plain": {"mqtt": {}},
        "door": {"mqtt": {"path": "values.door", "map": MAP}},
        "scaled": {"mqtt": {"scale": 0.1}, "range": {"low": -1, "high": 100}},
        "shifted": {"mqtt": {"scale": 0.01, "offset": -40.05}},
        "above": {"mqtt": {"path": "up"}},
        "second": {"mqtt": {"path": "list.1"}},
        "label": {"kind": "text", "mqtt": {}},
        "other": {"mqtt": {"topic": "other", "path": "v"}},
    },
    mqtt={"online_topic": "connection"},
)
PLAIN = make_profile({"x": {"mqtt": {}}, "y": {"mqtt": {}}}, mqtt={"online_topic": "connection"})
RECEIPT = make_profile({"x": {"mqtt": {}}}, mqtt={"clock": "receipt"})
CONTENT: dict[str, Any] = {
    "values": {"plain": 1.5, "scaled": 3, "shifted": 7, "door": "open", "label": "A"},
    "up": 2,
    "list": [0, 9],
}


@dataclass
class Acks:
    """A connection that acknowledges to nobody."""

    sent: list[bytes] = field(default_factory=list)

    def acknowledge(self, messages: Messages) -> None:
        self.sent.append(messages.acks)


class Heard:
    """A source, and messages to it."""

    def __init__(self, profile: Profile, *, names: Sequence[str] = ("e",), memory: Memory | None = None) -> None:
        equipment = [make_equipment(n, profile, f"mqtt://broker/{n}") for n in names]
        self.memory = memory or make_memory([], {})
        self.subscriptions = subscribe(equipment, self.memory, file="plant.yaml")
        away = {n: 60.0 for n in names}
        self.source = MqttSource(Listening(away, dict.fromkeys(names, 0.0)), self.memory, SystemClock())

    def of(self, topic: str) -> Subscription:
        return self.subscriptions[topic.encode()]

    def messages(self, said: Sequence[tuple[str, Any, int]], at_us: int = NOW_US) -> Messages:
        payloads = [c if isinstance(c, bytes) else json.dumps(c).encode() for _, c, _ in said]
        heads = [0x30 | QOS_1 | flags for _, _, flags in said]
        return Messages(at_us, [self.of(topic) for topic, _, _ in said], payloads, heads, b"acks", Acks())

    def say(self, *said: tuple[str, Any] | tuple[str, Any, int], at_us: int = NOW_US) -> Decoded:
        whole = [(topic, content, rest[0] if rest else 0) for topic, content, *rest in said]
        return self.source.decode([self.messages(whole, at_us)])


Rows = list[tuple[str, int, float, int]]


def rows(decoded: Decoded) -> Rows:
    """(signal, µs, value, quality); NaN as None."""
    columns = decoded.columns
    owners = [b for b, n in zip(columns.blocks, columns.counts, strict=True) for _ in range(n)]
    return [
        (b.names[p], int(t), None if np.isnan(v) else float(v), int(q))  # type: ignore[misc]
        for b, p, t, v, q in zip(owners, columns.place, columns.time_us, columns.value, columns.quality, strict=True)
    ]


def values(decoded: Decoded, signal: str) -> list[float]:
    return [value for name, _, value, _ in rows(decoded) if name == signal]


# ---- the fast way has the results of the exact one

SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=True)
    | st.sampled_from(["open", "shut", "ajar", "true", "2", "-3", 2, 2.0, -3, 1e308, 4294967296, 4294967297, -0.0, ""])
    | st.text(max_size=3)
)
ANY = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner), max_leaves=4
)
TIMES = (
    st.sampled_from(
        [iso(NOW_US), iso(NOW_US - 5_000_000), iso(NOW_US + 400_000_000), NOW_US // 1_000_000, "x", None, 12]
    )
    | ANY
)


@st.composite
def contents(draw: st.DrawFn) -> Any:
    """Messages that are ordinary but for a few places."""
    value = draw(
        st.dictionaries(st.sampled_from(["plain", "scaled", "shifted", "door", "label"]), SCALAR | ANY, max_size=3)
    )
    whole: dict[str, Any] = {**CONTENT, "values": {**CONTENT["values"], **value}}
    for key in draw(st.sets(st.sampled_from(["up", "list", "values"]), max_size=1)):
        whole[key] = draw(ANY)
    if draw(st.booleans()):
        whole["time"] = draw(TIMES)
    if draw(st.integers(0, 5)) == 0:
        del whole[draw(st.sampled_from(sorted(whole)))]
    return whole


@settings(max_examples=300)
@given(st.lists(contents() | ANY, min_size=1, max_size=6))
def test_many_at_once_say_what_they_say_one_by_one_the_exact_way(said: list[Any]) -> None:
    together = Heard(PROFILE).say(*(("e/state", content) for content in said))
    exact = Heard(PROFILE)
    for subscription in exact.subscriptions.values():
        object.__setattr__(subscription, "shape", None)
    one_by_one = [exact.say(("e/state", content)) for content in said]
    assert rows(together) == [row for one in one_by_one for row in rows(one)]
    assert sorted(together.texts) == sorted(text for one in one_by_one for text in one.texts)
    assert together.delivered == [key for one in one_by_one for key in one.delivered]
    assert [e.attributes for e in together.events] == [e.attributes for one in one_by_one for e in one.events]


def test_ordinary_messages_are_not_read_one_by_one() -> None:
    heard = Heard(PROFILE)
    shape = heard.of("e/state").shape
    assert shape is not None
    assert shape.values(CONTENT) == (2, 9, 1.5, 3, 7, 1.0)
    assert shape.said(CONTENT) == ("A",)
    assert shape.time({"time": iso(NOW_US)}, NOW_US) == NOW_US


def test_topics_whose_fields_lie_alike_share_one_shape() -> None:
    heard = Heard(PROFILE, names=("a", "b"))
    assert heard.of("a/state").shape is heard.of("b/state").shape
    assert heard.of("a/state").shape is not heard.of("a/other").shape


def test_messages_of_many_devices_keep_their_order_beside_an_odd_one() -> None:
    heard = Heard(PLAIN, names=("a", "b"))
    said = [("a/state", {"values": {"x": n, "y": None if n == 1 else 0}}) for n in range(3)]
    said.insert(1, ("b/state", {"values": {"x": 7, "y": 8}}))
    decoded = heard.say(*said)
    assert [(name, value) for name, _, value, _ in rows(decoded)] == [
        ("a/x", 0.0), ("a/y", 0.0), ("b/x", 7.0), ("b/y", 8.0), ("a/x", 1.0), ("a/y", None), ("a/x", 2.0), ("a/y", 0.0),
    ]  # fmt: skip
    assert [q for name, _, _, q in rows(decoded) if name == "a/y"] == [GOOD, BAD_SENSOR, GOOD]


def test_a_message_of_very_many_rows_is_divided_into_parts() -> None:
    profile = make_profile({"x": {"mqtt": {"path": "x"}}}, mqtt={"lists": {"state": {}}})
    decoded = Heard(profile).say(("e/state", [{"x": n} for n in range(9_000)]))
    assert decoded.columns.counts.tolist() == [4_000, 4_000, 1_000]
    assert decoded.columns.value.tolist() == list(range(9_000))


def test_how_many_rows_a_list_has_is_told_by_its_size_before_it_is_read() -> None:
    profile = make_profile({"x": {"mqtt": {}}}, mqtt={"lists": {"state": {"name": "n"}}})
    heard = Heard(profile)
    messages = heard.messages([("e/state", [{"n": "x", "value": n} for n in range(1_000)], 0)])
    assert 1_000 <= messages.rows <= 2_000
    assert len(heard.source.decode([messages]).columns) == 1_000


def test_a_payload_that_was_too_large_to_keep_is_told_with_its_size() -> None:
    [event] = Heard(PLAIN).say(("e/state", b"5000000", TOO_LARGE)).events
    assert event.attributes["reason"] == "too-large"
    assert "5000000" in event.attributes["detail"]


# ---- what comes again

AT = {"time": iso(NOW_US), "values": {"x": 1, "y": 2}}
BARE = {"values": {"x": 1, "y": 2}}


@pytest.mark.parametrize("flag", [DUP, 0], ids=["marked", "unmarked"])
def test_a_message_with_a_time_counts_once_whether_or_not_its_broker_marks_the_second(flag: int) -> None:
    heard = Heard(PLAIN)
    first, again = heard.say(("e/state", AT)), heard.say(("e/state", AT, flag))
    assert (len(first.columns), len(again.columns)) == (2, 0)
    assert (len(first.delivered), list(again.delivered)) == (1, [])
    assert all(len(key) == 16 for key in first.delivered)


def test_a_message_that_an_earlier_run_journaled_is_known() -> None:
    before = Heard(PLAIN).say(("e/state", AT))
    after = Heard(PLAIN, memory=make_memory(before.delivered, {}))
    assert len(after.say(("e/state", AT, DUP)).columns) == 0
    assert len(after.say(("e/state", {**AT, "values": {"x": 3, "y": 2}}, DUP)).columns) == 2, "another one is not"


def test_without_a_time_of_its_own_a_message_is_taken_each_time() -> None:
    heard = Heard(PLAIN)
    assert [len(heard.say(("e/state", BARE, DUP)).columns) for _ in range(2)] == [2, 2]
    assert heard.say(("e/state", BARE)).delivered == []


def test_a_time_that_is_not_believed_makes_no_message_known() -> None:
    heard, unset = Heard(PLAIN), {"time": 12, "values": {"x": 1, "y": 2}}
    assert [len(heard.say(("e/state", unset)).columns) for _ in range(2)] == [2, 2]


def test_the_same_payload_of_another_equipment_is_another_message() -> None:
    heard = Heard(PLAIN, names=("a", "b"))
    assert len(heard.say(("a/state", AT), ("b/state", AT)).columns) == 4


def test_a_retained_message_that_was_taken_is_known_after_a_restart() -> None:
    first = Heard(PLAIN).say(("e/state", AT, RETAIN))
    assert len(first.columns) == 2
    assert first.state.keys() == {"retained/e/state"}
    after = Heard(PLAIN, memory=make_memory([], first.state))
    assert len(after.say(("e/state", AT, RETAIN)).columns) == 0
    other = {**AT, "time": iso(NOW_US - 1)}
    assert len(after.say(("e/state", other, RETAIN)).columns) == 2


def test_a_retained_copy_of_what_came_live_is_known() -> None:
    heard = Heard(PLAIN)
    heard.say(("e/state", AT))
    assert len(heard.say(("e/state", AT, RETAIN)).columns) == 0


def test_a_retained_message_without_a_time_is_stale() -> None:
    assert {q for _, _, _, q in rows(Heard(PLAIN).say(("e/state", BARE, RETAIN)))} == {UNCERTAIN_STALE}


def test_acknowledgements_go_to_the_connection_that_the_messages_came_by() -> None:
    heard = Heard(PLAIN)
    first, second = heard.messages([("e/state", AT, 0)]), heard.messages([("e/state", AT, 0)])
    heard.source.journaled([first])
    assert (first.line.sent, second.line.sent) == ([b"acks"], [])  # type: ignore[attr-defined]


# ---- clocks

S = 1_000_000


def talk(heard: Heard, seconds: int, *, behind_s: float, start_us: int = NOW_US) -> list[Decoded]:
    """A message a second from a device whose clock is behind."""
    moments = range(start_us, start_us + seconds * S, S)
    said = [{"time": iso(at - int(behind_s * S)), "values": {"x": at, "y": 0}} for at in moments]
    return [heard.say(("e/state", content), at_us=at) for content, at in zip(said, moments, strict=True)]


def told(decoded: Sequence[Decoded]) -> list[tuple[bool, Mapping[str, Any]]]:
    return [(e.on, e.attributes) for d in decoded for e in d.events if e.code == "clock-skew"]


@pytest.mark.parametrize("behind_s", [90.0, -90.0, 3600.0])
def test_a_clock_that_is_off_is_told_once_and_its_samples_are_doubtful_and_never_corrected(behind_s: float) -> None:
    heard = Heard(PLAIN)
    said = talk(heard, 40, behind_s=behind_s)
    assert told(said) == [(True, {"skew_s": behind_s, "limit_s": 60.0})]
    assert {q for _, _, _, q in rows(said[-1])} == {UNCERTAIN_CLOCK}
    assert {q for _, _, _, q in rows(said[0])} == {GOOD}
    assert rows(said[-1])[0][1] == NOW_US + 39 * S - int(behind_s * S)


def test_a_clock_beyond_five_minutes_ahead_is_told_and_not_believed() -> None:
    said = talk(Heard(PLAIN), 40, behind_s=-1000)
    assert told(said) == [(True, {"skew_s": -1000.0, "limit_s": 60.0})]
    assert {t for _, t, _, _ in rows(said[-1])} == {NOW_US + 39 * S}


def test_a_clock_is_right_again_when_it_is_well_within_the_limit() -> None:
    heard = Heard(PLAIN)
    off = talk(heard, 40, behind_s=90)
    still = talk(heard, 60, behind_s=50, start_us=NOW_US + 100 * S)
    right = talk(heard, 60, behind_s=1, start_us=NOW_US + 200 * S)
    assert [on for on, _ in told([*off, *still])] == [True]
    assert [on for on, _ in told(right)] == [False]
    assert {q for _, _, _, q in rows(right[-1])} == {GOOD}
    assert (off[-1].state, right[-1].state) == ({}, {}), "the state changes with the event, not later"


def test_that_a_clock_is_off_is_known_after_a_restart_and_in_a_changed_plant() -> None:
    heard = Heard(PLAIN)
    said = talk(heard, 40, behind_s=90)
    state = {key: value for d in said for key, value in d.state.items()}
    for memory in (make_memory([], state), heard.memory):
        after = Heard(PLAIN, memory=memory)
        assert told(talk(after, 40, behind_s=90, start_us=NOW_US + 100 * S)) == []


def test_what_a_device_kept_while_it_was_offline_says_nothing_about_its_clock() -> None:
    heard, said = Heard(PLAIN), []
    for second in range(60):
        at = NOW_US + second * S
        kept = [{"time": iso(at - 7200 * S + n), "values": {"x": n, "y": 0}} for n in range(5)]
        live = {"time": iso(at), "values": {"x": 0, "y": 0}}
        said.append(heard.say(*(("e/state", content) for content in [*kept, live]), at_us=at))
    assert told(said) == []


def test_with_the_receipts_clock_samples_carry_its_time_and_the_devices_is_only_measured() -> None:
    heard = Heard(RECEIPT)
    said = [
        heard.say(("e/state", {"time": iso(NOW_US + n * S + 900 * S), "values": {"x": n}}), at_us=NOW_US + n * S)
        for n in range(40)
    ]
    assert [rows(d) for d in said] == [[("e/x", NOW_US + n * S, float(n), GOOD)] for n in range(40)]
    assert told(said) == [(True, {"skew_s": -900.0, "limit_s": 60.0})]
    assert not any(d.delivered for d in said), "its times tell no two messages apart"


def test_while_the_gateways_own_clock_is_not_set_no_device_is_blamed() -> None:
    decoded = Heard(PLAIN).say(("e/state", AT), at_us=30 * S)
    assert {(t, q) for _, t, _, q in rows(decoded)} == {(30 * S, UNCERTAIN_CLOCK)}
    assert decoded.events == []


# ---- presence


def test_a_last_will_holds_until_the_next_live_word() -> None:
    heard = Heard(PLAIN)
    listening = heard.source.listening
    heard.say(("e/connection", b"OFFLINE", RETAIN))
    assert listening.unreachable(NOW_US, 1.0).keys() == {"e"}
    heard.say(("e/state", AT, RETAIN))
    assert listening.unreachable(NOW_US, 1.0).keys() == {"e"}, "a retained message says nothing about now"
    heard.say(("e/state", BARE))
    assert listening.unreachable(NOW_US, 1.0) == {}


def test_silence_is_told_since_the_last_word_and_the_time_does_not_move() -> None:
    listening = Listening({"e": 30.0}, {"e": 100.0})
    assert listening.unreachable(NOW_US, 120.0) == {}
    first = listening.unreachable(NOW_US, 131.0)
    assert first == {"e": NOW_US - 31 * S}
    assert listening.unreachable(NOW_US + 1_000_003, 132.0) == first
    assert listening.unreachable(NOW_US - 86_400 * S, 133.0) == first, "nor when the wall clock steps"
    listening.heard_s["e"] = 134.0
    assert listening.unreachable(NOW_US, 135.0) == {}


def test_since_when_is_told_anew_once_the_gateways_clock_is_set() -> None:
    listening = Listening({"e": 30.0}, {"e": 0.0})
    assert listening.unreachable(40 * S, 40.0) == {"e": 0}
    assert listening.unreachable(NOW_US, 41.0) == {"e": NOW_US - 41 * S}
