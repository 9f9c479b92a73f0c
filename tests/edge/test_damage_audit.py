"""A spool whose rows the disk changed, sent through a real ingest: the audit names what the damage cost and nothing else."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from edge.spool import Spool
from ingest.audit import audit
from ingest.audit_report import AuditReport
from telemetry.messages import Kind
from telemetry.settings import Settings
from tests.edge.spools import open_at
from tests.edge.test_backfill_audit import SIZE, forwarding, journal
from tests.fixtures.waiting import until
from tests.ingest.line import ingesting

COMMITS = 12
OPENINGS = 3
SAMPLES = OPENINGS * 2 * COMMITS * SIZE


def fill(path: Path) -> None:
    """Three openings of a spool whose records the log never had, with the ledger of the first among them."""
    for epoch in range(1, OPENINGS + 1):
        spool = open_at(path, epoch << 40)
        journal(spool, COMMITS)
        spool.publish(force=True)
        journal(spool, COMMITS)
        spool.close()


def damage(path: Path, kind: Kind, change_to: str, *, skip: int) -> None:
    """Of one row of a kind, `skip` such rows after the oldest."""
    with closing(sqlite3.connect(path)) as db:
        changed = db.execute(
            f"UPDATE record SET {change_to} WHERE position ="  # noqa: S608
            " (SELECT position FROM record WHERE kind = ? ORDER BY position LIMIT 1 OFFSET ?)",
            (kind, skip),
        )
        assert changed.rowcount == 1
        db.commit()


async def sent(spool: Spool, settings: Settings) -> AuditReport:
    """What the audit says when all of the spool is stored."""
    async with ingesting(settings), forwarding(spool, settings):
        await until(lambda: spool.waiting() == 0)
        spool.publish(force=True)
        await until(lambda: spool.waiting() == 0)
        async with asyncio.timeout(30):
            while (report := await audit(settings)).stored + report.dropped < SAMPLES or report.in_flight:
                pass
    return report


async def test_a_changed_number_costs_nothing(tmp_path: Path, plain_store: Settings) -> None:
    path = tmp_path / "spool.sqlite"
    fill(path)
    damage(path, Kind.SAMPLES, "seq = seq + 1", skip=3)
    damage(path, Kind.HEARTBEAT, "epoch = epoch | 64", skip=COMMITS)
    damage(path, Kind.SAMPLES, "epoch = epoch + (1 << 40)", skip=2 * COMMITS + 5)
    spool = open_at(path, 9 << 40)
    report = await sent(spool, plain_store)
    spool.close()
    assert report.clean
    assert report.stored == report.journaled == SAMPLES


async def test_changed_bytes_cost_their_record_and_those_of_a_ledger_nothing(
    tmp_path: Path, plain_store: Settings
) -> None:
    path = tmp_path / "spool.sqlite"
    fill(path)
    damage(path, Kind.SAMPLES, "value = zeroblob(length(value))", skip=COMMITS + 1)
    damage(path, Kind.LEDGER, "value = zeroblob(length(value))", skip=1)
    spool = open_at(path, 9 << 40)
    report = await sent(spool, plain_store)
    spool.close()
    assert report.clean
    assert (report.journaled, report.stored, report.dropped) == (SAMPLES, SAMPLES - SIZE, SIZE)
