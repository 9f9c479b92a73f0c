"""Writing dead letters: records that cannot be stored, whole; of a batch with failing rows, those rows as a record.

Invariant: what is set aside is counted in the audit's equation (store.dead_sample) in the transaction that accepts the
record, so that it is neither lost nor stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import psycopg
from psycopg.types.json import Jsonb

from ingest.accounts import NOBODY, Cell, time_of
from ingest.decode import Reading, Refused
from ingest.ledgers import MODULUS
from telemetry.batch import SampleBatch
from telemetry.ledger import HOUR_US, row_hashes
from telemetry.wire import Encoded, Identity, encode_samples, headers

Connection = psycopg.AsyncConnection[Any]

_DETAIL_MAX: Final = 2_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is set aside, and why."""

    reading: Reading
    refused: Refused
    headers: Mapping[str, bytes]
    value: bytes
    cells: Mapping[Cell, tuple[int, int]]
    """(samples, checksum) by equipment and hour."""

    @property
    def samples(self) -> int:
        """Samples in it."""
        return sum(count for count, _ in self.cells.values())


def whole(reading: Reading, refused: Refused) -> DeadLetter:
    """The record as it came. How many samples it holds is what its header says; whose they are is not known."""
    cells = {NOBODY: (reading.samples, 0)} if reading.samples else {}
    return DeadLetter(reading, refused, reading.record.headers, reading.record.value, cells)


def rows_of(reading: Reading, batch: SampleBatch, refused: Refused) -> DeadLetter:
    """Some rows of a record's batch, under the record's own identity."""
    if reading.identity is None:
        raise ValueError("rows without an identity")
    named = compact(batch)
    encoded: Encoded = encode_samples(named)
    return DeadLetter(reading, refused, headers(reading.identity, encoded), encoded.value, cells_of(named))


def compact(batch: SampleBatch) -> SampleBatch:
    """The same rows with only the names that they use."""
    used, index = np.unique(batch.signal, return_inverse=True)
    names = tuple(batch.names[place] for place in used.tolist())
    return SampleBatch(names, index.astype(np.int32), batch.time_us, batch.value, batch.quality)


def cells_of(batch: SampleBatch) -> dict[Cell, tuple[int, int]]:
    """(samples, checksum) by equipment and hour. For few rows: not for the hot path."""
    hours = batch.time_us // HOUR_US * HOUR_US
    equipment = np.array([name.partition("/")[0] for name in batch.names], object)[batch.signal]
    found: dict[Cell, tuple[int, int]] = {}
    for key, digest in zip(
        zip(equipment.tolist(), hours.tolist(), strict=True), row_hashes(batch).tolist(), strict=True
    ):
        count, checksum = found.get(key, (0, 0))
        found[key] = (count + 1, (checksum + digest) % MODULUS)
    return found


async def insert_dead(connection: Connection, letters: Sequence[DeadLetter]) -> None:
    """Stores dead letters and books their samples. Raises psycopg.Error."""
    if not letters:
        return
    async with connection.cursor() as cursor:
        await cursor.executemany(_INSERT, [_row(letter) for letter in letters])
    for letter in letters:
        if letter.reading.identity is not None:
            await book_dead(connection, letter.reading.identity, letter.cells, sign=1)


async def book_dead(
    connection: Connection, identity: Identity, cells: Mapping[Cell, tuple[int, int]], *, sign: int
) -> None:
    """Adds (sign 1) or takes away (sign −1) dead samples."""
    if not cells:
        return
    async with connection.cursor() as cursor:
        await cursor.executemany(
            _BOOK,
            [
                {
                    "edge": identity.edge,
                    "epoch": identity.epoch,
                    "equipment": equipment.replace("\0", ""),
                    "hour": time_of(hour_us),
                    "samples": sign * samples,
                    "checksum": sign * checksum % MODULUS,
                }
                for (equipment, hour_us), (samples, checksum) in sorted(cells.items())
            ],
        )


def _row(letter: DeadLetter) -> dict[str, Any]:
    record, identity = letter.reading.record, letter.reading.identity
    return {
        "topic": record.partition.topic,
        "partition": record.partition.number,
        "offset": record.offset,
        "edge": identity.edge if identity else None,
        "epoch": identity.epoch if identity else None,
        "seq": identity.seq if identity else None,
        "reason": letter.refused.reason,
        "detail": letter.refused.detail[:_DETAIL_MAX].replace("\0", "\N{REPLACEMENT CHARACTER}"),
        "samples": letter.samples,
        "key": record.key,
        # Headers are bytes: Latin-1 is the encoding that loses none and that jsonb can hold (without NUL).
        "headers": Jsonb(
            {k.replace("\0", ""): v.decode("latin-1").replace("\0", "") for k, v in letter.headers.items()}
        ),
        "value": letter.value,
    }


_INSERT: Final = """
INSERT INTO store.dead_letter (service, topic, partition, "offset", edge, epoch, seq, reason, detail, samples, key, headers,
                               value)
VALUES ('ingest', %(topic)s, %(partition)s, %(offset)s, %(edge)s, %(epoch)s, %(seq)s, %(reason)s, %(detail)s, %(samples)s,
        %(key)s, %(headers)s, %(value)s)
"""
_BOOK: Final = f"""
INSERT INTO store.dead_sample AS d (edge, epoch, equipment, hour, samples, checksum)
VALUES (%(edge)s, %(epoch)s, %(equipment)s, %(hour)s, %(samples)s, %(checksum)s)
ON CONFLICT (edge, epoch, equipment, hour) DO UPDATE SET samples = d.samples + excluded.samples,
    checksum = mod(d.checksum + excluded.checksum, {MODULUS})
"""  # noqa: S608
