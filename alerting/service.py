"""The alerting service: findings in, alarms and notices out, commands carried out. `run` is what the CLI starts.

Invariant: its parts (findings, commands, notices, register) begin again by themselves from what the database says,
each on its own, so that a log that is away delays no acknowledgement and a receiver that is down delays no alarm.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from random import SystemRandom
from typing import Any, Final

import psycopg
import structlog

from alerting import metrics, webhook
from alerting.catalogue import Catalogue
from alerting.commands import CommandHandler
from alerting.delivery import Notifier
from alerting.places import ANSWER_S
from alerting.store import SERVICE, report
from alerting.upkeep import Upkeep
from alerting.worker import FindingsWorker
from telemetry.errors import LogDiscontinuity, LogError, OffsetMoved, StoreError, first_of
from telemetry.files import load_plant
from telemetry.frozen import FrozenWatch
from telemetry.log import open_log
from telemetry.messages import VIGIL_SCHEME, Event
from telemetry.service import Health
from telemetry.settings import Settings
from telemetry.store import ALERT, OWNER, connect, wait_for_schema

log = structlog.get_logger()

AGAIN_FIRST_S: Final = 0.2
AGAIN_MOST_S: Final = 5.0
STEADY_S: Final = 30.0
"""A part that ran so long begins its back-off anew."""


async def run(settings: Settings, stop: asyncio.Event, health: Health) -> None:
    """Works until `stop` is set. Raises ConfigError for settings or files that are wrong."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs URLs, which may hold tokens
    to = webhook.target(settings)
    plant = load_plant(settings.plant, profiles_dir=settings.profiles_dir) if settings.plant else None
    catalogue = Catalogue.of(plant.equipment if plant else ())
    the_log = open_log(settings)
    try:
        health.missing("log", "not reached yet")
        if await wait_for_schema(settings, stop, health):
            parts = _parts(settings, the_log, catalogue, to, health)
            await _until(stop, [keep(name, part, health, settings) for name, part in parts.items()])
    finally:
        await the_log.close()


Part = Callable[[], Awaitable[None]]


def _parts(
    settings: Settings, the_log: Any, catalogue: Catalogue, to: webhook.Target | None, health: Health
) -> dict[str, Part]:
    async def connection() -> psycopg.AsyncConnection[Any]:
        return await connect(settings, ALERT, autocommit=True)

    async def as_login() -> psycopg.AsyncConnection[Any]:
        return await connect(settings, OWNER, autocommit=True)

    async def tell(event: Event) -> None:
        async with await connection() as own:
            await report(own, event)

    clock, channels = settings.the_clock, (webhook.CHANNEL,) if to else ()
    watch = FrozenWatch(SERVICE, ALERT, clock, as_login, tell)
    notifier = None
    if to is not None:
        notifier = Notifier(
            to, settings.webhook_repeat_s, clock, time.time, connection, SystemRandom(), lambda: health.found("notices")
        )

    def changed() -> None:
        if notifier is not None:
            notifier.woken.set()

    findings = FindingsWorker(settings, clock, the_log, connection, watch, catalogue, channels, health, changed)
    commands = CommandHandler(clock, connection, watch, channels, changed, lambda: health.found("commands"))
    parts: dict[str, Part] = {
        "findings": findings.run,
        "commands": commands.run,
        "register": Upkeep(clock, connection, channels, changed, lambda: health.found("register")).run,
    }
    return parts if notifier is None else {**parts, "notices": notifier.run}


async def keep(name: str, part: Part, health: Health, settings: Settings) -> None:
    """Runs a part, and begins again with back-off when what it needs is away. Ends by cancellation only."""
    loop = asyncio.get_running_loop()
    again_s, discontinuity = AGAIN_FIRST_S, ""
    while True:
        began, error = loop.time(), None
        try:
            await part()
        except* (StoreError, LogError, psycopg.Error, TimeoutError) as group:
            error = first_of(group)
        if loop.time() - began > STEADY_S:
            again_s = AGAIN_FIRST_S
        if isinstance(error, LogDiscontinuity) and str(error) != discontinuity:
            discontinuity = str(error)
            await _say_discontinuity(settings, discontinuity)
        _account(name, error, health)
        await asyncio.sleep(again_s)
        again_s = min(AGAIN_MOST_S, again_s * 2)


def _account(name: str, error: BaseException | None, health: Health) -> None:
    """Says why a part begins again: a moved offset is news, everything else is something to wait for."""
    why = str(error).strip() or type(error).__name__
    metrics.RESTARTS.labels(name, type(error).__name__).inc()
    if isinstance(error, OffsetMoved):
        log.warning("begins again from the database", part=name, why=why)
    elif isinstance(error, LogDiscontinuity):
        health.missing("place on the log", why)
    elif isinstance(error, LogError):
        health.missing("log", why)
    else:
        health.missing(name, why)


async def _say_discontinuity(settings: Settings, why: str) -> None:
    """Keeps it as an event; the part stays stopped until an operator has decided."""
    log.error("log does not continue what was read", why=why)
    now_us = settings.the_clock.now_us()
    event = Event(SERVICE, now_us, VIGIL_SCHEME, "log-discontinuity", True, {"why": why})
    try:
        async with (
            asyncio.timeout(ANSWER_S),
            await connect(settings, ALERT, autocommit=True) as connection,
            connection.transaction(),
        ):
            await report(connection, event)
    except (StoreError, psycopg.Error, TimeoutError) as error:
        log.warning("event not kept", code="log-discontinuity", why=str(error).strip() or "no answer")


async def _until(stop: asyncio.Event, work: list[Any]) -> None:
    """Runs all of `work` until told to stop; an unexpected error of one ends them all."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(w) for w in work]
        await stop.wait()
        for task in tasks:
            task.cancel()
