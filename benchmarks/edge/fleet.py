"""The devices, as the simulated server has them and as both agents are told: one list of endpoints and units for all.

Each device has POINTS contiguous unsigned 16-bit registers, read once a second; nothing is scaled.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Final

from benchmarks.edge.process import Program
from benchmarks.modbus_server import loopback
from edge.schedule import GRID_S, LONE_GRID_S, phase_of, slots_for

INTERVAL_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """So many devices of so many points."""

    devices: int
    points: int
    units_per_endpoint: int = 1
    together: bool = False
    """Whether the edge reads all of them at once. It has no setting for it: their names are such as have one turn."""

    def names(self) -> list[str]:
        """The equipments' ids."""
        slots = slots_for(self.devices, INTERVAL_S, grid_s=LONE_GRID_S if self.units_per_endpoint == 1 else GRID_S)
        named = (f"unit-{n}" for n in count())
        fit = (name for name in named if not self.together or not phase_of(name, INTERVAL_S, slots))
        return list(islice(fit, self.devices))

    @property
    def endpoints(self) -> int:
        """Addresses to listen on."""
        return -(-self.devices // self.units_per_endpoint)

    @property
    def tags_per_s(self) -> int:
        """What is offered."""
        return self.devices * self.points

    def place(self, device: int) -> tuple[str, int]:
        """(host, unit id) of a device."""
        return loopback(device // self.units_per_endpoint), device % self.units_per_endpoint + 1


def point_name(point: int) -> str:
    """Of a register."""
    return f"p{point:03}"


def write_plant(fleet: Fleet, port: int, folder: Path) -> Path:
    """The plant file of the fleet, with its profile in `folder/profiles`."""
    points = "".join(
        f"  {point_name(i)}: {{name: {{zh: 点{i}, en: Point {i}}}, modbus: {{address: {i}}}}}\n"
        for i in range(fleet.points)
    )
    (folder / "profiles").mkdir(parents=True, exist_ok=True)
    (folder / "profiles" / "bench.yaml").write_text(
        "profile: bench\nversion: 1\nclass: bench\nclass_name: {zh: 测试, en: Bench}\nname: {zh: 测试, en: Bench}\n"
        f"poll_s: 1\npoints:\n{points}",
        encoding="utf-8",
    )
    lines = []
    for device, name in enumerate(fleet.names()):
        host, unit = fleet.place(device)
        lines.append(f'  - {{id: {name}, profile: bench, address: "modbus+tcp://{host}:{port}/{unit}"}}\n')
    plant = folder / "plant.yaml"
    plant.write_text("site: {id: bench, name: {zh: 测试, en: Bench}}\nequipment:\n" + "".join(lines), encoding="utf-8")
    return plant


class Devices:
    """The fleet's Modbus server in its own process."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        command = [sys.executable, "-m", "benchmarks.modbus_server", "--endpoints", str(fleet.endpoints)]
        self.program = Program(command, folder / "devices.log", piped=True)
        self.port = int(self.program.line())

    def requests(self) -> int:
        """Answered so far."""
        return int(json.loads(self.program.ask())["requests"])
