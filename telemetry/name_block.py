"""The names of signals as they travel: their bytes, lengths and hashes, made once and used in every record.

Invariant: `utf8` is the names end to end and `packed` the same in LZ4, `lengths` and `hashes` have one entry a name, and
nothing of it changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from telemetry.ledger import name_hash
from telemetry.lz4_frame import blocks_of


@dataclass(frozen=True, slots=True, eq=False)
class NameBlock:
    """Signals of one equipment's group as they travel: made once, reused in every record.

    names    the signals, "equipment/point"
    utf8     all names, end to end
    packed   the same as blocks of an LZ4 frame (telemetry.lz4_frame)
    lengths  (n,) int32, bytes of each name
    hashes   (n,) uint64, telemetry.ledger.name_hash of each
    """

    names: tuple[str, ...]
    utf8: bytes
    packed: bytes
    lengths: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint64]


def name_block(names: Sequence[str]) -> NameBlock:
    """The block of some names: about 1 µs a name. Raises UnicodeEncodeError where a name has no UTF-8 (a lone surrogate)."""
    spelled = [name.encode() for name in names]
    lengths = np.fromiter(map(len, spelled), np.int32, len(spelled))
    hashes = np.fromiter(map(name_hash, names), np.uint64, len(spelled))
    lengths.flags.writeable = hashes.flags.writeable = False
    utf8 = b"".join(spelled)
    return NameBlock(tuple(names), utf8, blocks_of(utf8), lengths, hashes)
