"""A replay sends every row, exactly, when it is due."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymodbus.client import AsyncModbusTcpClient

from simulators.feeds import Feed
from simulators.replay import replay
from telemetry.clock import ScaledClock, SystemClock, iso, time_us
from telemetry.errors import ConfigError
from telemetry.files import load_profile
from tests.fixtures.broker import EmbeddedBroker, Listener
from tests.fixtures.ports import free_port
from tests.fixtures.waiting import until

PUMP = load_profile("pump-testbed")
START_US = time_us("2020-03-09T10:14:33+00:00")
ALL_AT_ONCE = 1e9


def make_feed(rows: int, spacing_s: float = 1.0) -> Feed:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(rows, 2))
    return Feed(("pressure", "current"), START_US + (np.arange(rows) * spacing_s * 1e6).astype(np.int64), values)


@pytest.fixture(params=["embedded_broker", "mosquitto"])
def port(request: pytest.FixtureRequest) -> int:
    broker: Any = request.getfixturevalue(request.param)
    return int(broker.port)


async def listen(port: int) -> tuple[Listener, str]:
    prefix = f"replay/{secrets.token_hex(4)}"
    return await asyncio.to_thread(Listener(port, f"{prefix}/#", f"see-{prefix[-8:]}").start), prefix


async def test_every_row_is_acknowledged_arrives_once_in_order_and_to_the_last_bit(port: int) -> None:
    feed = make_feed(3000)
    listener, prefix = await listen(port)
    report = await replay(feed, f"mqtt://127.0.0.1:{port}/{prefix}", PUMP, speed=ALL_AT_ONCE, keep_time=True)
    assert report.sent == 3000
    await until(lambda: len(listener.messages) >= 3000, what="all rows")
    got = [json.loads(payload) for payload in listener.payloads(f"{prefix}/state")]
    await asyncio.to_thread(listener.stop)
    np.testing.assert_array_equal([[row["values"][p] for p in feed.points] for row in got], feed.values)
    assert [time_us(row["time"]) for row in got] == feed.time_us.tolist()


async def test_rows_come_with_their_own_spacing_n_times_as_fast_and_never_before_they_are_due(
    embedded_broker: EmbeddedBroker,
) -> None:
    feed = Feed(("pressure",), START_US + np.array([0, 1, 3, 3, 20]) * 1_000_000, np.arange(5.0).reshape(5, 1))
    listener, prefix = await listen(embedded_broker.port)
    before_us, started_s = SystemClock().now_us(), time.monotonic()
    report = await replay(feed, f"{embedded_broker.url}/{prefix}", PUMP, speed=20.0, clock=SystemClock())
    took_s = time.monotonic() - started_s
    await until(lambda: len(listener.messages) == 5, what="all rows")
    times = np.array([time_us(json.loads(payload)["time"]) for payload in listener.payloads(f"{prefix}/state")])
    await asyncio.to_thread(listener.stop)
    assert (report.rows, report.sent, report.empty) == (5, 5, 0)
    assert 1.0 <= took_s < 10.0
    assert np.diff(times).tolist() == [50_000, 100_000, 0, 850_000], "the feed's spacing, shortened 20 times"
    assert before_us <= times[0] <= SystemClock().now_us()
    assert times[-1] <= SystemClock().now_us(), "no time is ahead of the clock"


async def test_on_a_faster_clock_the_feeds_own_spacing_is_kept_in_the_times(embedded_broker: EmbeddedBroker) -> None:
    now_us = SystemClock().now_us()
    listener, prefix = await listen(embedded_broker.port)
    started_s = time.monotonic()
    await replay(make_feed(20), f"{embedded_broker.url}/{prefix}", PUMP, clock=ScaledClock(now_us, 50.0))
    assert 0.38 <= time.monotonic() - started_s < 10.0
    await until(lambda: len(listener.messages) == 20, what="all rows")
    times = [time_us(json.loads(payload)["time"]) for payload in listener.payloads(f"{prefix}/state")]
    await asyncio.to_thread(listener.stop)
    assert np.diff(times).tolist() == [1_000_000] * 19
    assert times[0] >= now_us


async def test_empty_cells_are_left_out_and_empty_rows_counted(embedded_broker: EmbeddedBroker) -> None:
    values = np.array([[1.0, np.nan], [np.nan, np.nan], [np.nan, 2.0]])
    feed = Feed(("pressure", "current"), START_US + np.arange(3) * 1_000_000, values)
    listener, prefix = await listen(embedded_broker.port)
    report = await replay(feed, f"{embedded_broker.url}/{prefix}", PUMP, speed=ALL_AT_ONCE)
    await until(lambda: len(listener.messages) == 2, what="two rows")
    got = [json.loads(payload)["values"] for payload in listener.payloads(f"{prefix}/state")]
    await asyncio.to_thread(listener.stop)
    assert got == [{"pressure": 1.0}, {"current": 2.0}]
    assert (report.rows, report.sent, report.empty) == (3, 2, 1)
    assert str(report).startswith(f"{embedded_broker.url}/{prefix}: 2 of 3 rows played")


async def test_over_modbus_each_row_stands_in_the_registers_as_the_nearest_float32() -> None:
    feed = make_feed(6, spacing_s=1.0)
    port = free_port()
    address = f"modbus+tcp://127.0.0.1:{port}/3"
    seen: list[tuple[float, float]] = []
    async with asyncio.TaskGroup() as tasks:
        playing = tasks.create_task(replay(feed, address, PUMP, speed=4.0, clock=SystemClock()))
        client = AsyncModbusTcpClient("127.0.0.1", port=port, timeout=1, retries=0, reconnect_delay=0)
        await until(client.connect, what="the replay serves")
        while not playing.done():
            answer = await client.read_holding_registers(4, count=4, device_id=3)
            if answer.isError():
                break
            words = np.array(answer.registers, ">u2").tobytes()
            current, pressure = np.frombuffer(words, ">f4").astype(float)
            if not seen or seen[-1] != (pressure, current):
                seen.append((pressure, current))
            await asyncio.sleep(0.02)
        client.close()
    report = playing.result()
    expected = [tuple(row) for row in feed.values.astype(np.float32).astype(float).tolist()]
    assert [pair for pair in seen if not np.isnan(pair[0]) and pair != (0.0, 0.0)] == expected
    assert (report.sent, report.rows) == (6, 6)


async def test_a_file_replays_by_its_path_and_stops_when_told(embedded_broker: EmbeddedBroker, tmp_path: Path) -> None:
    path = tmp_path / "feed.csv"
    path.write_text("time,pressure\n" + "".join(f"{iso(START_US + n * 1_000_000)},{n}\n" for n in range(1000)))
    listener, prefix = await listen(embedded_broker.port)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        playing = tasks.create_task(replay(path, f"{embedded_broker.url}/{prefix}", PUMP, speed=100.0, stop=stop))
        await until(lambda: len(listener.messages) >= 3, what="the first rows")
        stop.set()
    await asyncio.to_thread(listener.stop)
    assert 3 <= playing.result().sent < 1000


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("modbus+tcp://10.0.0.5:502/1", "expected a loopback address to serve Modbus on"),
        ("http://127.0.0.1/", "expected an address"),
        ("mqtt://127.0.0.1:1883", "expected a topic prefix"),
        ("mqtts://127.0.0.1:1883/x", "expected modbus\\+tcp:// or mqtt://"),
    ],
)
async def test_an_address_that_it_cannot_play_to_is_named(address: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        await replay(make_feed(2), address, PUMP)


async def test_a_feed_whose_points_have_no_register_is_refused_before_anything_is_served() -> None:
    profile = load_profile("lift-monitor")
    feed = Feed(("speed",), np.array([START_US]), np.array([[1.0]]))
    with pytest.raises(ConfigError, match=r"points\.speed: expected modbus, to replay to modbus\+tcp"):
        await replay(feed, f"modbus+tcp://127.0.0.1:{free_port()}/1", profile)


async def test_without_a_broker_it_says_so() -> None:
    with pytest.raises(OSError, match=r"mqtt://127\.0\.0\.1:\d+: no MQTT broker there"):
        await replay(make_feed(2), f"mqtt://127.0.0.1:{free_port()}/x", PUMP)
