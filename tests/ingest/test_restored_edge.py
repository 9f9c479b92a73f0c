"""An edge restored from a copy of its disk while its first self still lives: named by an event, nothing lost or doubled."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge.spool import Spool
from ingest.audit import audit
from telemetry.log.protocol import TELEMETRY, OutRecord, Producer
from telemetry.messages import Heartbeat
from telemetry.settings import Settings
from telemetry.wire import Identity, encode_heartbeat, headers
from tests.edge.spools import batch_of, forwarded, journal, open_at
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import count, ingesting, now_us, producing

POINTS = 7
BEFORE, LIVE = 5, 3
"""Batches that were on the disk when it was copied, and that each of the two selves journals afterwards."""


async def forward(producer: Producer, spool: Spool) -> None:
    """Everything that the spool holds, under the numbers that it gave."""
    records = [
        OutRecord(b"edge-1", encoded.value, headers(Identity("edge-1", epoch, seq), encoded))
        for epoch, seq, encoded in forwarded(spool)
    ]
    if records:
        await producer.send(TELEMETRY, records)


def beat(spool: Spool, time_us: int) -> None:
    spool.journal([encode_heartbeat(Heartbeat("edge-1", time_us, ("e",), {}))], {})


async def test_two_selves_of_an_edge_are_named_and_what_each_journaled_is_stored_once(
    store: Settings, tmp_path: Path
) -> None:
    begun = now_us() - 60_000_000
    path, copy = tmp_path / "spool.sqlite", tmp_path / "copy.sqlite"
    spool = open_at(path, 1)
    for n in range(BEFORE):
        journal(spool, batch_of("e", POINTS, time_us=begun + n * 1000))
    spool.close()
    shutil.copy(path, copy)
    selves = [open_at(path, 2), open_at(copy, 3)]
    async with producing(store) as producer, ingesting(store):
        for turn in range(LIVE):
            for place, one in enumerate(selves):
                moment = begun + 1_000_000 * (1 + 2 * turn + place)
                journal(one, batch_of("e", POINTS, time_us=moment))
                beat(one, moment)
                await forward(producer, one)
        for one in selves:
            assert one.publish(force=True), "its ledger"
            await forward(producer, one)

        wanted = [(1, BEFORE), *((one.epoch, one.seq) for one in selves)]
        await until(
            lambda: accepted(store) == [(epoch, f"{{[0,{seq})}}") for epoch, seq in wanted], what="all is stored"
        )
    expected = (BEFORE + 2 * LIVE) * POINTS
    assert count(store) == expected
    named = execute(store.store, "SELECT equipment, attributes FROM events WHERE code = 'two-live-epochs'")
    assert [equipment for equipment, _ in named] == ["edge-1"]
    report = await audit(store)
    assert (report.journaled, report.stored, report.lost, report.doubled) == (expected, expected, 0, 0)
    assert report.clean
    for one in selves:
        one.close()


def accepted(store: Settings) -> list[tuple[int, str]]:
    """Sets by epoch."""
    rows = execute(store.store, "SELECT epoch, accepted::text FROM store.progress ORDER BY epoch")
    return [(epoch, text) for epoch, text in rows]
