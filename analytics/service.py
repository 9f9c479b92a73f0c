"""The service `analyze`: waits for plant, store and log, then works; starts over when its state in memory is void."""

from __future__ import annotations

import asyncio

import structlog

from analytics.keeping import Keeper
from analytics.publish import Publisher
from analytics.rules import US_PER_S, compile_plant
from analytics.worker import Tools, Worker
from telemetry.errors import ConfigError, Fault, LogDiscontinuity, LogUnavailable, OffsetMoved
from telemetry.files import load_plant
from telemetry.log import open_log
from telemetry.log.protocol import TELEMETRY, TOPICS, Log
from telemetry.service import Health, wait_until
from telemetry.settings import Settings
from telemetry.store import wait_for_schema

log = structlog.get_logger()

GROUP = "analyze"
DAY_US = 86_400 * US_PER_S
RETRY_S = 1.0
GRACE_S = 2.0
BROKEN_S = 10.0
"""Before a log that does not continue is looked at again."""


async def run(settings: Settings, stop: asyncio.Event, health: Health) -> None:
    """Works until `stop` is set. Raises ConfigError for a plant that cannot be used."""
    if settings.plant is None:
        raise ConfigError([Fault("settings", 0, "VIGIL_PLANT", "a plant file", "none")])
    catalogue = compile_plant(load_plant(settings.plant, profiles_dir=settings.profiles_dir))
    log.info(
        "watching",
        equipment=len(catalogue.equipment),
        signals=len(catalogue.signals),
        rules=len(catalogue.rules),
        levels=len(catalogue.levels),
    )
    if not await wait_for_schema(settings, stop, health):
        return
    log_ = open_log(settings)
    publisher, keeper = Publisher(log_, stop, health), Keeper(settings)
    tools = Tools(
        catalogue, round(settings.late_bound_days * DAY_US), settings.the_clock, publisher, keeper, stop, health
    )
    try:
        await _until_stopped(asyncio.create_task(_attempts(log_, tools)), stop)
    finally:
        await publisher.close()
        await keeper.close()
        await log_.close()


async def _until_stopped(work: asyncio.Task[None], stop: asyncio.Event) -> None:
    """Waits for the work. Told to stop, it has GRACE_S for its last snapshot: what hangs then is left to a replay."""
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({work}, timeout=GRACE_S)
        if not work.done():
            log.warning("stopped without a last snapshot: the log or the store does not answer")
    finally:
        stopping.cancel()
        work.cancel()
        await asyncio.wait({work})
    if not work.cancelled():
        work.result()


async def _attempts(log_: Log, tools: Tools) -> None:
    while not tools.stop.is_set():
        await wait_until(tools.stop, await _attempt(log_, tools))


async def _attempt(log_: Log, tools: Tools) -> float:
    """Joins the group and works until stopped or thrown out. Returns seconds to wait before the next attempt."""
    worker = Worker(tools)
    try:
        await log_.ensure_topics(TOPICS)
        reader = await log_.reader(GROUP, [TELEMETRY], worker)
        try:
            await worker.work(reader)
        finally:
            await reader.close()
    except LogUnavailable as error:
        tools.health.missing("log", str(error))
        return RETRY_S
    except LogDiscontinuity as error:
        tools.health.missing("log", str(error))
        return BROKEN_S
    except OffsetMoved as error:
        log.warning("offset moved by another worker: starting again from the store", why=str(error))
        return RETRY_S
    return 0.0
