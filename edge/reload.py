"""A plant file or profile that changes while the edge runs: read again, checked whole, and switched to.

Invariant: a file with a fault changes nothing. It is told once (log, event, metric), with every fault; reading goes on by
the old one, and by the new one as soon as it is sound.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from edge import metrics
from edge.fleet import Fleet, Next
from edge.journal import Journal
from edge.stamps import Stamps
from telemetry.errors import ConfigError
from telemetry.messages import VIGIL_SCHEME, Event
from telemetry.plant import Plant
from telemetry.settings import Settings

log = structlog.get_logger()

LOOK_S: Final = 2.0
"""How often the files are looked at; SIGHUP has them read at once."""
SETTLE_S: Final = 0.5
"""A file that is being written is left alone until it rests so long."""
TOLD: Final = 20
"""Most faults in an event."""
CODE: Final = "plant-refused"

Signature = tuple[tuple[str, int, int], ...]


@dataclass(slots=True, eq=False)
class Reload:
    """Looks after the files. `run` works until cancelled."""

    settings: Settings
    fleet: Fleet
    journal: Journal
    load: Callable[[], Plant]
    """Raises ConfigError."""
    stamps: Stamps
    look_s: float = LOOK_S
    _asked: asyncio.Event = field(default_factory=asyncio.Event)
    _refused: bool = False

    async def run(self) -> None:
        """Reads the files again when they change."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._asked.set)
        seen = self._signature()
        try:
            while True:
                asked = await self._wait()
                now = self._signature()
                if now != seen:
                    now = await self._rested(now)
                if asked or now != seen:
                    seen = now
                    await self.again()
        finally:
            loop.remove_signal_handler(signal.SIGHUP)

    async def again(self) -> None:
        """Reads the files and switches to what they say, unless they have a fault."""
        try:
            new = await asyncio.to_thread(self._prepared)  # seconds, with thousands of equipments
        except (ConfigError, OSError) as error:
            self._refuse(str(error))
            return
        before, anew = {e.id for e in self.fleet.equipment}, self.fleet.begun_anew(new)
        await self.fleet.leave(new)
        try:
            await self.journal.flush()  # so that what was read by the old file is judged by it
        except TimeoutError:
            log.info("switching while the spool cannot be written")
        await self.fleet.switch(new)
        after = {e.id for e in self.fleet.equipment}
        metrics.RELOADS.labels("done").inc()
        log.info(
            "plant file read again",
            new=sorted(after - before),
            changed=sorted(anew & before),
            gone=sorted(before - after),
            equipment=len(after),
        )
        if self._refused:
            self._refused = False
            self.journal.put_events([self._event(False, {"file": str(self.settings.plant)})])

    def _prepared(self) -> Next:
        plant = self.load()
        return self.fleet.prepare(plant, plant.of_edge(self.settings.edge))

    def _refuse(self, why: str) -> None:
        self._refused = True
        metrics.RELOADS.labels("refused").inc()
        faults = why.splitlines()
        log.error("plant file refused; the old one stays in use", faults=faults)
        attributes: dict[str, object] = {
            "file": str(self.settings.plant),
            "faults": faults[:TOLD],
            "count": len(faults),
        }
        self.journal.put_events([self._event(True, attributes)])

    def _event(self, on: bool, attributes: dict[str, object] | dict[str, str]) -> Event:
        return Event(self.settings.edge, self.stamps.now_us(), VIGIL_SCHEME, CODE, on, attributes)

    async def _wait(self) -> bool:
        """Until it is time to look, or asked to. Returns whether it was asked."""
        try:
            async with asyncio.timeout(self.look_s):
                await self._asked.wait()
        except TimeoutError:
            return False
        self._asked.clear()
        return True

    async def _rested(self, now: Signature) -> Signature:
        """The signature once it stays the same."""
        while True:
            await asyncio.sleep(min(SETTLE_S, self.look_s))
            then, now = now, self._signature()
            if now == then:
                return now

    def _signature(self) -> Signature:
        """Changes when the plant file or a profile of the user's own does."""
        own = self.settings.profiles_dir
        files = [self.settings.plant, *(sorted(own.glob("*.yaml")) if own is not None else ())]
        return tuple(_of(path) for path in files if path is not None)


def _of(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, -1
    return str(path), found.st_mtime_ns, found.st_size
