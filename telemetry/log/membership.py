"""Who of a group reads which partition of the embedded log: locks on files, which the kernel drops when a process dies.

Every member holds a lock on a file of its own, so that the others can count who lives; sorted by name they share the
partitions out in turn. Each partition has a lock file as well: whatever the members believe, only its holder reads it.
Invariant: a partition is in `held` if and only if this member holds its lock.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from telemetry.lock_file import try_lock
from telemetry.log.protocol import Partition


class Membership:
    """One member of a group. Synchronous, of one thread."""

    def __init__(self, directory: Path, group: str, partitions: Sequence[Partition]) -> None:
        self._directory = directory / f"group.{group}"
        self._partitions = sorted(partitions)
        self._locks: dict[Partition, int] = {}
        self._directory.mkdir(parents=True, exist_ok=True)
        self._name = f"{secrets.token_hex(8)}.member"
        # Locked before it can be seen: others remove member files that nobody holds.
        joining = self._directory / f"{self._name}.joining"
        self._own = os.open(joining, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._own, fcntl.LOCK_EX)
        joining.rename(self._directory / self._name)

    @property
    def held(self) -> frozenset[Partition]:
        """The partitions that are this member's now."""
        return frozenset(self._locks)

    def due(self) -> tuple[list[Partition], list[Partition]]:
        """(partitions that are this member's and stay so, partitions that it should give up). Locks what is free."""
        members = sorted(self._living() | {self._name})
        place = members.index(self._name)
        share = set(self._partitions[place :: len(members)])
        for partition in share - self.held:
            self._take(partition)
        return sorted(self.held & share), sorted(self.held - share)

    def release(self, partitions: Sequence[Partition]) -> None:
        """Gives partitions up."""
        for partition in partitions:
            os.close(self._locks.pop(partition))

    def leave(self) -> None:
        """Gives everything up."""
        self.release(sorted(self.held))
        (self._directory / self._name).unlink(missing_ok=True)
        os.close(self._own)

    def _take(self, partition: Partition) -> None:
        handle = try_lock(self._directory / f"{partition.topic}.{partition.number}.lock")
        if handle is not None:
            self._locks[partition] = handle

    def _living(self) -> set[str]:
        living = set()
        for path in self._directory.glob("*.member"):
            if path.name == self._name:
                continue
            try:
                handle = try_lock(path, create=False)
            except FileNotFoundError:
                continue
            if handle is None:
                living.add(path.name)
            else:
                path.unlink(missing_ok=True)
                os.close(handle)
        return living
