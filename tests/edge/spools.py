"""Spools for tests: opened with faked time, crashed at named points, read to the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.columns import Columns
from edge.ledger import Increment
from edge.spool import Spool
from edge.stamps import Stamps
from telemetry.batch import SampleBatch, from_rows
from telemetry.ledger import HOUR_US, row_hashes
from telemetry.messages import DroppedRange, Event, Heartbeat, Kind, Ledger
from telemetry.name_block import name_block
from telemetry.wire import (
    Encoded,
    decode_dropped,
    decode_ledger,
    encode_events,
    encode_heartbeat,
    encode_samples,
)

BIG = 1 << 30
S = 1_000_000
NOW_US = 1_795_000_000_000_000


def batch_of(equipment: str, n: int, *, time_us: int = NOW_US) -> SampleBatch:
    """`n` good samples of n points of an equipment."""
    return from_rows([(f"{equipment}/p{i}", time_us + i, 1.0 + i, 192) for i in range(n)])


class Crash(Exception):
    """The process dies here."""


class Crashing:
    """Dies at the named point, once."""

    def __init__(self) -> None:
        self.point: str | None = None
        self.passed: list[str] = []

    def __call__(self, point: str) -> None:
        self.passed.append(point)
        if point == self.point:
            self.point = None
            raise Crash(point)


@dataclass
class FakeTime:
    """A machine's clocks. Only what the test moves moves."""

    wall_us: int = NOW_US
    boot_us: int = 5 * S
    boot: str = "boot-1"
    speed: float = 1.0

    def now_us(self) -> int:
        return self.wall_us

    def monotonic_s(self) -> float:
        return self.boot_us / S

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    def pass_s(self, seconds: float) -> None:
        self.wall_us += int(seconds * S)
        self.boot_us += int(seconds * S)

    def reboot(self, *, wall_us: int) -> None:
        self.boot = f"boot-{int(self.boot.removeprefix('boot-')) + 1}"
        self.wall_us, self.boot_us = wall_us, 5 * S

    def stamps(self, *, floor_us: int = NOW_US - 10**14, hold_s: float = 60.0) -> Stamps:
        return Stamps(self, self.boot, lambda: self.boot_us, floor_us, hold_s)


def open_at(path: Path, epoch: int, max_bytes: int = BIG, at: Crashing | None = None, **more: Any) -> Spool:
    more.setdefault("stamps", FakeTime().stamps())
    return Spool(path, edge="edge-1", epoch=epoch, max_bytes=max_bytes, at=at or Crashing(), **more)


def cut_off_after(path: Path, epoch: int, record: Encoded) -> None:
    """A power cut just after the record was journaled: it is in the write-ahead log only."""
    ahead = path.with_name(f"{path.name}-wal")
    spool = open_at(path, epoch)
    spool.journal([record], {})
    left = path.read_bytes(), ahead.read_bytes()
    spool.close()
    path.write_bytes(left[0])
    ahead.write_bytes(left[1])


def increments(equipment: str, batch: SampleBatch) -> dict[tuple[str, int], Increment]:
    """By the plain definition: one row at a time."""
    found: dict[tuple[str, int], Increment] = {}
    for time_us, row in zip(batch.time_us.tolist(), row_hashes(batch).tolist(), strict=True):
        key = (equipment, time_us // HOUR_US * HOUR_US)
        n, checksum = found.get(key, (0, 0))
        found[key] = (n + 1, (checksum + row) % 2**64)
    return found


def journal(spool: Spool, batch: SampleBatch, equipment: str = "e") -> None:
    spool.journal([encode_samples(batch)], increments(equipment, batch))


def samples(n: int, number: int = 0) -> Encoded:
    return encode_samples(batch_of("e", n, time_us=NOW_US + number))


def event(n: int = 0) -> Encoded:
    return encode_events([Event("e", NOW_US + n, "s", str(n), True)])


def heartbeat(n: int = 0) -> Encoded:
    return encode_heartbeat(Heartbeat("edge-1", NOW_US + n, ("e",), {}))


def columns_of(equipment: str, times_us: Sequence[int], *, quality: int = 192) -> Columns:
    """One reading at each of these times, of points in turn."""
    block = name_block([f"{equipment}/p{i}" for i in range(3)])
    n = len(times_us)
    return Columns(
        [equipment],
        [block],
        np.array([n]),
        np.arange(n, dtype=np.int32) % 3,
        np.array(times_us, np.int64),
        np.arange(n, dtype=np.float64),
        np.full(n, quality, np.uint8),
    )


def everything(spool: Spool) -> list[tuple[int, int, Encoded]]:
    """What is on the disk and not out: (epoch, seq, record)."""
    stored = spool.read(0, max_records=1_000_000, max_bytes=BIG)
    return [(s.identity.epoch, s.identity.seq, s.encoded) for s in stored]


def forwarded(spool: Spool) -> list[tuple[int, int, Encoded]]:
    """Takes all there is, as the forwarder does with a log that keeps up, and acknowledges it."""
    found: list[tuple[int, int, Encoded]] = []
    while True:
        taken = spool.tail.take(max_records=7, max_bytes=BIG) or spool.backlog(max_records=7, max_bytes=BIG)
        if not taken and not spool.has_backlog:
            spool.settle()
            return found
        found += [(s.identity.epoch, s.identity.seq, s.encoded) for s in taken]
        spool.tail.acknowledge(taken)


def ledgers(records: Sequence[tuple[int, int, Encoded]]) -> list[Ledger]:
    return [decode_ledger(e.value) for _, _, e in records if e.kind is Kind.LEDGER]


def drops(records: Sequence[tuple[int, int, Encoded]]) -> list[DroppedRange]:
    return [r for _, _, e in records if e.kind is Kind.DROPPED for r in decode_dropped(e.value)]
