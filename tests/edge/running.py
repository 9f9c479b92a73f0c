"""A whole edge in this process, and everything that it says on its log."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge.service import run
from telemetry.arrow_read import decode_samples
from telemetry.batch import SampleBatch, concatenate
from telemetry.ledger import HOUR_US, row_hashes
from telemetry.log import open_log
from telemetry.log.protocol import TELEMETRY, InRecord, Partition
from telemetry.messages import Event, Heartbeat, Kind, Ledger, Registry
from telemetry.profile import Profile
from telemetry.service import Health
from telemetry.settings import Settings
from telemetry.wire import (
    check_crc,
    decode_events,
    decode_heartbeat,
    decode_ledger,
    decode_registry,
    read_envelope,
)
from tests.edge.build import TEXT, make_profile, write_plant

PROFILE = make_profile(
    {
        "level": {"modbus": {"address": 10, "type": "i16"}},
        "code": {"modbus": {"address": 11}},
        "x": {"mqtt": {}},
    },
    poll_s=0.1,
    timeout_s=0.5,
    schemes={"local": {"name": TEXT, "codes": {"67": {"name": TEXT}}}},
    code_points=[{"point": "code", "scheme": "local"}],
)


class FromTheStart:
    """A reader that reads everything."""

    async def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        return dict.fromkeys(partitions, 0)

    async def revoked(self, partitions: Sequence[Partition]) -> None: ...


@dataclass
class Seen:
    """What is on the log, each (epoch, seq) once."""

    kinds: dict[tuple[int, int], Kind] = field(default_factory=dict)
    batches: dict[tuple[int, int], SampleBatch] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    heartbeats: list[Heartbeat] = field(default_factory=list)
    ledgers: list[Ledger] = field(default_factory=list)
    registries: list[Registry] = field(default_factory=list)
    order: list[tuple[int, int]] = field(default_factory=list)
    values: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def take(self, record: InRecord) -> None:
        envelope = read_envelope(record.headers)
        check_crc(envelope, record.value)
        number = (envelope.identity.epoch, envelope.identity.seq)
        if number in self.kinds:
            assert self.values[number] == record.value, "a number means one record for ever"
            return
        self.order.append(number)
        self.kinds[number], self.values[number] = envelope.kind, record.value
        match envelope.kind:
            case Kind.SAMPLES:
                self.batches[number] = decode_samples(record.value)
            case Kind.EVENTS:
                self.events += decode_events(record.value)
            case Kind.HEARTBEAT:
                self.heartbeats.append(decode_heartbeat(record.value))
            case Kind.LEDGER:
                self.ledgers.append(decode_ledger(record.value))
            case Kind.REGISTRY:
                self.registries.append(decode_registry(record.value))

    def epochs(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = defaultdict(list)
        for epoch, seq in self.order:
            found[epoch].append(seq)
        return found

    def samples(self) -> SampleBatch:
        return concatenate(list(self.batches.values()))

    def of(self, signal: str) -> list[float]:
        whole = self.samples()
        if signal not in whole.names:
            return []
        return [float(v) for v in whole.value[whole.signal == whole.names.index(signal)]]

    def epochs_of(self, signal: str) -> set[int]:
        """In which lives of the edge a signal was read."""
        return {epoch for (epoch, _), batch in self.batches.items() if signal in batch.names}

    def assert_no_holes(self) -> None:
        for seqs in self.epochs().values():
            assert seqs == list(range(len(seqs)))

    def assert_ledger_is_the_rows(self) -> None:
        """The audit, done here by hand: counts and checksums by epoch, equipment and hour."""
        counted: dict[tuple[int, str, int], tuple[int, int]] = {}
        for (epoch, _), batch in self.batches.items():
            for place, at, row in zip(batch.signal, batch.time_us, row_hashes(batch), strict=True):
                key = (epoch, batch.names[place].partition("/")[0], int(at) // HOUR_US * HOUR_US)
                n, checksum = counted.get(key, (0, 0))
                counted[key] = (n + 1, (checksum + int(row)) % 2**64)
        told: dict[tuple[int, str, int], tuple[int, int]] = {}
        for ledger in self.ledgers:
            for entry in ledger.entries:
                key = (ledger.epoch, entry.equipment, entry.hour_us)
                n, checksum = told.get(key, (0, 0))
                told[key] = (n + entry.samples, (checksum + entry.checksum) % 2**64)
        assert told == counted


async def read_log(settings: Settings) -> Seen:
    log, seen = open_log(settings), Seen()
    reader = await log.reader("test", [TELEMETRY], FromTheStart())
    try:
        while True:
            for record in await reader.fetch(max_records=5000, max_wait_s=0.2):
                seen.take(record)
            if seen.order and await reader.lag() == 0:
                return seen
    finally:
        await reader.close()
        await log.close()


def plant_of(folder: Path, *addresses: str, profile: Profile = PROFILE) -> Settings:
    equipment = [{"id": f"e{n}", "profile": "test", "address": a} for n, a in enumerate(addresses, start=1)]
    plant = write_plant(folder, profile, equipment)
    return Settings(state_dir=folder / "state", plant=plant, profiles_dir=folder)


@dataclass
class Running:
    """An edge in this process."""

    settings: Settings
    stop: asyncio.Event
    health: Health
    task: asyncio.Task[None]

    async def end(self) -> float:
        began = time.monotonic()
        self.stop.set()
        await self.task
        return time.monotonic() - began


def start(settings: Settings) -> Running:
    stop, health = asyncio.Event(), Health("edge")
    return Running(settings, stop, health, asyncio.create_task(run(settings, stop, health)))


@dataclass
class Recorded(Health):
    """Remembers what was found when nothing was missing any longer."""

    were_found: list[str] = field(default_factory=list)
    ready_after: list[list[str]] = field(default_factory=list)

    def found(self, what: str) -> None:
        super().found(what)
        self.were_found.append(what)
        if not self.waiting_for:
            self.ready_after.append([*self.were_found])
