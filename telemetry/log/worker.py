"""A thread of its own for SQLite work, so that no disk ever blocks the event loop.

Invariant: everything that touches a connection runs on this one thread, in the order in which it was asked for. While it
has nothing to do, the thread may watch for a change (cheaply, at a fixed interval) instead of sleeping for good.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from telemetry.errors import LogUnavailable

T = TypeVar("T")

POLL_S: Final = 0.008
"""How often a watching thread looks: the latency of a reader in another process, and its idle cost."""
ANSWER_S: Final = 60.0
"""A call that takes longer than this is given up: the disk hangs."""


class Worker:
    """One thread with a queue of calls. Made and used from one event loop."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._watch: Callable[[], bool] | None = None
        self._noticed: Callable[[], object] | None = None
        self._ended = asyncio.Event()
        self._closed = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def call(self, function: Callable[[], T]) -> T:
        """The result of `function`, called on the thread. Raises what it raises; LogUnavailable after ANSWER_S."""
        future: asyncio.Future[T] = self._loop.create_future()

        def job() -> None:
            try:
                result = function()
            except BaseException as error:  # carried over to the caller, whatever it is
                self.settle(future, None, error)
            else:
                self.settle(future, result, None)

        self.submit(job)
        return await self.answer(future)

    async def answer(self, future: asyncio.Future[T]) -> T:
        """Waits for what a job settles. Raises LogUnavailable after ANSWER_S."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return await future
        except TimeoutError as error:
            raise LogUnavailable(f"the embedded log's disk did not answer in {ANSWER_S:.0f} s") from error

    def submit(self, job: Callable[[], None]) -> None:
        """Queues a job that raises nothing. Raises LogUnavailable after close."""
        if self._closed:
            raise LogUnavailable("the embedded log is closed")
        self._jobs.put(job)

    def settle(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        """From the thread: gives a future its outcome on its loop, unless the waiter has gone."""

        def set_outcome() -> None:
            if not future.done():
                future.set_result(result) if error is None else future.set_exception(error)

        self._on_loop(set_outcome)

    def watch(self, changed: Callable[[], bool], noticed: Callable[[], object]) -> None:
        """From the thread: when idle, calls `changed` on it every POLL_S, and `noticed` on the loop if it says so."""
        self._watch, self._noticed = changed, noticed

    async def close(self, last: Callable[[], None]) -> None:
        """Runs what is queued, then `last`, and ends the thread."""
        if not self._closed:
            self._closed = True
            self._jobs.put(last)
            self._jobs.put(None)
        async with asyncio.timeout(ANSWER_S):
            await self._ended.wait()

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=POLL_S if self._watch else None)
            except queue.Empty:
                if self._watch is not None and self._noticed is not None and self._watch():
                    self._on_loop(self._noticed)
                continue
            if job is None:
                break
            job()
        self._on_loop(self._ended.set)

    def _on_loop(self, callback: Callable[[], object]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)
