"""The MQTT row: a backlog of QoS 1 messages in a real mosquitto, taken by a persistent session as fast as it can.

The consumer is started and paused (SIGSTOP), the backlog is published, the consumer goes on: so neither its start nor
the publisher is in the measurement, and the broker always has the next message ready. CPU seconds are counted until the
broker holds nothing any more; what arrived is counted in Kafka.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.edge import telegraf
from benchmarks.edge.agent import Edge
from benchmarks.edge.arrivals import Arrivals, count, end_offset, make_topic, telegraf_record, vigil_record
from benchmarks.edge.process import Memory, Program
from benchmarks.edge.publisher import FIELDS, device_name, field_name, prefix_of, shard_of
from telemetry.local import free_port
from telemetry.log.protocol import TELEMETRY
from tests.fixtures.mosquitto import find_mosquitto
from tests.fixtures.ports import listens
from tests.fixtures.waiting import eventually

DEVICES: Final = 1000
HELD: Final = "$SYS/broker/store/messages/count"
SUBSCRIPTIONS: Final = "$SYS/broker/subscriptions/count"
SUBSCRIBE_S: Final = 60.0
SETTLE_S: Final = 3.0
PUBLISH_S: Final = 60.0
DRAIN_S: Final = 180.0
ARRIVE_S: Final = 3.0
CONFIG: Final = (
    "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence false\n"
    "max_queued_messages 0\nmax_inflight_messages 20000\nsys_interval 1\n"
)
UNDELIVERED: Final = 5000
"""Of Telegraf: messages that may be unacknowledged; its output writes when BATCH of them wait."""
BATCH: Final = 1000
NOWHERE: Final = "kafka://127.0.0.1:1"
"""A log that cannot be reached: what is read is spooled and acknowledged, and stays in the spool."""


@dataclass(frozen=True, slots=True)
class Drained:
    """One run."""

    who: str
    processes: int
    messages: int
    arrived: int | None
    """Messages that are in Kafka with all their fields; None where nothing goes there."""
    seconds: float
    cpu_s: float
    broker_cpu_s: float
    memory: Memory

    @property
    def per_cpu_s(self) -> float:
        """Messages per CPU second of the consumer."""
        return self.messages / self.cpu_s

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "messages_per_cpu_s": self.per_cpu_s, "messages_per_s": self.messages / self.seconds}


class Status:
    """What the broker publishes about itself once a second."""

    def __init__(self, port: int) -> None:
        self.held, self.subscriptions = -1, -1
        """Messages in its store; subscriptions of all sessions."""
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._told
        self._client.connect("127.0.0.1", port)
        self._client.subscribe([(HELD, 0), (SUBSCRIPTIONS, 0)])
        self._client.loop_start()

    def _told(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        if message.topic == HELD:
            self.held = int(message.payload)
        else:
            self.subscriptions = int(message.payload)

    def wait_for_subscriptions(self, program: Program, at_least: int) -> None:
        """Until there are so many beside this one's own, and no further one came for SETTLE_S."""
        eventually(lambda: self.subscriptions >= at_least + 2, SUBSCRIBE_S, program.said)
        seen = -1
        while seen != self.subscriptions:
            seen = self.subscriptions
            time.sleep(SETTLE_S)

    def close(self) -> None:
        """Disconnects."""
        self._client.disconnect()
        self._client.loop_stop()


@dataclass(frozen=True, slots=True)
class Broker:
    """A real mosquitto whose queues have no bound."""

    port: int
    program: Program


@contextmanager
def mosquitto(folder: Path) -> Iterator[Broker]:
    """Starts one on a free port and ends it."""
    binary = find_mosquitto()
    if binary is None:
        raise FileNotFoundError("mosquitto: expected its binary, found none (apt-get install mosquitto)")
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(CONFIG.format(port=port), encoding="utf-8")
    with Program([binary, "-c", str(config)], folder / "mosquitto.log") as program:
        eventually(lambda: listens(port), 10.0, program.said)
        yield Broker(port, program)


def write_plant(port: int, folder: Path, shards: int) -> Path:
    """The plant file of all devices, with its profile; edges are named `edge-SHARD`."""
    fields = "".join(f"  {field_name(i)}: {{name: {{zh: 点{i}, en: F {i}}}, mqtt: {{}}}}\n" for i in range(FIELDS))
    (folder / "profiles").mkdir(parents=True, exist_ok=True)
    (folder / "profiles" / "sensor.yaml").write_text(
        "profile: sensor\nversion: 1\nclass: bench\nclass_name: {zh: 测试, en: Bench}\nname: {zh: 测试, en: Bench}\n"
        f"poll_s: 1\nsilent_after_s: 3600\nmqtt: {{qos: 1}}\npoints:\n{fields}",
        encoding="utf-8",
    )
    lines = [
        f"  - {{id: {device_name(d)}, profile: sensor, edge: edge-{shard_of(d, shards)}, "
        f'address: "mqtt://127.0.0.1:{port}/{prefix_of(d, shards)}"}}\n'
        for d in range(DEVICES)
    ]
    plant = folder / "plant.yaml"
    plant.write_text("site: {id: bench, name: {zh: 测试, en: Bench}}\nequipment:\n" + "".join(lines), encoding="utf-8")
    return plant


def publish(port: int, shards: int, messages: int) -> None:
    """Fills the broker from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.edge.publisher", str(port), str(DEVICES), str(shards), str(messages)]
    subprocess.run(command, check=True, timeout=PUBLISH_S)


@dataclass(frozen=True, slots=True)
class MqttBench:
    """What all runs share. `kafka` is host:port."""

    messages: int
    kafka: str
    telegraf: Path | None

    def run(self, rounds: int) -> dict[str, Any]:
        """All variants, round by round."""
        variants: list[tuple[str, Callable[[], Drained]]] = [
            ("vigil", lambda: self.vigil(1)),
            ("vigil, spooled only", lambda: self.vigil(1, log=NOWHERE)),
            ("vigil, two processes", lambda: self.vigil(2)),
        ]
        if self.telegraf is not None:
            variants += [
                ("telegraf", lambda: self.peer(1)),
                ("telegraf, discarding", lambda: self.peer(1, discard=True)),
                ("telegraf, two processes", lambda: self.peer(2)),
            ]
        runs: dict[str, list[Drained]] = {name: [] for name, _ in variants}
        for turn in range(rounds):
            for name, measure in variants if turn % 2 == 0 else reversed(variants):
                runs[name].append(measure())
                print(f"  {told(name, runs[name][-1])}", file=sys.stderr, flush=True)
        return summary(runs)

    def vigil(self, processes: int, *, log: str | None = None) -> Drained:
        """`vigil edge`, one or several."""
        with tempfile.TemporaryDirectory(prefix="vigil-bench-") as name, mosquitto(Path(name)) as broker:
            folder = Path(name)
            plant = write_plant(broker.port, folder, processes)
            start = end_offset(self.kafka, TELEMETRY)
            edges = [Edge(folder, plant, log or f"kafka://{self.kafka}", f"edge-{shard}") for shard in range(processes)]

            drained = self._drain("vigil", broker, [edge.start for edge in edges], DEVICES)
        return drained if log is not None else counted(drained, count(self.kafka, TELEMETRY, start, vigil_record))

    def peer(self, processes: int, *, discard: bool = False) -> Drained:
        """Telegraf, one or several."""
        assert self.telegraf is not None
        binary, topic = self.telegraf, f"telegraf-mqtt-{time.time_ns()}"
        make_topic(self.kafka, topic)
        output = telegraf.DISCARD if discard else telegraf.kafka(self.kafka, topic)
        with tempfile.TemporaryDirectory(prefix="vigil-bench-") as name, mosquitto(Path(name)) as broker:

            def starter(shard: int) -> Callable[[], Program]:
                config = telegraf.mqtt(
                    broker.port, f"t{shard}", [f"bench/{shard}/+/state"], output, undelivered=UNDELIVERED, batch=BATCH
                )
                return lambda: telegraf.start(binary, config, Path(name), f"telegraf-{shard}")

            drained = self._drain("telegraf", broker, [starter(shard) for shard in range(processes)], processes)
        return drained if discard else counted(drained, count(self.kafka, topic, 0, telegraf_record))

    def _drain(
        self, who: str, broker: Broker, starters: Sequence[Callable[[], Program]], subscriptions: int
    ) -> Drained:
        with ExitStack() as stack:
            programs = [stack.enter_context(start()) for start in starters]
            status = Status(broker.port)
            stack.callback(status.close)
            status.wait_for_subscriptions(programs[0], subscriptions)
            before = status.held
            for program in programs:
                program.pause()
            publish(broker.port, len(starters), self.messages)
            eventually(lambda: status.held >= before + self.messages, PUBLISH_S, "the backlog in the broker")
            used, served, began = sum(p.cpu_s() for p in programs), broker.program.cpu_s(), time.monotonic()
            for program in programs:
                program.go_on()
            eventually(lambda: status.held <= before, DRAIN_S, "an empty broker")
            seconds = time.monotonic() - began
            time.sleep(ARRIVE_S)
            cpu_s = sum(p.cpu_s() for p in programs) - used
            memories = [p.memory() for p in programs]
            served = broker.program.cpu_s() - served
        memory = Memory(
            sum(m.rss_mb for m in memories), sum(m.pss_mb for m in memories), sum(m.peak_mb for m in memories)
        )
        return Drained(who, len(programs), self.messages, None, seconds, cpu_s, served, memory)


def counted(drained: Drained, arrivals: Arrivals) -> Drained:
    """With what is in Kafka. Raises RuntimeError where fields of a message are missing or doubled."""
    readings = sum(len(times) for times in arrivals.times_us.values())
    tags = sum(int(tags.sum()) for _, tags in arrivals.tags)
    if tags != readings * FIELDS:
        raise RuntimeError(f"expected {FIELDS} fields of each message in Kafka, found {tags} of {readings} messages")
    return replace(drained, arrived=sum(len(set(times)) for times in arrivals.times_us.values()))


def summary(runs: Mapping[str, Sequence[Drained]]) -> dict[str, Any]:
    """Medians by variant, the ratio of the first two of one process each, and every run."""
    result: dict[str, Any] = {"runs": [{"variant": name, **run.row()} for name, of in runs.items() for run in of]}
    for name, of in runs.items():
        result[name] = {
            "messages_per_cpu_s": round(statistics.median(run.per_cpu_s for run in of)),
            "messages_per_s": round(statistics.median(run.messages / run.seconds for run in of)),
            "arrived": [run.arrived for run in of],
            "cores": round(statistics.median(run.cpu_s / run.seconds for run in of), 2),
            "rss_mb": round(statistics.median(run.memory.rss_mb for run in of)),
            "pss_mb": round(statistics.median(run.memory.pss_mb for run in of)),
            "peak_mb": round(statistics.median(run.memory.peak_mb for run in of)),
        }
    if "telegraf" in result:
        result["ratio"] = round(result["vigil"]["messages_per_cpu_s"] / result["telegraf"]["messages_per_cpu_s"], 2)
    return result


def told(name: str, run: Drained) -> str:
    """A run in one line."""
    arrived = "" if run.arrived is None else f", {run.arrived:,} of {run.messages:,} arrived"
    return (
        f"{name:<24} {run.per_cpu_s:>7,.0f} messages a CPU second, {run.messages / run.seconds:>7,.0f}/s{arrived}; "
        f"RSS {run.memory.rss_mb:.0f}, peak {run.memory.peak_mb:.0f} MB (broker {run.broker_cpu_s / run.seconds:.2f} cores)"
    )
