"""Names of signals → their numbers in the store, resolved once per dictionary of a batch, not once per sample.

Invariant: a number, once given, means that name for good. Names are made known in transactions of their own, before the
one that holds rows: a number without rows harms nobody, a row without a number cannot be.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import psycopg

from telemetry.batch import Int32
from telemetry.ledger import name_hash
from telemetry.names import split_signal

Connection = psycopg.AsyncConnection[Any]

DICTIONARIES: Final = 4_096
"""How many dictionaries of batches are remembered."""
UNKNOWN: Final = -1
"""The number of a name that cannot be a signal's."""
_SIGN: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Dictionary:
    """The names of a batch, resolved.

    signal_id  (n,) int32, by place in the batch's names; UNKNOWN for what is no signal's name
    equipment  (n,) int32, by place, index into equipments
    """

    signal_id: Int32
    equipment: Int32
    equipments: tuple[str, ...]


class SignalTable:
    """The signals of the store, cached. Of one task."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._dictionaries: OrderedDict[tuple[str, ...], Dictionary] = OrderedDict()

    async def load(self, connection: Connection) -> None:
        """Reads all that exist."""
        cursor = await connection.execute("SELECT name, signal_id FROM store.signal")
        self._ids = dict(await cursor.fetchall())
        self._dictionaries.clear()

    async def resolve(self, connection: Connection, dictionaries: Iterable[tuple[str, ...]]) -> None:
        """Makes sure that `of` knows these. New names are inserted, flagged unregistered. Connection: autocommit."""
        missing = [names for names in set(dictionaries) if names not in self._dictionaries]
        unknown = {name for names in missing for name in names if name not in self._ids}
        if unknown:
            await self._insert(connection, sorted(name for name in unknown if _is_signal(name)))
        for names in missing:
            self._dictionaries[names] = self._dictionary(names)

    def of(self, names: tuple[str, ...]) -> Dictionary:
        """A dictionary that was resolved."""
        self._dictionaries.move_to_end(names)
        return self._dictionaries[names]

    def shrink(self) -> None:
        """Forgets the dictionaries used longest ago, beyond the bound."""
        while len(self._dictionaries) > DICTIONARIES:
            self._dictionaries.popitem(last=False)

    def _dictionary(self, names: tuple[str, ...]) -> Dictionary:
        index: dict[str, int] = {}
        equipment = [index.setdefault(name.partition("/")[0], len(index)) for name in names]
        return Dictionary(
            np.array([self._ids.get(name, UNKNOWN) for name in names], np.int32),
            np.array(equipment, np.int32),
            tuple(index),
        )

    async def _insert(self, connection: Connection, names: list[str]) -> None:
        parts = [split_signal(name) for name in names]
        columns = (names, [p[0] for p in parts], [p[1] for p in parts], [signed(name_hash(name)) for name in names])
        await connection.execute(
            "INSERT INTO store.signal (name, equipment, point, name_hash)"
            " SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[]) ON CONFLICT DO NOTHING",
            columns,
        )
        cursor = await connection.execute("SELECT name, signal_id FROM store.signal WHERE name = ANY(%s)", (names,))
        self._ids.update(await cursor.fetchall())


def signed(number: int) -> int:
    """Unsigned 64 bits as PostgreSQL's bigint."""
    return number - (1 << 64) if number >= _SIGN else number


def _is_signal(name: str) -> bool:
    try:
        split_signal(name)
    except ValueError:
        return False
    return True
