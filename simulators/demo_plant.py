"""The demonstration plant as text: the plant file that belongs to the simulated fleet of simulators.demo.

Invariant: what the file says about a unit (limits by its rated speed and load) is what the fleet with the same seed does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import yaml

from simulators import demo_equipment as here
from simulators.demo_equipment import Unit, registration
from simulators.physics.elevators import Elevators
from simulators.physics.fleet import Fleet
from simulators.physics.forklifts import Forklifts
from simulators.plant import CLASSES, PROFILES, Group
from telemetry.files import load_profile

SEED: Final = 31_0112
SPEED_MARGIN: Final = 1.2
"""Overspeed is 1.2 times the rated speed."""
UNITS: Final[Mapping[str, Sequence[Unit]]] = {
    "elevators": here.ELEVATORS,
    "escalators": here.ESCALATORS,
    "forklifts": here.FORKLIFTS,
    "sola-boilers": here.SOLA_BOILERS,
    "steam-boilers": here.STEAM_BOILERS,
}
TOPICS: Final = {"elevators": "lifts", "escalators": "escalators", "forklifts": "forklifts"}
RECORDED_PREFIX: Final = "recorded"
RECORDED: Final = {here.LIFT_DOOR.id: "lift-door", here.PUMP.id: "pump-testbed"}
"""Profile of each replayed feed."""
PUMP_UNIT: Final = 1
HEADER: Final = (
    "# The demonstration plant, written by simulators.demo at each start. No name or telephone in it is real.\n"
)


@dataclass(frozen=True, slots=True)
class ModbusPorts:
    """Ports on loopback that the simulated gateways serve."""

    sola: int
    steam: int
    recorded: int


def demo_groups(broker_url: str, ports: ModbusPorts) -> list[Group]:
    """The fleet, with its addresses. The same at every call."""
    return [_group(kind, number, broker_url, ports) for number, kind in enumerate(UNITS)]


def demo_plant(broker_url: str, modbus_ports: ModbusPorts, *, recorded: Sequence[Unit] = ()) -> str:
    """The plant file of the demonstration plant. `broker_url` is mqtt://HOST:PORT; `recorded` are replayed feeds too."""
    equipment = []
    for (kind, units), group in zip(UNITS.items(), demo_groups(broker_url, modbus_ports), strict=True):
        for number, (unit, address) in enumerate(zip(units, group.addresses, strict=True)):
            entry = _entry(unit, group.profile.profile, address, registration(kind, unit, number + 1))
            points = _points(group.fleet, number)
            equipment.append({**entry, "points": points} if points else entry)
    equipment.extend(
        _entry(unit, RECORDED[unit.id], recorded_address(unit, broker_url, modbus_ports), None) for unit in recorded
    )
    content = {
        "site": here.SITE,
        "areas": here.AREAS,
        "organisations": here.ORGANISATIONS,
        # The embedded broker knows no other: the edge would find out, and lose two seconds by it.
        "endpoints": {broker_url: {"mqtt_version": "3.1.1"}},
        "equipment": equipment,
    }
    return HEADER + yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=120)


def recorded_address(unit: Unit, broker_url: str, ports: ModbusPorts) -> str:
    """Where a replayed feed stands: the door on MQTT, the pump on Modbus."""
    if unit is here.PUMP:
        return f"modbus+tcp://127.0.0.1:{ports.recorded}/{PUMP_UNIT}"
    return f"{broker_url}/{RECORDED_PREFIX}/{unit.id}"


def _group(kind: str, number: int, broker_url: str, ports: ModbusPorts) -> Group:
    units = UNITS[kind]
    rng = np.random.default_rng([SEED, number])
    if kind == "forklifts":
        fleet: Fleet = Forklifts(len(units), rng, origin=np.array([unit.place.position for unit in units]))
    else:
        fleet = CLASSES[kind](len(units), rng)
    if kind in TOPICS:
        addresses = tuple(f"{broker_url}/{TOPICS[kind]}/{unit.id}" for unit in units)
    else:
        port = ports.sola if kind == "sola-boilers" else ports.steam
        addresses = tuple(f"modbus+tcp://127.0.0.1:{port}/{n + 1}" for n in range(len(units)))
    return Group(tuple(unit.id for unit in units), addresses, fleet, load_profile(PROFILES[kind]))


def _entry(unit: Unit, profile: str, address: str, code: str | None) -> dict[str, Any]:
    place = unit.place
    return {
        "id": unit.id,
        "profile": profile,
        "address": address,
        "name": {"zh": unit.zh, "en": unit.en},
        "area": place.area,
        **({"registration": code} if code else {}),
        "parties": {"owner": place.user, "user": place.user, "maintainer": place.maintainer},
        "location": place.location,
        "position": list(place.position),
        "model": unit.model,
    }


def _points(fleet: Fleet, number: int) -> dict[str, Any]:
    """Limits of one unit by what it is rated for."""
    if isinstance(fleet, Elevators):
        limit = round(float(fleet.rated_ms[number]) * SPEED_MARGIN, 2)
        return {"speed": {"alarms": {"high": {"limit": limit}}}}
    if isinstance(fleet, Forklifts):
        return {"load": {"alarms": {"high": {"limit": float(fleet.rated_kg[number])}}}}
    return {}
