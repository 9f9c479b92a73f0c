"""A scenario makes the same feeds and labels each time; its labels are what was injected; mistakes are named."""

from __future__ import annotations

import asyncio
import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
from pymodbus.client import AsyncModbusTcpClient

from simulators.faults import Fault, Rhythm, rhythm_faults
from simulators.feeds import read_feed
from simulators.physics.elevators import Elevators
from simulators.plant import Group, SimulatedPlant
from simulators.scenario import load_scenario, run
from telemetry.clock import time_us
from telemetry.errors import ConfigError
from telemetry.files import load_profile
from tests.fixtures.ports import free_port
from tests.fixtures.waiting import until

SMALL = """
seed: 3
seconds: 240
start: "2026-01-01T08:00:00+08:00"
units:
  - {class: elevators, count: 2, prefix: lift}
  - {class: sola-boilers, count: 1, prefix: boiler}
  - {class: forklifts, count: 1, prefix: truck}
faults:
  - {equipment: lift-01, kind: entrapment, start_s: 30, end_s: 120}
  - {equipment: lift-02, kind: comms-loss, start_s: 60, end_s: 90.5}
  - {equipment: boiler-01, kind: flame-lost, start_s: 10, end_s: 400}
rhythm: {every_s: 40, lasting_s: [5, 10], kinds: [no-seat-belt, overspeed]}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "scenario.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def labels(directory: Path) -> list[tuple[str, str, int, int]]:
    with (directory / "labels.csv").open(encoding="utf-8") as file:
        return [(r["equipment"], r["kind"], time_us(r["start"]), time_us(r["end"])) for r in csv.DictReader(file)]


async def test_the_same_scenario_makes_the_same_files_byte_for_byte(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    for name in ("one", "two"):
        await run(path, export=tmp_path / name)
    one, two = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert sorted(one) == ["boiler-01.csv", "labels.csv", "lift-01.csv", "lift-02.csv", "truck-01.csv"]


async def test_the_labels_are_the_injected_faults_and_the_feeds_show_them(tmp_path: Path) -> None:
    await run(write(tmp_path, SMALL), export=tmp_path / "out")
    start_us = time_us("2026-01-01T08:00:00+08:00")
    found = labels(tmp_path / "out")
    planned = [row for row in found if row[0] != "truck-01"]
    assert planned == [
        ("boiler-01", "flame-lost", start_us + 10_000_000, start_us + 240_000_000),
        ("lift-01", "entrapment", start_us + 30_000_000, start_us + 120_000_000),
        ("lift-02", "comms-loss", start_us + 60_000_000, start_us + 90_500_000),
    ]
    assert {kind for name, kind, _, _ in found if name == "truck-01"} <= {"no-seat-belt", "overspeed"}
    assert len(found) > 4
    boiler = read_feed(tmp_path / "out" / "boiler-01.csv", load_profile("sola-boiler"))
    lockout = boiler.values[:, boiler.points.index("lockout_code")]
    assert len(boiler) == 241
    assert (lockout[:10] == 0).all()
    assert (lockout[20:] == 106).all()
    silent = read_feed(tmp_path / "out" / "lift-02.csv", load_profile("lift-monitor"))
    assert np.flatnonzero(np.isnan(silent.values).all(axis=1)).tolist() == list(range(60, 91))


def test_the_packaged_demonstration_scenario_has_a_fault_of_every_class_within_its_time() -> None:
    scenario = load_scenario("demo.yaml")
    classes = {group.profile.equipment_class for group in scenario.plant.groups}
    by_id = {name: group.profile.equipment_class for group in scenario.plant.groups for name in group.ids}
    assert {by_id[fault.equipment] for fault in scenario.file.faults} == classes
    assert all(fault.end_s <= (scenario.file.seconds or 0.0) for fault in scenario.file.faults)
    scenario.plant.advance(120.0)
    assert [fault.kind for fault in scenario.plant.injected] == ["entrapment", "overspeed", "door-held-open"]


def test_faults_switch_at_their_own_time_however_seldom_the_plant_is_looked_at() -> None:
    def plant(step_s: float) -> list[float]:
        fleet = Elevators(2, np.random.default_rng(1))
        group = Group(("a", "b"), ("", ""), fleet, load_profile("lift-monitor"))
        simulated = SimulatedPlant([group], [Fault(3.3, 40.7, "a", "inspection"), Fault(5.0, 9.0, "b", "comms-loss")])
        told = [e.event.time_s for at in np.arange(step_s, 60.1, step_s) for e in simulated.advance(float(at))]
        assert simulated.unreachable == set()
        return told

    assert plant(60.0) == plant(0.7)[: len(plant(60.0))]


def test_the_rhythm_never_breaks_one_equipment_twice_at_once() -> None:
    rhythm = Rhythm(every_s=10.0, lasting_s=(5.0, 60.0), after_s=100.0)
    made = rhythm_faults(rhythm, [("a", ["x", "y"]), ("b", ["x"]), ("c", [])], np.random.default_rng(1))
    faults = list(itertools.islice(made, 300))
    assert faults == sorted(faults)
    assert faults[0].start_s > 100.0
    for name in "ab":
        own = [fault for fault in faults if fault.equipment == name]
        assert len(own) > 20
        assert all(before.end_s < after.start_s for before, after in itertools.pairwise(own))


def test_every_mistake_of_a_scenario_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """seed: 1
start: yesterday
units:
  - {class: elevators, count: 2, prefix: lift, address: "http://nowhere"}
faults:
  - {equipment: lift-09, kind: entrapment, start_s: 1, end_s: 2}
  - {equipment: lift-01, kind: flame-lost, start_s: 1, end_s: 2}
  - {equipment: lift-02, kind: entrapment, start_s: 5, end_s: 5}
  - {equipment: lift-01, kind: entrapment, start_s: 1, end_s: 9}
  - {equipment: lift-01, kind: entrapment, start_s: 8, end_s: 12}
""",
    )
    with pytest.raises(ConfigError) as raised:
        load_scenario(path)
    told = [(fault.line, fault.key) for fault in raised.value.faults]
    assert told == [
        (6, "faults.0.equipment"),
        (7, "faults.1.kind"),
        (8, "faults.2.end_s"),
        (10, "faults.4"),
        (4, "units.0.address"),
        (2, "start"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "seed: 1\nunits:\n  - {class: trams, count: 1, prefix: a}\n",
            "scenario.yaml:3: units.0.class: expected one of",
        ),
        ("seed: 1\nunits: []\n", "at least 1"),
        ("seed: 1\nunits:\n  - {class: elevators, count: 1, prefix: a, adress: x}\n", "address"),
        ("seed: [\n", "scenario.yaml:"),
    ],
)
def test_a_file_that_is_no_scenario_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_scenario(write(tmp_path, text))


async def test_on_the_network_units_need_an_address(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"units\.0\.address: expected an address"):
        await run(write(tmp_path, SMALL))


async def test_a_scenario_on_the_network_shows_its_faults_and_ends_by_itself(tmp_path: Path) -> None:
    port = free_port()
    text = f"""
seed: 3
seconds: 60
units:
  - {{class: sola-boilers, count: 2, prefix: boiler, address: "modbus+tcp://127.0.0.1:{port}/5"}}
faults:
  - {{equipment: boiler-02, kind: flame-lost, start_s: 5, end_s: 1000}}
"""
    path = write(tmp_path, text)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(run(path, speed=20.0))
        client = AsyncModbusTcpClient("127.0.0.1", port=port, timeout=2, retries=0, reconnect_delay=0)
        await until(client.connect, what="the scenario serves")
        async with asyncio.timeout(10):
            while (codes := [await lockout(client, unit) for unit in (5, 6)]) != [0, 106]:
                assert codes == [0, 0]
                await asyncio.sleep(0.02)
            await running
        client.close()


async def lockout(client: AsyncModbusTcpClient, unit: int) -> int:
    return int((await client.read_holding_registers(0x22, count=1, device_id=unit)).registers[0])
