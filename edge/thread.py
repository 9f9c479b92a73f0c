"""Threads of the edge that last as long as the service: what one fails with is the service's own failure.

This is the edge's one place that catches everything: an error that nobody expected is carried to the event loop and raised
there, for telemetry.service to log it and end the process. Cancellation does not reach a thread; it is told to end.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

Ended = Callable[[Exception | None], None]
"""Told, on the event loop, that a thread has ended, and what it failed with."""


def start_thread(name: str, work: Callable[[], None], ended: Ended) -> threading.Thread:
    """Starts `work` on a daemon thread; to be called on the event loop. A loop that is closed is told nothing."""
    loop = asyncio.get_running_loop()

    def run() -> None:
        failure: Exception | None = None
        try:
            work()
        except Exception as error:  # carried over, whatever it is
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(ended, failure)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def finish(future: asyncio.Future[Any], result: object) -> None:
    """Gives a future its result, on the event loop; one that was cancelled or answered meanwhile stays as it is."""
    if not future.done():
        future.set_result(result)


def fail(future: asyncio.Future[Any], error: BaseException) -> None:
    """Fails a future, on the event loop; one that was cancelled or answered meanwhile stays as it is."""
    if not future.done():
        future.set_exception(error)
