"""A damaged spool, salvaged and sent: the audit accuses nobody of what the disk did, and names what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.spool_file import PAGE_BYTES
from ingest.audit import audit
from telemetry.settings import Settings
from tests.edge.spools import batch_of, forwarded, journal, open_at
from tests.edge.test_spool_salvage import leaves, root_of, spoil
from tests.fixtures.store import execute
from tests.fixtures.waiting import until
from tests.ingest.line import count, ingesting, now_us, producing
from tests.ingest.test_restored_edge import forward

SENT, WAITING, AFTER = 5, 40, 2
"""Batches whose ledger the log had before the damage; that only the spool had; that were journaled afterwards."""
POINTS = 300


@pytest.mark.parametrize("damaged", ["another table", "a page of records"])
async def test_what_is_salvaged_is_stored_once_and_the_audit_is_right_about_it(
    plain_store: Settings, tmp_path: Path, damaged: str
) -> None:
    begun, path = now_us() - 600_000_000, tmp_path / "spool.sqlite"
    async with producing(plain_store) as producer, ingesting(plain_store):
        spool = open_at(path, 1)
        for n in range(SENT):
            journal(spool, batch_of("e", POINTS, time_us=begun + n * 1_000_000))
        await forward(producer, spool)
        spool.publish(force=True)
        await forward(producer, spool)
        for n in range(SENT, SENT + WAITING):
            journal(spool, batch_of("e", POINTS, time_us=begun + n * 1_000_000))
        spool.close()

        if damaged == "a page of records":
            pages = leaves(path)
            spoil(path, pages[len(pages) // 2])
        else:
            spoil(path, root_of(path, "aside"), size=PAGE_BYTES // 2)
        spool = open_at(path, 2)
        assert spool.salvaged is not None
        salvaged = spool.salvaged.records
        assert spool.salvaged.is_whole is (damaged == "another table")
        assert (salvaged == WAITING) is spool.salvaged.is_whole
        assert salvaged > WAITING / 2
        for n in range(AFTER):
            journal(spool, batch_of("f", POINTS, time_us=begun + n * 1_000_000), "f")
        await forward(producer, spool)
        for _ in range(2):
            spool.publish(force=True)
            await forward(producer, spool)
        assert forwarded(spool) == []
        seq = spool.seq
        spool.close()
        await until(
            lambda: (
                execute(plain_store.store, "SELECT accepted::text FROM store.progress WHERE epoch = 2")
                == [(f"{{[0,{seq})}}",)]
            ),
            what="all that was sent is accepted",
        )
    stored = (SENT + salvaged + AFTER) * POINTS
    assert count(plain_store) == stored
    report = await audit(plain_store)
    assert (report.journaled, report.stored, report.lost, report.doubled) == (stored, stored, 0, 0)
    checksums = {line.equipment: line.checksum for line in report.equipment}
    if salvaged == WAITING:
        assert set(checksums.values()) == {"same"}, "the ledger came over"
    else:
        assert checksums == {"e": "pending", "f": "same"}, "what came is counted by ingest, for its ledger is gone"
    # The numbers that are missing are told, for they were given and never came.
    [first] = [edge for edge in report.edges if edge.epoch == 1]
    assert (first.missing != "{}") is (salvaged < WAITING)
