"""What a thread of the edge fails with is raised where the service is, and a loop that is gone is told nothing."""

from __future__ import annotations

import asyncio
import threading

import pytest

from edge.thread import start_thread


async def ended(error: Exception | None) -> Exception | None:
    """What the loop is told of a thread that ends so."""
    told: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def work() -> None:
        if error is not None:
            raise error

    start_thread("t", work, told.set_result)
    async with asyncio.timeout(5):
        return await told


@pytest.mark.parametrize("error", [None, RuntimeError("on fire"), MemoryError(), AssertionError()])
async def test_the_loop_is_told_what_a_thread_ended_with(error: Exception | None) -> None:
    assert await ended(error) is error


async def test_it_is_told_on_the_loops_own_thread() -> None:
    where: asyncio.Future[threading.Thread] = asyncio.get_running_loop().create_future()
    start_thread("t", lambda: None, lambda error: where.set_result(threading.current_thread()))
    async with asyncio.timeout(5):
        assert await where is threading.current_thread()


def test_a_loop_that_is_closed_is_told_nothing() -> None:
    go = threading.Event()

    async def start() -> threading.Thread:
        return start_thread("t", lambda: void(go.wait(5)), lambda error: None)

    thread = asyncio.run(start())
    go.set()
    thread.join(5)
    assert not thread.is_alive()


def void(result: object) -> None:
    """For a thread's work, which returns nothing."""
