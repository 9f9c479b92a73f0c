"""Samples a second that the embedded line sustains on this machine, and its memory.

Devices of 100 registers are polled every second through real Modbus TCP by one edge; the number of devices is doubled
until the line no longer keeps up, that is until cycles are missed or ingest falls behind. For each step: samples a second
in the store, rows behind, CPU seconds and memory (proportional set size) of each process. The Modbus server runs beside it
on the same cores and is not counted.

    python -m benchmarks.line [--devices 100,200,400] [--seconds 30] [--json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.machine import cpu_s, machine, memory_mb, name_of, tree
from tests.fixtures.ports import free_port
from tests.fixtures.up import UpProcess

POINTS = 100
UNITS_PER_SERVER = 200
WARMUP_S = 10.0


def profile() -> str:
    """A device of 100 words."""
    points = "".join(
        f"  p{i:03}: {{name: {{zh: 点{i}, en: Point {i}}}, modbus: {{address: {i}}}}}\n" for i in range(POINTS)
    )
    return (
        "profile: bench\nversion: 1\nclass: bench\nclass_name: {zh: 测试, en: Bench}\nname: {zh: 测试, en: Bench}\n"
        f"poll_s: 1\npoints:\n{points}"
    )


def plant(ports: list[int], devices: int) -> str:
    """`devices` units over the servers."""
    addresses = [f"127.0.0.1:{ports[i % len(ports)]}/{i // len(ports) + 1}" for i in range(devices)]
    lines = [f'  - {{id: unit-{i}, profile: bench, address: "modbus+tcp://{a}"}}' for i, a in enumerate(addresses)]
    return "site: {id: bench, name: {zh: 测试, en: Bench}}\nequipment:\n" + "\n".join(lines) + "\n"


def step(devices: int, seconds: float) -> dict[str, Any]:
    """One run with so many devices, on a fresh state."""
    servers = max(1, -(-devices // UNITS_PER_SERVER))
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.modbus_server", "--servers", str(servers)], stdout=subprocess.PIPE, text=True
    )
    with tempfile.TemporaryDirectory(prefix="vigil-bench-") as name:
        folder = Path(name)
        (folder / "profiles").mkdir()
        (folder / "profiles" / "bench.yaml").write_text(profile(), encoding="utf-8")
        (folder / "plant.yaml").write_text(plant(ports_of(server), devices), encoding="utf-8")
        up = UpProcess(
            folder / "state", free_port(), "--plant", str(folder / "plant.yaml"), profiles_dir=folder / "profiles"
        )
        try:
            up.wait_until(lambda: len(up.items("equipment?limit=1")) > 0, 90)
            time.sleep(WARMUP_S)
            return measure(up, folder / "state", devices, seconds)
        finally:
            up.stop()
            server.kill()
            server.wait(5)


def ports_of(server: subprocess.Popen[str]) -> list[int]:
    """What the server printed."""
    line = server.stdout.readline() if server.stdout else ""
    return [int(word) for word in line.split()]


def measure(up: UpProcess, state: Path, devices: int, seconds: float) -> dict[str, Any]:
    """Rows, lag, CPU and memory over `seconds`."""
    url = (state / "store.url").read_text(encoding="utf-8").strip()
    pids = tree(up.process.pid)
    cpu = {pid: cpu_s(pid) for pid in pids}
    rows, started = stored(url), time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - started
    gained = stored(url) - rows
    used: dict[str, float] = defaultdict(float)
    memory: dict[str, float] = defaultdict(float)
    for pid in tree(up.process.pid):
        used[name_of(pid)] += cpu_s(pid) - cpu.get(pid, 0.0)
        memory[name_of(pid)] += memory_mb(pid)
    offered = devices * POINTS
    return {
        "devices": devices,
        "offered_per_s": offered,
        "stored_per_s": round(gained / elapsed),
        "kept_up": gained / elapsed > 0.98 * offered,
        "behind_s": behind_s(url),
        "cpu_s_per_s": {name: round(value / elapsed, 3) for name, value in sorted(used.items())},
        "memory_mb": {name: round(value, 1) for name, value in sorted(memory.items())},
        "memory_mb_total": round(sum(memory.values()), 1),
    }


def stored(url: str) -> int:
    """Samples that ingest has committed, by its own count (the audit checks that count)."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT coalesce(sum(samples), 0) FROM store.progress WHERE service = 'ingest'"
        ).fetchone()
        return int(row[0]) if row else 0


def behind_s(url: str) -> float:
    """Age of the newest sample in the store."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT extract(epoch FROM now() - max(time)) FROM store.latest").fetchone()
        return round(float(row[0]), 2) if row and row[0] is not None else float("nan")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", default="50,100,200,400")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    steps = []
    for devices in map(int, arguments.devices.split(",")):
        steps.append(step(devices, arguments.seconds))
        if not arguments.json:
            print("\n".join(f"{key:<16} {value}" for key, value in steps[-1].items()), flush=True)
        if not steps[-1]["kept_up"]:
            break
    if arguments.json:
        print(json.dumps({"machine": machine(), "steps": steps}))
    else:
        print(machine())


if __name__ == "__main__":
    main()
