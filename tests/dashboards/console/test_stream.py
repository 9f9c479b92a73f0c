"""The stream: what happens is told at once, to those who asked, and again to those who were away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, takewhile

import httpx
import pytest

from dashboards.console.subscriber import MAX_PENDING, Message, Position, Subscriber, Wish, parse_position
from tests.dashboards.console.conftest import RunningConsole, Told, told
from tests.dashboards.console.seed import Seed

_numbers = count()


@contextmanager
def _listening(console: RunningConsole, *, since: str | None = None, **query: object) -> Iterator[Iterator[Told]]:
    headers = {"Last-Event-ID": since} if since else {}
    with console.client() as client, client.stream("GET", "/api/v1/stream", params=query, headers=headers) as answer:  # type: ignore[arg-type]
        assert answer.headers["content-type"].startswith("text/event-stream")
        messages = told(answer)
        assert next(messages).kind == "hello"
        yield messages


def _next(messages: Iterator[Told], kind: str) -> Told:
    return next(message for message in messages if message.kind == kind)


def _raise(seed: Seed, equipment: str = "lift-0006") -> str:
    alarm = f"told-{next(_numbers)}"
    seed.alarm(alarm, equipment, "", "comms-loss", priority="critical")
    return alarm


def test_an_alarm_is_told_within_a_second_of_its_notification(console: RunningConsole) -> None:
    delays = []
    with _listening(console) as messages, console.database() as seed:
        for _ in range(10):
            alarm = _raise(seed)
            started = time.monotonic()
            message = _next(messages, "alarm")
            delays.append(time.monotonic() - started)
            assert message.content["id"] == alarm
            assert message.content["transition"] == "raise"
            assert message.content["maintainer"]["phone"] == "021-5555 0300"
    assert max(delays) < 1.0, delays


def test_an_alarm_without_any_notification_is_found_by_the_sweep(console: RunningConsole) -> None:
    with _listening(console, kind="alarm") as messages, console.database() as seed:
        seed.connection.execute(
            """INSERT INTO alarm.history (alarm_id, at, transition, from_state, to_state, actor)
               VALUES ('a1', now(), 'escalate', 'unacknowledged', 'unacknowledged', 'alert')"""
        )
        message = _next(messages, "alarm")
    assert (message.content["id"], message.content["transition"]) == ("a1", "escalate")


def test_readings_are_told_when_ingest_notifies(console: RunningConsole) -> None:
    with _listening(console, kind="latest", equipment="boiler-02") as messages, console.database() as seed:
        _set(seed, "boiler-02/outlet_temperature", 61.5)
        seed.connection.execute("SELECT pg_notify('vigil_latest', '{\"at\": 1}')")
        told_items = (item for message in messages if message.kind == "latest" for item in message.content["items"])
        item = next(item for item in told_items if item["value"] == 61.5)
    assert (item["equipment"], item["point"]) == ("boiler-02", "outlet_temperature")
    assert item["quality"] == "good"


def test_an_event_is_told_with_its_name(console: RunningConsole) -> None:
    with _listening(console) as messages, console.database() as seed:
        event_id = seed.event("lift-0001", "gbt24476-2017", "4")
        seed.connection.execute("SELECT pg_notify('vigil_event', %s)", (f'{{"from": {event_id}}}',))
        message = _next(messages, "event")
    assert message.content["id"] == event_id
    assert message.content["name"]["zh"] == "轿厢在开锁区域外停止"


def test_a_unit_that_goes_offline_is_told(console: RunningConsole) -> None:
    with _listening(console, kind="online") as messages, console.database() as seed:
        seed.online("lift-0010", online=False, since=seed.now)
        message = _next(messages, "online")
    assert (message.content["equipment"], message.content["connection"]) == ("lift-0010", "offline")


def test_a_client_hears_only_of_the_units_it_asked_for(console: RunningConsole) -> None:
    with _listening(console, equipment="lift-0009") as messages, console.database() as seed:
        _raise(seed, "lift-0008")
        wanted = _raise(seed, "lift-0009")
        assert _next(messages, "alarm").content["id"] == wanted


def test_a_client_may_hear_all_alarms_and_few_readings(console: RunningConsole) -> None:
    wish = {"equipment": "boiler-01", "all_alarms": "true"}
    with _listening(console, **wish) as messages, console.database() as seed:
        _set(seed, "boiler-03/outlet_temperature", 1.0)
        seed.connection.execute("SELECT pg_notify('vigil_latest', '{}')")
        alarm = _raise(seed, "lift-0008")
        heard = [*takewhile(lambda m: m.content.get("id") != alarm, messages)]
        assert not [m for m in heard if m.kind == "latest"]


def test_a_client_that_was_away_is_told_what_it_missed(console: RunningConsole) -> None:
    with _listening(console) as messages, console.database() as seed:
        _raise(seed)
        last = _next(messages, "alarm").id
    with console.database() as seed:
        missed = [_raise(seed) for _ in range(3)]
        event = seed.event("lift-0002", "gbt24476-2017", "42")
    with _listening(console, since=last) as messages:
        assert [_next(messages, "alarm").content["id"] for _ in range(3)] == missed
        assert _next(messages, "event").content["id"] == event


def test_a_position_that_the_store_never_reached_means_read_again(console: RunningConsole) -> None:
    with _listening(console, since="999999999-0-0") as messages:
        assert next(messages).kind == "reset"


def test_a_strange_last_event_id_is_ignored(console: RunningConsole) -> None:
    with _listening(console, since="x'; drop table") as messages, console.database() as seed:
        alarm = _raise(seed)
        assert _next(messages, "alarm").content["id"] == alarm
    assert parse_position("1-2") is None
    assert parse_position("1-2-3") == Position(1, 2, 3)
    assert parse_position("-1-2-3") is None


def test_the_listening_gauge_falls_when_clients_leave(console: RunningConsole, api: httpx.Client) -> None:
    with _listening(console):
        assert "vigil_console_stream_clients 0" not in api.get("/metrics").text
    deadline = time.monotonic() + 5
    while "vigil_console_stream_clients 0.0" not in api.get("/metrics").text:
        assert time.monotonic() < deadline


def _client(**more: object) -> Subscriber:
    wish = Wish(frozenset({"alarm", "latest", "event", "online"}), None, all_alarms=False)
    return Subscriber(wish, Position(0, 0, 0), lambda: "now")


async def test_a_slow_client_is_bounded_and_told_to_read_again() -> None:
    client = _client()
    for number in range(MAX_PENDING * 3):
        client.offer(Message("alarm", "lift", {"n": number}, transition=number))
    client.close()
    kinds = [message.event async for message in client.messages(store_up=lambda: True)]
    assert kinds[:1] == ["hello"]
    assert len(kinds) <= MAX_PENDING + 2


async def test_a_slow_client_gets_a_points_newest_reading_only() -> None:
    client = _client()
    for value in range(1000):
        client.offer_readings([("lift", "speed", {"value": value})], value)
    stream = client.messages(store_up=lambda: True)
    assert (await anext(stream)).event == "hello"
    message = await anext(stream)
    assert '"items":[{"value":999}]' in str(message.data)
    assert message.id == "0-0-999"


async def test_the_position_of_a_reading_is_not_told_before_the_reading() -> None:
    client = _client()
    client.offer(Message("alarm", "lift", {}, transition=7))
    client.offer_readings([("lift", "speed", {"value": 1})], 55)
    stream = client.messages(store_up=lambda: True)
    assert [(await anext(stream)).id for _ in range(3)] == ["0-0-0", "7-0-0", "7-0-55"]


def _set(seed: Seed, signal: str, value: float) -> None:
    row = seed.connection.execute("SELECT signal_id FROM store.signal WHERE name = %s", (signal,)).fetchone()
    assert row is not None
    seed.latest(row[0], value)


@pytest.fixture(autouse=True)
def _quiet(console: RunningConsole) -> Iterator[None]:
    """Every unit online again before the next test."""
    yield
    with console.database() as seed:
        seed.connection.execute("UPDATE store.equipment_online SET online = true WHERE equipment = 'lift-0010'")
