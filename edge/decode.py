"""Registers to values, for all points of a poll group at once: planned once, then a handful of numpy calls a cycle.

The payloads of a cycle's answers are laid end to end. One gather (`take`) brings the bytes of every point into
big-endian order, whatever its word order, sorted by type; each type is then one view, one conversion and one slice of
the output. Cost per cycle is a constant ~20 numpy calls plus a few ns per register; no Python per point.

Invariant: a value is what the device sent, scaled (edge.scaling). What has no value is NaN and bad, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from edge.plan import BIT_TABLES, Request
from edge.scaling import Scaling, real_scaling, whole_scaling
from telemetry.batch import SampleBatch
from telemetry.names import signal_name
from telemetry.profile import ModbusPoint, Profile, RegisterType
from telemetry.quality import BAD_SENSOR, GOOD, UNCERTAIN_OUT_OF_RANGE

Float64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Bytes = npt.NDArray[np.uint8]

_NAN: Final = np.float64("nan")

# Segments in the order in which they lie in the gathered bytes: name → (bytes a value, dtype, unsigned dtype).
_SEGMENTS: Final[dict[str, tuple[int, str, str]]] = {
    "u64": (8, ">u8", ">u8"),
    "i64": (8, ">i8", ">u8"),
    "f64": (8, ">f8", ">u8"),
    "u32": (4, ">u4", ">u4"),
    "i32": (4, ">i4", ">u4"),
    "f32": (4, ">f4", ">u4"),
    "u16": (2, ">u2", ">u2"),
    "i16": (2, ">i2", ">u2"),
    "bits": (2, ">u2", ">u2"),
    "coil": (1, "u1", "u1"),
}
_REAL: Final = frozenset({"f32", "f64"})


@dataclass(frozen=True, slots=True)
class _Segment:
    """Points start … stop − 1 of the output, all of one type, from bytes first … last − 1 of the gather."""

    start: int
    stop: int
    first: int
    last: int
    dtype: np.dtype[np.generic]
    unsigned: np.dtype[np.generic]
    shift: npt.NDArray[np.uint16] | None
    mask: npt.NDArray[np.uint16] | None
    na_at: Index | None
    """Positions within the segment, one for each of their not-available codes."""
    na_code: npt.NDArray[np.uint64] | None


@dataclass(frozen=True, slots=True)
class TextPoint:
    """A string point: its bytes within the payloads."""

    point: str
    request: int
    first: int
    last: int
    swapped: bool


@dataclass(frozen=True, slots=True, eq=False)
class Decoder:
    """Decodes one poll group of one equipment. Built by `make_decoder`."""

    names: tuple[str, ...]
    """Signals, one for each numeric point, in output order."""
    signal: npt.NDArray[np.int32]
    request_of: Index
    """(n,) which request carries each point."""
    payload_bytes: tuple[int, ...]
    texts: tuple[TextPoint, ...]
    _gather: Index
    _segments: tuple[_Segment, ...]
    _mul: Float64 | None
    _add: Float64 | None
    _div: Float64 | None
    _offset: Float64 | None
    _low: Float64 | None
    _high: Float64 | None

    def values(self, payload: bytes) -> tuple[Float64, npt.NDArray[np.uint8]]:
        """(n,) values and (n,) qualities from the payloads of all requests, laid end to end. New arrays.

        `payload` must be sum(payload_bytes) long.
        """
        gathered = np.frombuffer(payload, np.uint8).take(self._gather)
        value = np.empty(len(self.names))
        quality = np.full(len(self.names), GOOD, np.uint8)
        # A signalling NaN in a float register is no news, nor a number that its scale takes beyond all numbers.
        with np.errstate(invalid="ignore", over="ignore"):
            unavailable = [_fill(segment, gathered, value) for segment in self._segments]
            if self._mul is not None:
                value *= self._mul
            if self._add is not None:
                value += self._add
            if self._div is not None:
                value /= self._div
            if self._offset is not None:
                value += self._offset
        if self._low is not None and self._high is not None:
            quality[(value < self._low) | (value > self._high)] = UNCERTAIN_OUT_OF_RANGE
        for at in unavailable:
            if at is not None:
                value[at] = _NAN
        finite = np.isfinite(value)
        if not finite.all():
            value[~finite] = _NAN
            quality[~finite] = BAD_SENSOR
        return value, quality

    def batch(self, payloads: Sequence[bytes | None], times_us: Sequence[int], qualities: Sequence[int]) -> SampleBatch:
        """The samples of a cycle: for each request its payload or None, the time of the read, and why it failed."""
        stamps = np.array(times_us, np.int64).take(self.request_of)
        if None not in payloads:
            value, quality = self.values(b"".join(payloads))  # type: ignore[arg-type]
            return SampleBatch(self.names, self.signal, stamps, value, quality)
        whole = b"".join(p if p is not None else bytes(n) for p, n in zip(payloads, self.payload_bytes, strict=True))
        value, quality = self.values(whole)
        failed = np.array([p is None for p in payloads]).take(self.request_of)
        value[failed] = _NAN
        quality[failed] = np.array(qualities, np.uint8).take(self.request_of)[failed]
        return SampleBatch(self.names, self.signal, stamps, value, quality)

    def all_bad(self, time_us: int, quality: int) -> SampleBatch:
        """One bad sample of each point, with no value."""
        n = len(self.names)
        return SampleBatch(
            self.names, self.signal, np.full(n, time_us), np.full(n, _NAN), np.full(n, quality, np.uint8)
        )

    def text_values(self, payloads: Sequence[bytes | None]) -> list[tuple[str, str]]:
        """(point, text) of the string points that were read."""
        found = []
        for text in self.texts:
            payload = payloads[text.request]
            if payload is not None:
                found.append((text.point, decode_text(payload[text.first : text.last], swapped=text.swapped)))
        return found


def decode_text(raw: bytes, *, swapped: bool) -> str:
    """The text of a string's registers, without the padding (NUL or blanks) after it. Not UTF-8: marked, never lost."""
    if swapped:
        raw = np.frombuffer(raw, ">u2").astype("<u2").tobytes()
    return raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace").rstrip()


@dataclass(frozen=True, slots=True)
class _Placed:
    """A numeric point on its way into the plan."""

    name: str
    segment: str
    request: int
    at: list[int]
    """Where its bytes lie in the joined payloads, most significant first."""
    shift: int
    mask: int
    scaling: Scaling
    point: ModbusPoint


def make_decoder(equipment: str, profile: Profile, requests: Sequence[Request]) -> Decoder:
    """The decoder of what `requests` read of `profile`'s points."""
    placed: list[_Placed] = []
    texts: list[TextPoint] = []
    base = 0
    for number, request in enumerate(requests):
        for name in request.points:
            point = _modbus(profile, name)
            if point.type is RegisterType.STRING:
                texts.append(_text(name, point, number, request, profile))
            else:
                placed.append(_place(name, point, number, request, base, profile))
        base += request.payload_bytes
    placed.sort(key=lambda p: list(_SEGMENTS).index(p.segment))
    ranges = [profile.points[p.name].range for p in placed]
    low, high = np.array([r.low for r in ranges]), np.array([r.high for r in ranges])
    bounded = bool(np.isfinite(low).any() or np.isfinite(high).any())
    return Decoder(
        names=tuple(signal_name(equipment, p.name) for p in placed),
        signal=np.arange(len(placed), dtype=np.int32),
        request_of=np.array([p.request for p in placed], np.intp),
        payload_bytes=tuple(r.payload_bytes for r in requests),
        texts=tuple(texts),
        _gather=np.array([byte for p in placed for byte in p.at], np.intp),
        _segments=tuple(_segments(placed)),
        _mul=_unless([p.scaling.mul for p in placed], 1.0),
        _add=_unless([p.scaling.add for p in placed], 0.0),
        _div=_unless([p.scaling.div for p in placed], 1.0),
        _offset=_unless([p.scaling.offset for p in placed], 0.0),
        _low=low if bounded else None,
        _high=high if bounded else None,
    )


def _fill(segment: _Segment, gathered: Bytes, value: Float64) -> Index | None:
    """Converts one segment into its slice of `value`; returns the output positions whose code says: not available."""
    raw = gathered[segment.first : segment.last]
    if segment.shift is None or segment.mask is None:
        value[segment.start : segment.stop] = raw.view(segment.dtype)
    else:
        value[segment.start : segment.stop] = (raw.view(segment.unsigned) >> segment.shift) & segment.mask
    if segment.na_at is None:
        return None
    codes = raw.view(segment.unsigned).take(segment.na_at)
    at: Index = segment.na_at[codes == segment.na_code] + segment.start
    return at


def _segments(placed: Sequence[_Placed]) -> list[_Segment]:
    found, first, start = [], 0, 0
    while start < len(placed):
        kind = placed[start].segment
        stop = start
        while stop < len(placed) and placed[stop].segment == kind:
            stop += 1
        width, dtype, unsigned = _SEGMENTS[kind]
        members = placed[start:stop]
        wrap = 1 << 8 * width
        codes = [(i, code % wrap) for i, p in enumerate(members) for code in p.point.not_available]
        field = kind in ("bits", "coil")
        last = first + width * len(members)
        found.append(
            _Segment(
                start,
                stop,
                first,
                last,
                np.dtype(dtype),
                np.dtype(unsigned),
                np.array([p.shift for p in members], np.uint16) if field else None,
                np.array([p.mask for p in members], np.uint16) if field else None,
                np.array([i for i, _ in codes], np.intp) if codes else None,
                np.array([code for _, code in codes], np.uint64) if codes else None,
            )
        )
        first, start = last, stop
    return found


def _place(name: str, point: ModbusPoint, number: int, request: Request, base: int, profile: Profile) -> _Placed:
    offset = point.address - request.address
    if request.table in BIT_TABLES:
        scaling = whole_scaling(point.scale, point.offset, largest=1)
        return _Placed(name, "coil", number, [base + offset // 8], offset % 8, 1, scaling, point)
    order = profile.word_order_of(point)
    # A stands for the most significant byte: where in the wire's order does each, from A on, lie?
    at = [base + offset * 2 + order.index(letter) for letter in sorted(order)]
    if point.bit is not None:
        mask = (1 << point.bits) - 1
        scaling = whole_scaling(point.scale, point.offset, largest=mask)
        return _Placed(name, "bits", number, at, point.bit, mask, scaling, point)
    kind = point.type.value
    width = _SEGMENTS[kind][0]
    if kind in _REAL:
        scaling = real_scaling(point.scale, point.offset)
    else:
        scaling = whole_scaling(point.scale, point.offset, largest=1 << 8 * width)
    return _Placed(name, kind, number, at, 0, 0, scaling, point)


def _text(name: str, point: ModbusPoint, number: int, request: Request, profile: Profile) -> TextPoint:
    first = (point.address - request.address) * 2
    swapped = profile.word_order_of(point) == "BA"
    return TextPoint(name, number, first, first + point.registers * 2, swapped)


def _modbus(profile: Profile, name: str) -> ModbusPoint:
    point = profile.points[name].modbus
    if point is None:
        raise ValueError(f"{name}: expected a Modbus point")
    return point


def _unless(column: Sequence[float], nothing: float) -> Float64 | None:
    """The column, or None where it would change nothing."""
    return None if all(c == nothing for c in column) else np.array(column)
