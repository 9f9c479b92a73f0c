"""The edge agent: drivers → policy → journal → log, with heartbeat, registry and ledger. See docs/edge.md."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from edge import metrics
from edge.codes import watch
from edge.driver import PushingDriver, Reading
from edge.forward import Forwarder
from edge.journal import Journal
from edge.losses import LossReport
from edge.modbus import ModbusDevice, make_devices
from edge.mqtt import make_drivers
from edge.policy import Intake, Poller, Presence, Reachability
from edge.spool import Spool
from telemetry.clock import Clock
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


@dataclass(slots=True)
class Agent:
    """The parts of a running edge, put together."""

    settings: Settings
    plant: Plant
    clock: Clock
    journal: Journal
    forwarder: Forwarder
    devices: list[ModbusDevice]
    pushing: list[PushingDriver]
    intake: Intake
    reach: Reachability = field(default_factory=Reachability)
    log_refused: int = 0

    @property
    def equipment(self) -> tuple[Equipment, ...]:
        """What this edge reads."""
        return self.plant.of_edge(self.settings.edge)

    async def work(self, stop: asyncio.Event) -> None:
        """Reads, journals and forwards until told to stop; then stops reading, and forwards what it can."""
        self._announce()
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self.journal.failed())
            forwarding = tasks.create_task(self.forwarder.run())
            async with asyncio.TaskGroup() as reading:
                working = [
                    *(reading.create_task(poller.run()) for poller in self._pollers()),
                    *(reading.create_task(driver.run(self.intake.deliver)) for driver in self.pushing),
                    reading.create_task(self._beat()),
                    reading.create_task(self._keep_ledger()),
                ]
                await stop.wait()
                await cancel_all(working)
            await self._finish()
            await cancel_all((forwarding, watching))

    def _pollers(self) -> list[Poller]:
        origin_s = self.clock.monotonic_s()
        return [Poller(d, self.intake.deliver, self.reach, self.clock, origin_s) for d in self.devices]

    def _announce(self) -> None:
        now_us, edge = self.clock.now_us(), self.settings.edge
        registry = Registry(edge, now_us, describe(self.plant, edge))
        self.journal.put(Reading(edge), record=encode_registry(registry))
        lost = self.journal.spool.lost_file
        if lost is not None:
            log.error("spool was unreadable and was moved aside", moved_to=str(lost))
            event = Event(edge, now_us, VIGIL_SCHEME, "spool-lost", True, {"moved_to": lost.name})
            self.journal.put(Reading(edge, events=(event,)))

    async def _beat(self) -> None:
        """Every second of the clock: who is owned, who is unreachable; and what the edge itself lost."""
        edge, names = self.settings.edge, tuple(e.id for e in self.equipment)
        presence, report = Presence(self.reach, self.pushing), LossReport(edge)
        metrics.EQUIPMENT.set(len(names))
        due_s = self.clock.monotonic_s()
        while True:
            now_us = self.clock.now_us()
            unreachable = presence.unreachable(now_us)
            metrics.UNREACHABLE.set(len(unreachable))
            losses = report.events(self.journal.losses, self.clock.monotonic_s(), now_us)
            metrics.DROPPED.set(self.journal.losses.dropped_samples)
            metrics.CORRUPT.set(self.journal.losses.corrupt_records)
            beat = encode_heartbeat(Heartbeat(edge, now_us, names, unreachable))
            self.journal.put(Reading(edge, events=(*losses, *self._refused(now_us))), record=beat)
            due_s = max(due_s + HEARTBEAT_S, self.clock.monotonic_s())
            await self.clock.sleep(due_s - self.clock.monotonic_s())

    def _refused(self, now_us: int) -> list[Event]:
        refused = self.forwarder.refused_records
        if refused == self.log_refused:
            return []
        self.log_refused = refused
        return [Event(self.settings.edge, now_us, VIGIL_SCHEME, "log-refused", True, {"records": refused})]

    async def _keep_ledger(self) -> None:
        while True:
            await asyncio.sleep(LEDGER_S)
            try:
                await self.journal.publish()
            except sqlite3.OperationalError as error:
                log.info("ledger waits for the disk", why=str(error))

    async def _finish(self) -> None:
        try:
            await self.journal.flush()
            await self.journal.publish(force=True)
            if not await self.forwarder.drain(DRAIN_S):
                log.info("stopped with records in the spool; they are sent at the next start")
        except (sqlite3.OperationalError, TimeoutError) as error:
            log.warning("stopped while the spool could not be written", why=str(error))
        for device in self.devices:
            device.bus.close()


async def run(settings: Settings, stop: asyncio.Event, health: Health) -> None:
    """The service: works until `stop` is set. Raises ConfigError, StateLocked."""
    plant = _plant(settings)
    clock = settings.the_clock
    mine = plant.of_edge(settings.edge)
    devices = make_devices(plant, mine, clock, file=str(settings.plant))
    spool = await _opened(settings, stop, health)
    if spool is None:
        return
    the_log = open_log(settings)
    journal = Journal(spool, _teller(spool_path(settings), health))
    try:
        pushing = make_drivers(
            plant,
            mine,
            clock,
            edge=settings.edge,
            file=str(settings.plant),
            health=health,
            has_room=lambda: journal.has_room,
        )
        state = journal.spool.state()
        intake = Intake(journal, {e.id: watch(e.id, e.profile, state) for e in mine})
        forwarder = Forwarder(journal, the_log, settings.edge, health)
        agent = Agent(settings, plant, clock, journal, forwarder, devices, [*pushing], intake)
        journal.start()
        log.info("reading", equipment=len(mine), modbus=len(devices), brokers=len(pushing))
        await agent.work(stop)
    finally:
        await _close(journal, the_log)


async def _opened(settings: Settings, stop: asyncio.Event, health: Health) -> Spool | None:
    """The spool, as soon as the disk lets it be opened. None when told to stop first."""
    while True:
        try:
            spool = await asyncio.to_thread(open_spool, settings)
        except (sqlite3.OperationalError, OSError) as error:
            health.missing("spool", f"{spool_path(settings)} cannot be opened: {error}")
            if await wait_until(stop, OPEN_AGAIN_S):
                return None
        else:
            health.found("spool")
            return spool


def open_spool(settings: Settings, *, at: Callable[[str], None] = lambda point: None) -> Spool:
    """Opens this edge's spool under a new epoch. Raises StateLocked; sqlite3.OperationalError or OSError (full disk)."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    return Spool(
        spool_path(settings),
        edge=settings.edge,
        epoch=secrets.randbits(63),
        max_bytes=settings.spool_max_bytes,
        at=at,
    )


def spool_path(settings: Settings) -> Path:
    """Where this edge's spool lies."""
    return settings.state_dir / f"spool-{settings.edge}.sqlite"


def _plant(settings: Settings) -> Plant:
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
