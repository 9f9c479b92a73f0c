"""Messages per second through the embedded MQTT broker: one publisher and one subscriber, QoS 1, every one acknowledged.

The subscriber acknowledges by hand, as an edge does, so each message crosses the broker with four packets.

    python -m benchmarks.broker [--messages N] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import paho.mqtt.client as mqtt
import psutil
from paho.mqtt.enums import CallbackAPIVersion

from tests.fixtures.broker import EmbeddedBroker, Listener
from tests.fixtures.waiting import eventually

PAYLOAD = b"x" * 300
IN_FLIGHT = 500


def measure(messages: int) -> dict[str, float]:
    """Sends `messages` through a broker of its own. Returns rate, seconds and the broker's memory."""
    broker = EmbeddedBroker().start()
    listener = Listener(broker.port, "bench/#", "bench-edge", clean=False).start()
    publisher = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bench-device")
    publisher.max_inflight_messages_set(IN_FLIGHT)
    publisher.connect("127.0.0.1", broker.port)
    publisher.loop_start()
    try:
        started = time.perf_counter()
        for _ in range(messages):
            publisher.publish("bench/state", PAYLOAD, qos=1)
        eventually(lambda: len(listener.messages) >= messages, 120.0, "every message")
        seconds = time.perf_counter() - started
        assert broker.process is not None
        memory = psutil.Process(broker.process.pid).memory_info().rss / 2**20
    finally:
        publisher.disconnect()
        publisher.loop_stop()
        listener.stop()
        broker.stop()
    delivered = len(listener.messages)
    return {
        "messages": messages,
        "delivered": delivered,
        "seconds": round(seconds, 2),
        "messages_per_s": round(messages / seconds),
        "broker_mib": round(memory, 1),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.messages)
    if arguments.json:
        json.dump(found, sys.stdout)
        return
    print(
        f"{found['messages_per_s']:.0f} messages/s (QoS 1, {len(PAYLOAD)} bytes), "
        f"{found['delivered']:.0f} of {found['messages']:.0f} delivered, broker {found['broker_mib']} MiB"
    )


if __name__ == "__main__":
    main()
