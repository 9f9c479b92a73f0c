"""Who a process is in a Kafka group, for as long as it may die and come back: the id of a static member (group.instance.id).

A member with such an id that is killed and started again takes its own place: its partitions wait for it, and nobody else's
stand. Without one the group waits for the dead member until its session ends (6 s), with every partition.

The id stands for a lock file: STATE/log/seat.GROUP.N, the first that nobody holds. The kernel drops the lock when a process
dies, so whoever is started again on the same STATE finds its seat free.
Invariant: two living processes never have the same id, or they would throw each other out without end. It is made of the
machine's boot and the file's device and inode: a copied STATE, or one of the same name in another container, is other seats.
"""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from telemetry.lock_file import try_lock

log = structlog.get_logger()

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(slots=True)
class Seat:
    """A place in a group. Held until `leave`, or until the process dies."""

    instance: str | None
    """For group.instance.id. None: there is nowhere to keep it, so the member is one that nobody waits for."""
    _lock: int = -1

    def leave(self) -> None:
        """Somebody else may sit here."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def take_seat(directory: Path, group: str, topics: Sequence[str]) -> Seat:
    """The first free seat below `directory`, which is made where it is missing.

    The topics are part of the id: a member that comes back is given what its seat had, also if it now wants other topics.
    """
    try:
        boot = BOOT_ID.read_text(encoding="ascii").strip()
        directory.mkdir(parents=True, exist_ok=True)
        lock = next(lock for n in itertools.count() if (lock := try_lock(directory / f"seat.{group}.{n}")) is not None)
    except OSError as error:
        log.warning("no seat in the group: when this process dies all partitions stand", group=group, why=str(error))
        return Seat(None)
    file = os.fstat(lock)
    wants = zlib.crc32("\0".join(sorted(topics)).encode())
    return Seat(f"{group}.{boot}.{file.st_dev:x}.{file.st_ino:x}.{wants:08x}", lock)
