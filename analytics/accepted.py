"""Which records of each (edge, epoch) the detectors have taken: a record that comes twice touches no state twice.

Invariant: per edge at most KEPT epochs are remembered, the oldest forgotten first; an epoch is one opening of a spool.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from telemetry.seqset import SeqSet
from telemetry.wire import Identity

KEPT: Final = 256


class Accepted:
    """The sets. Part of the snapshot."""

    def __init__(self) -> None:
        self._sets: dict[str, dict[int, SeqSet]] = {}

    def take(self, identity: Identity) -> bool:
        """Whether the record is new; from now on it is not."""
        epochs = self._sets.setdefault(identity.edge, {})
        if identity.epoch not in epochs:
            epochs[identity.epoch] = SeqSet()
            while len(epochs) > KEPT:
                del epochs[next(iter(epochs))]
        return epochs[identity.epoch].add(identity.seq)

    def knows(self, identity: Identity) -> bool:
        """Whether any record of this edge and epoch was taken."""
        return identity.epoch in self._sets.get(identity.edge, {})

    def plain(self) -> dict[str, Any]:
        """As plain data: {edge: [[epoch, [[first, end], …]], …]}, oldest epoch first."""
        return {
            edge: [[epoch, [list(r) for r in seqs.ranges()]] for epoch, seqs in epochs.items()]
            for edge, epochs in self._sets.items()
        }

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Takes what `plain` gave."""
        self._sets = {
            edge: {epoch: SeqSet((first, end) for first, end in ranges) for epoch, ranges in epochs}
            for edge, epochs in plain.items()
        }
