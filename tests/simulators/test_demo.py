"""The demonstration plant: what its file promises is served, breaks within a minute, and stays itself over restarts."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from pymodbus.client import ModbusTcpClient

from simulators.demo import EARLY, choose_ports, demo_faults
from simulators.demo_equipment import LIFT_DOOR, PUMP
from simulators.demo_plant import ModbusPorts, demo_groups, demo_plant
from simulators.plant import SimulatedPlant
from telemetry.files import load_plant
from telemetry.plant import Plant
from tests.fixtures.broker import EmbeddedBroker, Listener
from tests.fixtures.waiting import eventually

PORTS = ModbusPorts(5020, 5021, 5022)
SKAB_HEADER = (
    "datetime;Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;Thermocouple;Voltage;"
    "Volume Flow RateRMS;anomaly;changepoint"
)


def plant_of(path: Path, text: str) -> Plant:
    path.write_text(text, encoding="utf-8")
    return load_plant(path)


def test_the_plant_file_loads_with_everything_that_the_issue_asks_for(tmp_path: Path) -> None:
    plant = plant_of(tmp_path / "demo.yaml", demo_plant("mqtt://127.0.0.1:1883", PORTS, recorded=(LIFT_DOOR, PUMP)))
    classes = Counter(equipment.profile.profile for equipment in plant.equipment)
    assert classes == {
        "lift-monitor": 12, "escalator-monitor": 2, "forklift-terminal": 6, "sola-boiler": 2,
        "small-steam-boiler": 2, "lift-door": 1, "pump-testbed": 1,
    }  # fmt: skip
    assert len({e.entry.area for e in plant.equipment}) == 3
    assert sum("maintainer" in o.kinds for o in plant.file.organisations) == 2
    assert all(o.phone for o in plant.file.organisations)
    for equipment in plant.equipment:
        entry = equipment.entry
        assert entry.location, entry.id
        assert entry.position, entry.id
        assert None not in (entry.parties.owner, entry.parties.user, entry.parties.maintainer), entry.id
    codes = [e.entry.registration for e in plant.equipment if e.entry.registration]
    assert len(set(codes)) == len(codes) == 24
    assert all(code[4:10] == "310112" for code in codes)
    assert len({e.entry.address for e in plant.equipment if e.address.is_modbus}) == 5


def test_each_lifts_overspeed_limit_is_above_its_normal_speed_and_below_its_faults(tmp_path: Path) -> None:
    plant = plant_of(tmp_path / "demo.yaml", demo_plant("mqtt://127.0.0.1:1883", PORTS)).by_id()
    lifts = demo_groups("mqtt://127.0.0.1:1883", PORTS)[0]
    for name, rated in zip(lifts.ids, lifts.fleet.rated_ms, strict=True):  # type: ignore[attr-defined]
        assert rated < plant[name].profile.points["speed"].alarms["high"].limit < 1.3 * rated


def test_the_plant_is_the_same_at_every_start() -> None:
    assert demo_plant("mqtt://127.0.0.1:1883", PORTS) == demo_plant("mqtt://127.0.0.1:1883", PORTS)


def test_four_kinds_of_fault_begin_in_the_first_fifteen_seconds_and_calm_ones_follow() -> None:
    groups = demo_groups("mqtt://127.0.0.1:1883", PORTS)
    knows = SimulatedPlant(groups, ()).knows
    hour = list(itertools.takewhile(lambda fault: fault.start_s < 3600.0, demo_faults(groups)))
    assert all(knows(fault.equipment, fault.kind) for fault in hour)
    assert all(fault.start_s <= 15.0 for fault in EARLY)
    assert len({fault.kind for fault in EARLY}) >= 4
    later = [fault.start_s for fault in hour if fault not in EARLY]
    assert 20 <= len(later) <= 60
    assert min(later) > 120.0
    assert max(b - a for a, b in itertools.pairwise(later)) < 400.0
    assert len({fault.equipment for fault in hour}) > 12


def test_ports_are_kept_while_they_are_free_and_changed_when_taken(tmp_path: Path) -> None:
    first = choose_ports(tmp_path)
    assert choose_ports(tmp_path) == first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first.sola))
        taken.listen()
        second = choose_ports(tmp_path)
    assert second.sola != first.sola
    assert second.steam == first.steam


def test_counters_go_on_from_one_start_to_the_next() -> None:
    first, second = (demo_groups("mqtt://127.0.0.1:1883", PORTS) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        one.fleet.age(300.0)
        one.fleet.advance(200.0)
        other.fleet.age(300.0 + 200.0 / 86_400.0)
        for point, described in one.profile.points.items():
            if described.kind.value == "counter":
                assert (other.fleet.readings()[point] >= one.fleet.readings()[point] - 0.01).all(), point


def start(state: Path, broker: EmbeddedBroker, *more: str) -> tuple[subprocess.Popen[bytes], Plant]:
    command = ["-m", "simulators.demo", "--state", str(state), "--broker", f"127.0.0.1:{broker.port}", *more]
    process = subprocess.Popen([sys.executable, "-W", "error", *command], stderr=subprocess.PIPE)
    file = state / "demo-plant.yaml"
    eventually(file.exists, 30.0, "the plant file")
    return process, load_plant(file)


def finish(process: subprocess.Popen[bytes]) -> str:
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 0, said.decode()
    assert time.monotonic() - started < 3.0
    return said.decode()


async def test_the_process_serves_every_address_of_its_file_and_stops_cleanly(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    await asyncio.to_thread(_serve_and_look, embedded_broker, tmp_path)


def _serve_and_look(broker: EmbeddedBroker, state: Path) -> None:
    listener = Listener(broker.port, "#", "demo-listener").start()
    process, plant = start(state, broker)
    try:
        for equipment in plant.equipment:
            address = equipment.address
            if address.is_modbus:
                first = min(p.modbus.address for p in equipment.profile.points.values() if p.modbus)
                client = ModbusTcpClient("127.0.0.1", port=address.port, timeout=3)
                answer = client.read_holding_registers(first, count=2, device_id=address.unit)
                client.close()  # type: ignore[no-untyped-call]
                assert not answer.isError(), equipment.id
                continue
            topics = [f"{address.prefix}/{topic}" for topic in ("connection", "state", "statistics")]
            eventually(lambda topics=topics: all(listener.payloads(t) for t in topics), what=f"{equipment.id} speaks")  # type: ignore[misc]
        eventually(lambda: bool(listener.payloads("forklifts/forklift-02/event")), 30.0, "the first fault's event")
        state_message = json.loads(listener.payloads("lifts/lift-01/state")[0])
        assert set(state_message["values"]) == {
            name for name, p in plant.by_id()["lift-01"].profile.points.items() if p.mqtt and p.mqtt.topic == "state"
        }
    finally:
        said = finish(process)
        listener.stop()
    assert "Traceback" not in said


async def test_with_recorded_data_the_door_and_the_pump_are_equipment_too_played_round_and_round(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    door, pump = tmp_path / "data/elevator/elevator-4hz.csv", tmp_path / "data/skab/valve1/0.csv"
    for file in (door, pump):
        file.parent.mkdir(parents=True)
    door.write_text("ball-bearing;humidity;vibration\n93.744;73.999;18\n93.74;73.999;18. 00\n")
    pump.write_text(f"{SKAB_HEADER}\n" + "2020-03-09 10:14:33;0.5;0.25;1;2;3;4;230;32;0.0;0.0\n" * 500)
    await asyncio.to_thread(_serve_recorded, embedded_broker, tmp_path)


def _serve_recorded(broker: EmbeddedBroker, folder: Path) -> None:
    listener = Listener(broker.port, "recorded/#", "recorded-listener").start()
    process, plant = start(folder / "state", broker, "--data", str(folder / "data"))
    try:
        eventually(lambda: len(listener.messages) >= 5, what="the door's two rows, again and again")
        rows = [json.loads(payload)["values"] for _, payload, _, _ in listener.messages[:4]]
        assert (
            rows
            == [
                {"ball_bearing": 93.744, "humidity": 73.999, "vibration": 18.0},
                {"ball_bearing": 93.74, "humidity": 73.999},
            ]
            * 2
        )
        client = ModbusTcpClient("127.0.0.1", port=plant.by_id()["pump-01"].address.port, timeout=3)
        eventually(
            lambda: _registers(client)[:4] == [0x3F00, 0, 0x3E80, 0], what="0.5 and 0.25 as float32, high word first"
        )
        client.close()  # type: ignore[no-untyped-call]
    finally:
        finish(process)
        listener.stop()


def _registers(client: ModbusTcpClient) -> list[int]:
    if not client.connect():  # type: ignore[no-untyped-call]
        return []
    answer = client.read_holding_registers(0, count=16, device_id=1)
    return [] if answer.isError() else list(answer.registers)
