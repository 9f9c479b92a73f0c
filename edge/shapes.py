"""Many ordinary messages of one shape at once: the fast way through a topic of points, with the results of the exact one.

A message is ordinary when it is JSON in which every field of its topic is there, each plain one a number, each mapped
one a value of its map, with a device time that is believed or none. `Shape.take` says of each message whether it is;
one that is not is read by edge.payload, alone. What is taken is scaled and judged for all messages in one go.

Invariant: rows of a message come in the order of its topic's fields; numbers are scaled with the same operations, in
the same order, as edge.payload.number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge.device_time import AHEAD_US, EARLIEST_US
from edge.payload import LARGEST, TEXT_LENGTH, WHOLE, Field, PointTopic, StateTopic
from edge.scaling import Scaling
from telemetry.quality import BAD_SENSOR, UNCERTAIN_OUT_OF_RANGE

Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]
Get = Callable[[Any], tuple[Any, ...]]
NUMBERS: Final = frozenset({int, float})
STRANGE: Final = (KeyError, TypeError, IndexError, ValueError, AttributeError, UnicodeEncodeError)
"""What taking the fields out of a message that is not ordinary raises."""


@dataclass(frozen=True, slots=True)
class Factors:
    """(fields,) of each column: value = (raw · mul + add) / div + offset."""

    mul: Float64
    add: Float64
    div: Float64
    offset: Float64

    def apply(self, raw: Float64) -> Float64:
        """(n, fields) raw values, scaled."""
        scaled: Float64 = (raw * self.mul + self.add) / self.div + self.offset
        return scaled


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """How messages of some topics are taken apart; one for all topics whose fields lie and scale alike."""

    time_key: str
    to_us: Callable[[Any], int | None]
    receipt: bool
    plain: tuple[tuple[tuple[str | int, ...], Get], ...]
    """(path of the object, values of the fields in it)"""
    mapped: tuple[tuple[tuple[str | int, ...], Get], ...]
    tables: tuple[Mapping[tuple[type, Any], float], ...]
    texts: tuple[tuple[tuple[str | int, ...], Get], ...]
    text_points: tuple[str, ...]
    places: npt.NDArray[np.int32]
    """(fields,) index into the equipment's names."""
    order: npt.NDArray[np.intp] | None
    """(fields,) which cell is each field's; None where they lie in the order of the fields."""
    whole: Factors
    real: Factors
    alike: bool
    """Whole numbers need no factors of their own."""
    scaled: bool
    low: Float64
    high: Float64

    def values(self, content: Any) -> tuple[Any, ...]:
        """The cells of an ordinary message: plain ones as they are (see `odd`), maps looked up. Raises STRANGE."""
        cells = _take(content, self.plain)
        if self.mapped:
            found = _take(content, self.mapped)
            cells += tuple([table[cell.__class__, cell] for table, cell in zip(self.tables, found, strict=True)])
        return cells

    def said(self, content: Any) -> tuple[str, ...]:
        """The texts of an ordinary message. Raises STRANGE."""
        texts = _take(content, self.texts)
        for text in texts:
            if text.__class__ is not str or len(text) > TEXT_LENGTH or "\0" in text:
                raise ValueError("not an ordinary text")
            text.encode()
        return texts

    def time(self, content: Any, received_us: int) -> int | None:
        """What the device's clock showed, believed unless `receipt`; None where there is no time. Raises STRANGE."""
        found = content.get(self.time_key)
        if found is None:
            return None
        time_us = self.to_us(found)
        if time_us is not None and time_us >= EARLIEST_US and (self.receipt or time_us <= received_us + AHEAD_US):
            return time_us
        if self.receipt:
            return None
        raise ValueError("not an ordinary time")


@dataclass(slots=True)
class Ordinary:
    """The ordinary messages of one shape, in the order received."""

    shape: Shape
    index: list[int] = field(default_factory=list)
    """Which message of all each is."""
    cells: list[tuple[Any, ...]] = field(default_factory=list)
    time_us: list[int] = field(default_factory=list)
    good: list[int] = field(default_factory=list)
    """Quality of what is good otherwise."""

    def add(self, index: int, cells: tuple[Any, ...], time_us: int, good: int) -> None:
        """The next message."""
        self.index.append(index)
        self.cells.append(cells)
        self.time_us.append(time_us)
        self.good.append(good)

    def judge(self) -> tuple[Float64, UInt8]:
        """(messages · fields,) values and qualities. Cost is per value some 10 ns, beside making the array."""
        shape = self.shape
        fields = len(shape.places)
        raw = np.fromiter(chain.from_iterable(self.cells), np.float64, len(self.cells) * fields)
        raw = raw.reshape(-1, fields)
        if shape.order is not None:
            raw = raw[:, shape.order]
        with np.errstate(all="ignore"):
            value = raw
            if shape.scaled:
                value = shape.real.apply(raw)
                if not shape.alike:
                    whole = (np.abs(raw) <= WHOLE) & (np.rint(raw) == raw)
                    value = np.where(whole, shape.whole.apply(raw), value)
            good = np.array(self.good, np.uint8)[:, None]
            inside = (value >= shape.low) & (value <= shape.high)
            quality = np.where(inside, good, np.uint8(UNCERTAIN_OUT_OF_RANGE))
            wrong = ~(np.abs(raw) <= LARGEST) | ~np.isfinite(value)
        if wrong.any():
            value, quality = np.where(wrong, np.nan, value), np.where(wrong, np.uint8(BAD_SENSOR), quality)
        return value.ravel(), quality.ravel()


def make_shape(topic: PointTopic) -> Shape | None:
    """The shape of a topic's messages, or None where every message is read the exact way (lists, a nested time)."""
    numbers = [f for f in topic.fields if f.place >= 0]
    if not isinstance(topic, StateTopic) or len(topic.times.path) != 1 or not numbers:
        return None
    if any(not f.path for f in topic.fields):
        return None
    laid = sorted(numbers, key=lambda f: (f.map is not None, f.path[:-1]))
    mapped = [f for f in laid if f.map is not None]
    texts = [f for f in topic.fields if f.place < 0]
    whole = [f.whole if f.map is None else Scaling() for f in numbers]
    real = [f.real if f.map is None else Scaling() for f in numbers]
    return Shape(
        topic.times.path[0],
        topic.times.reader.to_us,
        topic.times.receipt,
        _gets(laid[: len(laid) - len(mapped)]),
        _gets(mapped),
        tuple(_table(f.map or {}) for f in mapped),
        _gets(texts),
        tuple(f.point for f in texts),
        np.array([f.place for f in numbers], np.int32),
        None if laid == numbers else np.array([laid.index(f) for f in numbers]),
        _factors(whole),
        _factors(real),
        whole == real,
        any(scaling != Scaling() for scaling in (*whole, *real)),
        np.array([f.low for f in numbers]),
        np.array([f.high for f in numbers]),
    )


def shape_key(topic: PointTopic) -> object:
    """Equal for topics that can have one shape."""
    spelled = [(f, tuple(sorted(f.map.items())) if f.map is not None else None) for f in topic.fields]
    fields = tuple((f.point, f.place, f.path, table, f.whole, f.real, f.low, f.high) for f, table in spelled)
    return type(topic), topic.times, fields


def _take(content: Any, groups: tuple[tuple[tuple[str | int, ...], Get], ...]) -> tuple[Any, ...]:
    taken: tuple[Any, ...] = ()
    for path, get in groups:
        holder = content
        for key in path:
            holder = holder[key]
        if holder.__class__ is str:
            raise TypeError("a text has positions, and no fields")
        taken += get(holder)
    return taken


def _gets(fields: Sequence[Field]) -> tuple[tuple[tuple[str | int, ...], Get], ...]:
    groups: list[tuple[tuple[str, ...], list[str]]] = []
    for wanted in fields:
        *above, key = wanted.path
        if not groups or groups[-1][0] != tuple(above):
            groups.append((tuple(above), []))
        groups[-1][1].append(key)
    return tuple((tuple(_step(key) for key in above), _getter([_step(key) for key in keys])) for above, keys in groups)


def _step(key: str) -> str | int:
    """A key of an object, or a position in a list. A message in which a number is the key of an object is not ordinary."""
    return int(key) if key.isdecimal() else key


def _getter(keys: Sequence[str | int]) -> Get:
    if len(keys) > 1:
        return itemgetter(*keys)
    [only] = keys
    return lambda holder: (holder[only],)


def _table(words: Mapping[str, float]) -> dict[tuple[type, Any], float]:
    """The values of a map, by what JSON makes of their spelling."""
    table: dict[tuple[type, Any], float] = {(str, word): value for word, value in words.items()}
    for word, truth in (("true", True), ("false", False)):
        if word in words:
            table[bool, truth] = words[word]
    for word, value in words.items():
        if len(word) < 16 and word.removeprefix("-").isdecimal() and word == str(int(word)):
            table[int, int(word)] = table[float, float(word)] = value
    return table


def _factors(scalings: Sequence[Scaling]) -> Factors:
    columns = zip(*((s.mul, s.add, s.div, s.offset) for s in scalings), strict=True)
    return Factors(*(np.array(column) for column in columns))
