"""The way from drivers to the spool: a thread of its own gathers what they received, prepares it and commits in groups.

Invariants: the event loop never waits for the disk, nor decodes; what was received leaves for the disk LINGER_S after it
came, or after QUIET_S of quiet where its sender waits for word; `Source.journaled` is called after it is durable and
never before; while the disk cannot be written, what was received waits in memory within bounds, polled samples are given
up oldest first (counted; events and what a device taught never), and what its sender keeps is refused instead.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import structlog

from edge import metrics
from edge.columns import NOTHING, Columns, join
from edge.driver import Decoded, Source
from edge.intake import Intake, Prepared
from edge.spool import Spool
from telemetry.messages import Event
from telemetry.wire import Encoded

T = TypeVar("T")
log = structlog.get_logger()

LINGER_S: Final = 0.04
"""A batch leaves within 50 ms; the commit itself takes some."""
QUIET_S: Final = 0.004
TAKE: Final = 64_000
"""Most samples in one commit, about."""
QUEUED_ROWS: Final = 1_000_000
"""Most samples that wait in memory while the disk cannot be written."""
QUEUED_THINGS: Final = 50_000
GIVEN_UP: Final = 64
"""Beyond that, one part in so many goes at once."""
RETRY_S: Final = 0.5
FLUSH_S: Final = 1.0
IDLE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Losses:
    """What did not reach the log, since the start."""

    dropped_records: int = 0
    dropped_samples: int = 0
    corrupt_records: int = 0
    corrupt_samples: int = 0
    unjournaled_samples: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _OwnThing:
    """Something that the agent itself has to say."""

    events: Sequence[Event] = ()
    record: Encoded | None = None
    columns: Columns = NOTHING
    state: Mapping[str, str] = field(default_factory=dict)
    done: Callable[[], None] | None = None


class _Own:
    """See edge.driver.Source."""

    sender_keeps = False

    def decode(self, received: Sequence[_OwnThing]) -> Decoded:
        """See Source."""
        return Decoded(
            thinned=join([thing.columns for thing in received]),
            events=[event for thing in received for event in thing.events],
            records=[thing.record for thing in received if thing.record is not None],
            state={key: value for thing in received for key, value in thing.state.items()},
        )

    def kept(self, received: _OwnThing) -> Decoded:
        """See Source. What the agent gives up of its own is a heartbeat, or what was held back: nothing else."""
        return Decoded()

    def journaled(self, received: Sequence[_OwnThing]) -> None:
        """See Source."""
        for thing in received:
            if thing.done is not None:
                thing.done()


@dataclass(slots=True, eq=False)
class Journal:
    """The spool's thread and its queue. `start` before use, `close` at the end."""

    spool: Spool
    intake: Intake
    trouble: Callable[[str | None], None] = lambda why: None
    """Told, on the event loop, why the disk cannot be written, and None when it can again."""
    queued_rows: int = QUEUED_ROWS
    committed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after every commit, for the forwarder."""
    _own: _Own = field(default_factory=_Own)
    _queue: deque[tuple[Source, Any, int]] = field(default_factory=deque)
    _rows: int = 0
    _loose: int = 0
    """Things in the queue that may be given up."""
    _first_s: float = 0.0
    _last_s: float = 0.0
    _urgent: bool = False
    """Whether something waits whose sender waits for word."""
    _prepared: Prepared | None = None
    """What the disk did not take."""
    _prepared_rows: int = 0
    _prepared_s: float = 0.0
    """When the oldest of it came."""
    _calls: list[Callable[[], None]] = field(default_factory=list)
    _condition: threading.Condition = field(default_factory=threading.Condition)
    _retry_s: float = 0.0
    _closing: bool = False
    _unjournaled: int = 0
    _why: str | None = None
    _thread: threading.Thread | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _failed: asyncio.Future[None] | None = None

    # ---- from the event loop

    def start(self) -> None:
        """Starts the thread; to be called on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._failed = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    async def failed(self) -> None:
        """Waits until the thread fails, and raises what it failed with. To be run as a task of the service."""
        assert self._failed is not None, "start() comes first"  # noqa: S101
        await asyncio.shield(self._failed)

    async def close(self) -> None:
        """Commits what waits, if the disk can be written, and ends the thread."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self.spool.close()

    async def call(self, work: Callable[[Spool], T]) -> T:
        """Runs `work` on the spool's thread. Raises what it raises: sqlite3.OperationalError when the disk is full; and what
        the thread fails with.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                result = work(self.spool)
            except sqlite3.OperationalError as error:
                loop.call_soon_threadsafe(_fail, future, error)
            else:
                loop.call_soon_threadsafe(_finish, future, result)

        with self._condition:
            self._calls.append(run)
            self._condition.notify()
        assert self._failed is not None, "start() comes first"  # noqa: S101
        either: list[asyncio.Future[Any]] = [future, self._failed]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                self._failed.result()
            return future.result()
        finally:
            future.cancel()

    async def flush(self, *, last: bool = False) -> None:
        """Waits until everything put so far is durable; `last`: what the intake holds back, too.

        Raises TimeoutError when the disk does not take it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def done() -> None:
            loop.call_soon_threadsafe(_finish, future, None)

        held = NOTHING
        if last:
            await self.flush()  # what still waits is held back as well
            held = await self.call(lambda _: self.intake.held())
        self._put(self._own, _OwnThing(columns=held, done=done), len(held), urgent=True)
        async with asyncio.timeout(FLUSH_S):
            await future

    async def publish(self, *, force: bool = False) -> None:
        """See Spool.publish."""
        if await self.call(lambda spool: spool.publish(force=force)):
            self.committed.set()

    # ---- from any thread

    def put(self, source: Source, received: Any, rows: int) -> bool:
        """See edge.driver.Put."""
        return self._put(source, received, rows, urgent=source.sender_keeps)

    def put_events(self, events: Sequence[Event]) -> None:
        """What the agent itself has to say, which is never given up."""
        if events:
            self._put(self._own, _OwnThing(events), 0)

    def put_record(self, record: Encoded, *, rows: int = 0) -> None:
        """A record of the agent's own; with rows, it is given up like samples."""
        self._put(self._own, _OwnThing(record=record), rows)

    def _put(self, source: Source, received: Any, rows: int, *, urgent: bool = False) -> bool:
        now_s, loose = time.monotonic(), self._is_loose(source, rows)
        with self._condition:
            if not self._has_room_for(rows) and not source.sender_keeps and self._loose:
                self._give_up(rows)
            if not self._has_room_for(rows) and (loose or source.sender_keeps):
                if loose:
                    self._queue.extend(self._lost(source, received, rows))
                return False
            if not self._queue:
                self._first_s = now_s
                self._condition.notify()
            elif urgent and not self._urgent:
                self._condition.notify()
            self._queue.append((source, received, rows))
            self._rows += rows
            self._loose += loose
            self._last_s = now_s
            self._urgent = self._urgent or urgent
        return True

    @property
    def has_room(self) -> bool:
        """Whether half of the memory for what is received is free."""
        return self._rows * 2 < self.queued_rows and len(self._queue) * 2 < QUEUED_THINGS

    @property
    def losses(self) -> Losses:
        """What did not reach the log, as of now."""
        counts = self.spool.counts
        return Losses(
            counts.dropped_records,
            counts.dropped_samples,
            counts.corrupt_records,
            counts.corrupt_samples,
            self._unjournaled,
        )

    def _is_loose(self, source: Source, rows: int) -> bool:
        """Whether it may be given up: polled samples and texts, heartbeats; not events, nor unacknowledged messages."""
        return not source.sender_keeps and (rows > 0 or source is not self._own)

    def _has_room_for(self, rows: int) -> bool:
        return self._rows + rows <= self.queued_rows and len(self._queue) < QUEUED_THINGS

    def _give_up(self, rows: int) -> None:
        """Makes room for `rows` more: the oldest of what may be given up goes, a part of all at once, for it is looked for."""
        kept: deque[tuple[Source, Any, int]] = deque()
        things = len(self._queue)
        enough = min(things - things // GIVEN_UP, QUEUED_THINGS - 1)
        for thing in self._queue:
            source, received, n = thing
            if (self._rows + rows > self.queued_rows or things > enough) and self._is_loose(source, n):
                things, self._rows, self._loose = things - 1, self._rows - n, self._loose - 1
                kept.extend(self._lost(source, received, n))
            else:
                kept.append(thing)
        self._queue = kept

    def _lost(self, source: Source, received: Any, rows: int) -> list[tuple[Source, Any, int]]:
        """Counts readings that are given up. What is left of the thing, to be queued in its place."""
        lost = rows if source is not self._own else 0
        self._unjournaled += lost
        metrics.UNJOURNALED.inc(lost)
        left = source.kept(received)
        if not left.events and not left.state:
            return []
        return [(self._own, _OwnThing(left.events, state=left.state), 0)]

    # ---- on the thread

    def _run(self) -> None:
        try:
            while self._turn():
                pass
            self.spool.settle()
        except sqlite3.OperationalError as error:
            log.warning("spool closed without settling", why=str(error), samples_not_journaled=self._rows)
        except Exception as error:
            assert self._loop is not None  # noqa: S101
            assert self._failed is not None  # noqa: S101
            self._loop.call_soon_threadsafe(_fail, self._failed, error)

    def _turn(self) -> bool:
        """Waits for work and does it. False when there is no more to come."""
        with self._condition:
            wait = self._due_in()
            while wait > 0 and not self._calls:
                self._condition.wait(wait)
                wait = self._due_in()
            calls, self._calls = self._calls, []
            taken, rows = self._take() if wait <= 0 and self._prepared is None else ([], 0)
            over = self._closing and not taken and not calls and self._prepared is None
        for call in calls:
            call()
        if taken:
            self._prepared, self._prepared_rows = self.intake.prepare(taken), rows
        if self._prepared is not None and wait <= 0 and not self._commit(self._prepared) and self._closing:
            return False
        return not over

    def _due_in(self) -> float:
        """Seconds until a commit is due; within the lock."""
        if self._closing:
            return 0.0
        now_s = time.monotonic()
        if self._prepared is not None:
            return self._retry_s - now_s
        if not self._queue:
            return IDLE_S
        due_s = self._first_s + LINGER_S
        if self._urgent:
            due_s = min(due_s, self._last_s + QUIET_S)
        return due_s - now_s if self._rows < TAKE else 0.0

    def _take(self) -> tuple[list[tuple[Source, Any]], int]:
        """The oldest things, up to TAKE rows, and their rows; within the lock. They count as waiting until durable."""
        taken, total, self._prepared_s = [], 0, self._first_s
        while self._queue and total < TAKE:
            source, received, rows = self._queue.popleft()
            self._loose -= self._is_loose(source, rows)
            taken.append((source, received))
            total += rows
        if not self._queue:
            self._urgent = False
        return taken, total

    def _commit(self, prepared: Prepared) -> bool:
        began_s = time.monotonic()
        try:
            if prepared.records or prepared.state or prepared.delivered or prepared.provisional:
                self.spool.journal(
                    prepared.records,
                    prepared.increments,
                    prepared.state,
                    prepared.delivered,
                    provisional=prepared.provisional,
                )
        except sqlite3.OperationalError as error:
            self._retry_s = time.monotonic() + RETRY_S
            self._tell(str(error))
            return False
        with self._condition:
            self._rows -= self._prepared_rows
        self._prepared, self._prepared_rows = None, 0
        ended_s = time.monotonic()
        metrics.COMMIT.observe(ended_s - began_s)
        metrics.COMMIT_AGE.observe(ended_s - self._prepared_s)
        metrics.SAMPLES.inc(prepared.samples)
        metrics.EVENTS.inc(prepared.events)
        metrics.SPOOL_BYTES.set(self.spool.bytes)
        self._tell(None)
        for source, received in prepared.received:
            source.journaled(received)
        return True

    def _tell(self, why: str | None) -> None:
        assert self._loop is not None  # noqa: S101
        self._loop.call_soon_threadsafe(self._told, why)

    def _told(self, why: str | None) -> None:
        if why != self._why:
            self._why = why
            self.trouble(why)
        if why is None:
            self.committed.set()


def _finish(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
