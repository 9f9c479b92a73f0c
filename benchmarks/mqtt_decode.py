"""MQTT into the spool: messages (QoS 1, JSON of 20 fields) per CPU second, acknowledged after they are durable.

    python -m benchmarks.mqtt_decode [--messages 60000] [--json]

mosquitto keeps the messages of a session whose client is away; then a process takes and acknowledges them all, and the
CPU seconds of that whole process count, from its connection to its last acknowledgement. Beside the edge's driver, in
the same run on the same messages: paho-mqtt with orjson, acknowledging in batches of 200 and keeping nothing, which is
the least that a consumer on it can do. And the decoding alone, in µs a message.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.machine import machine
from edge.codes import Changes
from edge.counters import Counters
from edge.driver import Source
from edge.intake import Intake
from edge.journal import Journal
from edge.mqtt import MqttDriver, make_drivers
from edge.mqtt_packets import QOS_1
from edge.spool import Spool
from edge.subscriptions import Messages, make_memory
from telemetry.clock import SystemClock, iso
from telemetry.plant import Equipment, Plant, PlantEquipment, PlantFile, parse_address
from telemetry.profile import Profile
from telemetry.service import Health
from tests.fixtures.mosquitto import Mosquitto

FIELDS: Final = 20
DEVICES: Final = 200
EDGE: Final = "bench"
WINDOW: Final = 500
"""Messages that the publisher has under way."""
PEER: Final = "bench-peer"
CLIENTS: Final = {"edge": (EDGE,), "two shards": (f"{EDGE}.1of2", f"{EDGE}.2of2"), "peer": (PEER,)}
"""What is measured, one after another: client names, each a process."""
TEXT: Final = {"zh": "点", "en": "point"}
AWAY_S: Final = 120.0


def make_profile() -> Profile:
    """20 measurements with a range, one in two with a scale."""
    points = {
        f"p{n}": {"name": TEXT, "mqtt": {"scale": 0.1 if n % 2 else 1.0}, "range": {"low": -1e6, "high": 1e6}}
        for n in range(FIELDS)
    }
    base = {"profile": "bench", "version": 1, "class": "boiler", "class_name": TEXT, "name": TEXT}
    return Profile.model_validate({**base, "points": points})


def make_driver(url: str, known: Sequence[bytes] = (), *, edge: str = EDGE) -> MqttDriver:
    """The driver of DEVICES devices, or of those that belong to a shard."""
    profile = make_profile()
    entries = [PlantEquipment(id=f"d{n}", profile="bench", address=f"{url}/plant/d{n}") for n in range(DEVICES)]
    equipment = tuple(Equipment(e.id, profile, parse_address(e.address), e) for e in entries)
    site = {"site": {"id": "s", "name": TEXT}, "equipment": [e.entry.model_dump() for e in equipment]}
    plant = Plant(PlantFile.model_validate(site), equipment)
    mine, memory = plant.of_edge(edge), make_memory(known, {})
    [driver] = make_drivers(plant, mine, SystemClock(), edge=edge, file="bench", health=Health("edge"), memory=memory)
    return driver


def payload(n: int, now_us: int) -> bytes:
    """The n-th message: whole and real numbers, each message with a time of its own."""
    values = {f"p{k}": (n + k) % 4096 if k % 2 else 20.5 + (n * 7 + k) % 997 / 8 for k in range(FIELDS)}
    return orjson.dumps({"time": iso(now_us - n), "values": values})


def publish(port: int, messages: int) -> None:
    """Gives the broker QoS 1 messages of all devices in turn, and reads its acknowledgements."""
    now_us = SystemClock().now_us()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as wire:
        wire.sendall(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05bench")
        _exactly(wire, 4)
        for first in range(0, messages, WINDOW):
            last = min(first + WINDOW, messages)
            wire.sendall(b"".join(_packet(n, payload(n, now_us)) for n in range(first, last)))
            _exactly(wire, 4 * (last - first))
        wire.sendall(b"\xe0\x00")


def _packet(n: int, content: bytes) -> bytes:
    topic = f"plant/d{n % DEVICES}/state".encode()
    body = len(topic).to_bytes(2, "big") + topic + (n % 65_000 + 1).to_bytes(2, "big") + content
    length = bytes([len(body) & 0x7F | 0x80, len(body) >> 7])  # All are of 128 to 16,383 bytes.
    return b"\x32" + length + body


def _exactly(wire: socket.socket, size: int) -> None:
    while size:
        data = wire.recv(size)
        if not data:
            raise ConnectionError("the broker hung up")
        size -= len(data)


async def subscribe_edge(url: str, edge: str) -> None:
    """Leaves a session of the edge behind."""
    driver = make_driver(url, edge=edge)
    task = asyncio.create_task(driver.run(lambda source, received, rows: True))
    await asyncio.sleep(0)  # It says first that it is not connected.
    while driver.endpoint in driver.health.waiting_for:  # noqa: ASYNC110 (health has no event)
        await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait([task])


def subscribe_peer(port: int) -> None:
    """Leaves a session of the peer behind."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=PEER, clean_session=False)
    done: list[int] = []
    client.on_connect = lambda c, *_: c.subscribe("plant/#", 1)
    client.on_subscribe = lambda *_: done.append(1)
    client.connect("127.0.0.1", port)
    while not done:
        client.loop(0.1)
    client.disconnect()
    client.loop(0.1)


async def drain_edge(url: str, messages: int, edge: str) -> dict[str, float]:
    """Takes all messages of the edge, of `messages` to all devices, into a spool. CPU seconds and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "spool.sqlite", edge=edge, epoch=1, max_bytes=1 << 32)
        journal = Journal(spool, Intake(Changes({}), Counters({})))
        driver = make_driver(url, spool.delivered(), edge=edge)
        messages = sum(f"plant/d{n % DEVICES}/state".encode() in driver.subscriptions for n in range(messages))
        done, taken = asyncio.Event(), 0
        loop = asyncio.get_running_loop()

        class Counting:
            """The driver's source, which tells when all is durable."""

            sender_keeps = True

            def __init__(self, source: Source) -> None:
                self.decode, self.kept, self.inner = source.decode, source.kept, source

            def journaled(self, received: Sequence[Messages]) -> None:
                nonlocal taken
                self.inner.journaled(received)
                taken += sum(len(m.payloads) for m in received)
                if taken >= messages:
                    loop.call_soon_threadsafe(done.set)

        counting: dict[Source, Any] = {}
        journal.start()
        cpu_s, began_s = time.process_time(), time.monotonic()
        task = asyncio.create_task(driver.run(lambda s, r, n: journal.put(counting.setdefault(s, Counting(s)), r, n)))
        async with asyncio.timeout(AWAY_S):
            await done.wait()
        task.cancel()
        await asyncio.wait([task])
        result = {"cpu_s": time.process_time() - cpu_s, "s": time.monotonic() - began_s, "messages": taken}
        await journal.close()
        return result


def drain_peer(port: int, messages: int) -> dict[str, float]:
    """paho-mqtt and orjson, acknowledged in batches of 200, nothing kept."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=PEER, clean_session=False, manual_ack=True)
    waiting: list[int] = []
    taken = 0

    def on_message(_client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        nonlocal taken
        orjson.loads(message.payload)
        waiting.append(message.mid)
        taken += 1
        if len(waiting) >= 200 or taken >= messages:
            for mid in waiting:
                client.ack(mid, 1)
            waiting.clear()
        if taken >= messages:
            client.disconnect()

    client.on_message = on_message
    cpu_s, began_s = time.process_time(), time.monotonic()
    client.connect("127.0.0.1", port)
    client.loop_forever()
    return {"cpu_s": time.process_time() - cpu_s, "s": time.monotonic() - began_s, "messages": taken}


def decode_alone(messages: int = 20_000, at_once: int = 400) -> float:
    """µs a message: from what the connection read to columns and keys."""
    driver = make_driver("mqtt://127.0.0.1:1883")
    now_us = SystemClock().now_us()
    subscriptions = [driver.subscriptions[f"plant/d{n}/state".encode()] for n in range(DEVICES)]

    class Nowhere:
        def acknowledge(self, messages: Messages) -> None:
            """Nobody waits for it."""

    made = []
    for first in range(0, messages, at_once):
        numbers = range(first, first + at_once)
        made.append(
            Messages(
                now_us,
                [subscriptions[n % DEVICES] for n in numbers],
                [payload(n, now_us) for n in numbers],
                [0x30 | QOS_1] * at_once,
                b"",
                Nowhere(),
            )
        )
    began = time.process_time()
    for one in made:
        decoded = driver.source.decode([one])
        assert len(decoded.columns) == at_once * FIELDS
    return (time.process_time() - began) / messages * 1e6


def main() -> int:
    """Measures, and prints what a table of docs/benchmarks.md needs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mqtt_decode", description=__doc__)
    parser.add_argument("--messages", type=int, default=60_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--drain", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.drain:
        url = f"mqtt://127.0.0.1:{asked.port}"
        is_peer = asked.drain == PEER
        said = (
            drain_peer(asked.port, asked.messages)
            if is_peer
            else asyncio.run(drain_edge(url, asked.messages, asked.drain))
        )
        print(json.dumps(said))
        return 0
    results: dict[str, Any] = {"decode_us": round(decode_alone(), 2)}
    for who, clients in CLIENTS.items():
        results[who] = _measure(clients, asked.messages)
    print(json.dumps({"machine": machine(), **results}, indent=None if asked.json else 2))
    return 0


def _measure(clients: Sequence[str], messages: int) -> dict[str, float]:
    """All clients at once, each a process."""
    with tempfile.TemporaryDirectory() as folder:
        broker = Mosquitto(Path(folder), "autosave_on_changes false\nautosave_interval 0").start()
        try:
            for client in clients:
                if client == PEER:
                    subscribe_peer(broker.port)
                else:
                    asyncio.run(subscribe_edge(broker.url, client))
            publish(broker.port, messages)
            command = [sys.executable, "-m", "benchmarks.mqtt_decode", "--port", str(broker.port)]
            command += ["--messages", str(messages), "--drain"]
            running = [subprocess.Popen([*command, client], stdout=subprocess.PIPE, text=True) for client in clients]
            said = [json.loads(child.communicate(timeout=AWAY_S)[0].splitlines()[-1]) for child in running]
            cpu_s, taken = sum(s["cpu_s"] for s in said), sum(s["messages"] for s in said)
            seconds = max(s["s"] for s in said)
            return {"cpu_s": cpu_s, "s": seconds, "messages": taken, "messages_per_cpu_s": round(taken / cpu_s)}
        finally:
            broker.kill()


if __name__ == "__main__":
    sys.exit(main())
