"""Records on their way into one transaction, and the rows that they make. The heavy part is pure and runs on a thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ingest.accounts import Cells, cells
from ingest.copy import NO_ROWS, Rows, last_of_each, ordered
from ingest.decode import Reading
from ingest.refused import DeadLetter, rows_of
from ingest.signals import Dictionary
from ingest.validate import DAY_US, Bounds, failing
from telemetry.batch import Int32, SampleBatch
from telemetry.log.protocol import Partition
from telemetry.wire import Identity


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A record of samples with its names resolved."""

    reading: Reading
    identity: Identity
    batch: SampleBatch
    dictionary: Dictionary


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What a flush's samples become."""

    rows: Rows
    """Ordered by (signal, time)."""
    latest: Rows
    """The newest row of each signal."""
    first_us: int
    last_us: int
    cells: tuple[tuple[Identity, Cells], ...]
    """Of each record: its samples, stored or dead, by equipment and hour."""
    dead: tuple[DeadLetter, ...]
    segments: int = 0
    """Pairs of (signal, UTC day) among the rows: of each Direct Compress makes a batch of its own."""

    @property
    def rows_per_segment(self) -> float:
        """How many rows such a batch would have, on average."""
        return len(self.rows) / self.segments if self.segments else 0.0


NOTHING = Prepared(NO_ROWS, NO_ROWS, 0, 0, (), ())


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


def names_of(readings: Sequence[Reading]) -> list[tuple[str, ...]]:
    """The dictionaries of the records of samples among these."""
    return [reading.content.names for reading in readings if isinstance(reading.content, SampleBatch)]


def batches(readings: Sequence[Reading], dictionaries: Mapping[int, Dictionary]) -> list[Batch]:
    """The records of samples among these, with their names resolved (SignalTable.resolve)."""
    return [
        Batch(reading, reading.identity, reading.content, dictionaries[id(reading.content.names)])
        for reading in readings
        if isinstance(reading.content, SampleBatch) and len(reading.content) and reading.identity is not None
    ]


def prepare(given: Sequence[Batch], bounds: Bounds) -> Prepared:
    """Sorts the rows that may be stored; sets the others aside; counts all. Pure; for a thread."""
    dead: list[DeadLetter] = []
    good = [_good(batch, bounds, dead) for batch in given]
    counted = tuple((batch.identity, cells(batch.batch, batch.dictionary)) for batch in given)
    if not any(len(ids) for ids, _ in good):
        return Prepared(NO_ROWS, NO_ROWS, 0, 0, counted, tuple(dead))
    rows = ordered(
        Rows(
            np.concatenate([ids for ids, _ in good]),
            np.concatenate([batch.time_us for _, batch in good]),
            np.concatenate([batch.value for _, batch in good]),
            np.concatenate([batch.quality for _, batch in good]),
        )
    )
    first, last = int(rows.time_us.min()), int(rows.time_us.max())
    latest = last_of_each(rows)
    segments = len(latest) if first // DAY_US == last // DAY_US else _segments(rows)
    return Prepared(rows, latest, first, last, counted, tuple(dead), segments)


def _segments(rows: Rows) -> int:
    """Pairs of (signal, UTC day). `rows` must be ordered, and not empty."""
    day = rows.time_us // DAY_US
    return 1 + int(np.count_nonzero((rows.signal_id[1:] != rows.signal_id[:-1]) | (day[1:] != day[:-1])))


def _good(given: Batch, bounds: Bounds, dead: list[DeadLetter]) -> tuple[Int32, SampleBatch]:
    """(signal_id of each row, the batch), without its failing rows, which are added to `dead`."""
    signal_id = given.dictionary.signal_id[given.batch.signal]
    failed = failing(given.batch, signal_id, bounds)
    if not failed:
        return signal_id, given.batch
    kept = np.ones(len(given.batch), np.bool_)
    for mask, refused in failed:
        dead.append(rows_of(given.reading, given.batch.take(mask), refused))
        kept &= ~mask
    return signal_id[kept], given.batch.take(kept)
