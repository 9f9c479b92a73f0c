"""What the writer and the worker tell the pace: a fleet's size, and that of its records."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ingest import pace
from ingest.decode import Reading, read
from ingest.writer import Writer
from telemetry import wire
from telemetry.batch import from_rows
from telemetry.log.embedded import EmbeddedReader
from telemetry.log.protocol import TELEMETRY, InRecord, Partition
from telemetry.settings import Settings
from tests.fixtures.waiting import until
from tests.ingest.line import Edge, batch, count, ingesting, producing


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


async def test_what_is_fetched_follows_from_the_rows_of_the_records_before_however_small_they_are(
    plain_store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compressed records are a few bytes a row: by bytes alone a fetch would hold millions of rows."""
    monkeypatch.setattr(pace, "FETCH_ROWS", 3_500)
    asked: list[int] = []
    fetch = EmbeddedReader.fetch

    async def noted(self: EmbeddedReader, *, max_records: int, max_wait_s: float) -> Sequence[InRecord]:
        records = await fetch(self, max_records=max_records, max_wait_s=max_wait_s)
        asked.extend([max_records] * bool(records))
        return records

    monkeypatch.setattr(EmbeddedReader, "fetch", noted)
    async with producing(plain_store) as producer:
        edge = Edge(producer)
        records = [edge.samples(batch(["a/x"], samples=1_000)) for _ in range(40)]
        await edge.send(*records)
        async with ingesting(plain_store):
            await until(lambda: count(plain_store) == 40_000, within_s=30, what="all is stored")
    assert asked[0] == pace.FIRST_RECORDS
    assert set(asked[2:]) == {3}, "what the first one taught is known when the next but one is fetched"
