"""The edge agent: drivers → policy → journal → log, with heartbeat, registry and ledger. See docs/edge.md."""

from __future__ import annotations

import asyncio
import gc
import secrets
import sqlite3
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from edge import metrics
from edge.driver import PushingDriver
from edge.fleet import Fleet
from edge.forward import Forwarder
from edge.intake import make_intake
from edge.journal import Journal
from edge.losses import LossReport
from edge.mqtt import make_drivers
from edge.policy import Presence, Reachability
from edge.reload import Reload
from edge.schedule import Rota
from edge.spool import Spool
from edge.stamps import Stamps, floor_of, machine_stamps
from edge.subscriptions import make_memory
from telemetry.errors import ConfigError, Fault
from telemetry.files import load_plant
from telemetry.log import open_log
from telemetry.log.protocol import Log
from telemetry.messages import VIGIL_SCHEME, Event, Heartbeat, Registry
from telemetry.plant import Equipment, Plant
from telemetry.registry import describe
from telemetry.service import Health, cancel_all, wait_until
from telemetry.settings import Settings
from telemetry.wire import encode_heartbeat, encode_registry

log = structlog.get_logger()

HEARTBEAT_S: Final = 1.0
LEDGER_S: Final = 5.0
OPEN_AGAIN_S: Final = 1.0
"""How often a spool is tried that the disk does not let open."""
DRAIN_S: Final = 1.5
"""At the end, the log is given so long to take what is journaled; the rest is sent at the next start."""
SETTLE_S: Final = 0.2
"""Between the start and the first turn, so that connecting does not make the first turns late."""


@dataclass(slots=True)
class Registrar:
    """Journals the registry of each plant once, as soon as it is known what time it is. See edge.fleet.Announce."""

    edge: str
    stamps: Stamps
    journal: Journal
    _told: Plant | None = None

    async def __call__(self, plant: Plant) -> None:
        """What is read from now on."""
        log_us = self.stamps.log_us()
        if log_us is None or plant is self._told:
            return
        made = await asyncio.to_thread(lambda: encode_registry(Registry(self.edge, log_us, describe(plant, self.edge))))
        self._told = plant
        self.journal.put_record(made)


@dataclass(slots=True)
class Agent:
    """The parts of a running edge, put together."""

    settings: Settings
    stamps: Stamps
    journal: Journal
    forwarder: Forwarder
    fleet: Fleet
    reload: Reload
    registrar: Registrar
    log_refused: int = 0

    async def work(self, stop: asyncio.Event) -> None:
        """Reads, journals and forwards until told to stop; then stops reading, and forwards what it can."""
        self._tell_of_lost_spool()
        await self._say(self.stamps.now_us())  # before the first turns: it takes its time
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self.journal.failed())
            forwarding = tasks.create_task(self.forwarder.run())
            async with asyncio.TaskGroup() as reading:
                working = [
                    reading.create_task(self.fleet.run()),
                    reading.create_task(self._beat()),
                    reading.create_task(self._keep_ledger()),
                    reading.create_task(self.reload.run()),
                ]
                await stop.wait()
                await self.fleet.wind_up()
                await cancel_all(working)
            await self._finish()
            await cancel_all((forwarding, watching))

    def _tell_of_lost_spool(self) -> None:
        lost, salvaged = self.journal.spool.lost_file, self.journal.spool.salvaged
        if lost is not None:
            log.error("spool was unreadable and was moved aside", moved_to=str(lost))
            attributes: dict[str, Any] = {"moved_to": lost.name, "salvaged": salvaged.records if salvaged else 0}
            attributes["whole"] = bool(salvaged and salvaged.is_whole)
            now_us = self.stamps.now_us()
            self.journal.put_events([Event(self.settings.edge, now_us, VIGIL_SCHEME, "spool-lost", True, attributes)])

    async def _beat(self) -> None:
        """Every second of the clock: who is owned, who is unreachable; and what the edge itself lost."""
        report = LossReport(self.settings.edge)
        due_s = self.stamps.monotonic_s()
        while True:
            now_us = self.stamps.now_us()
            losses = self.journal.losses
            self.journal.put_events([*report.events(losses, self.stamps.monotonic_s(), now_us), *self._refused()])
            metrics.DROPPED.set(losses.dropped_samples)
            metrics.CORRUPT.set(losses.corrupt_records)
            await self._say(now_us)
            due_s = max(due_s + HEARTBEAT_S, self.stamps.monotonic_s())
            await self.stamps.sleep(due_s - self.stamps.monotonic_s())

    async def _say(self, now_us: int) -> None:
        """The registry when it is new, and the heartbeat; neither while nobody knows what time it is."""
        plant, log_us, edge = self.fleet.plant, self.stamps.log_us(), self.settings.edge
        presence = Presence(self.fleet.reach, self.fleet.pushing)
        unreachable = presence.unreachable(now_us)
        metrics.UNREACHABLE.set(len(unreachable))
        metrics.EQUIPMENT.set(len(self.fleet.equipment))
        metrics.TASKS.set(len(asyncio.all_tasks()))
        if log_us is None or plant is None:
            return
        await self.registrar(plant)
        since = {name: min(self.stamps.on_log(since_us) or log_us, log_us) for name, since_us in unreachable.items()}
        names = tuple(e.id for e in self.fleet.equipment)
        self.journal.put_record(encode_heartbeat(Heartbeat(edge, log_us, names, since)), rows=1)

    def _refused(self) -> list[Event]:
        refused = self.forwarder.refused_records
        if refused == self.log_refused:
            return []
        self.log_refused = refused
        now_us, attributes = self.stamps.now_us(), {"records": refused}
        return [Event(self.settings.edge, now_us, VIGIL_SCHEME, "log-refused", True, attributes)]

    async def _keep_ledger(self) -> None:
        while True:
            await asyncio.sleep(LEDGER_S)
            try:
                await self.journal.publish()
            except sqlite3.OperationalError as error:
                log.info("ledger waits for the disk", why=str(error))

    async def _finish(self) -> None:
        try:
            await self.journal.flush(last=True)
            await self.journal.publish(force=True)
            if not await self.forwarder.drain(DRAIN_S):
                log.info("stopped with records in the spool; they are sent at the next start")
        except (sqlite3.OperationalError, TimeoutError) as error:
            log.warning("stopped while the spool could not be written", why=str(error))


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The loop that the edge runs on: uvloop costs half of asyncio's own for each answer."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


async def run(settings: Settings, stop: asyncio.Event, health: Health) -> None:
    """The service: works until `stop` is set. Raises ConfigError, StateLocked."""
    health.missing("log", "not reached yet")
    plant = plant_of(settings)
    floor_us = floor_of(*filter(None, (settings.plant, spool_path(settings))))
    stamps = machine_stamps(settings.the_clock, floor_us=floor_us, hold_s=settings.unset_clock_hold_s)
    spool = await _opened(settings, stamps, stop, health)
    if spool is None:
        return
    the_log = open_log(settings)
    state = spool.state()
    journal = Journal(spool, make_intake(state), _teller(spool_path(settings), health))
    started = False
    try:
        registrar = Registrar(settings.edge, stamps, journal)
        fleet = _fleet(settings, stamps, journal, state, health, registrar, len(plant.of_edge(settings.edge)))
        first = fleet.prepare(plant, plant.of_edge(settings.edge))
        forwarder = Forwarder(journal, the_log, settings.edge, health, settings.backfill_samples_per_s)
        reload = Reload(settings, fleet, journal, lambda: plant_of(settings), stamps)
        agent = Agent(settings, stamps, journal, forwarder, fleet, reload, registrar)
        journal.start()
        started = True
        await fleet.switch(first)
        gc.freeze()  # what was just made stays: looking through it again and again would cost whole turns
        log.info("reading", equipment=len(fleet.equipment), modbus=fleet.polled, brokers=len(fleet.pushing))
        await agent.work(stop)
    finally:
        if not started:
            spool.close()
        await _close(journal, the_log)


def _fleet(
    settings: Settings,
    stamps: Stamps,
    journal: Journal,
    state: dict[str, str],
    health: Health,
    registrar: Registrar,
    devices: int,
) -> Fleet:
    memory = make_memory(journal.spool.delivered(), state)

    def pushing(plant: Plant, equipment: Sequence[Equipment]) -> Sequence[PushingDriver]:
        file = str(settings.plant)
        return make_drivers(plant, equipment, stamps, edge=settings.edge, file=file, health=health, memory=memory)

    async def mind(gone: Sequence[Equipment], new: Sequence[Equipment]) -> None:
        await journal.call(lambda _: journal.intake.mind(gone, new))

    rota = Rota(stamps, stamps.monotonic_s() + SETTLE_S, devices)
    return Fleet(journal.put, stamps, Reachability(), rota, pushing, mind, state, str(settings.plant), registrar)


async def _opened(settings: Settings, stamps: Stamps, stop: asyncio.Event, health: Health) -> Spool | None:
    """The spool, as soon as the disk lets it be opened. None when told to stop first."""
    while True:
        try:
            spool = await asyncio.to_thread(open_spool, settings, stamps)
        except (sqlite3.OperationalError, OSError) as error:
            health.missing("spool", f"{spool_path(settings)} cannot be opened: {error}")
            if await wait_until(stop, OPEN_AGAIN_S):
                return None
        else:
            health.found("spool")
            return spool


def open_spool(
    settings: Settings, stamps: Stamps | None = None, *, at: Callable[[str], None] = lambda point: None
) -> Spool:
    """Opens this edge's spool under a new epoch. Raises StateLocked; sqlite3.OperationalError or OSError (full disk)."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    return Spool(
        spool_path(settings),
        edge=settings.edge,
        epoch=secrets.randbits(63),
        max_bytes=settings.spool_max_bytes,
        max_age_s=settings.spool_max_age_s,
        policy=settings.spool_policy,
        stamps=stamps,
        at=at,
    )


def spool_path(settings: Settings) -> Path:
    """Where this edge's spool lies."""
    return settings.state_dir / f"spool-{settings.edge}.sqlite"


def plant_of(settings: Settings) -> Plant:
    """The plant that the settings name. Raises ConfigError where this edge has nothing to read there."""
    if settings.plant is None:
        raise ConfigError(
            [Fault("settings", 0, "VIGIL_PLANT", "a plant file: the edge reads what it names", "nothing")]
        )
    plant = load_plant(settings.plant, profiles_dir=settings.profiles_dir)
    if not plant.of_edge(settings.edge):
        owned = sorted({e.entry.edge or "any" for e in plant.equipment})
        expected = f"an edge that has equipment in {settings.plant} ({', '.join(owned)})"
        raise ConfigError([Fault("settings", 0, "VIGIL_EDGE", expected, settings.edge)])
    return plant


def _teller(path: Path, health: Health) -> Callable[[str | None], None]:
    def tell(why: str | None) -> None:
        if why is None:
            health.found("spool")
        else:
            health.missing("spool", f"{path} cannot be written: {why}")

    return tell


async def _close(journal: Journal, the_log: Log) -> None:
    await journal.close()
    await the_log.close()
