"""The fleet's edges: everything that they journal, record by record, in the wire's own format.

Each second an edge sends a heartbeat and its samples, every fifth second its ledger, first of all its registry. Invariant:
the ledger covers all samples at the end of the stream, so that `vigil audit` can judge every row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from benchmarks.ingest.fleet import SECOND_US, Fleet, Readings, Slab, blocks_of, edge_name, point_name
from edge.ledger import Increment, add
from telemetry.ledger import HOUR_US, hash_rows
from telemetry.log.protocol import OutRecord
from telemetry.messages import Heartbeat, Ledger, LedgerEntry, Registry
from telemetry.wire import (
    Encoded,
    Identity,
    encode_columns,
    encode_heartbeat,
    encode_ledger,
    encode_registry,
    headers,
)

LEDGER_EVERY_S: Final = 5
MAX_EPOCH: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Sent:
    """A record, whose it is, and how many samples it holds."""

    edge: int
    record: OutRecord
    samples: int


class EdgeStream:
    """One edge's records in their order."""

    def __init__(self, fleet: Fleet, number: int, start_us: int, *, epoch: int | None = None) -> None:
        self._fleet = fleet
        self._number = number
        self._name = edge_name(number)
        self._epoch = int(np.random.default_rng().integers(1, MAX_EPOCH)) if epoch is None else epoch
        self._readings = Readings(fleet, number, start_us)
        self._equipment = tuple(fleet.equipment(number))
        self._blocks = blocks_of(fleet, number)
        self._hashes = np.concatenate([block.hashes for block in self._blocks])
        self._counted: dict[tuple[str, int], Increment] = {}
        self._now_us = start_us
        self._seq = 0

    def opening(self) -> Iterator[Sent]:
        """What comes first: the registry."""
        yield self._sent(encode_registry(Registry(self._name, self._now_us, self._registry())))

    def second(self) -> Iterator[Sent]:
        """All records of the next second."""
        yield self._sent(encode_heartbeat(Heartbeat(self._name, self._now_us, self._equipment, {})))
        slab = self._readings.second()
        self._count(slab)
        yield from self._cut(slab)
        self._now_us += SECOND_US
        if self._now_us // SECOND_US % LEDGER_EVERY_S == 0:
            yield from self.ledger()

    def ledger(self) -> Iterator[Sent]:
        """What was counted since the last one."""
        if not self._counted:
            return
        entries = tuple(LedgerEntry(*cell, *increment) for cell, increment in self._counted.items())
        self._counted.clear()
        yield self._sent(encode_ledger(Ledger(self._name, self._epoch, self._seq - 1, entries)))

    def _cut(self, slab: Slab) -> Iterator[Sent]:
        """The records of a second."""
        size, turn = self._fleet.record_samples, self._fleet.signals_per_edge
        if size >= turn:
            yield self._samples(self._blocks, slab, slice(None), 0)
            return
        for began in range(0, len(slab.signal), turn):
            for first in range(0, turn, size):
                end = min(first + size, turn)
                part = self._blocks[first // self._fleet.points : end // self._fleet.points]
                yield self._samples(part, slab, slice(began + first, began + end), first)

    def _samples(self, blocks: Any, slab: Slab, part: slice, first: int) -> Sent:
        signal = slab.signal[part] - np.int32(first) if first else slab.signal[part]
        columns = (signal, slab.time_us[part], slab.value[part], slab.quality[part])
        return self._sent(encode_columns(blocks, *columns), len(signal))

    def _sent(self, encoded: Encoded, samples: int = 0) -> Sent:
        identity = Identity(self._name, self._epoch, self._seq)
        self._seq += 1
        return Sent(self._number, OutRecord(self._name.encode(), encoded.value, headers(identity, encoded)), samples)

    def _count(self, slab: Slab) -> None:
        """As the edge's own ledger: by equipment and hour. A second that an hour ends in is split."""
        fleet = self._fleet
        rows = hash_rows(self._hashes[slab.signal], slab.time_us, slab.value, slab.quality)
        polls = np.add.reduceat(rows, np.arange(0, len(rows), fleet.points)).reshape(fleet.steps, -1)
        hours = (slab.time_us[:: fleet.points] // HOUR_US).reshape(fleet.steps, -1)
        for hour in range(int(hours.min()), int(hours.max()) + 1):
            of_hour = hours == hour
            sums = np.where(of_hour, polls, np.uint64(0)).sum(axis=0, dtype=np.uint64).tolist()
            counts = (of_hour.sum(axis=0) * fleet.points).tolist()
            for equipment, samples, checksum in zip(self._equipment, counts, sums, strict=True):
                if samples:
                    add(self._counted, (equipment, hour * HOUR_US), (samples, checksum))

    def _registry(self) -> dict[str, Any]:
        """As telemetry.registry has it."""
        points = {point_name(place): _point(place) for place in range(self._fleet.points)}
        return {
            "site": {"id": "bench", "name": {"zh": "测试", "en": "Bench"}, "level": "district", "timezone": "UTC"},
            "areas": [],
            "organisations": [],
            "equipment": [_equipment(name, points) for name in self._equipment],
        }


def streams(fleet: Fleet, start_us: int) -> list[EdgeStream]:
    """All edges of a fleet."""
    return [EdgeStream(fleet, number, start_us) for number in range(fleet.edges)]


def journal(fleet: Fleet, start_us: int, seconds: int) -> Iterator[Sent]:
    """Everything that all edges send in so many seconds, in the order of its making."""
    edges = streams(fleet, start_us)
    for edge in edges:
        yield from edge.opening()
    for _ in range(seconds):
        for edge in edges:
            yield from edge.second()
    for edge in edges:
        yield from edge.ledger()


def _point(place: int) -> dict[str, Any]:
    return {
        "kind": "measurement",
        "unit": "°C",
        "group": "main",
        "name": {"zh": f"温度 {place}", "en": f"Temperature {place}"},
        "enum": {},
        "low": -40.0,
        "high": 150.0,
        "limits": [],
    }


def _equipment(name: str, points: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": name,
        "class": "bench",
        "class_name": {"zh": "测试", "en": "Bench"},
        "profile": "bench",
        "profile_version": 1,
        "name": {"zh": name, "en": name},
        "area": None,
        "parties": {"owner": None, "user": None, "maintainer": None},
        "registration": None,
        "location": "",
        "position": None,
        "model": "",
        "status": "in_use",
        "points": points,
    }
