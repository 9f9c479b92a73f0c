"""The way from drivers to the spool: a thread of its own gathers what they received, prepares it and commits in groups.

Invariants: the event loop never waits for the disk, nor decodes; what was received leaves for the disk LINGER_S after it
came, or after QUIET_S of quiet where its sender waits for word; `Source.journaled` is called after it is durable and
never before; while the disk cannot be written, what was received waits in memory within bounds, polled samples are given
up oldest first (counted; events and what a device taught never), and what its sender keeps is refused instead. Where the spool
refuses the newest (policy `newest`), what a sender keeps is journaled whole or left with its sender: never taken and dropped.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import structlog

from edge import metrics
from edge.driver import Decoded, Source
from edge.intake import Intake, Prepared
from edge.losses import Losses, losses_of
from edge.own import Own, OwnThing
from edge.spool import Spool
from edge.spool_bounds import NoRoom
from edge.thread import fail, finish, start_thread
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
    _own: Own = field(default_factory=Own)
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
    _parked: tuple[Prepared, int, float] | None = None
    """What senders keep and the spool has no room for, its rows, and when the oldest of it came."""
    _refusing: bool = False
    """Whether there is something that it had no room for and has not taken yet."""
    _kept: int = 0
    """Things in the queue that their senders keep."""
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
        self._thread = start_thread("spool", self._run, self._ended)

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
                loop.call_soon_threadsafe(fail, future, error)
            else:
                loop.call_soon_threadsafe(finish, future, result)

        with self._condition:
            self._calls.append(run)
            self._condition.notify()
        assert self._failed is not None  # noqa: S101
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
            loop.call_soon_threadsafe(finish, future, None)

        held = Decoded()
        if last:
            await self.flush()  # what still waits is held back as well
            held = await self.call(lambda _: self.intake.held())
        thing = OwnThing(columns=held.thinned, state=held.state, done=done)
        self._put(self._own, thing, len(held.thinned), urgent=True)
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
            self._put(self._own, OwnThing(events), 0)

    def put_record(self, record: Encoded, *, rows: int = 0) -> None:
        """A record of the agent's own; with rows, it is given up like samples."""
        self._put(self._own, OwnThing(record=record), rows)

    def _put(self, source: Source, received: Any, rows: int, *, urgent: bool = False) -> bool:
        now_s, loose = time.monotonic(), self._is_loose(source, rows)
        with self._condition:
            if source.sender_keeps and self._refusing:
                return False
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
            self._kept += source.sender_keeps
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
        return losses_of(self.spool.counts, self._unjournaled)

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
        return [(self._own, OwnThing(left.events, state=left.state), 0)]

    def _ended(self, error: Exception | None) -> None:
        if error is not None and self._failed is not None:
            fail(self._failed, error)

    # ---- on the thread

    def _run(self) -> None:
        try:
            while self._turn():
                pass
            self.spool.settle()
        except sqlite3.OperationalError as error:
            log.warning("spool closed without settling", why=str(error), samples_not_journaled=self._rows)
        except sqlite3.DatabaseError as error:
            self.spool.suspect(str(error))
            raise

    def _turn(self) -> bool:
        """Waits for work and does it. False when there is no more to come."""
        with self._condition:
            wait = self._due_in()
            while wait > 0 and not self._calls:
                self._condition.wait(wait)
                wait = self._due_in()
            calls, self._calls = self._calls, []
            self._unpark()
            taken, rows = self._take() if wait <= 0 and self._prepared is None else ([], 0)
            over = self._closing and not taken and not calls and self._prepared is None
        for call in calls:
            call()
        if taken:
            apart = self._parked is not None or (self.spool.refuses and all(s.sender_keeps for s, _ in taken))
            self._prepared, self._prepared_rows = self.intake.prepare(taken, apart=apart), rows
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
        if self._parked is not None and len(self._queue) == self._kept:
            return max(self._retry_s - now_s, 0.0)
        if not self._queue:
            return IDLE_S
        due_s = self._first_s + LINGER_S
        if self._urgent:
            due_s = min(due_s, self._last_s + QUIET_S)
        return due_s - now_s if self._rows < TAKE else 0.0

    def _take(self) -> tuple[list[tuple[Source, Any]], int]:
        """The oldest things, up to TAKE rows, and their rows; within the lock. They count as waiting until durable.

        Where the spool may refuse them, those that their senders keep come apart from the others.
        """
        taken, total, keeps = [], 0, self._only()
        self._prepared_s = self._first_s
        left: deque[tuple[Source, Any, int]] = deque()
        while self._queue and total < TAKE:
            source, received, rows = self._queue.popleft()
            if keeps is not None and source.sender_keeps is not keeps:
                left.append((source, received, rows))
                continue
            self._loose -= self._is_loose(source, rows)
            self._kept -= source.sender_keeps
            taken.append((source, received))
            total += rows
        self._queue.extendleft(reversed(left))
        if not self._queue:
            self._urgent = False
        return taken, total

    def _only(self) -> bool | None:
        """Whether only what senders keep is to be taken, or only what they do not. None: all of it."""
        if self._parked is not None:
            return False
        if self.spool.refuses and 0 < self._kept < len(self._queue):
            return self._queue[0][0].sender_keeps
        return None

    def _unpark(self) -> None:
        """What the spool had no room for is tried again, when it is time and nothing else is under way."""
        if (
            self._parked is not None
            and self._prepared is None
            and time.monotonic() >= self._retry_s
            and not self._closing
        ):
            (self._prepared, self._prepared_rows, self._prepared_s), self._parked = self._parked, None

    def _commit(self, prepared: Prepared) -> bool:
        began_s, whole = time.monotonic(), any(source.sender_keeps for source, _ in prepared.received)
        try:
            if prepared.records or prepared.state or prepared.delivered or prepared.provisional:
                self.spool.journal(
                    prepared.records,
                    prepared.increments,
                    prepared.state,
                    prepared.delivered,
                    provisional=prepared.provisional,
                    whole=whole,
                )
        except NoRoom:
            self._park(prepared)
            return True
        except sqlite3.OperationalError as error:
            self._retry_s = time.monotonic() + RETRY_S
            self._tell(str(error))
            return False
        with self._condition:
            self._rows -= self._prepared_rows
        self._prepared, self._prepared_rows = None, 0
        if whole:
            self._refusing = False
        metrics.committed(prepared.samples, prepared.events, began_s=began_s, since_s=self._prepared_s)
        metrics.SPOOL_BYTES.set(self.spool.bytes)
        self._tell(None)
        for source, received in prepared.received:
            source.journaled(received)
        return True

    def _park(self, prepared: Prepared) -> None:
        """Nothing is acknowledged, and nothing more is taken that a sender keeps, until there is room for it."""
        if not self._refusing:
            log.warning("messages are left with their senders: the spool is full, and refuses the newest")
        self._refusing = True
        with self._condition:
            self._parked = prepared, self._prepared_rows, self._prepared_s
            self._prepared, self._prepared_rows = None, 0
            self._retry_s = time.monotonic() + RETRY_S

    def _tell(self, why: str | None) -> None:
        assert self._loop is not None  # noqa: S101
        self._loop.call_soon_threadsafe(self._told, why)

    def _told(self, why: str | None) -> None:
        if why != self._why:
            self._why = why
            self.trouble(why)
        if why is None:
            self.committed.set()
