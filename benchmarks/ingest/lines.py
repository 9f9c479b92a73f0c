"""The fleet's samples as InfluxDB line protocol, for a reader that does not know Vigil's records: the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from benchmarks.ingest.edges import Sent
from benchmarks.ingest.fleet import Fleet, Readings, blocks_of
from telemetry.log.protocol import OutRecord

LINES: Final = 1_000
"""Of a record; some 75 kB."""


def lines(fleet: Fleet, start_us: int, seconds: int) -> Iterator[Sent]:
    """Records of lines `sample,signal=EQUIPMENT/POINT value=…,quality=192i NANOSECONDS`, in the journal's order."""
    edges = [Readings(fleet, edge, start_us) for edge in range(fleet.edges)]
    blocks = [blocks_of(fleet, edge) for edge in range(fleet.edges)]
    heads = [[f"sample,signal={name} value=" for block in of for name in block.names] for of in blocks]
    for _ in range(seconds):
        for number, readings in enumerate(edges):
            slab = readings.second()
            columns = (slab.signal.tolist(), slab.value.tolist(), slab.quality.tolist(), slab.time_us.tolist())
            head = heads[number]
            text = [
                f"{head[signal]}{value!r},quality={quality}i {time_us}000"
                for signal, value, quality, time_us in zip(*columns, strict=True)
            ]
            for first in range(0, len(text), LINES):
                part = text[first : first + LINES]
                yield Sent(number, OutRecord(b"", "\n".join(part).encode(), {}), len(part))
