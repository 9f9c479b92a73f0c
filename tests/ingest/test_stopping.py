"""A worker that is stopped, or cancelled as something beside it failed: what it ends with is told once, never lost."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from ingest.service import _until_stopped

GONE = psycopg.OperationalError("the connection is closed")


@pytest.fixture
def unheard() -> Iterator[list[str]]:
    """What asyncio complains of; nothing may be left when the test is over."""
    found: list[str] = []
    yield found
    assert found == []


def listen(unheard: list[str]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(str(context["message"])))


async def over(task: asyncio.Future[Any]) -> None:
    """Until it is done, whatever it ends with, and all that refers to it is gone."""
    await asyncio.wait([task], timeout=20)
    assert task.done()
    del task
    await asyncio.sleep(0)
    gc.collect()


async def fails_when_cancelled(begun: asyncio.Event) -> None:
    begun.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise GONE from None


async def test_what_a_worker_ends_with_that_was_cancelled_from_outside_is_said_and_the_cancellation_goes_on(
    unheard: list[str],
) -> None:
    listen(unheard)
    begun = asyncio.Event()
    waiting = asyncio.create_task(_until_stopped(fails_when_cancelled(begun), asyncio.Event()))
    await begun.wait()
    with capture_logs() as lines:
        waiting.cancel()
        await over(waiting)
    assert waiting.cancelled()
    assert [line["why"] for line in lines] == ["OperationalError: the connection is closed"]


async def test_what_had_failed_in_the_moment_of_the_cancellation_is_said(unheard: list[str]) -> None:
    listen(unheard)
    failing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(_until_stopped(failing, asyncio.Event()))
    await asyncio.sleep(0)
    with capture_logs() as lines:
        failing.set_exception(GONE)
        waiting.cancel()
        del failing
        await over(waiting)
    assert waiting.cancelled()
    assert [line["why"] for line in lines] == ["OperationalError: the connection is closed"]


async def test_what_a_worker_ends_with_that_does_not_stop_in_time_is_said_and_it_is_stopped(
    unheard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.service.STOP_WITHIN_S", 0.05)
    listen(unheard)
    stop, begun = asyncio.Event(), asyncio.Event()
    waiting = asyncio.create_task(_until_stopped(fails_when_cancelled(begun), stop))
    await begun.wait()
    with capture_logs() as lines:
        stop.set()
        await over(waiting)
    assert waiting.exception() is None
    assert [line["why"] for line in lines] == [
        "not done within 0.05 s of the signal",
        "OperationalError: the connection is closed",
    ]


async def test_a_worker_that_ends_even_later_than_it_is_waited_for_is_heard(
    unheard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.service.STOP_WITHIN_S", 0.05)
    listen(unheard)
    stop, release, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await release.wait()
            ended.set()
            raise GONE from None

    stop.set()
    with capture_logs() as lines:
        await _until_stopped(stubborn(), stop)
        release.set()
        await ended.wait()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gc.collect()
    assert [line["why"] for line in lines][1:] == ["OperationalError: the connection is closed"]


@pytest.mark.parametrize("told", [False, True])
async def test_what_a_worker_fails_with_by_itself_is_raised_and_not_logged(unheard: list[str], told: bool) -> None:
    listen(unheard)
    stop = asyncio.Event()

    async def failing() -> None:
        if told:
            await stop.wait()
        raise GONE

    if told:
        asyncio.get_running_loop().call_soon(stop.set)
    with capture_logs() as lines, pytest.raises(psycopg.OperationalError, match="the connection is closed"):
        await _until_stopped(failing(), stop)
    assert lines == []
