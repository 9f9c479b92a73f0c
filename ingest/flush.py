"""Records on their way into one transaction, and the rows that they make. The heavy part is pure and runs on a thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ingest.copy import NO_ROWS, Rows, encoded, last_of_each, ordered
from ingest.decode import Reading
from ingest.refused import DeadLetter, rows_of
from ingest.signals import SignalTable
from ingest.validate import Bounds, failing
from telemetry.batch import Int32, SampleBatch
from telemetry.log.protocol import Partition


@dataclass(frozen=True, slots=True)
class Batch:
    """A record of samples with its names resolved. signal_id (n,) int32, of each row."""

    reading: Reading
    batch: SampleBatch
    signal_id: Int32


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What a flush's samples become."""

    rows: int
    signals: int
    slices: tuple[bytes, ...]
    """The binary COPY stream."""
    latest: Rows
    first_us: int
    last_us: int
    dead: tuple[DeadLetter, ...]

    @property
    def rows_per_signal(self) -> float:
        """How many rows a signal has, on average."""
        return self.rows / self.signals if self.signals else 0.0


NOTHING = Prepared(0, 0, (), NO_ROWS, 0, 0, ())


@dataclass(slots=True)
class Flush:
    """Records that go into the store together, in the order of each partition."""

    readings: list[Reading] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0

    def add(self, readings: Sequence[Reading]) -> None:
        """Takes records."""
        self.readings += readings
        self.rows += sum(reading.samples for reading in readings)
        self.bytes += sum(len(reading.record.value) for reading in readings)

    def drop(self, partitions: Sequence[Partition]) -> None:
        """Forgets the records of partitions that went to somebody else."""
        kept = [reading for reading in self.readings if reading.record.partition not in partitions]
        self.readings, self.rows, self.bytes = [], 0, 0
        self.add(kept)

    def last(self) -> Mapping[Partition, Reading]:
        """The last record of each partition."""
        return {reading.record.partition: reading for reading in self.readings}


def batches(readings: Sequence[Reading], signals: SignalTable) -> list[Batch]:
    """The records of samples among these, resolved."""
    return [
        Batch(reading, reading.content, signals.of(reading.content.names).signal_id[reading.content.signal])
        for reading in readings
        if isinstance(reading.content, SampleBatch) and len(reading.content) and reading.identity is not None
    ]


def prepare(given: Sequence[Batch], bounds: Bounds) -> Prepared:
    """Sorts and encodes the rows that may be stored; sets the others aside. Pure; for a thread."""
    dead: list[DeadLetter] = []
    good = [_good(batch, bounds, dead) for batch in given]
    good = [batch for batch in good if len(batch.batch)]
    if not good:
        return Prepared(0, 0, (), NO_ROWS, 0, 0, tuple(dead))
    rows = ordered(
        Rows(
            np.concatenate([b.signal_id for b in good]),
            np.concatenate([b.batch.time_us for b in good]),
            np.concatenate([b.batch.value for b in good]),
            np.concatenate([b.batch.quality for b in good]),
        )
    )
    latest = last_of_each(rows)
    first, last = int(rows.time_us.min()), int(rows.time_us.max())
    return Prepared(len(rows), len(latest), tuple(encoded(rows)), latest, first, last, tuple(dead))


def _good(given: Batch, bounds: Bounds, dead: list[DeadLetter]) -> Batch:
    """The batch without its failing rows, which are added to `dead`."""
    failed = failing(given.batch, given.signal_id, bounds)
    if not failed:
        return given
    kept = np.ones(len(given.batch), np.bool_)
    for mask, refused in failed:
        dead.append(rows_of(given.reading, given.batch.take(mask), refused))
        kept &= ~mask
    return Batch(given.reading, given.batch.take(kept), given.signal_id[kept])
