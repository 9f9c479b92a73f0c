"""An order-independent checksum of samples, so that the audit can compare what an edge journaled with rows in a table.

Each sample is hashed from (signal's name, time, bits of the value, quality); hashes add up modulo 2^64. Adding is
commutative, so batches, shards and partitions can be summed in any order, and a doubled row is as visible as a lost one.
All NaN count as one value, because the store keeps them as NULL.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

from telemetry.batch import SampleBatch

UInt64 = npt.NDArray[np.uint64]

HOUR_US: Final = 3_600_000_000
_NAN_BITS: Final = np.uint64(0x7FF8000000000000)
# splitmix64 (Steele, Lea, Flood 2014): a bijection on 64 bits with full avalanche.
_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)


def name_hash(signal: str) -> int:
    """64-bit hash of a signal's name, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(signal.encode(), digest_size=8).digest(), "little")


def hash_rows(
    signal_hash: UInt64, time_us: npt.NDArray[np.int64], value: npt.NDArray[np.float64], quality: npt.NDArray[np.uint8]
) -> UInt64:
    """Hash of each row. All (n,); returns (n,) uint64, a new array. Value NaN of any bits counts as one NaN; −0.0 as 0.0."""
    bits = np.where(np.isnan(value), _NAN_BITS, (value + 0.0).view(np.uint64))
    mixed = _mix(signal_hash + _GAMMA)
    mixed = _mix(mixed ^ time_us.view(np.uint64))
    mixed = _mix(mixed ^ bits)
    return _mix(mixed ^ quality.astype(np.uint64))


def row_hashes(batch: SampleBatch) -> UInt64:
    """Hash of each row of a batch: (n,) uint64. Names are hashed once each."""
    table = np.fromiter(map(name_hash, batch.names), np.uint64, len(batch.names))
    return hash_rows(table[batch.signal], batch.time_us, batch.value, batch.quality)


def _mix(x: UInt64) -> UInt64:
    """splitmix64's finalizer, in place: `x` is given up."""
    x ^= x >> _SHIFT_1
    x *= _MIX_1
    x ^= x >> _SHIFT_2
    x *= _MIX_2
    x ^= x >> _SHIFT_3
    return x
