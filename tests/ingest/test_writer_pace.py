"""What the writer tells the pace of a fleet's size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ingest.copy import Rows
from ingest.decode import read
from ingest.flush import NOTHING, Prepared
from ingest.transaction import Outcome
from ingest.writer import Writer
from telemetry.log.protocol import TELEMETRY, InRecord, Partition
from telemetry.settings import Settings

RECORD = read([InRecord(Partition(TELEMETRY, 0), 0, 1, b"", b"", {})])


def of_signals(count: int) -> Outcome:
    n = np.arange(1, count + 1)
    rows = Rows(n.astype(np.int32), n, n.astype(np.float64), np.full(count, 192, np.uint8))
    return Outcome(Prepared(rows, rows, 1, count, (), ()))


def test_a_flush_without_rows_says_nothing_of_how_many_signals_there_are(tmp_path: Path) -> None:
    """All its samples were dead, or given again: the next one is as large as before."""
    nobody: Any = None
    writer = Writer(Settings(state_dir=tmp_path), nobody, nobody, nobody, timescale=False)
    writer._written(RECORD, of_signals(40_000), 0.1)
    writer._written(RECORD, Outcome(NOTHING), 0.1)
    assert writer.signals == 40_000
    writer._written(RECORD, of_signals(10), 0.1)
    assert writer.signals == 10
