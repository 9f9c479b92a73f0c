"""An ingest worker as a process of its own that can be held at a point of its transaction, for tests that kill or freeze it.

`python -m tests.ingest.held_worker STORE_URL STATE_DIR POINT`: at POINT (`start`: before anything is locked; `commit`:
after the rows, before the offset) it prints `held` and waits for a line on stdin, its event loop blocked. Once.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from ingest import transaction, worker
from ingest.service import run
from telemetry.service import Health, configure_logging
from telemetry.settings import Settings


def hold() -> None:
    print("held", flush=True)
    sys.stdin.readline()


def install(point: str) -> None:
    once = [True]

    def held() -> None:
        if once:
            once.clear()
            hold()

    module, name = (worker, "write") if point == "start" else (transaction, "_advance")
    original = getattr(module, name)

    async def held_first(*args: Any, **keywords: Any) -> Any:
        held()
        return await original(*args, **keywords)

    setattr(module, name, held_first)


def main() -> None:
    store, state, point = sys.argv[1:]
    install(point)
    settings = Settings(store=store, state_dir=Path(state))
    configure_logging(settings)
    asyncio.run(run(settings, asyncio.Event(), Health("ingest")))


if __name__ == "__main__":
    main()
