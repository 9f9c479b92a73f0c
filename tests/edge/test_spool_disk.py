"""A spool on a real disk that is small, full, or may only be read."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from tests.edge.spools import (
    BIG,
    NOW_US,
    FakeTime,
    batch_of,
    event,
    forwarded,
    increments,
    journal,
    ledgers,
    open_at,
    samples,
)
from tests.fixtures.disk import fill, small_disk


async def remount(disk: Path, how: str) -> None:
    process = await asyncio.create_subprocess_exec("mount", "-o", f"remount,{how}", str(disk))
    assert await process.wait() == 0


async def test_a_full_disk_takes_nothing_keeps_everything_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    async with small_disk(tmp_path, size="2m", not_tried="a full disk under the spool") as small:
        spool = open_at(small / "spool.sqlite", 1)
        for n in range(5):
            journal(spool, batch_of("e", 50, time_us=NOW_US + n))
        fill(small / "ballast")
        batch = batch_of("e", 20_000, time_us=NOW_US + 9)
        for _ in range(3):
            with pytest.raises(sqlite3.OperationalError, match="full"):
                spool.journal([samples(20_000, 9)], increments("e", batch), {"a": "b"}, b"k" * 16)
        assert (spool.seq, spool.state(), spool.delivered(), spool.held) == (5, {}, [], 0)
        (small / "ballast").unlink()
        identities = spool.journal([samples(20_000, 9)], increments("e", batch), {"a": "b"}, b"k" * 16)
        assert [i.seq for i in identities] == [5], "no number was lost by the attempts"
        spool.publish()
        sent = forwarded(spool)
        assert [seq for _, seq, _ in sent] == list(range(7))
        assert sum(e.samples for ledger in ledgers(sent) for e in ledger.entries) == 5 * 50 + 20_000
        spool.close()


async def test_a_small_disk_is_not_filled_by_what_the_log_has_long_since(tmp_path: Path) -> None:
    async with small_disk(tmp_path, size="6m", not_tried="a small disk under the spool") as small:
        time = FakeTime()
        spool = open_at(small / "spool.sqlite", 1, max_bytes=1 << 20, stamps=time.stamps())
        record = samples(5_000)
        assert len(record.value) > 100_000
        for _ in range(150):
            spool.journal([record], {})
            taken = spool.tail.take(max_records=9, max_bytes=BIG)
            assert len(taken) == 1
            spool.tail.acknowledge(taken)
            time.pass_s(1)
        assert sum(file.stat().st_size for file in small.iterdir()) < 5 << 20
        spool.close()


async def test_a_disk_that_may_only_be_read_is_not_opened_and_what_is_on_it_is_there_afterwards(
    tmp_path: Path,
) -> None:
    async with small_disk(tmp_path, size="2m", not_tried="a read-only disk under the spool") as small:
        spool = open_at(small / "spool.sqlite", 1)
        spool.journal([event(1)], {})
        spool.close()
        await remount(small, "ro")
        try:
            with pytest.raises(OSError, match="Read-only file system"):
                open_at(small / "spool.sqlite", 2)
        finally:
            await remount(small, "rw")
        spool = open_at(small / "spool.sqlite", 3)
        assert spool.lost_file is None
        assert forwarded(spool) == [(1, 0, event(1))]
        spool.close()
