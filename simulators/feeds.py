"""Feeds: recorded readings of one device as CSV (docs/simulators.md, Replay).

First column `time` (ISO 8601 with offset, or epoch in s, ms or µs), each further column a point of the profile, by its
name or one of its `columns`. An empty cell is no reading. The delimiter is `,`, `;` or a tab, whichever the header has.

Invariants: values are the float64 nearest to what the file says; rows keep their order; times never go back. What is
wrong with a file is told all at once, each with its line, before anything is played.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from simulators.recorded import LABEL_COLUMNS, Layout, layout_of
from telemetry.clock import US_PER_S, time_us
from telemetry.errors import ConfigError, Fault
from telemetry.profile import PointKind, Profile

MAX_FAULTS: Final = 200
"""More faults than this of one file are not collected: it is not a feed."""
EPOCH_MS_FROM, EPOCH_US_FROM = 1e11, 1e14
"""Epoch numbers from here on are milliseconds, microseconds; below, seconds."""


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """A recorded feed.

    points   columns of `values`
    time_us  (n,) int64, µs since 1970-01-01 UTC, never falling
    values   (n, points) float64; NaN is no reading
    texts    point of kind text → (n,) str; "" is no reading
    """

    points: tuple[str, ...]
    time_us: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unreadable: int = 0
    """Cells of a recorded set that are no numbers, taken as no reading."""

    def __len__(self) -> int:
        return len(self.time_us)

    @property
    def empty(self) -> int:
        """Rows without any reading."""
        nothing = np.isnan(self.values).all(axis=1)
        for words in self.texts.values():
            nothing &= np.array([word == "" for word in words], bool)
        return int(nothing.sum())

    def row(self, index: int) -> dict[str, float | str]:
        """The readings of one row, without the empty cells."""
        values = self.values[index]
        found: dict[str, float | str] = {
            point: float(value) for point, value in zip(self.points, values, strict=True) if value == value
        }
        found.update((point, words[index]) for point, words in self.texts.items() if words[index])
        return found


def read_feed(path: Path, profile: Profile) -> Feed:
    """The feed of a file. Raises ConfigError with every fault."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            delimiter = max(",;\t", key=header.count)
            columns = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
            return _Reader(str(path), columns, profile).read(csv.reader(file, delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError([Fault(str(path), 1, "(file)", "a CSV file that can be read", str(error))]) from error


def write_feed(path: Path, points: Sequence[str], rows: Iterable[tuple[int, Sequence[float | str]]]) -> int:
    """Writes a feed: rows of (µs, one value per point); NaN becomes an empty cell. Returns the number of rows."""
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("time", *points))
        for at_us, values in rows:
            writer.writerow((iso_us(at_us), *("" if value != value else value for value in values)))
            count += 1
    return count


class _Reader:
    """Reads one file, collecting what is wrong with it."""

    def __init__(self, file: str, columns: Sequence[str], profile: Profile) -> None:
        self._file = file
        self._profile = profile
        self._layout: Layout = layout_of(columns)
        self._columns = columns
        self._faults: list[Fault] = []
        self._unreadable = 0
        self._points: list[str | None] = [self._point(index, name) for index, name in enumerate(columns)]

    def read(self, rows: Iterable[list[str]]) -> Feed:
        if self._layout.time_column is not None and self._columns[:1] != [self._layout.time_column]:
            raise ConfigError(self._faults or [self._not_a_feed()])
        times: list[int] = []
        values: list[list[float]] = []
        texts: list[list[str]] = []
        numeric = [i for i, point in enumerate(self._points) if point is not None and not self._is_text(point)]
        wordy = [i for i, point in enumerate(self._points) if point is not None and self._is_text(point)]
        for line, row in enumerate(rows, 2):
            if len(self._faults) >= MAX_FAULTS:
                break
            if not row:
                continue
            if len(row) != len(self._columns):
                self._fault(line, "(row)", f"{len(self._columns)} cells", f"{len(row)}")
                continue
            at_us = self._time(line, row, len(times))
            if at_us is None:
                continue
            if times and at_us < times[-1]:
                self._fault(line, "time", "a time not before that of the row above", row[0])
                continue
            times.append(at_us)
            values.append([self._number(line, i, row[i]) for i in numeric])
            texts.append([row[i] for i in wordy])
        if not times and not self._faults:
            self._fault(1, "(file)", "at least one row of readings", "none")
        if self._faults:
            raise ConfigError(self._faults)
        return Feed(
            tuple(str(self._points[i]) for i in numeric),
            np.array(times, np.int64),
            np.array(values, np.float64).reshape(len(times), len(numeric)),
            {str(self._points[i]): tuple(words[n] for words in texts) for n, i in enumerate(wordy)},
            self._unreadable,
        )

    def _not_a_feed(self) -> Fault:
        return Fault(self._file, 1, "(file)", "a header that begins with time", "nothing")

    def _is_text(self, point: str) -> bool:
        return self._profile.points[point].kind is PointKind.TEXT

    def _point(self, index: int, name: str) -> str | None:
        timed = self._layout.time_column is not None
        if timed and index == 0:
            if name != self._layout.time_column:
                self._fault(1, name or "(column 1)", "time as the first column", repr(name))
            return None
        if name in LABEL_COLUMNS:
            return None
        point = self._profile.point_of_column(name)
        if point is None:
            self._fault(1, name or f"(column {index + 1})", f"a point of profile {self._profile.profile}", repr(name))
        return point

    def _time(self, line: int, row: Sequence[str], index: int) -> int | None:
        if self._layout.time_column is None:
            return self._layout.start_us + round(index * US_PER_S / self._layout.rate_hz)
        text = row[0].strip()
        try:
            return parse_time(text, assume_utc=self._layout.assume_utc)
        except ValueError:
            self._fault(line, "time", "ISO 8601 with an offset, or epoch s, ms or µs", repr(text))
            return None

    def _number(self, line: int, index: int, text: str) -> float:
        if not text or text.isspace():
            return np.nan
        try:
            number = float(text)
        except ValueError:
            number = np.inf
        if np.isfinite(number):
            return number
        if self._layout.tolerant:
            self._unreadable += 1
        else:
            self._fault(line, self._columns[index], "a number, or nothing", repr(text))
        return np.nan

    def _fault(self, line: int, key: str, expected: str, found: str) -> None:
        self._faults.append(Fault(self._file, line, key, expected, found))


def parse_time(text: str, *, assume_utc: bool = False) -> int:
    """µs since 1970 of ISO 8601 with an offset, or of an epoch number in s, ms or µs. Raises ValueError."""
    try:
        number = float(text)
    except ValueError:
        return time_us(f"{text}+00:00" if assume_utc and text[-6:-5] not in ("+", "-") and text[-1:] != "Z" else text)
    if not 0 <= number < 1e17:
        raise ValueError(f"expected an epoch in s, ms or µs, found {text!r}")
    if number >= EPOCH_US_FROM:
        return int(text) if text.isdecimal() else round(number)
    return round(number * (1_000 if number >= EPOCH_MS_FROM else US_PER_S))


def iso_us(time_us: int) -> str:
    """ISO 8601 in UTC, to the microsecond: what a feed says is what is sent."""
    seconds, micros = divmod(time_us, US_PER_S)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06d}Z"
