"""Who stands in the plant, and what each device says. Pure.

A device numbers its answers: `number` counts them, every other point is a function of number, point and device. So each
read of the table can be traced to the one answer that it came from, and a row that is missing, made up, or there twice
is found without asking any part of the line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

WORDS: Final = 100
"""Registers of a device: the number's two, and one for each other point."""
POINTS: Final = WORDS - 1
POLL_S: Final = 0.5
TIMEOUT_S: Final = 0.8

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Place:
    """One device."""

    index: int
    """Over all edges; its values depend on it."""
    edge: int
    host: str

    @property
    def name(self) -> str:
        """The equipment's id."""
        return f"unit-{self.index}"


@dataclass(frozen=True, slots=True)
class Fleet:
    """So many edges with so many devices each. Every device has a loopback address of its own, and all one port."""

    edges: int
    units: int

    @property
    def samples_per_s(self) -> float:
        """What is offered."""
        return self.edges * self.units * POINTS / POLL_S

    @property
    def places(self) -> list[Place]:
        """All devices."""
        return [
            Place(edge * self.units + unit, edge, f"127.8.{edge + 1}.{unit + 1}")
            for edge in range(self.edges)
            for unit in range(self.units)
        ]


def edge_name(edge: int) -> str:
    """Names that Kafka's partitioner sends to different ones of six partitions: 3, 1, 5."""
    return f"hall-{edge + 1}"


def words(number: int, index: int) -> npt.NDArray[np.uint16]:
    """The WORDS registers of one answer."""
    found = ((number * _FACTORS + index * 257 + _OFFSETS) & 0xFFFF).astype(np.uint16)
    found[0], found[1] = number >> 16 & 0xFFFF, number & 0xFFFF
    return found


def sums(answers: int, index: int) -> Ints:
    """Of answers 1 … `answers` the sum of all points but the number: int64 (answers,)."""
    numbers = np.arange(1, answers + 1, dtype=np.int64)
    total = np.zeros(answers, np.int64)
    for factor, offset in zip(_FACTORS[2:].tolist(), _OFFSETS[2:].tolist(), strict=True):
        total += (numbers * factor + index * 257 + offset) & 0xFFFF
    return total


_ADDRESSES: Final = np.arange(WORDS, dtype=np.int64)
_FACTORS: Final = 2 * _ADDRESSES + 40_503
_OFFSETS: Final = _ADDRESSES * 101


def write_profile(folder: Path) -> None:
    """The devices' profile."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "name: {zh: 点, en: point}"
    points = [f"  number: {{{name}, modbus: {{address: 0, type: u32}}}}"]
    points += [f"  p{address:02}: {{{name}, modbus: {{address: {address}}}}}" for address in range(2, WORDS)]
    head = "profile: chaos\nversion: 1\nclass: chaos\nclass_name: {zh: 测试, en: Chaos}\nname: {zh: 测试, en: Chaos}\n"
    text = f"{head}poll_s: {POLL_S}\ntimeout_s: {TIMEOUT_S}\npoints:\n" + "\n".join(points) + "\n"
    (folder / "chaos.yaml").write_text(text, encoding="utf-8")


def plant_text(fleet: Fleet, edge: int, port: int) -> str:
    """The plant file of one edge."""
    lines = ["site: {id: chaos, name: {zh: 测试, en: Chaos}}", "equipment:"]
    lines += [
        f'  - {{id: {place.name}, profile: chaos, address: "modbus+tcp://{place.host}:{port}/1"}}'
        for place in fleet.places
        if place.edge == edge
    ]
    return "\n".join(lines) + "\n"
