"""Records sent to the log at a rate, and when the database had each of them.

That rows are there is seen from a connection of its own, which asks every 10 ms for the offsets that move in the rows' own
transaction. Invariant: the i-th record that is sent has offset i (that is checked); one partition.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import psycopg
from aiokafka import AIOKafkaProducer

from benchmarks.ingest.edges import Sent
from benchmarks.ingest.topic import new_producer
from benchmarks.ingest.watch import POSITIONS
from telemetry.log.protocol import TELEMETRY
from tests.fixtures.waiting import until

LOOK_EVERY_S: Final = 0.01
LEAST: Final = 20
"""Records of a phase, however long that takes."""
DRAIN_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Phase:
    """Records [first, end) were sent, while the database was at `reached` when it began."""

    first: int
    end: int
    reached: int
    began_s: float
    """Wall clock."""


@dataclass(slots=True)
class Seen:
    """Records as they were sent, and when the database had them. Of one partition."""

    samples: list[int] = field(default_factory=list)
    appended_s: list[float] = field(default_factory=list)
    """The broker's stamp, by offset; in the order of acknowledgement, which is that of offsets."""
    looks: list[tuple[float, int]] = field(default_factory=list)
    """(wall clock, next offset) whenever it had moved."""

    def delays_s(self, first: int, end: int) -> Any:
        """(n,) seconds from stamp to visible of records [first, end) that became visible."""
        at, reached = map(np.array, zip(*self.looks, strict=True))
        offsets = np.arange(first, min(end, int(reached[-1])))
        return at[np.searchsorted(reached, offsets, "right")] - np.array(self.appended_s)[offsets]

    def stored_per_s(self, phase: Phase) -> float:
        """Samples stored a second from the beginning of a phase until all that was sent in it was stored."""
        done_s = next(at for at, reached in self.looks if reached >= phase.end)
        return sum(self.samples[phase.reached : phase.end]) / (done_s - phase.began_s)


class Eye(threading.Thread):
    """Looks at the database's offset every 10 ms."""

    def __init__(self, url: str, seen: Seen) -> None:
        super().__init__(name="eye", daemon=True)
        self._url, self._seen, self.over = url, seen, threading.Event()
        self.next = 0

    def run(self) -> None:
        """See threading.Thread."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self.over.wait(LOOK_EVERY_S):
                positions: dict[int, int] = dict(connection.execute(POSITIONS, (TELEMETRY,)).fetchall())
                now, reached = time.time(), positions.get(0, 0)
                if reached > self.next:
                    self._seen.looks.append((now, reached))
                    self.next = reached


class Sender:
    """Sends records at a rate."""

    def __init__(
        self, producer: AIOKafkaProducer, records: Iterable[Sent], seen: Seen, eye: Eye, *, window: int
    ) -> None:
        self._window = window
        self._producer, self._records, self._seen, self._eye = producer, iter(records), seen, eye
        self._acknowledging: set[asyncio.Future[Any]] = set()

    async def phase(self, seconds: float, *, per_s: float | None) -> Phase:
        """Sends for so long, and LEAST records, at `per_s` samples a second; None: as fast as `window` lets it.

        Raises RuntimeError when the records are used up.
        """
        began, sent = time.monotonic(), 0
        first, reached, began_s = len(self._seen.samples), self._eye.next, time.time()
        while (now := time.monotonic() - began) < seconds or (
            now < DRAIN_S and len(self._seen.samples) < first + LEAST
        ):
            if per_s is None and self._on_the_way() > self._window:
                await asyncio.sleep(0.005)
            elif per_s is not None and sent / per_s > now:
                await asyncio.sleep(min(sent / per_s - now, 0.05))
            else:
                sent += await self._one(self._next())
        return Phase(first, len(self._seen.samples), reached, began_s)

    def _next(self) -> Sent:
        record = next(self._records, None)
        if record is None:
            raise RuntimeError("all prepared records are sent: prepare more (--most)")
        return record

    async def rest(self, *, per_s: float) -> None:
        """Sends all that is left at that rate."""
        began, sent = time.monotonic(), 0
        for record in self._records:
            await asyncio.sleep(max(began + sent / per_s - time.monotonic(), 0.0))
            sent += await self._one(record)

    async def drained(self) -> None:
        """Returns when everything that was sent is stored. Raises AssertionError after DRAIN_S."""
        await until(
            lambda: not self._acknowledging and self._eye.next >= len(self._seen.samples), DRAIN_S, "all of it stored"
        )

    def _on_the_way(self) -> int:
        return sum(self._seen.samples[self._eye.next :])

    async def _one(self, sent: Sent) -> int:
        record, offset = sent.record, len(self._seen.samples)
        self._seen.samples.append(sent.samples)
        self._seen.appended_s.append(0.0)
        headers = list(record.headers.items())
        future = await self._producer.send(TELEMETRY, record.value, key=record.key, headers=headers, partition=0)
        self._acknowledging.add(future)
        future.add_done_callback(lambda done: self._acknowledged(offset, done))
        return sent.samples

    def _acknowledged(self, offset: int, done: asyncio.Future[Any]) -> None:
        self._acknowledging.discard(done)
        said = done.result()
        if said.offset != offset:
            raise RuntimeError(f"expected offset {offset}, found {said.offset}")
        self._seen.appended_s[offset] = said.timestamp / 1000


@asynccontextmanager
async def sending(
    servers: str, url: str, records: Iterable[Sent], *, window: int = 2_000_000
) -> AsyncIterator[tuple[Sender, Seen]]:
    """A sender of records, watched in the database of `url`.

    `window` samples may be in the log and not in the store while the most is sought.
    """
    seen = Seen()
    eye = Eye(url, seen)
    producer = new_producer(servers)
    await producer.start()
    eye.start()
    try:
        yield Sender(producer, records, seen, eye, window=window), seen
    finally:
        eye.over.set()
        await asyncio.to_thread(eye.join, 10)
        await producer.stop()
