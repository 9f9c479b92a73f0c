"""Names of signals → their numbers in the store, resolved once per dictionary of a batch, not once per sample.

Invariant: a number, once given, means that name for good. Names are made known in transactions of their own, before the
one that holds rows: a number without rows harms nobody, a row without a number cannot be.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final

import numpy as np
import psycopg

from telemetry.batch import Int32
from telemetry.ledger import name_hash
from telemetry.names import split_signal

Connection = psycopg.AsyncConnection[Any]
Names = tuple[str, ...]

REMEMBERED_BYTES: Final = 96 << 20
"""About what the remembered dictionaries may take together."""
STRANGE_BYTES: Final = 16 << 20
"""The same of equipment that no signal has: of names that are no signal's, whatever somebody sends."""
NAME_BYTES: Final = 72
"""What a name takes beside its characters."""
UNKNOWN: Final = -1
"""The number of a name that cannot be a signal's."""
_SIGN: Final = 1 << 63


@dataclass(frozen=True, slots=True, eq=False)
class Dictionary:
    """The names of a batch, resolved.

    signal_id  (n,) int32, by place in the batch's names; UNKNOWN for what is no signal's name
    equipment  (n,) int32, by place, index into equipments
    """

    signal_id: Int32
    equipment: Int32
    equipments: Sequence[str]
    """Of the whole table, not of this dictionary alone; one for all that were resolved together; only ever grows."""


class SignalTable:
    """The signals of the store, cached."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._ids: dict[str, int] = {}
        self._dictionaries: OrderedDict[Names, Dictionary] = OrderedDict()
        self._remembered = 0
        self._equipments: list[str] = []
        self._place: dict[str, int] = {}
        self._strange = 0
        self._equipment_of = np.empty(0, np.int32)

    async def load(self, connection: Connection) -> None:
        """Reads all that exist."""
        cursor = await connection.execute("SELECT name, signal_id FROM store.signal")
        self._ids = {}
        self._dictionaries.clear()
        self._remembered = 0
        self._know(await cursor.fetchall())

    async def resolve(self, connection: Connection, dictionaries: Iterable[Names]) -> Mapping[int, Dictionary]:
        """The dictionaries, by `id` of their names. New names are inserted, flagged unregistered. Connection: autocommit."""
        async with self._turn:
            return await self._resolve(connection, dictionaries)

    async def _resolve(self, connection: Connection, dictionaries: Iterable[Names]) -> Mapping[int, Dictionary]:
        if self._strange > STRANGE_BYTES:
            self._forget_strangers()
        once = {id(names): names for names in dictionaries}
        missing = {names: self._numbers(names) for names in once.values() if names not in self._dictionaries}
        unknown = {names[place] for names, ids in missing.items() for place in np.flatnonzero(ids == UNKNOWN).tolist()}
        if new := sorted(name for name in unknown if _is_signal(name)):
            await self._insert(connection, new)
            missing = {names: self._numbers(names) for names in missing}
        for names, ids in missing.items():
            self._dictionaries[names] = self._dictionary(names, ids)
            self._remembered += _size(names)
        found = {place: self._dictionaries[names] for place, names in once.items()}
        for names in once.values():
            self._dictionaries.move_to_end(names)
        self._shrink()
        return found

    def _numbers(self, names: Names) -> Int32:
        return np.fromiter(map(self._ids.get, names, repeat(UNKNOWN)), np.int32, len(names))

    def _shrink(self) -> None:
        """Forgets the dictionaries used longest ago, beyond the bound."""
        while self._remembered > REMEMBERED_BYTES and len(self._dictionaries) > 1:
            names, _ = self._dictionaries.popitem(last=False)
            self._remembered -= _size(names)

    def _dictionary(self, names: Names, ids: Int32) -> Dictionary:
        equipment = self._equipment_of[ids] if len(self._equipment_of) else np.zeros(len(names), np.int32)
        for place in np.flatnonzero(ids == UNKNOWN).tolist():
            known = len(self._equipments)
            equipment[place] = self._equipment(names[place])
            if len(self._equipments) > known:
                self._strange += NAME_BYTES + len(self._equipments[-1])
        return Dictionary(ids, equipment, self._equipments)

    def _forget_strangers(self) -> None:
        """A new table of equipment; dictionaries that were given keep the old one."""
        self._dictionaries.clear()
        self._equipments, self._place = [], {}
        self._remembered = self._strange = 0
        self._know(list(self._ids.items()))

    def _know(self, found: Sequence[tuple[str, int]]) -> None:
        """Takes names and their numbers."""
        self._ids.update(found)
        size = max((number for _, number in found), default=-1) + 1
        if size > len(self._equipment_of):
            more = np.zeros(max(size, 2 * len(self._equipment_of)) - len(self._equipment_of), np.int32)
            self._equipment_of = np.append(self._equipment_of, more)
        numbers = np.fromiter((number for _, number in found), np.int64, len(found))
        self._equipment_of[numbers] = np.fromiter((self._equipment(name) for name, _ in found), np.int32, len(found))

    def _equipment(self, name: str) -> int:
        equipment = name.partition("/")[0]
        place = self._place.setdefault(equipment, len(self._equipments))
        if place == len(self._equipments):
            self._equipments.append(equipment)
        return place

    async def _insert(self, connection: Connection, names: list[str]) -> None:
        """Looks first: each row that is tried takes a number for good, also where the name is there already."""
        await self._look(connection, names)
        if not (new := [name for name in names if name not in self._ids]):
            return
        parts = [split_signal(name) for name in new]
        columns = (new, [p[0] for p in parts], [p[1] for p in parts], [signed(name_hash(name)) for name in new])
        await connection.execute(
            "INSERT INTO store.signal (name, equipment, point, name_hash)"
            " SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[]) ON CONFLICT DO NOTHING",
            columns,
        )
        await self._look(connection, new)

    async def _look(self, connection: Connection, names: list[str]) -> None:
        cursor = await connection.execute("SELECT name, signal_id FROM store.signal WHERE name = ANY(%s)", (names,))
        self._know(await cursor.fetchall())


def _size(names: Names) -> int:
    return NAME_BYTES * len(names) + sum(map(len, names))


def signed(number: int) -> int:
    """Unsigned 64 bits as PostgreSQL's bigint."""
    return number - (1 << 64) if number >= _SIGN else number


def _is_signal(name: str) -> bool:
    try:
        split_signal(name)
    except ValueError:
        return False
    return True
