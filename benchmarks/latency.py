"""End to end: from a register's change in the device to the alarm on /api/v1/stream.

One boiler-like device on Modbus TCP, polled every `--poll` seconds, on the embedded line. Its register crosses a limit
(no on-delay) and goes back, at moments spread evenly over the poll interval; each raise and each clear is timed from the
write of the register to the arrival of the server-sent event. Aim: p99 ≤ poll interval + 250 ms.

    python -m benchmarks.latency [--poll 1.0] [--changes 100] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.machine import machine
from benchmarks.modbus_server import Registers, serve
from tests.fixtures.ports import free_port
from tests.fixtures.up import UpProcess

PROFILE = """
profile: bench
version: 1
class: boiler
class_name: {{zh: 锅炉, en: Boiler}}
name: {{zh: 测试, en: Bench}}
poll_s: {poll}
points:
  pressure:
    name: {{zh: 压力, en: Pressure}}
    modbus: {{address: 5, type: u16}}
    alarms:
      high: {{limit: 40000, priority: high, text: {{zh: 高, en: High}}}}
"""
PLANT = """
site: {{id: bench, name: {{zh: 测试, en: Bench}}}}
equipment:
  - {{id: unit-1, profile: bench, address: "modbus+tcp://127.0.0.1:{port}/1"}}
"""
LOW, HIGH = 100, 50_000
SETTLE_S = 20.0


async def events(client: httpx.AsyncClient, url: str, queue: asyncio.Queue[tuple[float, dict[str, Any]]]) -> None:
    """Alarm events of the stream with their time of arrival."""
    async with client.stream("GET", f"{url}/api/v1/stream", timeout=None) as response:
        kind = ""
        async for line in response.aiter_lines():
            if line.startswith("event:"):
                kind = line[6:].strip()
            elif line.startswith("data:") and kind == "alarm":
                await queue.put((time.monotonic(), json.loads(line[5:])))


async def measure(poll_s: float, changes: int) -> dict[str, Any]:
    """Runs the line and times `changes` changes. Returns milliseconds."""
    registers = Registers()
    registers.fixed[5] = LOW
    server = await serve(registers)
    with tempfile.TemporaryDirectory(prefix="vigil-bench-") as name:
        folder = Path(name)
        profiles = folder / "profiles"
        profiles.mkdir()
        (profiles / "bench.yaml").write_text(PROFILE.format(poll=poll_s), encoding="utf-8")
        plant = folder / "plant.yaml"
        plant.write_text(PLANT.format(port=server.sockets[0].getsockname()[1]), encoding="utf-8")
        up = UpProcess(folder / "state", free_port(), "--plant", str(plant), profiles_dir=profiles)
        try:
            await asyncio.to_thread(up.wait_until, lambda: bool(up.online()), 60.0)
            async with httpx.AsyncClient() as client:
                queue: asyncio.Queue[tuple[float, dict[str, Any]]] = asyncio.Queue()
                listener = asyncio.create_task(events(client, up.url, queue))
                latencies = await run(registers, queue, poll_s, changes)
                listener.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await listener
        finally:
            await asyncio.to_thread(up.stop)
            server.close()
    p50, p99 = np.percentile(latencies, [50, 99]) * 1000
    return {
        "poll_s": poll_s, "changes": len(latencies), "p50_ms": round(p50, 1), "p99_ms": round(p99, 1),
        "max_ms": round(max(latencies) * 1000, 1), "p99_less_poll_ms": round(p99 - poll_s * 1000, 1), "machine": machine(),
    }  # fmt: skip


async def run(
    registers: Registers, queue: asyncio.Queue[tuple[float, dict[str, Any]]], poll_s: float, changes: int
) -> list[float]:
    """Makes the changes one after another; seconds from each to its event."""
    await asyncio.sleep(2 * poll_s + 1)
    latencies = []
    for i in range(changes):
        await asyncio.sleep(poll_s * ((i * 0.618034) % 1.0))
        registers.fixed[5] = HIGH if i % 2 == 0 else LOW
        changed = time.monotonic()
        arrived, _ = await asyncio.wait_for(queue.get(), poll_s + SETTLE_S)
        latencies.append(arrived - changed)
    return latencies


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--poll", type=float, default=1.0)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = asyncio.run(measure(arguments.poll, arguments.changes))
    if arguments.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:<18} {value}")


if __name__ == "__main__":
    main()
