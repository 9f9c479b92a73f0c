"""Which edge lives and which equipment answers, from heartbeats, with every change kept for online rates.

Invariant: state only moves forward in heartbeat time; a heartbeat from the past (an old epoch's backlog) changes nothing,
and one from the future (an edge whose clock is wrong) neither, or those that follow it would all be of the past.
Of two edges that list one equipment only the first decides whether it answers, until it stops to list it or falls silent.
Two live epochs of one edge (a spool that was copied, a second agent under one name) are noticed: an epoch that was left
for a new one must not speak again later.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
import structlog

from ingest.accounts import time_of
from ingest.events import FromEdge, own_event
from telemetry.messages import Heartbeat

log = structlog.get_logger()

Connection = psycopg.AsyncConnection[Any]

SILENT_S: Final = 15.0
"""An edge whose last heartbeat is older than this by the wall clock is silent: its equipment is offline."""


_NOBODY: Final[Mapping[str, int]] = {}


@dataclass(frozen=True, slots=True)
class Change:
    """Equipment went on- or offline."""

    equipment: str
    edge: str
    online: bool
    since_us: int
    heard_us: int


@dataclass(slots=True)
class _Edge:
    epoch: int
    epoch_us: int
    heartbeat_us: int
    past: set[int] = field(default_factory=set)
    reported: set[int] = field(default_factory=set)
    equipments: tuple[str, ...] = ()
    unreachable: frozenset[str] = frozenset()
    silent: bool = False
    compared: bool = False
    """Whether a heartbeat was held against the state from the store."""
    heard: bool = False
    """Whether this worker heard it, of the partitions that it has now: another's edges are not its to judge."""


@dataclass(slots=True)
class Seen:
    """What a flush's heartbeats changed."""

    edges: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """edge → (heartbeat_us, epoch, epoch_us)."""
    changes: list[Change] = field(default_factory=list)
    events: list[FromEdge] = field(default_factory=list)


class Online:
    """The state of edges and equipment as of the last commit. Rebuilt from the store at every (re)start of a worker."""

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}
        self._online: dict[str, bool] = {}
        self._owner: dict[str, str] = {}
        self._ahead: set[str] = set()

    async def load(self, connection: Connection) -> None:
        """Reads the state from the store."""
        cursor = await connection.execute(
            "SELECT e.edge, e.epoch, (extract(epoch FROM e.epoch_at) * 1000000)::bigint,"
            " (extract(epoch FROM greatest(e.heartbeat, '1970-01-01+00')) * 1000000)::bigint,"
            " ARRAY(SELECT p.epoch FROM store.progress p WHERE p.edge = e.edge AND p.service = 'ingest'),"
            " ARRAY(SELECT o.equipment FROM store.equipment_online o WHERE o.edge = e.edge ORDER BY 1)"
            " FROM store.edge e"
        )
        self._edges = {
            edge: _Edge(epoch, epoch_us, heartbeat_us, set(past) - {epoch}, equipments=tuple(equipments))
            for edge, epoch, epoch_us, heartbeat_us, past, equipments in await cursor.fetchall()
        }
        cursor = await connection.execute("SELECT equipment, edge, online FROM store.equipment_online")
        rows = await cursor.fetchall()
        self._online = {equipment: online for equipment, _, online in rows}
        self._owner = {equipment: edge for equipment, edge, _ in rows}

    def hear(self, heartbeat: Heartbeat, epoch: int, seen: Seen, *, newest_us: int = sys.maxsize) -> None:
        """Takes a heartbeat; what it changes is added to `seen`. One of a time beyond `newest_us` changes nothing."""
        if self._is_ahead(heartbeat, newest_us):
            return
        edge = self._edges.get(heartbeat.edge)
        if edge is None:
            edge = self._edges[heartbeat.edge] = _Edge(epoch, heartbeat.time_us, heartbeat.time_us - 1)
        edge.heard = True
        if epoch != edge.epoch and not self._new_epoch(edge, heartbeat, epoch, seen):
            return
        if heartbeat.time_us <= edge.heartbeat_us:
            return
        edge.heartbeat_us = heartbeat.time_us
        seen.edges[heartbeat.edge] = (edge.heartbeat_us, edge.epoch, edge.epoch_us)
        unreachable = frozenset(heartbeat.unreachable)
        if (
            edge.silent
            or not edge.compared
            or heartbeat.equipments != edge.equipments
            or unreachable != edge.unreachable
        ):
            edge.silent, edge.compared = False, True
            self._release(heartbeat.edge, set(edge.equipments) - set(heartbeat.equipments))
            edge.equipments, edge.unreachable = heartbeat.equipments, unreachable
            self._compare(heartbeat, seen)

    def forget_heard(self) -> None:
        """Partitions went to another worker: whose edges are ours is known by their next heartbeats."""
        for edge in self._edges.values():
            edge.heard = False

    def unheard(self, now_us: int) -> list[str]:
        """Edges that this worker has not heard and that are silent by what it knows: another may know better."""
        return [name for name, edge in self._edges.items() if not edge.heard and self._is_over(edge, now_us)]

    def silent(self, now_us: int, *, also: Mapping[str, int] = _NOBODY) -> list[Change]:
        """Changes to offline of all equipment of edges that fell silent. For a worker that is not behind the log.

        The edges that it has heard are its to judge, and those of `also` (edge → heartbeat in the store, µs since
        1970): nobody else reads their partitions.
        """
        changes = []
        for name in also.keys() & self._edges.keys():
            self._edges[name].heartbeat_us = max(self._edges[name].heartbeat_us, also[name])
        for name, edge in self._edges.items():
            if not (edge.heard or name in also) or not self._is_over(edge, now_us):
                continue
            edge.silent = True
            owned = [equipment for equipment in edge.equipments if self._owner.get(equipment, name) == name]
            for equipment in owned:
                if self._online.get(equipment):
                    self._online[equipment] = False
                    changes.append(Change(equipment, name, False, edge.heartbeat_us, edge.heartbeat_us))
            self._release(name, owned)
        return changes

    def _is_over(self, edge: _Edge, now_us: int) -> bool:
        return not edge.silent and now_us - edge.heartbeat_us >= SILENT_S * 1e6

    def _is_ahead(self, heartbeat: Heartbeat, newest_us: int) -> bool:
        if heartbeat.time_us <= newest_us:
            self._ahead.discard(heartbeat.edge)
            return False
        if heartbeat.edge not in self._ahead:
            self._ahead.add(heartbeat.edge)
            log.warning(
                "heartbeats from the future are passed over: is the edge's clock set?",
                edge=heartbeat.edge,
                expected=f"at most {time_of(newest_us).isoformat()}",
                found_us=heartbeat.time_us,
            )
        return True

    def _release(self, edge: str, equipments: Iterable[str]) -> None:
        """Equipment that an edge no longer speaks for: who else lists it is heard about it from now on."""
        given_up = {equipment for equipment in equipments if self._owner.get(equipment) == edge}
        for equipment in given_up:
            del self._owner[equipment]
        for name, other in self._edges.items():
            taken = given_up.intersection(other.equipments) if name != edge else ()
            for equipment in taken:
                other.compared = False
                self._online.pop(equipment, None)  # whatever the other says of it is news

    def _new_epoch(self, edge: _Edge, heartbeat: Heartbeat, epoch: int, seen: Seen) -> bool:
        """Whether the heartbeat's epoch is the edge's newest, now."""
        if epoch not in edge.past:
            if heartbeat.time_us <= edge.heartbeat_us:
                return False  # back-fill of an opening that the log never heard of: the edge lives under another by now
            edge.past.add(edge.epoch)
            edge.epoch, edge.epoch_us = epoch, heartbeat.time_us
            return True
        if heartbeat.time_us > edge.epoch_us and epoch not in edge.reported:
            edge.reported.add(epoch)
            seen.events.append(
                own_event(
                    "two-live-epochs",
                    heartbeat.edge,
                    heartbeat.time_us,
                    older=f"{epoch:016x}",
                    newer=f"{edge.epoch:016x}",
                )
            )
        return False

    def _compare(self, heartbeat: Heartbeat, seen: Seen) -> None:
        for equipment in heartbeat.equipments:
            if self._owner.setdefault(equipment, heartbeat.edge) != heartbeat.edge:
                continue
            since_us = heartbeat.unreachable.get(equipment)
            online = since_us is None
            if self._online.get(equipment) is online:
                continue
            self._online[equipment] = online
            moment = heartbeat.time_us if since_us is None else min(since_us, heartbeat.time_us)
            seen.changes.append(Change(equipment, heartbeat.edge, online, moment, heartbeat.time_us))


async def heartbeats(connection: Connection, edges: Sequence[str]) -> dict[str, int]:
    """The last heartbeat of each of these edges that any worker has stored, µs since 1970. Raises psycopg.Error."""
    cursor = await connection.execute(
        "SELECT edge, (extract(epoch FROM greatest(heartbeat, '1970-01-01+00')) * 1000000)::bigint FROM store.edge"
        " WHERE edge = ANY (%s)",
        ([*edges],),
    )
    return dict(await cursor.fetchall())


async def write_online(connection: Connection, seen: Seen) -> None:
    """Stores what changed. Raises psycopg.Error."""
    if seen.edges:
        async with connection.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO store.edge AS e (edge, heartbeat, epoch, epoch_at) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (edge) DO UPDATE SET heartbeat = greatest(e.heartbeat, excluded.heartbeat),"
                " epoch = excluded.epoch, epoch_at = excluded.epoch_at",
                [
                    (edge, time_of(heartbeat), epoch, time_of(since))
                    for edge, (heartbeat, epoch, since) in sorted(seen.edges.items())
                ],
            )
    await write_changes(connection, seen.changes)


async def write_changes(connection: Connection, changes: Sequence[Change]) -> None:
    """Stores changes of equipment, in order. Raises psycopg.Error."""
    if not changes:
        return
    async with connection.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO store.equipment_online AS o (equipment, edge, online, since, heard) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (equipment) DO UPDATE SET edge = excluded.edge, online = excluded.online,"
            " since = excluded.since, heard = greatest(o.heard, excluded.heard)",
            [(c.equipment, c.edge, c.online, time_of(c.since_us), time_of(c.heard_us)) for c in _by_equipment(changes)],
        )
        await cursor.executemany(
            "INSERT INTO store.equipment_online_history (equipment, time, online) VALUES (%s, %s, %s)"
            " ON CONFLICT (equipment, time) DO UPDATE SET online = excluded.online",
            [(c.equipment, time_of(c.since_us), c.online) for c in _by_equipment(changes)],
        )


def _by_equipment(changes: Iterable[Change]) -> list[Change]:
    """In one order of rows for all workers, each equipment's own changes in theirs."""
    return sorted(changes, key=lambda c: c.equipment)
