"""The ingest service: migrates, then keeps a worker going: whatever fails, it begins again from the database."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, Final

import psycopg
import structlog

from ingest import metrics
from ingest.answering import answering
from ingest.latest import rebuild_latest, write_latest
from ingest.migrate import has_timescale, migrate
from ingest.online import write_changes
from ingest.retention import apply_retention
from ingest.upkeep import keep_up
from ingest.worker import Worker
from telemetry.errors import LogDiscontinuity, LogError, OffsetMoved, StoreError, StoreUnavailable, first_of
from telemetry.log import open_log
from telemetry.log.protocol import TOPICS, Log
from telemetry.service import Health, wait_until
from telemetry.settings import Settings
from telemetry.store import INGEST, SCHEMA_VERSION, connect, schema_version, too_new, wait_for_schema

log = structlog.get_logger()

Connection = psycopg.AsyncConnection[Any]

GROUP: Final = "ingest"
BACKOFF_FIRST_S: Final = 0.2
BACKOFF_LAST_S: Final = 5.0
HEALTHY_AFTER_S: Final = 10.0
LATEST_EVERY_S: Final = 0.1
LATEST_SHARE: Final = 0.1
"""Of the time at most so much goes into `latest`: with 100,000 signals each is brought up to date every few seconds."""
CHECK_EVERY_S: Final = 1.0
STOP_WITHIN_S: Final = 2.0
CLOSE_WITHIN_S: Final = 30.0
"""A reader whose log is away may need that long to let go of its connections; told to stop, it does not get it."""
PASSING: Final = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError)
"""What ails the database and not the data. InternalError: it may only be read, a time-out of its own ended a session."""


async def run(settings: Settings, stop: asyncio.Event, health: Health) -> None:
    """Writes the log into the store until told to stop."""
    health.missing("store", "starting")
    if not await _migrated(settings, stop, health):
        return
    the_log = open_log(settings)
    try:
        await _keep_going(settings, the_log, stop, health)
    finally:
        await the_log.close()


async def _migrated(settings: Settings, stop: asyncio.Event, health: Health) -> bool:
    """Migrates when this login may, else waits for somebody who may. False when told to stop first."""
    while not stop.is_set():
        try:
            await migrate(settings)
        except StoreUnavailable as error:
            health.missing("store", str(error))
            await wait_until(stop, BACKOFF_FIRST_S)
            continue
        except StoreError as error:
            if isinstance(error.__cause__, psycopg.InternalError):  # read-only, say: a standby, or a guard of its disk
                health.missing("store", str(error))
                await wait_until(stop, BACKOFF_LAST_S)
                continue
            if not isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
                raise
            log.info("this login may not migrate", expected_version=SCHEMA_VERSION, why=str(error))
        return await wait_for_schema(settings, stop, health)
    return False


async def _keep_going(settings: Settings, the_log: Log, stop: asyncio.Event, health: Health) -> None:
    failures = 0
    while not stop.is_set():
        began = time.monotonic()
        try:
            await _session(settings, the_log, stop, health)
        except* (OffsetMoved, StoreUnavailable, *PASSING, LogError) as group:
            failures = 1 if time.monotonic() - began > HEALTHY_AFTER_S else failures + 1
            _say(first_of(group), health)
        if not stop.is_set():
            await wait_until(stop, min(BACKOFF_FIRST_S * 2.0 ** (max(failures, 1) - 1), BACKOFF_LAST_S))


async def _session(settings: Settings, the_log: Log, stop: asyncio.Event, health: Health) -> None:
    """One worker, from the database's offsets until something fails or it is told to stop."""
    await the_log.ensure_topics(TOPICS)
    connection = await connect(settings, INGEST, autocommit=True)
    async with connection, await connect(settings, INGEST, autocommit=True) as side:
        await _refuse_newer(side)
        async with answering(side):
            await _work(settings, the_log, stop, health, connection, side)


async def _work(
    settings: Settings, the_log: Log, stop: asyncio.Event, health: Health, connection: Connection, side: Connection
) -> None:
    timescale = await has_timescale(side)
    await apply_retention(settings, side)
    worker = Worker(settings, health, connection, side, timescale=timescale)
    await worker.load()
    reader = await the_log.reader(GROUP, TOPICS, worker)
    health.found("store")
    health.found("log")
    try:
        async with asyncio.TaskGroup() as group:
            tending = group.create_task(_tend(settings, worker), name="latest")
            keeping = group.create_task(keep_up(settings, timescale=timescale), name="upkeep")
            await _until_stopped(worker.run(reader, stop), stop)
            await write_latest(side, worker.latest.due(float("inf")))
            tending.cancel()
            keeping.cancel()
    finally:
        with suppress(LogError, TimeoutError):
            async with asyncio.timeout(STOP_WITHIN_S if stop.is_set() else CLOSE_WITHIN_S):
                await reader.close()


async def _refuse_newer(connection: Connection) -> None:
    """Raises StoreError where a newer Vigil has migrated the database while this one ran."""
    found = await schema_version(connection)
    if found > SCHEMA_VERSION:
        raise StoreError(too_new(found))


async def _until_stopped(running: Any, stop: asyncio.Event) -> None:
    """Runs until done; once told to stop it has STOP_WITHIN_S to finish, then it is cancelled (nothing is lost by it).

    Raises what it ended with. What it ends with after it was cancelled is logged only: whoever cancelled has a reason.
    """
    task = asyncio.ensure_future(running)
    told = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([task, told], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait([task], timeout=STOP_WITHIN_S)
        if not task.done():
            log.warning("stopped in mid-transaction", why=f"not done within {STOP_WITHIN_S} s of the signal")
            await _cancelled(task)
            return
    except asyncio.CancelledError:
        await _cancelled(task)
        raise
    finally:
        told.cancel()
    task.result()


async def _cancelled(task: asyncio.Future[Any]) -> None:
    task.add_done_callback(_say_end)
    task.cancel()
    await asyncio.wait([task], timeout=STOP_WITHIN_S)


def _say_end(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("failed while it was stopped", why=f"{type(error).__name__}: {str(error).strip()}")


async def _tend(settings: Settings, worker: Worker) -> None:
    """What goes on beside the flushes, on a connection of its own: `latest`, silent edges, the lag."""
    async with await connect(settings, INGEST, autocommit=True) as connection, answering(connection):

        async def live() -> None:
            await _write_due(connection, worker)

        async with worker.watch.over(connection):
            behind = await rebuild_latest(connection, live)
        if behind:
            log.info("latest rebuilt", signals=behind)
        checked = time.monotonic()
        while True:
            began = time.monotonic()
            async with worker.watch.over(connection):
                await _write_due(connection, worker)
            await asyncio.sleep(max(LATEST_EVERY_S, (time.monotonic() - began) * (1 / LATEST_SHARE - 1)))
            if time.monotonic() - checked > CHECK_EVERY_S:
                checked = time.monotonic()
                await _check(connection, worker)


async def _write_due(connection: Connection, worker: Worker) -> None:
    rows = worker.latest.due(time.monotonic())
    await write_latest(connection, rows)
    metrics.LATEST.inc(len(rows))


async def _check(connection: Connection, worker: Worker) -> None:
    lag = await worker.lag()
    metrics.LAG.set(max(lag, 0))
    if lag == 0:
        async with worker.watch.over(connection), connection.transaction():
            await write_changes(connection, await worker.silent(connection))


def _say(error: BaseException, health: Health) -> None:
    cause = type(error).__name__
    metrics.RESTARTS.labels(cause).inc()
    match error:
        case OffsetMoved():
            log.warning("began again from the database", why=str(error))
        case LogDiscontinuity() | LogError():
            health.missing("log", str(error))
        case _:
            health.missing("store", str(error).strip())
