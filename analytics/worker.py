"""Log → detectors → findings → snapshot, for the partitions that the group gives this worker.

Order, for each fetch: the engine takes the records; what it found becomes durable on the log; only then may a snapshot
with their offset be saved. After a crash the last snapshot is restored and the log read again from its offset: the same
records give the same findings with the same ids. Findings and snapshots leave only after the record before the last
snapshot was compared with the log once more: nothing of another log that took its place is told or kept.

What is away stops only what needs it: without the store, detection goes on and snapshots wait; without the log, all waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import Final

import structlog

from analytics import metrics
from analytics.engine import Engine
from analytics.keeping import Keeper
from analytics.lane import Lane
from analytics.publish import Publisher
from analytics.rules import Catalogue
from analytics.silence import Silence
from telemetry.clock import Clock
from telemetry.errors import LogUnavailable, RecordError, StoreUnavailable
from telemetry.log.protocol import InRecord, Partition, Reader
from telemetry.position import verify_continuity, verify_unchanged
from telemetry.service import Health, wait_until

log = structlog.get_logger()

MAX_RECORDS: Final = 256
WAIT_S: Final = 0.25
RETRY_S: Final = 1.0
SNAPSHOT_S: Final = 3.0
SNAPSHOT_SHARE: Final = 20.0
"""A snapshot that took t seconds is followed by a pause of at least SNAPSHOT_SHARE · t."""
LOOK_S: Final = 1.0
"""Between looks at the lag."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a worker works with."""

    catalogue: Catalogue
    old_us: int
    """The bound on late data, µs."""
    clock: Clock
    publisher: Publisher
    keeper: Keeper
    stop: asyncio.Event
    health: Health


class Worker:
    """One member of the group. Also its Assignment."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._lanes: dict[Partition, Lane] = {}
        self._silence = Silence(tools.clock.speed)
        self._saving: asyncio.Task[None] | None = None
        self._save_at = 0.0
        self._look_at = 0.0
        self._reader: Reader | None = None

    async def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """See Assignment: state and place come from the store. Raises StoreUnavailable."""
        reader = self._reader
        assert reader is not None  # noqa: S101 - fetch is what calls this
        loaded = await self._tools.keeper.load(partitions)
        starts = {}
        for partition, (position, state) in loaded.items():
            start = position.next or (await reader.bounds(partition)).first
            lane = Lane(self._engine(), position, position.next, start, position.last, position.last)
            if state is not None:
                self._restore(partition, lane, state)
            self._lanes[partition] = lane
            starts[partition] = start
        return starts

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        """See Assignment."""
        await self._settle()
        for partition in partitions:
            self._lanes.pop(partition, None)
            log.info("partition revoked", topic=partition.topic, partition=partition.number)

    async def work(self, reader: Reader) -> None:
        """Reads until told to stop. Raises LogDiscontinuity, OffsetMoved: then everything in memory is void."""
        self._reader = reader
        try:
            while not self._tools.stop.is_set():
                records = await self._fetch(reader)
                began = asyncio.get_running_loop().time()
                if records is not None and await self._verified(reader) and await self._take(reader, records):
                    if records:
                        metrics.DETECT_S.observe(asyncio.get_running_loop().time() - began)
                    await self._look(reader)
                    await self._keep(reader)
            await self._last_save(reader)
        finally:
            await self._abandon()

    async def _fetch(self, reader: Reader) -> Sequence[InRecord] | None:
        """Records, or None where the log or (for an assignment) the store is away."""
        health = self._tools.health
        try:
            records = await reader.fetch(max_records=MAX_RECORDS, max_wait_s=WAIT_S)
        except LogUnavailable as error:
            self._silence.behind()
            health.missing("log", str(error))
        except StoreUnavailable as error:
            health.missing("store", str(error))
        else:
            health.found("log")
            return records
        await wait_until(self._tools.stop, RETRY_S)
        return None

    async def _verified(self, reader: Reader) -> bool:
        """Compares the log with what was processed, for partitions just assigned. False if told to stop meanwhile."""
        for partition, lane in self._lanes.items():
            while not lane.verified:
                try:
                    await verify_continuity(reader, partition, lane.position)
                except LogUnavailable as error:
                    self._tools.health.missing("log", str(error))
                    if await wait_until(self._tools.stop, RETRY_S):
                        return False
                else:
                    lane.verified = True
                    log.info("partition assigned", topic=partition.topic, partition=partition.number, next=lane.next)
        return True

    async def _take(self, reader: Reader, records: Sequence[InRecord]) -> bool:
        """Takes a fetch and publishes what it gave; False if told to stop before all was durable."""
        now_us = self._tools.clock.now_us()
        for partition, lane in self._lanes.items():
            mine = [r for r in records if r.partition == partition]
            if mine:
                lane.take(mine, now_us=now_us)
                self._silence.heard(lane.heard, asyncio.get_running_loop().time())
                self._count(lane.engine)
        return await self._publish(reader)

    async def _publish(self, reader: Reader) -> bool:
        for partition, lane in self._lanes.items():
            if not lane.owed:
                continue
            if not await self._unchanged(reader, partition, lane) or not await self._tools.publisher.publish(lane.owed):
                return False
            lane.owed.clear()
        return True

    async def _unchanged(self, reader: Reader, partition: Partition, lane: Lane) -> bool:
        """Whether it is still the log that the lane began on. False if told to stop before it answered."""
        while lane.place is not None:
            try:
                await verify_unchanged(reader, {partition: lane.place})
            except LogUnavailable as error:
                self._tools.health.missing("log", str(error))
                if await wait_until(self._tools.stop, RETRY_S):
                    return False
            else:
                break
        return True

    async def _look(self, reader: Reader) -> None:
        """Looks at the lag now and then; if there is none, at who has gone silent."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._look_at:
            return
        self._look_at = now_s + LOOK_S
        try:
            lag = await reader.lag()
        except LogUnavailable:
            self._silence.behind()
            return
        metrics.LAG.set(lag)
        for lane in self._lanes.values():
            for edge in self._silence.due(lane.engine.edges, lag=lag, now_s=now_s):
                found = lane.engine.silence(edge, now_us=self._tools.clock.now_us())
                lane.owe(edge, found)
                if found:
                    lane.dirty = True
                    self._save_at = 0.0
        await self._publish(reader)

    async def _keep(self, reader: Reader) -> None:
        """Begins a snapshot when one is due and none is being saved; raises what the last one failed with."""
        if self._saving is not None and self._saving.done():
            saving, self._saving = self._saving, None
            saving.result()
        if self._saving is None and asyncio.get_running_loop().time() >= self._save_at:
            self._saving = asyncio.create_task(self._save(reader))

    async def _save(self, reader: Reader) -> None:
        """Saves every lane that moved. OffsetMoved goes up; a store that is away is waited for."""
        began = asyncio.get_running_loop().time()
        try:
            for partition, lane in list(self._lanes.items()):
                if (lane.next != lane.saved or lane.dirty) and lane.verified and not lane.owed:
                    await self._save_lane(reader, partition, lane)
            self._tools.health.found("store")
            if places := {p: lane.saved for p, lane in self._lanes.items() if lane.saved}:
                await reader.commit(places)
        except StoreUnavailable as error:
            self._tools.health.missing("store", str(error))
        except LogUnavailable as error:
            log.debug("commit left out", why=str(error))
        took = asyncio.get_running_loop().time() - began
        self._save_at = began + max(SNAPSHOT_S, SNAPSHOT_SHARE * took)

    async def _save_lane(self, reader: Reader, partition: Partition, lane: Lane) -> None:
        began = asyncio.get_running_loop().time()
        next_, last, lane.dirty = lane.next, lane.last, False
        captured = lane.engine.capture()
        try:
            if lane.place is not None:  # after the capture: whatever it holds was fetched before this
                await verify_unchanged(reader, {partition: lane.place})
            size = await self._tools.keeper.save(partition, captured, expected=lane.saved, next=next_, last=last)
        except (StoreUnavailable, LogUnavailable):
            lane.dirty = True
            raise
        lane.saved, lane.saved_last = next_, last
        metrics.SNAPSHOT_S.set(asyncio.get_running_loop().time() - began)
        metrics.SNAPSHOT_BYTES.set(size)
        metrics.SNAPSHOT_AT.set(time())

    async def _last_save(self, reader: Reader) -> None:
        await self._settle()
        await self._save(reader)

    async def _settle(self) -> None:
        """Waits for the snapshot that is being saved."""
        saving, self._saving = self._saving, None
        if saving is not None:
            await saving

    async def _abandon(self) -> None:
        """Everything in memory is void."""
        self._lanes.clear()
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.cancel()
            await asyncio.gather(saving, return_exceptions=True)

    def _restore(self, partition: Partition, lane: Lane, state: bytes) -> None:
        try:
            cleared = lane.engine.restore(state)
        except RecordError as error:
            log.error("snapshot unreadable, starting fresh", partition=partition.number, why=str(error))
            lane.engine = self._engine()
            return
        for finding in cleared:
            lane.owe(finding.equipment, [finding])

    def _engine(self) -> Engine:
        return Engine(self._tools.catalogue, old_us=self._tools.old_us)

    def _count(self, engine: Engine) -> None:
        for why, rows in engine.counts.items():
            metrics.APART.labels(why).inc(rows)
        engine.counts.clear()
