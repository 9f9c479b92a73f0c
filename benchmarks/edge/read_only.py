"""The edge's way from a device to values and no further: its fleet, schedule, lanes and decoding as the service puts them
together, with the journal replaced by a thread that decodes what comes and counts it. For the row `read` of
benchmarks.edge; the one file to follow the edge's insides.

    python -m benchmarks.edge.read_only PLANT PROFILES

answers each line on its standard input with the number of good samples so far. Ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.driver import Source
from edge.fleet import Fleet
from edge.journal import LINGER_S
from edge.policy import Reachability
from edge.schedule import Rota
from edge.service import SETTLE_S, new_event_loop
from telemetry.clock import SystemClock
from telemetry.files import load_plant
from telemetry.plant import Equipment
from telemetry.quality import is_bad
from telemetry.service import cancel_all


@dataclass(slots=True)
class Counter:
    """In place of the journal: gathers as long as it does, decodes as it does."""

    samples: int = 0
    _queue: list[tuple[Source, Any]] = field(default_factory=list)
    _condition: threading.Condition = field(default_factory=threading.Condition)

    def put(self, source: Source, received: Any, rows: int) -> bool:
        """See edge.driver.Put."""
        with self._condition:
            if not self._queue:
                self._condition.notify()
            self._queue.append((source, received))
        return True

    def run(self) -> None:
        """The thread, a daemon."""
        while True:
            with self._condition:
                while not self._queue:
                    self._condition.wait()
            time.sleep(LINGER_S)
            with self._condition:
                taken, self._queue = self._queue, []
            by_source: dict[Source, list[Any]] = {}
            for source, received in taken:
                by_source.setdefault(source, []).append(received)
            for source, several in by_source.items():
                quality = source.decode(several).columns.quality
                self.samples += len(quality) - int(is_bad(quality).sum())


async def mind(gone: Sequence[Equipment], new: Sequence[Equipment]) -> None:
    """No stage after decoding."""


async def main(plant_file: Path, profiles: Path) -> None:
    """Polls until standard input ends."""
    plant, clock, counter = load_plant(plant_file, profiles_dir=profiles), SystemClock(), Counter()
    rota = Rota(clock, clock.monotonic_s() + SETTLE_S, len(plant.equipment))
    fleet = Fleet(counter.put, clock, Reachability(), rota, lambda plant, equipment: (), mind, {}, str(plant_file))
    await fleet.switch(fleet.prepare(plant, plant.equipment))
    threading.Thread(target=counter.run, daemon=True).start()
    reading = asyncio.create_task(fleet.run())
    asked: asyncio.Queue[str] = asyncio.Queue()
    asyncio.get_running_loop().add_reader(sys.stdin, lambda: asked.put_nowait(sys.stdin.readline()))
    while await asked.get():
        print(counter.samples, flush=True)
    await cancel_all([reading])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
