"""The embedded broker keeps what QoS 1 and persistent sessions promise, and comes and goes cleanly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import paho.mqtt.client as mqtt
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.fixtures.broker import EmbeddedBroker, Listener, connects
from tests.fixtures.ports import free_port
from tests.fixtures.processes import gone
from tests.fixtures.waiting import eventually

COUNT = 300


@pytest.fixture
def publisher(embedded_broker: EmbeddedBroker) -> Iterator[mqtt.Client]:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="publisher")
    client.max_inflight_messages_set(100)
    client.connect("127.0.0.1", embedded_broker.port)
    client.loop_start()
    yield client
    client.disconnect()
    client.loop_stop()


def send(client: mqtt.Client, topic: str, numbers: range) -> None:
    for info in [client.publish(topic, str(number), qos=1) for number in numbers]:
        info.wait_for_publish(10)


def test_what_was_not_acknowledged_is_sent_again_in_order_after_a_lost_connection(
    embedded_broker: EmbeddedBroker, publisher: mqtt.Client
) -> None:
    first = Listener(embedded_broker.port, "again/#", "edge-a", clean=False, acknowledge=False).start()
    send(publisher, "again/x", range(COUNT))
    eventually(lambda: len(first.messages) == COUNT, what="all delivered once")
    first.vanish()
    send(publisher, "again/x", range(COUNT, 2 * COUNT))
    second = Listener(embedded_broker.port, "again/#", "edge-a", clean=False).start()
    eventually(lambda: len(second.messages) >= 2 * COUNT, what="all delivered again, and what came meanwhile")
    assert [int(payload) for _, payload, _, _ in second.messages] == list(range(2 * COUNT))
    assert [dup for _, _, dup, _ in second.messages] == [True] * COUNT + [False] * COUNT
    assert not any(retain for _, _, _, retain in second.messages)
    second.stop()


def test_what_was_acknowledged_is_not_sent_again(embedded_broker: EmbeddedBroker, publisher: mqtt.Client) -> None:
    first = Listener(embedded_broker.port, "once/#", "edge-b", clean=False).start()
    send(publisher, "once/x", range(COUNT))
    eventually(lambda: len(first.messages) == COUNT, what="all delivered")
    first.settle()
    first.stop()
    send(publisher, "once/x", range(COUNT, COUNT + 5))
    second = Listener(embedded_broker.port, "once/#", "edge-b", clean=False).start()
    eventually(lambda: len(second.messages) >= 5, what="what came while it was away")
    assert [int(payload) for _, payload, _, _ in second.messages] == list(range(COUNT, COUNT + 5))
    second.stop()


def test_a_session_taken_over_by_a_second_connection_goes_on_receiving(
    embedded_broker: EmbeddedBroker, publisher: mqtt.Client
) -> None:
    first = Listener(embedded_broker.port, "taken/#", "edge-c", clean=False, acknowledge=False).start()
    first.freeze()
    second = Listener(embedded_broker.port, "taken/#", "edge-c", clean=False).start()
    send(publisher, "taken/x", range(COUNT))
    eventually(lambda: len(second.messages) == COUNT, what="everything at the second connection")
    assert [int(payload) for payload in second.payloads("taken/x")] == list(range(COUNT))
    second.stop()
    first.vanish()


def test_the_last_will_of_a_client_that_falls_silent_is_published_after_its_keep_alive(
    embedded_broker: EmbeddedBroker,
) -> None:
    listener = Listener(embedded_broker.port, "will/#", "will-listener").start()
    connection = socket.create_connection(("127.0.0.1", embedded_broker.port))
    # CONNECT: MQTT 3.1.1, clean session, will flag, keep-alive 1 s, client "z", will topic "will/z", will "gone"
    connection.sendall(bytes.fromhex("10 1b 0004 4d515454 04 06 0001 0001 7a 0006 77696c6c2f7a 0004 676f6e65"))
    assert connection.recv(4) == bytes.fromhex("20020000")
    eventually(lambda: listener.payloads("will/z") == [b"gone"], what="the will")
    listener.stop()
    connection.close()


def test_retained_messages_reach_a_later_subscriber_and_only_for_what_it_subscribed(
    embedded_broker: EmbeddedBroker, publisher: mqtt.Client
) -> None:
    publisher.publish("kept/a", "ONLINE", qos=1, retain=True).wait_for_publish(10)
    publisher.publish("other/a", "ONLINE", qos=1, retain=True).wait_for_publish(10)
    listener = Listener(embedded_broker.port, "kept/#", "late").start()
    eventually(lambda: bool(listener.messages), what="the retained message")
    assert [(topic, retain) for topic, _, _, retain in listener.messages] == [("kept/a", True)]
    listener.stop()


def test_a_thousand_connects_leave_no_connection_open(embedded_broker: EmbeddedBroker) -> None:
    assert embedded_broker.process is not None
    process = psutil.Process(embedded_broker.process.pid)
    before = process.num_fds()
    for number in range(1000):
        with socket.create_connection(("127.0.0.1", embedded_broker.port)) as connection:
            if number % 2:  # CONNECT as client "c", then gone without a DISCONNECT; the others say nothing at all
                connection.sendall(bytes.fromhex("10 0d 0004 4d515454 04 02 003c 0001 63"))
    eventually(lambda: process.num_fds() <= before + 3, what="descriptors back to where they were")
    assert connects(embedded_broker.port)


def test_it_stops_on_sigterm_in_under_two_seconds_with_clients_connected() -> None:
    broker = EmbeddedBroker().start()
    listener = Listener(broker.port).start()
    half_open = socket.create_connection(("127.0.0.1", broker.port))
    started = time.monotonic()
    status, said = broker.stop()
    assert (status, time.monotonic() - started < 2.0) == (0, True)
    assert "Traceback" not in said
    assert said.rstrip().endswith("stopped")
    half_open.close()
    listener.vanish()


def test_it_ends_when_its_parent_is_killed() -> None:
    port = free_port()
    code = (
        "import subprocess, sys, time; "
        f"p = subprocess.Popen([sys.executable, '-m', 'vigil.embedded.broker', '--listen', '127.0.0.1:{port}']); "
        "print(p.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    eventually(lambda: connects(port), what="the broker listens")
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    eventually(lambda: not connects(port), what="nobody listens any more")
    eventually(lambda: gone(child), what="the child is gone")


@pytest.mark.parametrize(
    ("listen", "status", "said"),
    [
        ("0.0.0.0:1883", 2, "expected a loopback address"),
        ("nonsense", 2, "expected HOST:PORT"),
        ("taken", 1, "cannot listen"),
    ],
)
def test_it_says_why_it_does_not_start(listen: str, status: int, said: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}" if listen == "taken" else listen
        command = [sys.executable, "-m", "vigil.embedded.broker", "--listen", where]
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == status
    assert said in result.stderr
