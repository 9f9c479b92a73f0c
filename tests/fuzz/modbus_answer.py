"""Whatever bytes a device sends: each request is told at most once, an answer is used only if it is that request's own, no
more than a frame is kept, and whatever registers hold, each value is a number or bad."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from edge.asking import Failure
from edge.decode import Frame, make_layout
from edge.frames import Mbap, Query, Rtu, crc, query
from edge.lane import Lane, Watch
from edge.plan import Limits, plan
from edge.reach import Reach
from telemetry.clock import SystemClock
from telemetry.name_block import name_block
from telemetry.quality import is_bad
from tests.edge.build import make_profile

KEPT = 600
"""Bytes that may wait for the rest of a frame."""

TYPES = ("u16", "i16", "u32", "i32", "f32", "u64", "i64", "f64", "bcd16", "bcd32", "bcd64")
PROFILE = make_profile(
    {kind: {"modbus": {"address": 4 * n, "type": kind}} for n, kind in enumerate(TYPES)}
    | {
        "scaled": {"modbus": {"address": 44, "scale": 0.1, "offset": -40}, "range": {"low": -40, "high": 200}},
        "none": {"modbus": {"address": 45, "not_available": [0x8FFF]}},
        "field": {"modbus": {"address": 46, "type": "u32", "bit": 5, "bits": 20, "word_order": "CDAB"}},
        "text": {"kind": "text", "modbus": {"address": 48, "type": "string", "length": 8}},
    }
)
_POINTS = {name: point.modbus for name, point in PROFILE.points.items() if point.modbus is not None}
_REQUESTS = plan(_POINTS, Limits())
LAYOUT = make_layout(PROFILE, _POINTS, _REQUESTS)
BLOCK = name_block([f"e/{point}" for point in LAYOUT.points])
PAYLOAD_BYTES = sum(LAYOUT.payload_bytes)
QUERIES = (
    query("holding", 0, 3, unit=1, payload_bytes=6),
    query("coil", 10, 9, unit=1, payload_bytes=2),
    query("input", 7, 1, unit=2, payload_bytes=2),
)


def _answer(asked: Query, transaction: int, *, rtu: bool) -> bytes:
    body = bytes([asked.unit, asked.function, asked.payload_bytes]) + bytes(range(asked.payload_bytes))
    if rtu:
        return body + crc(body)
    return transaction.to_bytes(2, "big") + b"\0\0" + len(body).to_bytes(2, "big") + body


SEEDS = (
    bytes([0, 0]) + _answer(QUERIES[0], 1, rtu=False) + _answer(QUERIES[1], 2, rtu=False),
    bytes([0, 3]) + b"\0\1\0\0\0\3\1\x83\2",
    bytes([1, 5]) + _answer(QUERIES[0], 0, rtu=True),
    bytes([1, 0]) + b"\1\x83\2" + crc(b"\1\x83\2"),
    bytes([2]) + bytes(range(PAYLOAD_BYTES)),
)


@dataclass
class _Asker:
    asked: Query
    told: list[bytes | Failure] = field(default_factory=list)

    def sent(self) -> None: ...

    def answered(self, payload: bytes, time_us: int, took_s: float) -> None:
        self.told.append(payload)

    def failed(self, failure: Failure, time_us: int) -> None:
        self.told.append(failure)

    def overdue(self) -> None: ...


class _Wire:
    """A connection, or a line, that only takes."""

    places = 1

    def __init__(self, on_wire_s: float) -> None:
        self._on_wire_s = on_wire_s

    def on_wire_s(self, count: int) -> float:
        return count * self._on_wire_s

    def write(self, data: bytes) -> None: ...

    def abort(self) -> None: ...


class _Loop:
    """Time stands still."""

    def time(self) -> float:
        return 0.0

    def call_later(self, delay: float, callback: Any, *args: Any) -> asyncio.TimerHandle:
        return cast("asyncio.TimerHandle", None)

    call_at = call_later


def fuzz_one(data: bytes) -> None:
    """One device's bytes: the first says which framing (or registers themselves), the second how the stream is cut."""
    if len(data) < 2:
        return
    if data[0] % 3 == 2:
        _registers(data[1:])
    else:
        _stream(data[2:], rtu=data[0] % 3 == 1, cut=data[1] % 40 + 1)


def _stream(data: bytes, *, rtu: bool, cut: int) -> None:
    wire = _Wire(0.001 if rtu else 0.0)
    lane = Lane(cast("Reach", wire), Rtu() if rtu else Mbap(), SystemClock(), Watch(), patience_s=lambda: 0.0)
    lane._loop = cast("asyncio.AbstractEventLoop", _Loop())
    lane.connection.transport = cast("asyncio.Transport", wire)
    askers = [_Asker(asked) for asked in QUERIES]
    for asker in askers[: 1 if rtu else 3]:
        lane._turn = None
        lane._send(asker, asker.asked, 1.0, 0.0)
    for at in range(0, len(data), cut):
        if lane.connection.transport is None:
            break
        lane.received(data[at : at + cut])
        assert len(lane._buffer) <= KEPT, "no more than a frame waits for its rest"
    for asker in askers:
        assert len(asker.told) <= 1, "told once"
        for told in asker.told:
            if isinstance(told, bytes):
                assert len(told) == asker.asked.payload_bytes
                assert bytes([asker.asked.unit, asker.asked.function, len(told)]) + told in data, "its own answer"


def _registers(data: bytes) -> None:
    payload = data[:PAYLOAD_BYTES].ljust(PAYLOAD_BYTES, b"\0")
    payloads, at = [], 0
    for size in LAYOUT.payload_bytes:
        payloads.append(payload[at : at + size])
        at += size
    columns = LAYOUT.decode([Frame("e", BLOCK, payloads, [1] * len(payloads))]).columns
    without = np.isnan(columns.value)
    assert np.isfinite(columns.value[~without]).all()
    assert (is_bad(columns.quality) == without).all(), "a number, or bad without one"
