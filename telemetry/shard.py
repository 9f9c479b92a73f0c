"""Several edge processes that divide one edge's equipment among them, each an edge of its own name.

The edge `hall` in three shards is the edges `hall.1of3`, `hall.2of3` and `hall.3of3`: each has its own lane on the log,
spool, heartbeat and MQTT sessions, so nothing else needs to know of shards.

Invariant: every equipment belongs to exactly one shard, by its own name (MQTT) or by its endpoint (Modbus: a serial line
or gateway cannot be shared by two processes) and by nothing else, so it stays there over restarts and plant changes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

MOST: Final = 64
_NAME: Final = re.compile(r"(?P<edge>.+)\.(?P<number>[1-9]\d?)of(?P<of>[1-9]\d?)")
_SHARD: Final = re.compile(r"([1-9]\d?)/([1-9]\d?)")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several: `number` is 1 … `of`."""

    number: int
    of: int

    def has(self, key: str) -> bool:
        """Whether what `key` names is this shard's."""
        digest = blake2b(key.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.of == self.number - 1

    def name(self, edge: str) -> str:
        """The name of the edge that this shard of `edge` is."""
        return f"{edge}.{self.number}of{self.of}"


def parse_shard(text: str) -> Shard:
    """The shard that a setting names: 1/2 is the first of two. Raises ValueError."""
    found = _SHARD.fullmatch(text)
    shard = Shard(int(found[1]), int(found[2])) if found else None
    if shard is None or not shard.number <= shard.of <= MOST:
        raise ValueError(f"expected I/N with I from 1 to N, N at most {MOST}, found {text!r}")
    return shard


def split_edge(name: str) -> tuple[str, Shard | None]:
    """(the edge whose shard it is, which shard); (the name, None) of an edge that is no shard."""
    found = _NAME.fullmatch(name)
    if found is None or int(found["number"]) > int(found["of"]):
        return name, None
    return found["edge"], Shard(int(found["number"]), int(found["of"]))


def is_read_by(edge: str, owner: str | None, key: str) -> bool:
    """Whether the edge `edge` reads an equipment that the plant file gives to `owner` (None: to anyone).

    An owner that is a shard's whole name binds the equipment to that shard; one that is the edge's name, or none, leaves
    it to the shards to divide by `key`.
    """
    whole, shard = split_edge(edge)
    if owner == edge:
        return True
    return owner in (None, whole) and (shard is None or shard.has(key))
