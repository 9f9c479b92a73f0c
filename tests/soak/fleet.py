"""The fleet as a process of its own, told by lines of JSON on its standard input; each is answered by one.

    python -m tests.soak.fleet FOLDER MODBUS_PORT MQTT_PORT SEED

`{"do": "fault", "name": …, "kind": …}` (kind null: over) · `down`/`up` of a device's endpoint · `publish`: the
MQTT devices begin · `burst` · `count` · `report`: writes what each device gave, with which status, to FOLDER/given.npz.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.soak.devices import Unit
from tests.soak.layout import SILENT_UNITS, SLOW_S, SLOW_UNITS, Place, places
from tests.soak.publishers import Publisher
from tests.soak.servers import Endpoint, Line


@dataclass(frozen=True, slots=True)
class Fleet:
    """All devices, by name, and what each Modbus device is reached through."""

    units: Mapping[str, Unit]
    reached: Mapping[str, Endpoint | Line]
    publishers: Mapping[str, Publisher]
    publishing: list[asyncio.Task[None]] = field(default_factory=list)

    async def told(self, command: Mapping[str, Any]) -> Any:
        """Does what a line says; the answer to it."""
        name = command.get("name", "")
        match command["do"]:
            case "fault":
                one = self.units.get(name) or self.publishers[name]
                one.fault = command["kind"]
            case "down":
                await self.reached[name].down()
                for unit in self.reached[name].units.values():
                    unit.reboot()
            case "up":
                await self.reached[name].up()
            case "publish":
                self.publishing.extend(asyncio.create_task(one.run()) for one in self.publishers.values())
            case "burst":
                for publisher in self.publishers.values():
                    publisher.burst += command["messages"]
            case "count":
                endpoints = [e for e in set(self.reached.values()) if isinstance(e, Endpoint)]
                return {
                    "answered": sum(unit.answered for unit in self.units.values()),
                    "bursting": sum(publisher.burst > 0 for publisher in self.publishers.values()),
                    "connections": sum(endpoint.connections for endpoint in endpoints),
                    "accepted": sum(endpoint.accepted for endpoint in endpoints),
                }
            case "report":
                self.report(Path(command["file"]))
            case _:
                raise ValueError(f"unknown command {command}")
        return True

    def report(self, file: Path) -> None:
        """Arrays NAME/BLOCK/at_s, …/status and …/again, where number n is at place n − 1."""
        arrays = {}
        blocks = [(name, "a", one.a) for name, one in (self.units | self.publishers).items()]  # type: ignore[operator]
        blocks += [(name, "b", unit.b) for name, unit in self.units.items()]
        for name, block, kept in blocks:
            arrays[f"{name}/{block}/at_s"] = np.frombuffer(kept.at_s, dtype=np.float64)
            arrays[f"{name}/{block}/status"] = np.frombuffer(bytes(kept.status), dtype=np.uint8)
            arrays[f"{name}/{block}/again"] = np.frombuffer(bytes(kept.again), dtype=np.bool_)
        np.savez(file, **arrays)  # type: ignore[arg-type, unused-ignore]


def make_fleet(found: list[Place], link: Path, modbus_port: int, mqtt_port: int, seed: int) -> Fleet:
    """All devices, not started."""
    units = {place.name: _unit(place) for place in found if place.kind != "mqtt"}
    by_host: dict[str, dict[int, Unit]] = {}
    for unit in units.values():
        by_host.setdefault(unit.place.host, {})[unit.place.unit] = unit
    made: dict[str, Endpoint | Line] = {}
    for number, (host, mine) in enumerate(by_host.items()):
        drawn = random.Random(seed * 1000 + number)
        kind = next(iter(mine.values())).place.kind
        if kind == "serial":
            made[host] = Line(link, mine, drawn)
        else:
            made[host] = Endpoint(host, modbus_port, mine, drawn, line=kind == "rtu-tcp")
    reached = {name: made[unit.place.host] for name, unit in units.items()}
    publishers = {
        place.name: Publisher(place, mqtt_port, random.Random(seed * 7919 + place.index))
        for place in found
        if place.kind == "mqtt"
    }
    return Fleet(units, reached, publishers)


def _unit(place: Place) -> Unit:
    mute = place.kind == "gateway" and place.unit in SILENT_UNITS
    slow = place.kind == "gateway" and place.unit in SLOW_UNITS
    return Unit(place, mute=mute, delay_s=SLOW_S if slow else 0.002 if place.kind == "gateway" else 0.0)


async def main(folder: Path, modbus_port: int, mqtt_port: int, seed: int) -> None:
    """Serves until its input ends."""
    link = folder / "line"
    fleet = make_fleet(
        places(modbus_port=modbus_port, mqtt_port=mqtt_port, line=link), link, modbus_port, mqtt_port, seed
    )
    for endpoint in set(fleet.reached.values()):
        await endpoint.up()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps(True), flush=True)
    while line := await reader.readline():
        for task in fleet.publishing:
            if task.done():
                task.result()
        print(json.dumps(await fleet.told(json.loads(line))), flush=True)
    for task in fleet.publishing:
        task.cancel()
    await asyncio.gather(*fleet.publishing, return_exceptions=True)
    os._exit(0)  # connections are left as they are: the devices lose their power


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *map(int, sys.argv[2:5])))
