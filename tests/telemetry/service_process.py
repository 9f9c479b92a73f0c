"""A small service as a process of its own, for test_service.py: waits for a part that comes when its first file does."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from telemetry.errors import ConfigError, Fault, StoreUnavailable
from telemetry.service import Health, run_service, wait_until
from telemetry.settings import Settings


async def _run(settings: Settings, stop: asyncio.Event, health: Health) -> None:
    health.missing("part", "its file is not there")
    print("started", flush=True)
    while not await wait_until(stop, 0.02):
        if (settings.state_dir / "part").exists():
            health.found("part")
    (settings.state_dir / "closed").write_text("cleanly")


async def _fail(settings: Settings, stop: asyncio.Event, health: Health) -> None:
    match settings.edge:
        case "config":
            raise ConfigError([Fault("plant.yaml", 3, "site.id", "a name", "nothing")])
        case "group":
            raise ExceptionGroup("tasks", [ConfigError([Fault("plant.yaml", 3, "site.id", "a name", "nothing")])])
        case "known":
            raise StoreUnavailable("the database is away")
    raise RuntimeError("nobody expected this")


def _main(verb: str, listen: str, state: str, edge: str) -> int:
    settings = Settings(state_dir=Path(state), edge=edge)
    return run_service("part-service", settings, _run if verb == "run" else _fail, listen=listen or None)


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
