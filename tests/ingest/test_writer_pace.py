"""What the writer tells the pace of a fleet's size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ingest.decode import Reading, read
from ingest.writer import Writer
from telemetry import wire
from telemetry.batch import from_rows
from telemetry.log.protocol import TELEMETRY, InRecord, Partition
from telemetry.settings import Settings


def readings(signals: int, *, time_us: int) -> Sequence[Reading]:
    encoded = wire.encode_samples(from_rows([(f"e/p{n}", time_us, 1.0, 192) for n in range(signals)]))
    headers = wire.headers(wire.Identity("edge", 1, 0), encoded)
    return read([InRecord(Partition(TELEMETRY, 0), 0, 1, b"edge", encoded.value, headers)])


async def test_a_fleet_is_known_when_its_first_flush_is_prepared_and_not_forgotten_for_one_of_dead_samples(
    tmp_path: Path,
) -> None:
    """The next flush is gathered while this one is written: it must know by then how large it may become."""
    nobody: Any = None
    writer = Writer(Settings(state_dir=tmp_path), nobody, nobody, nobody, timescale=True)
    writer._signals._know([(f"e/p{n}", n + 1) for n in range(400)])
    now_us = time.time_ns() // 1000
    for signals, time_us, known in ((400, now_us, 400), (300, 0, 400), (10, now_us, 10)):
        await writer._prepared(readings(signals, time_us=time_us))
        assert writer.signals == known
