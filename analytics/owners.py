"""One edge speaks for an equipment: the first whose heartbeat listed it, until it stops to list it or falls silent.

Invariant: of what two edges list, exactly one says whether it answers, so that a plant file on a second gateway, which
cannot reach what the first one reads, raises and clears nothing. (Ingest refuses the second one with an event.)
Work is done when what an edge lists changes, not at each heartbeat.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from telemetry.messages import Heartbeat


class Owners:
    """Who speaks for what. Not part of a snapshot: made again from what the edges list."""

    def __init__(self, listed: Mapping[str, Iterable[str]] | None = None) -> None:
        """`listed`: edge → what it lists, in the order in which they were first heard."""
        self._owner: dict[str, str] = {}
        self._listed: dict[str, tuple[str, ...]] = {}
        self._foreign: dict[str, frozenset[str]] = {}
        for edge, equipments in (listed or {}).items():
            self.lists(edge, tuple(equipments))

    def lists(self, edge: str, equipments: tuple[str, ...]) -> None:
        """An edge lists this from now on; nothing, if it fell silent."""
        before = self._listed.get(edge, ())
        if equipments == before:
            return
        self._listed[edge] = equipments
        given_up = {e for e in set(before) - set(equipments) if self._owner.get(e) == edge}
        for equipment in given_up:
            del self._owner[equipment]
        if given_up:
            for other, listed in self._listed.items():
                if other != edge and not given_up.isdisjoint(listed):
                    self._claim(other)
        self._claim(edge)

    def own(self, beat: Heartbeat) -> Heartbeat:
        """The heartbeat without what another edge speaks for."""
        self.lists(beat.edge, tuple(beat.equipments))
        foreign = self._foreign.get(beat.edge, frozenset())
        lost = {e: since for e, since in beat.unreachable.items() if self._owner.get(e, beat.edge) == beat.edge}
        if not foreign and len(lost) == len(beat.unreachable):
            return beat
        return replace(beat, equipments=tuple(e for e in beat.equipments if e not in foreign), unreachable=lost)

    def _claim(self, edge: str) -> None:
        self._foreign[edge] = frozenset(e for e in self._listed[edge] if self._owner.setdefault(e, edge) != edge)
