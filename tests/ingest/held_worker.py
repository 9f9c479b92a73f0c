"""An ingest worker as a process of its own that can be held at a point of its transaction, for tests that kill or freeze it.

`python -m tests.ingest.held_worker STORE_URL STATE_DIR POINT`: at POINT it prints `held` and waits for a line on stdin,
its event loop blocked. Once. `start`: before anything is locked; `rows`: before the rows; `commit`: after the rows,
before the offset; `end`: after the offset, before COMMIT.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from ingest import transaction, writer
from ingest.service import run
from telemetry.service import Health, configure_logging
from telemetry.settings import Settings

POINTS: dict[str, tuple[Any, str]] = {
    "start": (writer, "write"),
    "rows": (transaction, "copy_rows"),
    "commit": (transaction, "_advance"),
    "end": (transaction, "_advance"),
}


def hold() -> None:
    print("held", flush=True)
    sys.stdin.readline()


def install(point: str) -> None:
    once = [True]

    def held() -> None:
        if once:
            once.clear()
            hold()

    module, name = POINTS[point]
    original = getattr(module, name)

    async def with_hold(*args: Any, **keywords: Any) -> Any:
        if point != "end":
            held()
        result = await original(*args, **keywords)
        if point == "end":
            held()
        return result

    setattr(module, name, with_hold)


def main() -> None:
    store, state, point = sys.argv[1:]
    install(point)
    settings = Settings(store=store, state_dir=Path(state))
    configure_logging(settings)
    asyncio.run(run(settings, asyncio.Event(), Health("ingest")))


if __name__ == "__main__":
    main()
