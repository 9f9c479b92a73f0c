"""What the log's tests share: an owner of partitions that remembers what it was told, and a process of one's own.

Run as a module it is that process: `produce` sends numbered records and prints the number of each that is durable,
`read` joins a group and prints what it was assigned.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from telemetry.log import open_log
from telemetry.log.protocol import InRecord, OutRecord, Partition, Reader
from telemetry.settings import Settings


@dataclass
class Owner:
    """Starts each partition where `starts` says, else at 0."""

    starts: dict[Partition, int] = field(default_factory=dict)
    held: set[Partition] = field(default_factory=set)
    told: list[tuple[str, tuple[Partition, ...]]] = field(default_factory=list)

    async def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        self.held |= set(partitions)
        self.told.append(("assigned", tuple(partitions)))
        return {p: self.starts.get(p, 0) for p in partitions}

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        self.held -= set(partitions)
        self.told.append(("revoked", tuple(partitions)))


def record(key: str, value: bytes | str | int, **headers: bytes) -> OutRecord:
    """A record with a readable value."""
    return OutRecord(key.encode(), value if isinstance(value, bytes) else str(value).encode(), headers)


async def read_until(
    reader: Reader, enough: Callable[[list[InRecord]], bool], *, seconds: float = 20.0, max_records: int = 500
) -> list[InRecord]:
    """Fetches until `enough`. Raises TimeoutError."""
    records: list[InRecord] = []
    async with asyncio.timeout(seconds):
        while not enough(records):
            records += await reader.fetch(max_records=max_records, max_wait_s=0.2)
    return records


async def read_count(reader: Reader, count: int, *, max_records: int = 500) -> list[InRecord]:
    """Fetches until there are `count`. Raises TimeoutError."""
    return await read_until(reader, lambda records: len(records) >= count, max_records=max_records)


def start_process(settings: Settings, *arguments: str | int) -> subprocess.Popen[str]:
    """This module as a process of its own, on the same log."""
    environment = {
        **os.environ,
        "VIGIL_LOG": settings.log,
        "VIGIL_STATE_DIR": str(settings.state_dir),
        "VIGIL_LOG_PARTITIONS": str(settings.log_partitions),
        "VIGIL_LOG_MAX_BYTES": str(settings.log_max_bytes),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.telemetry.log_rig", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


async def _produce(settings: Settings, topic: str, key: str, count: int, size: int) -> None:
    log = open_log(settings)
    producer = await log.producer()
    for number in range(count):
        await producer.send(topic, [record(key, str(number).encode().ljust(size))])
        print(number, flush=True)
    await producer.close()
    await log.close()


async def _read(settings: Settings, topic: str, group: str) -> None:
    log = open_log(settings)
    owner = Owner()
    reader = await log.reader(group, [topic], owner)
    told = 0
    while True:
        await reader.fetch(max_records=100, max_wait_s=0.2)
        for what, partitions in owner.told[told:]:
            print(what, *(p.number for p in partitions), flush=True)
        told = len(owner.told)


def _main(verb: str, *arguments: str) -> None:
    settings = Settings()
    work: dict[str, Callable[..., Any]] = {
        "produce": lambda topic, key, count, size: _produce(settings, topic, key, int(count), int(size)),
        "read": lambda topic, group: _read(settings, topic, group),
    }
    asyncio.run(work[verb](*arguments))


if __name__ == "__main__":
    _main(*sys.argv[1:])
