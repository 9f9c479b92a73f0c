"""The edge's way from a device to values and no further: its driver, bus, decoder and schedule, with the journal replaced
by a counter. For the row `read` of benchmarks.edge; the one file to follow the edge's insides.

    python -m benchmarks.edge.read_only PLANT PROFILES

answers each line on its standard input with the number of good samples so far. Ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.driver import Reading
from edge.modbus import make_devices
from edge.policy import Poller, Reachability
from telemetry.clock import SystemClock
from telemetry.files import load_plant
from telemetry.service import cancel_all


@dataclass(slots=True)
class Counter:
    """In place of the journal."""

    samples: int = 0

    def deliver(self, reading: Reading, done: Callable[[], None] | None = None) -> bool:
        """See edge.driver.Deliver."""
        self.samples += len(reading.batch) - int(reading.batch.bad.sum())
        if done is not None:
            done()
        return True


async def main(plant_file: Path, profiles: Path) -> None:
    """Polls until standard input ends."""
    plant, clock, counter, reach = (
        load_plant(plant_file, profiles_dir=profiles),
        SystemClock(),
        Counter(),
        Reachability(),
    )
    devices = make_devices(plant, plant.equipment, clock, file=str(plant_file))
    origin_s = clock.monotonic_s()
    polling = [asyncio.create_task(Poller(d, counter.deliver, reach, clock, origin_s).run()) for d in devices]
    asked: asyncio.Queue[str] = asyncio.Queue()
    asyncio.get_running_loop().add_reader(sys.stdin, lambda: asked.put_nowait(sys.stdin.readline()))
    while await asked.get():
        print(counter.samples, flush=True)
    await cancel_all(polling)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
