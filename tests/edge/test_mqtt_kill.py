"""Killed between journal and acknowledgement: the broker delivers again, and each message is in the spool once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from edge.spool import Spool
from telemetry.arrow_read import decode_samples
from telemetry.clock import SystemClock, iso
from telemetry.messages import Kind
from tests.edge.mqtt_rig import Publisher
from tests.fixtures.mosquitto import Mosquitto


def spawn(broker: Mosquitto, folder: Path, epoch: int, messages: int, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.edge.mqtt_journaling", broker.url, str(folder), str(epoch), str(messages)]
    child = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    while child.stdout.readline() not in ("subscribed\n", ""):  # Or it is dead already, by what came again.
        pass
    return child


def say(device: Publisher, numbers: range, *, timed: bool) -> None:
    at_us = SystemClock().now_us()
    for n in numbers:
        content = {"time": iso(at_us + n), "values": {"x": n, "y": 0}}
        sent = device.client.publish(
            "plant/e/state", json.dumps(content if timed else {"values": content["values"]}), qos=1
        )
        sent.wait_for_publish(10)


def journaled(folder: Path) -> tuple[Counter[float], int]:
    """How often each x is in the spool; samples in it."""
    spool = Spool(folder / "spool.sqlite", edge="e", epoch=99, max_bytes=1 << 30)
    stored = spool.read(0, max_records=10**6, max_bytes=1 << 40)
    spool.close()
    batches = [decode_samples(s.encoded.value) for s in stored if s.encoded.kind is Kind.SAMPLES]
    found: Counter[float] = Counter()
    for batch in batches:
        names = [batch.names[place] for place in batch.signal]
        found.update(float(v) for name, v in zip(names, batch.value, strict=True) if name == "e/x")
    return found, sum(map(len, batches))


@pytest.mark.parametrize("timed", [True, False], ids=["device time", "no device time"])
def test_killed_twice_before_it_could_acknowledge_each_message_is_journaled_once(
    tmp_path: Path, mosquitto: Mosquitto, timed: bool
) -> None:
    device = Publisher(mosquitto)
    for epoch in (1, 2):
        with spawn(mosquitto, tmp_path, epoch, 10**6, "--die") as child:
            say(device, range(epoch * 20 - 20, epoch * 20), timed=timed)
            assert child.wait(20) == -9
    last = spawn(mosquitto, tmp_path, 3, 40)
    said, _ = last.communicate(timeout=30)
    device.close()
    assert last.returncode == 0
    found, samples = journaled(tmp_path)
    assert set(found) == {float(n) for n in range(40)}, "nothing is lost"
    if timed:
        assert set(found.values()) == {1}
        assert samples == 80
        assert int(said.split()[-1]) >= 1, "those that came again were counted"
    else:
        assert max(found.values()) >= 2, "without a device time: at least once"
