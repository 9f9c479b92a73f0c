"""Scenarios: which fleet, which seed, which faults, as YAML; run on the network or written to files with labels.

    seed: 7
    seconds: 900                                  # how long; on the network, left out: until stopped
    start: "2026-01-01T00:00:00+08:00"            # of the exported times
    units:
      - {class: elevators, count: 12, prefix: lift, address: mqtt://127.0.0.1:1883/lifts}
      - {class: sola-boilers, count: 2, prefix: boiler, address: modbus+tcp://127.0.0.1:5020/1}
    faults:
      - {equipment: lift-01, kind: entrapment, start_s: 60, end_s: 180}
    rhythm: {every_s: 120, lasting_s: [40, 150]}  # further faults, by the seed

An MQTT address takes the unit's name as a further level, a Modbus address counts the unit ids up. Invariant: the same
scenario makes the same feeds and labels, byte for byte.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import Literal

import numpy as np
import structlog
from pydantic import Field

from simulators.faults import Fault, Rhythm, rhythm_faults, write_labels
from simulators.feeds import write_feed
from simulators.live import play
from simulators.plant import CLASSES, PROFILES, Group, SimulatedPlant
from telemetry import errors
from telemetry.clock import US_PER_S, Clock, ScaledClock, SystemClock, time_us
from telemetry.faults import validate
from telemetry.files import load_profile
from telemetry.names import is_name
from telemetry.plant import parse_address
from telemetry.profile import Model, Name
from telemetry.yaml_marks import Document, read_document

PACKAGED = "simulators.scenarios"
LABELS_FILE = "labels.csv"
ClassName = Literal["elevators", "escalators", "forklifts", "sola-boilers", "steam-boilers"]

log = structlog.get_logger()


class UnitsModel(Model):
    """Some units of one class."""

    class_name: ClassName = Field(alias="class")
    count: int = Field(ge=1, le=10_000)
    prefix: Name
    address: str = Field("", description="Needed on the network; exports go without.")
    profile: str | None = Field(None, description="Default: the class's own.")


class FaultModel(Model):
    """One fault of the schedule, in seconds from the start."""

    equipment: Name
    kind: str
    start_s: float = Field(ge=0)
    end_s: float = Field(gt=0)


class RhythmModel(Model):
    """Further faults, one about every `every_s`."""

    every_s: float = Field(gt=0)
    lasting_s: tuple[float, float]
    after_s: float = Field(0.0, ge=0)
    kinds: tuple[str, ...] = ()


class ScenarioFile(Model):
    """A scenario file."""

    seed: int = Field(ge=0)
    seconds: float | None = Field(None, gt=0)
    start: str = "2026-01-01T00:00:00+08:00"
    sample_s: float = Field(1.0, gt=0, description="Spacing of exported rows.")
    units: tuple[UnitsModel, ...] = Field(min_length=1)
    faults: tuple[FaultModel, ...] = ()
    rhythm: RhythmModel | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario, checked: a plant that has not begun yet."""

    file: ScenarioFile
    plant: SimulatedPlant
    start_us: int


def load_scenario(path: str | Path) -> Scenario:
    """The scenario of a file, or of the package by its name (demo.yaml). Raises ConfigError with every fault."""
    document = _open(path)
    file, faults = validate(ScenarioFile, document.data, document) if not document.faults else (None, document.faults)
    if file is None or faults:
        raise errors.ConfigError(list(faults))
    groups = [_group(units, file.seed, number) for number, units in enumerate(file.units)]
    plant = SimulatedPlant(groups, _faults(file, groups))
    faults = _problems(file, plant, document)
    if faults:
        raise errors.ConfigError(faults)
    return Scenario(file, plant, time_us(file.start))


async def run(
    scenario_path: str | Path,
    *,
    speed: float = 1.0,
    clock: Clock | None = None,
    stop: asyncio.Event | None = None,
    export: Path | None = None,
) -> None:
    """Runs a scenario on the network, or with `export` writes its feeds and labels. Raises ConfigError, OSError."""
    scenario = load_scenario(scenario_path)
    if export is not None:
        written = await asyncio.to_thread(write_export, scenario, export)
        log.info("exported", directory=str(export), **written)
        return
    addressless = [n for n, units in enumerate(scenario.file.units) if not units.address]
    if addressless:
        raise errors.ConfigError(
            [errors.Fault(str(scenario_path), 1, f"units.{n}.address", "an address, to run on the network", "none")
             for n in addressless]
        )  # fmt: skip
    beat = clock or (SystemClock() if speed == 1.0 else ScaledClock(SystemClock().now_us(), speed))
    await simulate(scenario, clock=beat, stop=stop or asyncio.Event())


async def simulate(scenario: Scenario, *, clock: Clock, stop: asyncio.Event) -> None:
    """Runs a scenario on the network until it is over or told to stop. Raises OSError when a port cannot be had."""
    await play(scenario.plant, clock=clock, stop=stop, seconds=scenario.file.seconds)


def write_export(scenario: Scenario, directory: Path) -> dict[str, int]:
    """Writes EQUIPMENT.csv for each unit and labels.csv. Returns how many equipments, rows and labels."""
    directory.mkdir(parents=True, exist_ok=True)
    plant, file = scenario.plant, scenario.file
    seconds = file.seconds or 3600.0
    points = {g.profile.profile: tuple(p for p in g.profile.points if p in g.values()[0]) for g in plant.groups}
    rows: dict[str, list[tuple[int, list[float | str]]]] = {n: [] for g in plant.groups for n in g.ids}
    for step in range(int(seconds / file.sample_s) + 1):
        plant.advance(step * file.sample_s)
        at_us = scenario.start_us + round(step * file.sample_s * US_PER_S)
        for group in plant.groups:
            for name, values in zip(group.ids, group.values(), strict=True):
                silent = name in plant.unreachable
                columns = points[group.profile.profile]
                rows[name].append((at_us, [np.nan if silent else values[point] for point in columns]))
    for group in plant.groups:
        for name in group.ids:
            write_feed(directory / f"{name}.csv", points[group.profile.profile], rows[name])
    ended = [Fault(f.start_s, min(f.end_s, seconds), f.equipment, f.kind) for f in plant.injected]
    labels = write_labels(directory / LABELS_FILE, ended, scenario.start_us)
    return {"equipment": len(rows), "rows": sum(map(len, rows.values())), "labels": labels}


def _open(path: str | Path) -> Document:
    wanted = Path(path)
    packaged = resources.files(PACKAGED) / wanted.name
    source = packaged if not wanted.exists() and str(path) == wanted.name and packaged.is_file() else wanted
    try:
        return read_document(source.read_bytes(), str(path))
    except OSError as error:
        fault = errors.Fault(str(path), 1, "(file)", "a file that can be read", error.strerror or "")
        return Document(str(path), None, {}, (fault,))


def _group(units: UnitsModel, seed: int, number: int) -> Group:
    width = max(2, len(str(units.count)))
    ids = tuple(f"{units.prefix}-{n:0{width}d}" for n in range(1, units.count + 1))
    fleet = CLASSES[units.class_name](units.count, np.random.default_rng([seed, number]))
    profile = load_profile(units.profile or PROFILES[units.class_name])
    return Group(ids, tuple(_address(units.address, name, n) for n, name in enumerate(ids)), fleet, profile)


def _address(base: str, name: str, number: int) -> str:
    if not base.startswith("modbus"):
        return f"{base}/{name}" if base else ""
    endpoint, _, unit = base.rpartition("/")
    return f"{endpoint}/{int(unit) + number}" if unit.isdecimal() else f"{base}/{1 + number}"


def _faults(file: ScenarioFile, groups: list[Group]) -> Iterator[Fault]:
    """The schedule and the rhythm, by their start; the rhythm ends with the scenario."""
    planned = sorted(Fault(f.start_s, f.end_s, f.equipment, f.kind) for f in file.faults)
    if file.rhythm is None:
        return iter(planned)
    rhythm = Rhythm(file.rhythm.every_s, file.rhythm.lasting_s, file.rhythm.after_s, file.rhythm.kinds)
    busy = {fault.equipment for fault in planned}
    choices = [(name, group.kinds) for group in groups for name in group.ids if name not in busy]
    further = rhythm_faults(rhythm, choices, np.random.default_rng([file.seed, 1 << 20]))
    limit_s = file.seconds or np.inf
    return heapq.merge(planned, takewhile(lambda fault: fault.start_s < limit_s, further))


def _problems(file: ScenarioFile, plant: SimulatedPlant, document: Document) -> list[errors.Fault]:
    """What the model cannot see: names, kinds, times, addresses."""
    faults = []
    for n, fault in enumerate(file.faults):
        here = ("faults", str(n))
        if not plant.knows(fault.equipment, fault.kind):
            known = sorted({kind for group in plant.groups for kind in group.kinds if fault.equipment in group.ids})
            expected = f"one of {', '.join(known)}" if known else "an equipment of this scenario"
            key = "kind" if known else "equipment"
            faults.append(document.fault((*here, key), expected, repr(getattr(fault, key))))
        if fault.end_s <= fault.start_s:
            faults.append(
                document.fault((*here, "end_s"), f"more than start_s ({fault.start_s:g})", f"{fault.end_s:g}")
            )
        if any(_collide(fault, other) for other in file.faults[:n]):
            faults.append(document.fault(here, "one fault of a kind at a time on one equipment", fault.kind))
    names = [name for group in plant.groups for name in group.ids]
    for n, units in enumerate(file.units):
        try:
            if units.address:
                parse_address(_address(units.address, f"{units.prefix}-1", units.count - 1))
        except ValueError as error:
            faults.append(document.fault(("units", str(n), "address"), "an address", str(error)))
        if not is_name(units.prefix) or sum(name.startswith(f"{units.prefix}-") for name in names) > units.count:
            faults.append(document.fault(("units", str(n), "prefix"), "a prefix of its own", repr(units.prefix)))
    try:
        time_us(file.start)
    except ValueError:
        faults.append(document.fault(("start",), "ISO 8601 with an offset", repr(file.start)))
    return faults


def _collide(one: FaultModel, other: FaultModel) -> bool:
    same = (one.equipment, one.kind) == (other.equipment, other.kind)
    return same and one.start_s < other.end_s and other.start_s < one.end_s
