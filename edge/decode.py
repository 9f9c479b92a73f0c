"""Registers to values, for all points of all devices that are read alike, at once: planned once, then a handful of numpy
calls for whatever devices answered in the last tick.

The payloads of a cycle's answers lie end to end in one row, one row a device. The points lie sorted by type; each type
is one gather of bytes into big-endian order (whatever the word order; a slice where they lie so already), one view, one
conversion and one slice of the output. Cost is a constant of about 20 numpy calls plus a few ns a register; no Python
per point, none per device but joining its bytes.

Invariant: a value is what the device sent, scaled (edge.scaling). What has no value is NaN and bad, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from edge.columns import Columns
from edge.driver import Decoded
from edge.plan import BIT_TABLES, Request
from edge.scaling import Scaling, real_scaling, whole_scaling
from telemetry.messages import Event
from telemetry.name_block import NameBlock
from telemetry.profile import ModbusPoint, Profile, RegisterType
from telemetry.quality import BAD_DEVICE, BAD_SENSOR, GOOD, UNCERTAIN_OUT_OF_RANGE

Float64 = npt.NDArray[np.float64]
UInt64 = npt.NDArray[np.uint64]
UInt8 = npt.NDArray[np.uint8]
Index = npt.NDArray[np.intp]

_NAN: Final = np.float64("nan")
_NIBBLE: Final = np.uint64(15)

# Segments in the order in which they lie in the output: name → (bytes a value, dtype, unsigned dtype).
_SEGMENTS: Final[dict[str, tuple[int, str, str]]] = {
    "u64": (8, ">u8", ">u8"),
    "i64": (8, ">i8", ">u8"),
    "f64": (8, ">f8", ">u8"),
    "bits64": (8, ">u8", ">u8"),
    "bcd64": (8, ">u8", ">u8"),
    "u32": (4, ">u4", ">u4"),
    "i32": (4, ">i4", ">u4"),
    "f32": (4, ">f4", ">u4"),
    "bits32": (4, ">u4", ">u4"),
    "bcd32": (4, ">u4", ">u4"),
    "u16": (2, ">u2", ">u2"),
    "i16": (2, ">i2", ">u2"),
    "bits16": (2, ">u2", ">u2"),
    "bcd16": (2, ">u2", ">u2"),
    "coil": (1, "u1", "u1"),
}
_REAL: Final = frozenset({"f32", "f64"})


@dataclass(slots=True, eq=False)
class Frame:
    """The answers of one cycle of one device, as they came."""

    equipment: str
    block: NameBlock
    """Of the numeric points, in the layout's order."""
    payloads: Sequence[bytes | None]
    """Data of each request's answer; None where there is none."""
    times_us: Sequence[int]
    qualities: Sequence[int] | None = None
    """For each request the quality of its points where its payload is None. None: all were answered."""
    events: tuple[Event, ...] = ()
    state: Mapping[str, str] = field(default_factory=dict)
    """What was learned with this cycle."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """Points start … stop − 1 of the output, all of one type."""

    kind: str
    start: int
    stop: int
    gather: Index | slice
    """Where their bytes lie in a row, most significant first."""
    dtype: np.dtype[np.generic]
    unsigned: np.dtype[np.generic]
    shift: UInt64 | None
    mask: UInt64 | None
    na_at: Index | None
    """Positions within the segment, one for each of their not-available codes."""
    na_code: UInt64 | None


@dataclass(frozen=True, slots=True)
class TextPoint:
    """A string point: its bytes within its request's payload."""

    point: str
    request: int
    first: int
    last: int
    swapped: bool


@dataclass(frozen=True, slots=True, eq=False)
class RegisterLayout:
    """Decodes one poll group of all devices that are read alike. See edge.driver.Source; made by `make_layout`."""

    points: tuple[str, ...]
    """Numeric points, in output order."""
    request_of: Index
    """(n,) which request carries each point."""
    payload_bytes: tuple[int, ...]
    """Of each request."""
    texts: tuple[TextPoint, ...]
    _segments: tuple[_Segment, ...]
    _mul: Float64 | None
    _add: Float64 | None
    _div: Float64 | None
    _offset: Float64 | None
    _low: Float64 | None
    _high: Float64 | None

    @property
    def sender_keeps(self) -> bool:
        """See Source: a device reads on."""
        return False

    def journaled(self, received: Sequence[Frame]) -> None:
        """See Source: nobody waits for it."""

    def kept(self, received: Frame) -> Decoded:
        """See Source: what the cycle taught."""
        return Decoded(events=received.events, state=received.state)

    def decode(self, received: Sequence[Frame]) -> Decoded:
        """See Source."""
        n, texts = len(self.points), self._texts(received) if self.texts else ()
        events = [event for frame in received for event in frame.events]
        state = {key: value for frame in received for key, value in frame.state.items()}
        if not n:
            return Decoded(texts=texts, events=events, state=state)
        value, quality = self.values(self._joined(received))
        self._fail(received, value, quality)
        stamps = np.array([frame.times_us for frame in received], np.int64)
        times = np.repeat(stamps[:, 0], n) if stamps.shape[1] == 1 else stamps.take(self.request_of, axis=1).ravel()
        columns = Columns(
            [frame.equipment for frame in received],
            [frame.block for frame in received],
            np.full(len(received), n, np.int64),
            np.tile(np.arange(n, dtype=np.int32), len(received)),
            times,
            value.ravel(),
            quality.ravel(),
        )
        return Decoded(columns, texts, events, state=state)

    def values(self, rows: UInt8) -> tuple[Float64, UInt8]:
        """(k, n) values and qualities of (k, bytes) payloads, end to end for each device. New arrays."""
        value = np.empty((len(rows), len(self.points)))
        quality = np.full(value.shape, GOOD, np.uint8)
        # A signalling NaN in a float register is no news, nor a number that its scale takes beyond all numbers.
        with np.errstate(invalid="ignore", over="ignore"):
            without = [_fill(segment, rows, value, quality) for segment in self._segments]
            if self._mul is not None:
                value *= self._mul
            if self._add is not None:
                value += self._add
            if self._div is not None:
                value /= self._div
            if self._offset is not None:
                value += self._offset
        if self._low is not None and self._high is not None:
            outside = (value < self._low) | (value > self._high)
            quality[outside & (quality == GOOD)] = UNCERTAIN_OUT_OF_RANGE
        for at in without:
            if at is not None:
                value[at] = _NAN
        finite = np.isfinite(value)
        if not finite.all():
            value[~finite] = _NAN
            quality[~finite & (quality != BAD_DEVICE)] = BAD_SENSOR
        return value, quality

    def _joined(self, received: Sequence[Frame]) -> UInt8:
        """(k, bytes): zeros where there is no payload."""
        parts: list[bytes] = []
        for frame in received:
            if frame.qualities is None:
                parts += frame.payloads  # type: ignore[arg-type]
            else:
                both = zip(frame.payloads, self.payload_bytes, strict=True)
                parts += [payload if payload is not None else bytes(size) for payload, size in both]
        return np.frombuffer(b"".join(parts), np.uint8).reshape(len(received), sum(self.payload_bytes))

    def _fail(self, received: Sequence[Frame], value: Float64, quality: UInt8) -> None:
        """Points of requests without an answer have no value, and the reason for quality."""
        for row, frame in enumerate(received):
            if frame.qualities is not None:
                failed = np.array([payload is None for payload in frame.payloads]).take(self.request_of)
                value[row, failed] = _NAN
                quality[row, failed] = np.array(frame.qualities, np.uint8).take(self.request_of)[failed]

    def _texts(self, received: Sequence[Frame]) -> list[tuple[str, str, str, int]]:
        """String points that were read: Python for each, they are few."""
        found = []
        for frame in received:
            for text in self.texts:
                payload = frame.payloads[text.request]
                if payload is not None:
                    spelled = decode_text(payload[text.first : text.last], swapped=text.swapped)
                    found.append((frame.equipment, text.point, spelled, frame.times_us[text.request]))
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


def make_layout(profile: Profile, points: Mapping[str, ModbusPoint], requests: Sequence[Request]) -> RegisterLayout:
    """The layout of what `requests` read of `points` (their addresses as the requests count them)."""
    placed: list[_Placed] = []
    texts: list[TextPoint] = []
    base = 0
    for number, request in enumerate(requests):
        for name in request.points:
            if points[name].type is RegisterType.STRING:
                texts.append(_text(name, points[name], number, request, profile))
            else:
                placed.append(_place(name, points[name], number, request, base, profile))
        base += request.payload_bytes
    placed.sort(key=lambda p: list(_SEGMENTS).index(p.segment))
    # A counter that wraps is judged once it is a total (edge.counters).
    ranges = [profile.points[p.name].range if p.point.wrap is None else None for p in placed]
    low = np.array([-np.inf if r is None else r.low for r in ranges])
    high = np.array([np.inf if r is None else r.high for r in ranges])
    bounded = bool(np.isfinite(low).any() or np.isfinite(high).any())
    return RegisterLayout(
        points=tuple(p.name for p in placed),
        request_of=np.array([p.request for p in placed], np.intp),
        payload_bytes=tuple(r.payload_bytes for r in requests),
        texts=tuple(texts),
        _segments=tuple(_segments(placed)),
        _mul=_unless([p.scaling.mul for p in placed], 1.0),
        _add=_unless([p.scaling.add for p in placed], 0.0),
        _div=_unless([p.scaling.div for p in placed], 1.0),
        _offset=_unless([p.scaling.offset for p in placed], 0.0),
        _low=low if bounded else None,
        _high=high if bounded else None,
    )


def _fill(segment: _Segment, rows: UInt8, value: Float64, quality: UInt8) -> tuple[slice | Index, Index] | None:
    """Converts one segment into its columns of `value`. Returns where in `value` the code says: not available."""
    columns = slice(segment.start, segment.stop)
    gather = segment.gather
    raw = rows[:, gather] if isinstance(gather, slice) else rows.take(gather, axis=1)
    bits = raw.view(segment.unsigned)
    if segment.shift is not None and segment.mask is not None:
        value[:, columns] = (bits.astype(np.uint64) >> segment.shift) & segment.mask
    elif segment.kind.startswith("bcd"):
        digits, sound = _decimal(bits.astype(np.uint64), segment.unsigned.itemsize * 2)
        value[:, columns] = np.where(sound, digits, _NAN)
        quality[:, columns][~sound] = BAD_DEVICE
    else:
        value[:, columns] = raw.view(segment.dtype)
    if segment.na_at is None:
        return None
    at = np.nonzero(bits.take(segment.na_at, axis=1) == segment.na_code)
    where = segment.na_at[at[1]] + segment.start
    quality[at[0], where] = BAD_SENSOR
    return at[0], where


def _decimal(bits: UInt64, digits: int) -> tuple[UInt64, npt.NDArray[np.bool_]]:
    """(number, whether each four bits are a decimal digit) of binary coded decimals, the first digit the highest."""
    number, sound = np.zeros_like(bits), np.ones(bits.shape, bool)
    for place in range(digits):
        digit = (bits >> np.uint64(4 * place)) & _NIBBLE
        sound &= digit < 10
        number += digit * np.uint64(10**place)
    return number, sound


def _segments(placed: Sequence[_Placed]) -> list[_Segment]:
    found, start = [], 0
    while start < len(placed):
        kind = placed[start].segment
        stop = start
        while stop < len(placed) and placed[stop].segment == kind:
            stop += 1
        width, dtype, unsigned = _SEGMENTS[kind]
        members = placed[start:stop]
        codes = [(i, code % (1 << 8 * width)) for i, p in enumerate(members) for code in p.point.not_available]
        is_field = kind.startswith("bits") or kind == "coil"
        found.append(
            _Segment(
                kind,
                start,
                stop,
                _gather([byte for p in members for byte in p.at]),
                np.dtype(dtype),
                np.dtype(unsigned),
                np.array([p.shift for p in members], np.uint64) if is_field else None,
                np.array([p.mask for p in members], np.uint64) if is_field else None,
                np.array([i for i, _ in codes], np.intp) if codes else None,
                np.array([code for _, code in codes], np.uint64) if codes else None,
            )
        )
        start = stop
    return found


def _gather(at: Sequence[int]) -> Index | slice:
    """A slice where the bytes lie in a row already."""
    if list(at) == list(range(at[0], at[0] + len(at))):
        return slice(at[0], at[0] + len(at))
    return np.array(at, np.intp)


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
        # edge.counters scales the total of a counter that wraps, here as below.
        scaling = Scaling() if point.wrap is not None else whole_scaling(point.scale, point.offset, largest=mask)
        return _Placed(name, f"bits{8 * len(order)}", number, at, point.bit, mask, scaling, point)
    kind = point.type.value
    width = _SEGMENTS[kind][0]
    if point.wrap is not None:
        scaling = Scaling()
    elif kind in _REAL:
        scaling = real_scaling(point.scale, point.offset)
    else:
        scaling = whole_scaling(point.scale, point.offset, largest=1 << 8 * width)
    return _Placed(name, kind, number, at, 0, 0, scaling, point)


def _text(name: str, point: ModbusPoint, number: int, request: Request, profile: Profile) -> TextPoint:
    first = (point.address - request.address) * 2
    swapped = profile.word_order_of(point) == "BA"
    return TextPoint(name, number, first, first + point.registers * 2, swapped)


def _unless(column: Sequence[float], nothing: float) -> Float64 | None:
    """The column, or None where it would change nothing."""
    return None if all(c == nothing for c in column) else np.array(column)
