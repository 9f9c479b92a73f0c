"""Registers decoded per second and core, from responses' bytes to values with quality.

Beside Vigil's decoder, in the same run on the same bytes: a naive loop over `struct`, and pymodbus' own
`convert_from_registers`. Each does the same work: word order, scale, not-available codes, range, for every point.

    python -m benchmarks.decode [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from pymodbus.client.mixin import ModbusClientMixin

from edge.columns import Columns
from edge.decode import Frame, make_layout
from edge.plan import Limits, plan
from telemetry.name_block import name_block
from telemetry.names import signal_name, split_signal
from telemetry.profile import ModbusPoint, Profile
from telemetry.quality import BAD_SENSOR, GOOD, UNCERTAIN_OUT_OF_RANGE

SECONDS: Final = 1.5
TOGETHER: Final = 100
"""Devices of a tick: 1,000 that are polled each second in ten slots."""
TEXT: Final = {"zh": "点", "en": "point"}
NOW_US: Final = 1_795_000_000_000_000
KINDS: Final = {"u16": "H", "i16": "h", "u32": "I", "f32": "f"}
PYMODBUS: Final = {
    "u16": ModbusClientMixin.DATATYPE.UINT16,
    "i16": ModbusClientMixin.DATATYPE.INT16,
    "u32": ModbusClientMixin.DATATYPE.UINT32,
    "f32": ModbusClientMixin.DATATYPE.FLOAT32,
}

Decode = Callable[[bytes], Any]
Layout = list[tuple[str, ModbusPoint, float, float]]


def make_profile(registers: int, mixed: bool) -> Profile:
    """`registers` registers in a row: all u16, or u16, i16, u32 and f32 (CDAB) in turn."""
    points: dict[str, Any] = {}
    address = 0
    while address < registers:
        kind = ("u16", "i16", "u32", "f32")[len(points) % 4] if mixed else "u16"
        width = 2 if kind in ("u32", "f32") else 1
        if address + width > registers:
            kind, width = "u16", 1
        points[f"p{len(points)}"] = {
            "name": TEXT,
            "modbus": {"address": address, "type": kind, "scale": 0.1, "not_available": [0x8FFF]},
            "range": {"low": -1e6, "high": 1e6},
        }
        address += width
    base = {"profile": "bench", "version": 1, "class": "boiler", "class_name": TEXT, "name": TEXT}
    return Profile.model_validate({**base, "modbus": {"word_order": "CDAB"}, "points": points})


def layout_of(profile: Profile) -> Layout:
    """(type, point, low, high) of each point."""
    return [
        (p.modbus.type.value, p.modbus, p.range.low, p.range.high)
        for p in profile.points.values()
        if p.modbus is not None
    ]


def vigil(profile: Profile, devices: int = 1) -> Decode:
    """The edge's decoder, up to finished columns, of so many devices that answer in one tick."""
    points = {n: p.modbus for n, p in profile.points.items() if p.modbus is not None}
    layout = make_layout(profile, points, plan(points, Limits()))
    blocks = [name_block([signal_name(f"bench-{n}", point) for point in layout.points]) for n in range(devices)]

    def decode(payload: bytes) -> Columns:
        return layout.decode(
            [Frame(f"bench-{n}", block, [payload], [NOW_US]) for n, block in enumerate(blocks)]
        ).columns

    return decode


def naive(layout: Layout) -> Decode:
    """A loop over struct."""

    def decode(payload: bytes) -> list[tuple[float, int]]:
        found = []
        for kind, point, low, high in layout:
            code = KINDS[kind]
            came = payload[point.address * 2 : point.address * 2 + struct.calcsize(code)]
            if len(came) == 4:
                came = came[2:] + came[:2]
            found.append(judge(struct.unpack(">" + code, came)[0], point, low, high))
        return found

    return decode


def pymodbus(layout: Layout) -> Decode:
    """pymodbus: a list of registers, then convert_from_registers for each point."""

    def decode(payload: bytes) -> list[tuple[float, int]]:
        words = [struct.unpack(">H", payload[i : i + 2])[0] for i in range(0, len(payload), 2)]  # As its response does.
        found = []
        for kind, point, low, high in layout:
            part = words[point.address : point.address + point.registers]
            raw = ModbusClientMixin.convert_from_registers(part, PYMODBUS[kind], word_order="little")
            found.append(judge(raw, point, low, high))
        return found

    return decode


def judge(raw: Any, point: ModbusPoint, low: float, high: float) -> tuple[float, int]:
    """Scale, not-available code and range of one point."""
    if raw in point.not_available:
        return math.nan, BAD_SENSOR
    value = float(raw) / 10
    if not math.isfinite(value):
        return math.nan, BAD_SENSOR
    return value, GOOD if low <= value <= high else UNCERTAIN_OUT_OF_RANGE


def rate(decode: Decode, payload: bytes, devices: int = 1) -> float:
    """Registers per CPU second."""
    registers, done = len(payload) // 2 * devices, 0
    began = time.process_time()
    while time.process_time() - began < SECONDS:
        for _ in range(20):
            decode(payload)
        done += 20
    return done * registers / (time.process_time() - began)


def measure() -> dict[str, Any]:
    """All cases, with what they were measured on."""
    cases = {}
    for name, registers, mixed in (
        ("100 × u16", 100, False),
        ("100 registers, four types", 100, True),
        ("12 × u16", 12, False),
    ):
        profile = make_profile(registers, mixed)
        payload = np.random.default_rng(1).integers(0, 2000, registers).astype(">u2").tobytes()
        layout = layout_of(profile)
        agree(profile, payload)
        rates = {
            "vigil, 100 devices at once": rate(vigil(profile, TOGETHER), payload, TOGETHER),
            "vigil": rate(vigil(profile), payload),
            "struct loop": rate(naive(layout), payload),
            "pymodbus": rate(pymodbus(layout), payload),
        }
        cases[name] = {key: round(value) for key, value in rates.items()}
    return {
        "unit": "registers per CPU second",
        "machine": f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}",
        "cases": cases,
    }


def agree(profile: Profile, payload: bytes) -> None:
    """The three say the same of the same bytes."""
    columns = vigil(profile)(payload)
    names = columns.blocks[0].names
    got = {split_signal(names[place])[1]: float(v) for place, v in zip(columns.place, columns.value, strict=True)}
    expected = dict(zip(profile.points, (value for value, _ in naive(layout_of(profile))(payload)), strict=True))
    other = dict(zip(profile.points, (value for value, _ in pymodbus(layout_of(profile))(payload)), strict=True))
    assert repr(sorted(got.items())) == repr(sorted(expected.items())) == repr(sorted(other.items()))


def main() -> None:
    """Prints the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="for machines, on stdout")
    arguments = parser.parse_args()
    found = measure()
    if arguments.json:
        json.dump(found, sys.stdout, ensure_ascii=False)
        print()
        return
    print(f"{found['unit']}, {found['machine']}")
    for name, rates in found["cases"].items():
        print(f"  {name:28}" + "".join(f"{key} {value:>12,}   " for key, value in rates.items()))


if __name__ == "__main__":
    main()
