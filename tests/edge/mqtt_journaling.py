"""An edge's MQTT half as a process to be killed: driver, journal and spool, until N messages are on the disk.

    python -m tests.edge.mqtt_journaling URL FOLDER EPOCH MESSAGES [--die]

Prints `subscribed`, and at the end how many messages were known. With --die it kills itself by SIGKILL after the first
commit that has samples, before any acknowledgement of it leaves.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge import metrics
from edge.codes import Changes
from edge.counters import Counters
from edge.intake import Intake
from edge.journal import Journal
from edge.mqtt import make_drivers
from edge.spool import Spool
from edge.subscriptions import Messages, make_memory
from telemetry.clock import SystemClock
from telemetry.plant import Plant, PlantFile
from telemetry.service import Health
from tests.edge.mqtt_rig import at_work, connected
from tests.edge.profiles import TEXT, make_equipment, make_profile

PROFILE = make_profile({"x": {"mqtt": {}}, "y": {"mqtt": {}}})


class Counting:
    """The driver's source; it dies, or tells when enough is durable."""

    sender_keeps = True

    def __init__(self, source: Any, wanted: int, done: asyncio.Event, *, dies: bool) -> None:
        self.decode, self.kept = source.decode, source.kept
        self.source, self.wanted, self.done, self.dies = source, wanted, done, dies
        self.loop = asyncio.get_running_loop()
        self.taken = 0

    def journaled(self, received: Sequence[Messages]) -> None:
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        self.source.journaled(received)
        self.taken += sum(len(m.payloads) for m in received)
        if self.taken >= self.wanted:
            self.loop.call_soon_threadsafe(self.done.set)


async def main(url: str, folder: Path, epoch: int, messages: int, *, dies: bool) -> None:
    """Takes messages until `messages` are durable."""
    spool = Spool(folder / "spool.sqlite", edge="e", epoch=epoch, max_bytes=1 << 30)
    journal = Journal(spool, Intake(Changes(spool.state()), Counters(spool.state())))
    equipment = (make_equipment("e", PROFILE, f"{url}/plant/e"),)
    site = {"site": {"id": "s", "name": TEXT}, "equipment": [e.entry.model_dump() for e in equipment]}
    plant, health = Plant(PlantFile.model_validate(site), equipment), Health("edge")
    memory = make_memory(spool.delivered(), spool.state())
    [driver] = make_drivers(plant, equipment, SystemClock(), edge="e", file="f", health=health, memory=memory)
    done = asyncio.Event()
    counting = Counting(driver.source, messages, done, dies=dies)
    journal.start()
    async with at_work(driver, lambda _, received, rows: journal.put(counting, received, rows)), asyncio.timeout(20):
        await connected(driver)
        print("subscribed", flush=True)
        await done.wait()
    await journal.close()
    print(int(metrics.MESSAGES.labels("known")._value.get()), flush=True)


if __name__ == "__main__":
    where, folder, epoch, messages = sys.argv[1:5]
    asyncio.run(main(where, Path(folder), int(epoch), int(messages), dies="--die" in sys.argv))
