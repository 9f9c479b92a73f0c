"""Fuzz target: arbitrary bytes as the payload of every kind of MQTT topic.

What holds, whatever comes: nothing raises; every row is a finite value or a bad one without a value, of a signal of the
topic, at a time no further ahead than 5 minutes; what a payload says is rows, texts, events, an online state or at least
one refusal, so nothing is lost in silence; what it gives can be written as records and read again; and the fast way
through a topic says what the exact one says.

The first byte chooses the topic, and the message's flags; the rest is the payload.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any, Final

from structlog.testing import capture_logs

from edge.driver import Decoded
from edge.mqtt_decode import MqttSource
from edge.mqtt_packets import DUP, QOS_1, RETAIN
from edge.presence import Listening
from edge.subscriptions import Messages, Subscription, make_memory, subscribe
from telemetry.clock import SystemClock
from telemetry.messages import TEXT_SCHEME, Event
from telemetry.quality import MAJOR_MASK
from telemetry.wire import decode_events, encode_events
from tests.edge.profiles import make_equipment, make_profile

NOW_US: Final = 1_795_000_000_000_000
AHEAD_US: Final = 300_000_000
WORDS: Final = {"open": 1, "shut": 0, "true": 1, "false": 0, "2": 2}
_POINTS: Final[dict[str, dict[str, Any]]] = {
    "plain": {"mqtt": {}},
    "scaled": {"mqtt": {"scale": 0.1, "offset": -40}, "range": {"low": 0, "high": 100}},
    "door": {"mqtt": {"map": WORDS}},
    "second": {"mqtt": {"path": "list.1"}},
    "label": {"kind": "text", "mqtt": {}},
    "numbers": {"mqtt": {"topic": "numbers", "path": "a"}},
    "named": {"mqtt": {"topic": "named"}},
    "word": {"kind": "text", "mqtt": {"topic": "named", "path": "w"}},
    "record": {"mqtt": {"topic": "records"}},
    "deep": {"mqtt": {"topic": "deep", "path": "a.b.0.c"}},
}
_LISTS: Final = {"named": {"path": "data", "name": "id"}, "records": {}}
_DEVICE: Final = make_profile(
    _POINTS, mqtt={"online_topic": "connection", "lists": _LISTS, "time_zone": "Asia/Shanghai"}
)
_RECEIPT: Final = make_profile(_POINTS, mqtt={"lists": _LISTS, "clock": "receipt", "time_format": "%Y%m%d%H%M%S"})


class _Nobody:
    """A connection that takes acknowledgements and does nothing."""

    def acknowledge(self, messages: Messages) -> None:
        """See edge.subscriptions.Line."""


def _subscriptions() -> list[Subscription]:
    devices = [make_equipment("d", _DEVICE, "mqtt://b/d"), make_equipment("r", _RECEIPT, "mqtt://b/r")]
    made = subscribe(devices, make_memory([], {}), file="fuzz")
    return [made[name] for name in sorted(made)]


SUBSCRIPTIONS: Final = _subscriptions()


_SEEDS: Final[tuple[Any, ...]] = (
    {
        "time": "2026-11-18T19:06:40Z",
        "values": {"plain": 1, "scaled": 2.5, "door": "open", "label": "A"},
        "list": [1, 2],
    },
    {"time": 1794996400, "values": {"plain": 1e308, "scaled": 10**19, "door": True, "label": "\ud800"}, "list": [1, 2]},
    {"values": {"plain": None, "scaled": "x", "door": [], "label": {"a": 1}}, "list": "ab", "a": 1},
    {"data": [{"id": "named", "value": 1, "time": "2026-11-18 19:06:40"}, {"id": "w", "value": "\0"}, 7]},
    [{"values": {"record": 1}}, {"time": "20261118190640", "values": {"record": 2}}],
    {"time": "99991231235959", "a": {"b": [{"c": 1}]}},
    {"scheme": "s", "code": 4, "state": "on", "time": "2026-11-18T19:06:40", "floor": 3},
    [],
    {"data": []},
    "ONLINE",
)
SEEDS: Final = tuple(
    bytes([choice]) + json.dumps(seed).encode() for seed in _SEEDS for choice in range(len(SUBSCRIPTIONS) * 3)
)


def fuzz_one(data: bytes) -> None:
    """One payload. Raises AssertionError, or whatever the edge raises, where the rules above are broken."""
    choice, payload = data[0] if data else 0, data[1:]
    subscription = SUBSCRIPTIONS[choice % len(SUBSCRIPTIONS)]
    head = 0x30 | QOS_1 | (0, DUP, RETAIN)[choice // len(SUBSCRIPTIONS) % 3]
    with capture_logs():
        fast = _decode(subscription, payload, head)
        exact = _decode(replace(subscription, shape=None), payload, head)
    _check_rows(fast, subscription)
    _check_records(fast)
    _check_not_silent(fast, subscription, payload)
    assert _said(fast) == _said(exact), "the fast way says something else"


def _decode(subscription: Subscription, payload: bytes, head: int) -> Decoded:
    memory = make_memory([], {})
    fresh = replace(subscription, skew=memory.skew(subscription.equipment, 60_000_000))
    source = MqttSource(Listening({}, {}), memory, SystemClock())
    return source.decode([Messages(NOW_US, [fresh], [payload], [head], b"", _Nobody())])


def _check_rows(decoded: Decoded, subscription: Subscription) -> None:
    columns = decoded.columns
    assert int(columns.counts.sum()) == len(columns) == len(columns.value) == len(columns.quality)
    for value, quality in zip(columns.value.tolist(), columns.quality.tolist(), strict=True):
        bad = not quality & MAJOR_MASK
        assert math.isfinite(value) != bad, f"value {value} of quality {quality}"
    assert all(0 <= place < len(subscription.block.names) for place in columns.place.tolist())
    assert all(at <= NOW_US + AHEAD_US for at in columns.time_us.tolist())


def _check_records(decoded: Decoded) -> None:
    texts = [Event(e, at, TEXT_SCHEME, point, True, {"value": text}) for e, point, text, at in decoded.texts]
    events = [*decoded.events, *texts]
    for first in range(0, len(events), 100):
        part = events[first : first + 100]
        assert len(decode_events(encode_events(part).value)) == len(part)


def _check_not_silent(decoded: Decoded, subscription: Subscription, payload: bytes) -> None:
    if len(decoded.columns) or decoded.texts or decoded.events:
        return
    if subscription.name.endswith("/connection"):
        return  # It said on or off, or there would be a refusal.
    assert _says_nothing(payload), "a payload was lost in silence"


def _says_nothing(payload: bytes) -> bool:
    """An empty list is a message that says nothing, of events and of lists."""
    content = json.loads(payload)
    return content == [] or (isinstance(content, dict) and content.get("data") == [])


def _said(decoded: Decoded) -> tuple[Any, ...]:
    columns = decoded.columns
    values = [None if math.isnan(value) else value for value in columns.value.tolist()]
    rows = list(zip(columns.place.tolist(), columns.time_us.tolist(), values, columns.quality.tolist(), strict=True))
    return rows, list(decoded.texts), list(decoded.events), dict(decoded.state), list(decoded.delivered)
