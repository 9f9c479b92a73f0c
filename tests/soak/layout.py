"""Who stands in the soak's plant, and the plant file in its versions. Pure: no device, no process.

Every device numbers its own answers, so that each row of the table can be traced to the answer that it came from: `a` and
`b` are those numbers in two blocks of registers, `…_check` is a function of number and device. A row with a number that
was never given, or with a check of another, was made up; a number without a row was lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

TIMEOUT_S: Final = 0.8
"""For all devices; they are asked every second."""
TCP, GATEWAY, SERIAL, RTU_TCP, MQTT = 60, 40, 5, 3, 40
SILENT_UNITS: Final = (13, 31)
"""Units of the gateway that never answer."""
SLOW_UNITS: Final = (29, 37)
SLOW_S: Final = 0.35
FIRST_SPARE: Final = 50
"""TCP devices from this one on come and go with the plant file."""
A, B = 0, 1000
"""Where the two blocks of registers begin: number (2 registers), check, level, state, total."""
BLOCK: Final = 6

Kind = Literal["tcp", "gateway", "serial", "rtu-tcp", "mqtt"]


@dataclass(frozen=True, slots=True)
class Place:
    """One device: what it is called and where it is found."""

    name: str
    index: int
    """Over all devices; the checks depend on it."""
    kind: Kind
    host: str
    port: int
    unit: int
    address: str


def places(*, modbus_port: int, mqtt_port: int, line: Path) -> list[Place]:
    """All devices. Each TCP device has a loopback address of its own, and all the same port."""
    found: list[Place] = []

    def add(kind: Kind, host: str, unit: int, address: str) -> None:
        number = sum(place.kind == kind for place in found) + 1
        found.append(Place(f"{kind}-{number}", len(found), kind, host, modbus_port, unit, address))

    for number in range(1, TCP + 1):
        host = f"127.9.1.{number}"
        add("tcp", host, 1, f"modbus+tcp://{host}:{modbus_port}/1")
    for unit in range(1, GATEWAY + 1):
        add("gateway", "127.9.2.1", unit, f"modbus+tcp://127.9.2.1:{modbus_port}/{unit}")
    for unit in range(1, SERIAL + 1):
        add("serial", "", unit, f"modbus+rtu://{line}/{unit}?baud=115200")
    for unit in range(1, RTU_TCP + 1):
        add("rtu-tcp", "127.9.3.1", unit, f"modbus+rtuovertcp://127.9.3.1:{modbus_port}/{unit}")
    for number in range(1, MQTT + 1):
        add("mqtt", "", number, f"mqtt://127.0.0.1:{mqtt_port}/soak/{number}")
    return found


def check(number: int, index: int) -> int:
    """16 bits that belong to one number of one device."""
    return (number * 40_503 + index * 257) & 0xFFFF


def write_profiles(folder: Path) -> None:
    """The two profiles."""
    folder.mkdir(parents=True, exist_ok=True)
    head = "version: 1\nclass: soak\nclass_name: {zh: 测试, en: Soak}\n"
    rest = f"name: {{zh: 测试, en: Soak}}\npoll_s: 1\ntimeout_s: {TIMEOUT_S}\npoints:\n"
    name = "name: {zh: 点, en: point}"
    points = (
        f"  a: {{{name}, modbus: {{address: {A}, type: u32}}}}\n"
        f"  a_check: {{{name}, modbus: {{address: {A + 2}}}}}\n"
        f"  level: {{{name}, modbus: {{address: {A + 3}, scale: 0.1}}, report: {{deadband: 2, heartbeat_s: 5}}}}\n"
        f"  state: {{{name}, kind: state, modbus: {{address: {A + 4}}}}}\n"
        f"  total: {{{name}, kind: counter, modbus: {{address: {A + 5}, wrap: 65536}}}}\n"
        f"  b: {{{name}, modbus: {{address: {B}, type: u32}}}}\n"
        f"  b_check: {{{name}, modbus: {{address: {B + 2}}}}}\n"
        f"  b_more: {{{name}, modbus: {{address: {B + 5}}}}}\n"
    )
    (folder / "soak-modbus.yaml").write_text(f"profile: soak-modbus\n{head}{rest}{points}", encoding="utf-8")
    points = f"  a: {{{name}, mqtt: {{}}}}\n  a_check: {{{name}, mqtt: {{}}}}\n"
    (folder / "soak-mqtt.yaml").write_text(f"profile: soak-mqtt\n{head}{rest}{points}", encoding="utf-8")


def spares(found: list[Place]) -> list[str]:
    """Devices that the plant file may leave out or have asked more often."""
    return [place.name for place in found if place.kind == "tcp" and int(place.name[4:]) >= FIRST_SPARE]


def plant_text(found: list[Place], *, without: frozenset[str] = frozenset(), fast: frozenset[str] = frozenset()) -> str:
    """A sound plant file: without some devices, and with some asked twice a second."""
    lines = ["site: {id: soak, name: {zh: 测试, en: Soak}}", "equipment:"]
    for place in found:
        if place.name in without:
            continue
        profile = "soak-mqtt" if place.kind == "mqtt" else "soak-modbus"
        more = ", poll_s: 0.5" if place.name in fast else ""
        lines.append(f'  - {{id: {place.name}, profile: {profile}, address: "{place.address}"{more}}}')
    return "\n".join(lines) + "\n"


BAD_PLANTS: Final = (
    "site: {id: soak, name: {zh: 测试, en: Soak}}\nequipment:\n  - {id: x, profile: no-such-profile, address: nowhere}\n",
    "site: {id: soak\nequipment: [",
    "site: {id: soak, name: {zh: 测试, en: Soak}}\nequipment: []\n",
    "",
)
"""What people save by mistake."""
