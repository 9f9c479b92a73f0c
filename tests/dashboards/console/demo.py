"""`python -m tests.dashboards.console.demo [PORT]`: the console on a seeded store that keeps moving, to look at it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
from pathlib import Path

import psycopg

from dashboards.console.service import run
from telemetry.service import Health, configure_logging
from telemetry.settings import Settings
from tests.dashboards.console.seed import Seed, units, utc_now
from tests.fixtures.store import StoreServer, fresh_database, make_template


async def _move(url: str, stop: asyncio.Event) -> None:
    """New readings every second, until stopped."""
    step = 400
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        seed = Seed(None, now=utc_now())  # type: ignore[arg-type]  # only `plausible` is used
        while not stop.is_set():
            step += 1
            for unit in units():
                points = [p for p, said in seed.profile(unit.profile).points.items() if said.kind != "text"]
                await connection.execute(
                    """WITH moved AS (
                           UPDATE store.latest l SET time = now(), value = v.value, changed_at = clock_timestamp()
                           FROM unnest(%s::text[], %s::float8[]) v (point, value)
                           JOIN store.signal g ON g.equipment = %s AND g.point = v.point
                           WHERE l.signal_id = g.signal_id RETURNING l.*)
                       INSERT INTO store.sample (signal_id, time, value, quality)
                       SELECT signal_id, time, value, quality FROM moved""",
                    (points, [seed.plausible(unit, p, step) for p in points], unit.id),
                )
            await connection.execute("UPDATE store.edge SET heartbeat = now()")
            await connection.execute("SELECT pg_notify('vigil_latest', '{}')")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1)


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        group.create_task(_move(settings.store, stop))
        group.create_task(run(settings, stop, Health("console")))


def main() -> None:
    """Serves until interrupted."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8480
    server = StoreServer("plain")
    server.start()
    try:
        make_template(server.url)
        with fresh_database(server.url) as url:
            with psycopg.connect(url) as connection:
                Seed(connection, now=utc_now()).fill()
            settings = Settings(store=url, state_dir=Path(tempfile.gettempdir()), listen=f"127.0.0.1:{port}")
            configure_logging(settings)
            asyncio.run(_serve(settings))
    finally:
        server.remove()


if __name__ == "__main__":
    main()
