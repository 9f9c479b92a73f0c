"""Telegraf, the peer: where its binary is, and the configuration that does the same work as the edge.

`VIGIL_BENCH_TELEGRAF` names the binary, else it is looked for on PATH. The configuration is what serves it best:
requests of contiguous registers (one a device), no type tag, no host tag, batches of a whole second's metrics; 1 s.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.edge.fleet import Fleet, point_name
from benchmarks.edge.process import Program

WHERE: Final = "VIGIL_BENCH_TELEGRAF"
DISCARD: Final = "[[outputs.discard]]\n"


def find_telegraf() -> Path | None:
    """The binary, or None. Raises FileNotFoundError where VIGIL_BENCH_TELEGRAF names none."""
    if given := os.environ.get(WHERE):
        if not Path(given).is_file():
            raise FileNotFoundError(f"{WHERE}: expected Telegraf's binary, found no file {given}")
        return Path(given)
    found = shutil.which("telegraf")
    return Path(found) if found else None


def version_of(binary: Path) -> str:
    """What it calls itself."""
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


def start(binary: Path, config: str, folder: Path, name: str = "telegraf") -> Program:
    """Starts it on a configuration."""
    file = folder / f"{name}.conf"
    file.write_text(config, encoding="utf-8")
    return Program([str(binary), "--config", str(file)], folder / f"{name}.log")


def kafka(servers: str, topic: str) -> str:
    """Output to Kafka, acknowledged by all replicas."""
    return (
        f'[[outputs.kafka]]\n  brokers = ["{servers}"]\n  topic = "{topic}"\n  required_acks = -1\n'
        '  data_format = "influx"\n'
    )


def agent(batch: int) -> str:
    """The agent's own settings: metrics leave in batches of `batch`, at the latest after a second."""
    return (
        '[agent]\n  interval = "1s"\n  round_interval = true\n  flush_interval = "1s"\n'
        f'  metric_batch_size = {batch}\n  metric_buffer_limit = {batch * 20}\n  precision = "1ms"\n'
        '  omit_hostname = true\n  collection_jitter = "0s"\n'
    )


def modbus(fleet: Fleet, port: int, output: str, *, spread: bool = False) -> str:
    """One plug-in a device, as its documentation has it: an instance has one controller.

    Unless `spread` (evenly over the second), all devices are read when a second begins: its default, and its cheapest.
    """
    fields = "".join(f'    {{ address={i}, name="{point_name(i)}", type="UINT16" }},\n' for i in range(fleet.points))
    parts = [agent(max(fleet.devices, 1000)), output]
    for device, name in enumerate(fleet.names()):
        host, unit = fleet.place(device)
        offset = f'  collection_offset = "{1000 * device // fleet.devices}ms"\n' if spread else ""
        parts.append(
            f"[[inputs.modbus]]\n{offset}"
            f'  name = "{name}"\n  controller = "tcp://{host}:{port}"\n  timeout = "1s"\n'
            '  configuration_type = "request"\n  exclude_register_type_tag = true\n'
            f'  [[inputs.modbus.request]]\n    slave_id = {unit}\n    byte_order = "ABCD"\n    register = "holding"\n'
            f"    fields = [\n{fields}    ]\n"
        )
    return "".join(parts)


def mqtt(port: int, client_id: str, topics: Sequence[str], output: str, *, undelivered: int, batch: int) -> str:
    """The consumer of a persistent session, QoS 1: a message is acknowledged once its output has written it."""
    listed = ", ".join(f'"{topic}"' for topic in topics)
    return (
        agent(batch) + output + f'[[inputs.mqtt_consumer]]\n  servers = ["tcp://127.0.0.1:{port}"]\n'
        f'  topics = [{listed}]\n  qos = 1\n  persistent_session = true\n  client_id = "{client_id}"\n'
        f"  max_undelivered_messages = {undelivered}\n"
        '  data_format = "json"\n  json_time_key = "time"\n  json_time_format = "2006-01-02T15:04:05.999999Z07:00"\n'
    )
