"""An outage with restarts in it, back-filled behind what is new, into a real ingest: nothing is ever lost or doubled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge import forward
from edge.forward import Forwarder
from edge.spool import Spool
from ingest.audit import audit
from telemetry.log import open_log
from telemetry.messages import Heartbeat
from telemetry.service import Health
from telemetry.settings import Settings
from telemetry.wire import encode_heartbeat, encode_samples
from tests.edge.spools import batch_of, increments, open_at
from tests.edge.test_forward import OnTheLoop
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import ingesting, now_us

SIZE = 20
TAIL_BYTES = 6_000
"""What the second opening had left is not in memory any more when the third begins to send."""


def journal(spool: Spool, n: int) -> None:
    """`n` commits, each a record of samples and a heartbeat."""
    for _ in range(n):
        moment_us = now_us() - SIZE
        batch = batch_of("e", SIZE, time_us=moment_us)
        beat = encode_heartbeat(Heartbeat("edge-1", moment_us, ("e",), {}))
        spool.journal([encode_samples(batch), beat], increments("e", batch))


@asynccontextmanager
async def forwarding(spool: Spool, settings: Settings, *, rate: float = 1e9) -> AsyncIterator[OnTheLoop]:
    log, keeper = open_log(settings), OnTheLoop(spool)
    task = asyncio.create_task(Forwarder(keeper, log, "edge-1", Health("edge"), rate).run())
    yield keeper
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await log.close()


async def test_an_outage_with_restarts_in_it_is_clean_at_every_moment_of_its_back_fill(
    tmp_path: Path, plain_store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "BACKFILL_BYTES", 4_000)
    path, commits = tmp_path / "spool.sqlite", 0
    async with ingesting(plain_store):
        spool = open_at(path, 1)
        async with forwarding(spool, plain_store):
            journal(spool, 10)
            spool.publish()
            await until(lambda: spool.waiting() == 0)
        for epoch in (1, 2):  # the second opening is one that the log never heard of
            journal(spool, 40)
            spool.publish()
            spool.close()
            spool = open_at(path, epoch + 1, tail_bytes=TAIL_BYTES)
        journal(spool, 10)
        commits = 100
        for epoch in (3, 4):  # cut off in the middle
            async with forwarding(spool, plain_store, rate=1_500.0) as keeper:
                for _ in range(1_000):
                    journal(spool, 1)
                    commits += 1
                    spool.publish()
                    keeper.committed.set()
                    report = await audit(plain_store)
                    assert (report.lost, report.doubled) == (0, 0)
                    if not spool.has_backlog or (epoch == 3 and commits > 104):
                        break
            assert spool.has_backlog or epoch == 4
            spool.close()  # what a forwarder had in hand goes with its process
            spool = open_at(path, epoch + 1, tail_bytes=TAIL_BYTES)
        async with forwarding(spool, plain_store):
            await until(lambda: spool.waiting() == 0)
            spool.settle()
            spool.publish(force=True)
            await until(lambda: spool.waiting() == 0)

            async def is_settled() -> bool:
                report = await audit(plain_store)
                return report.stored == report.journaled == commits * SIZE

            async with asyncio.timeout(30):
                while not await is_settled():
                    pass
        spool.close()
        report = await audit(plain_store)
        assert (report.lost, report.doubled, report.dropped) == (0, 0, 0)
        assert report.clean
        query = "SELECT count(*) FROM store.event WHERE code = 'two-live-epochs'"
        assert execute(plain_store.store, query) == [(0,)]
        assert execute(plain_store.store, "SELECT epoch FROM store.edge") == [(4,)]
        assert execute(plain_store.store, "SELECT online FROM store.equipment_online") == [(True,)]
