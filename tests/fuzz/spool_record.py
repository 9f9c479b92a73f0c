"""Whatever a record of the spool has become on its disk: opening and reading go on, what is damaged is set aside and
reported, the sound records beside it come out as they went in; and whatever a record holds, its reader says why not."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import zlib
from pathlib import Path

from edge.spool import Spool
from telemetry.arrow_read import decode_samples
from telemetry.errors import RecordError
from telemetry.messages import Event
from telemetry.wire import Encoded, decode_events, encode_events, encode_samples
from tests.edge.build import batch_of

_SAMPLES = encode_samples(batch_of("e", 3))
_EVENTS = encode_events([Event("e", 1_795_000_000_000_000, "local", "7", True, {"n": 1})])
SEEDS = (
    bytes([0]) + _SAMPLES.value,
    bytes([1]) + _EVENTS.value,
    bytes([2]) + _SAMPLES.value,
    bytes([3]) + _EVENTS.value,
)
_FOLDER = tempfile.TemporaryDirectory(prefix="vigil-fuzz-")


def fuzz_one(data: bytes) -> None:
    """The first byte says whether a reader gets the bytes, or a spool's disk has them."""
    if not data:
        return
    match data[0] % 4:
        case 0:
            _read(data[1:])
        case 1:
            with contextlib.suppress(RecordError):
                decode_events(data[1:])
        case 2:
            _damaged(data[1:], crc=False)
        case _:
            _damaged(data[1:], crc=True)


def _read(value: bytes) -> None:
    try:
        batch = decode_samples(value)
    except RecordError:
        return
    assert len(batch.signal) == len(batch.value)


def _damaged(value: bytes, *, crc: bool) -> None:
    """A spool of three records, the second of which holds `value` now; its checksum may even be right."""
    path = Path(_FOLDER.name) / "spool.sqlite"
    for old in path.parent.iterdir():
        old.unlink()
    with contextlib.closing(Spool(path, edge="e", epoch=1, max_bytes=1 << 20)) as spool:
        spool.journal([_EVENTS, _SAMPLES, _EVENTS], {})
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        found = zlib.crc32(value) if crc else _SAMPLES.crc
        db.execute("UPDATE record SET value = ?, crc = ? WHERE seq = 1", (value, found))
    with contextlib.closing(Spool(path, edge="e", epoch=2, max_bytes=1 << 20)) as spool:
        read = {stored.identity.seq: stored.encoded for stored in spool.read(0, max_records=10, max_bytes=1 << 20)}
        assert _same(read.get(0), _EVENTS)
        assert _same(read.get(2), _EVENTS)
        sound = crc or zlib.crc32(value) == _SAMPLES.crc
        assert (1 in read) == sound, "forwarded if and only if it is what its checksum says"
        assert spool.counts.corrupt_records == (not sound)


def _same(found: Encoded | None, expected: Encoded) -> bool:
    return found is not None and found.value == expected.value and found.kind is expected.kind
