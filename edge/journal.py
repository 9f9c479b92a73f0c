"""The way from readings to the spool: a thread of its own gathers them into few large records and commits in groups.

Invariants: the event loop never waits for the disk; a reading leaves for the disk LINGER_S after it came, or at once
when ENOUGH samples are waiting; `done` of a reading is called after it is durable and never before; while the disk
cannot be written, readings wait in memory within bounds, polled samples are given up oldest first (counted; events
never), and what has a `done` (an unacknowledged message) is refused instead, for its sender to keep.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import numpy as np
import structlog

from edge import metrics
from edge.driver import Reading
from edge.ledger import Tally
from edge.spool import Spool, Stored
from telemetry.batch import EMPTY, SampleBatch
from telemetry.wire import Encoded, encode_events, encode_samples

T = TypeVar("T")
log = structlog.get_logger()

LINGER_S: Final = 0.008
ENOUGH: Final = 200
"""Samples that make a record worth committing at once."""
RECORD_WEIGHT: Final = 8_000
"""Most samples and names together in one record: with the longest names 620 kB, below any log's record size."""
RECORD_EVENTS: Final = 100
"""Drivers keep an event below 9 kB (edge.payload), so that so many fit into a record."""
TAKE: Final = 64_000
"""Most samples in one commit."""
QUEUED_SAMPLES: Final = 1_000_000
"""Most samples that wait in memory while the disk cannot be written (25 MB)."""
QUEUED_ENTRIES: Final = 50_000
RETRY_S: Final = 0.5
FLUSH_S: Final = 1.0


@dataclass(slots=True)
class _Entry:
    reading: Reading
    record: Encoded | None
    done: Callable[[], None] | None
    put_s: float


@dataclass(frozen=True, slots=True)
class Losses:
    """What did not reach the log, since the start."""

    dropped_records: int = 0
    dropped_samples: int = 0
    corrupt_records: int = 0
    corrupt_samples: int = 0
    unjournaled_samples: int = 0


@dataclass(slots=True)
class Journal:
    """The spool's thread and its queue. `start` before use, `close` at the end."""

    spool: Spool
    trouble: Callable[[str | None], None] = lambda why: None
    """Told, on the event loop, why the disk cannot be written, and None when it can again."""
    queued_samples: int = QUEUED_SAMPLES
    committed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after every commit, for the forwarder."""
    _queue: deque[_Entry] = field(default_factory=deque)
    _samples: int = 0
    _calls: list[Callable[[], None]] = field(default_factory=list)
    _condition: threading.Condition = field(default_factory=threading.Condition)
    _retry_s: float = 0.0
    _closing: bool = False
    _unjournaled: int = 0
    _tally: Tally = field(default_factory=Tally)
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
        """Runs `work` on the spool's thread. Raises what it raises: sqlite3.OperationalError when the disk is full."""
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
        return await future

    async def read(self, after: int, *, max_records: int, max_bytes: int) -> list[Stored]:
        """See Spool.read."""
        return await self.call(lambda spool: spool.read(after, max_records=max_records, max_bytes=max_bytes))

    async def flush(self) -> None:
        """Waits until everything put so far is durable. Raises TimeoutError when the disk does not take it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def done() -> None:
            loop.call_soon_threadsafe(_finish, future, None)

        entry = _Entry(Reading(""), None, done, time.monotonic() - LINGER_S)
        with self._condition:
            self._queue.append(entry)
            self._condition.notify()
        async with asyncio.timeout(FLUSH_S):
            await future

    async def publish(self, *, force: bool = False) -> None:
        """See Spool.publish."""
        if await self.call(lambda spool: spool.publish(force=force)):
            self.committed.set()

    # ---- from any thread

    def put(self, reading: Reading, done: Callable[[], None] | None = None, *, record: Encoded | None = None) -> bool:
        """Takes a reading, or a record that is already encoded. False where there is no room and `done` was given."""
        entry = _Entry(reading, record, done, time.monotonic())
        with self._condition:
            if self._samples >= self.queued_samples or len(self._queue) >= QUEUED_ENTRIES:
                if done is not None:
                    return False
                self._give_up()
            self._queue.append(entry)
            self._samples += len(reading.batch)
            if len(self._queue) == 1 or self._samples >= ENOUGH:
                self._condition.notify()
        return True

    @property
    def has_room(self) -> bool:
        """Whether half of the memory for readings is free."""
        return self._samples * 2 < self.queued_samples and len(self._queue) * 2 < QUEUED_ENTRIES

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

    def _give_up(self) -> None:
        """The oldest polled samples or heartbeat are given up; events and unacknowledged messages stay."""
        for place, entry in enumerate(self._queue):
            n = len(entry.reading.batch)
            if entry.done is not None or (entry.reading.events and not n):
                continue
            if entry.reading.events:
                entry.reading = replace(entry.reading, batch=EMPTY)
            else:
                del self._queue[place]
            self._samples -= n
            self._unjournaled += n
            metrics.UNJOURNALED.inc(n)
            return

    # ---- on the thread

    def _run(self) -> None:
        try:
            while self._turn():
                pass
            self.spool.settle()
        except sqlite3.OperationalError as error:
            log.warning("spool closed without settling", why=str(error))
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
            entries = self._take() if wait <= 0 else []
            last = self._closing and not entries and not calls
        for call in calls:
            call()
        if entries and not self._commit(entries) and self._closing:
            return False
        return not last

    def _due_in(self) -> float:
        """Seconds until a commit is due; within the lock."""
        if self._closing:
            return 0.0
        now = time.monotonic()
        if self._retry_s > now:
            return self._retry_s - now
        if not self._queue:
            return 1.0
        return 0.0 if self._samples >= ENOUGH else max(self._queue[0].put_s + LINGER_S - now, 0.0)

    def _take(self) -> list[_Entry]:
        """The oldest entries, up to TAKE samples; within the lock. They count as waiting until they are durable."""
        taken, samples = [], 0
        for entry in self._queue:
            taken.append(entry)
            samples += len(entry.reading.batch)
            if samples >= TAKE:
                break
        self._queue = deque(list(self._queue)[len(taken) :])
        return taken

    def _commit(self, entries: Sequence[_Entry]) -> bool:
        batches = [(e.reading.equipment, e.reading.batch) for e in entries if len(e.reading.batch)]
        events = [event for e in entries for event in e.reading.events]
        records = [encode_samples(b) for b in merge([b for _, b in batches])]
        records += [encode_events(events[i : i + RECORD_EVENTS]) for i in range(0, len(events), RECORD_EVENTS)]
        records += [e.record for e in entries if e.record is not None]
        state = {key: value for e in entries for key, value in e.reading.state.items()}
        began = time.monotonic()
        try:
            if records or state:
                self.spool.journal(records, self._tally.count(batches), state)
        except sqlite3.OperationalError as error:
            self._put_back(entries, str(error))
            return False
        with self._condition:
            self._samples -= sum(len(b) for _, b in batches)
        ended = time.monotonic()
        metrics.COMMIT.observe(ended - began)
        metrics.COMMIT_AGE.observe(ended - entries[0].put_s)
        metrics.SAMPLES.inc(sum(len(b) for _, b in batches))
        metrics.EVENTS.inc(len(events))
        metrics.SPOOL_BYTES.set(self.spool.bytes)
        self._tell(None)
        for entry in entries:
            if entry.done is not None:
                entry.done()
        return True

    def _put_back(self, entries: Sequence[_Entry], why: str) -> None:
        with self._condition:
            self._queue.extendleft(reversed(entries))
            self._retry_s = time.monotonic() + RETRY_S
        self._tell(why)

    def _tell(self, why: str | None) -> None:
        assert self._loop is not None  # noqa: S101
        self._loop.call_soon_threadsafe(self._told, why)

    def _told(self, why: str | None) -> None:
        self.trouble(why)
        if why is None:
            self.committed.set()


def merge(batches: Sequence[SampleBatch]) -> list[SampleBatch]:
    """Few large batches with the rows of all, in order. A names tuple that comes again is one dictionary.

    Relies on the drivers: two different names tuples have no signal in common. Cost is per batch and per row copied,
    not per name.
    """
    merged: list[SampleBatch] = []
    part: list[SampleBatch] = []
    known: set[int] = set()
    weight = 0
    for batch in batches:
        more = len(batch) + (0 if id(batch.names) in known else len(batch.names))
        if part and weight + more > RECORD_WEIGHT:
            merged.append(_join(part))
            part, known, weight, more = [], set(), 0, len(batch) + len(batch.names)
        part.append(batch)
        known.add(id(batch.names))
        weight += more
    return [*merged, _join(part)] if part else merged


def _join(batches: Sequence[SampleBatch]) -> SampleBatch:
    if len(batches) == 1:
        return batches[0]
    base: dict[int, int] = {}
    names: list[tuple[str, ...]] = []
    total = 0
    for batch in batches:
        if id(batch.names) not in base:
            base[id(batch.names)] = total
            names.append(batch.names)
            total += len(batch.names)
    return SampleBatch(
        tuple(name for part in names for name in part),
        np.concatenate([b.signal + np.int32(base[id(b.names)]) for b in batches]),
        np.concatenate([b.time_us for b in batches]),
        np.concatenate([b.value for b in batches]),
        np.concatenate([b.quality for b in batches]),
    )


def _finish(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
