"""Profiles and plants from YAML files, with every fault of a file reported at once: file, line, key, expected, found.

Invariant: what these functions return is whole and checked. Nothing wrong in a file is skipped, mended or defaulted away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telemetry.address import endpoint_of, parse_address
from telemetry.errors import ConfigError, Fault
from telemetry.faults import problem_faults, validate
from telemetry.plant import Equipment, Plant, PlantEquipment, PlantFile
from telemetry.plant_problems import address_of, endpoint_at, plant_problems
from telemetry.problems import Path as KeyPath
from telemetry.problems import Raw, items, mapping, mappings
from telemetry.profile import Profile
from telemetry.shelf import (
    Loaded,
    Shelf,
    folder_faults,
    known_profiles,
    make_profile,
    once,
    open_document,
    read_profile,
)
from telemetry.wording import nearest, shown
from telemetry.yaml_marks import Document

__all__ = ["check_files", "known_profiles", "load_plant", "load_profile"]


def load_profile(name_or_path: str | Path, *, profiles_dir: Path | None = None) -> Profile:
    """The profile of a name (searched in `profiles_dir`, then in the package) or of a file. Raises ConfigError."""
    _refuse(folder_faults(profiles_dir))
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith((".yaml", ".yml")) or "/" in text:
        loaded: Loaded | None = read_profile(Path(name_or_path), text, None)
    else:
        loaded = Shelf(profiles_dir).find(text)
    if loaded is None:
        raise ConfigError([Fault(text, 1, "profile", nearest(text, known_profiles(profiles_dir)), shown(text))])
    if loaded.profile is None:
        raise ConfigError(loaded.faults)
    return loaded.profile


def load_plant(path: str | Path, *, profiles_dir: Path | None = None) -> Plant:
    """The plant of a file, with its profiles found, overrides applied and addresses read.

    Raises ConfigError with every fault of the file and of the profiles that it uses.
    """
    _refuse(folder_faults(profiles_dir))
    plant, faults = _read_plant(Path(path), Shelf(profiles_dir))
    if plant is None or faults:
        raise ConfigError(faults)
    return plant


def check_files(paths: Iterable[str | Path], profiles_dir: Path | None = None) -> list[Fault]:
    """Every fault of plant and profile files, sorted by file and line. A file with the key `profile` is a profile."""
    shelf = Shelf(profiles_dir)
    faults = folder_faults(profiles_dir)
    for path in map(Path, paths):
        document = open_document(path, str(path))
        if isinstance(document.data, dict) and "profile" in document.data and "equipment" not in document.data:
            faults += make_profile(document, path.stem).faults
        else:
            faults += _make_plant(document, shelf)[1]
    return sorted(dict.fromkeys(faults), key=lambda f: (f.file, f.line, f.key))


def _refuse(faults: list[Fault]) -> None:
    if faults:
        raise ConfigError(faults)


def _read_plant(path: Path, shelf: Shelf) -> tuple[Plant | None, tuple[Fault, ...]]:
    return _make_plant(open_document(path, str(path)), shelf)


def _make_plant(document: Document, shelf: Shelf) -> tuple[Plant | None, tuple[Fault, ...]]:
    if not isinstance(document.data, dict):
        return None, document.faults or (document.fault((), "a mapping", shown(document.data)),)
    file, faults = validate(PlantFile, document.data, document)
    faults += problem_faults(plant_problems(document.data), document)
    profiles: dict[str, Profile] = {}
    elsewhere: list[Fault] = []
    for i, entry in items(document.data, "equipment"):
        found = _fit(document, i, entry, shelf)
        faults += found.faults
        elsewhere += found.elsewhere
        if found.profile is not None:
            profiles[i] = found.profile
    merged = (*once(document, faults), *dict.fromkeys(elsewhere))
    if file is None or merged:
        return None, merged
    return _assemble(file, profiles), ()


@dataclass(frozen=True, slots=True)
class _Fitted:
    """An equipment's profile with its overrides, or what is wrong: in the plant file, and in the profile's file."""

    profile: Profile | None
    faults: Sequence[Fault] = ()
    elsewhere: Sequence[Fault] = ()


def _fit(document: Document, i: str, entry: Raw, shelf: Shelf) -> _Fitted:
    here, name = ("equipment", i), entry.get("profile")
    loaded = shelf.find(name) if isinstance(name, str) else None
    if loaded is None:
        if not isinstance(name, str):
            return _Fitted(None)
        expected = f"a profile, {nearest(name, known_profiles(shelf.folder))}"
        return _Fitted(None, [document.fault((*here, "profile"), expected, shown(name))])
    if loaded.profile is None:
        return _Fitted(None, (), loaded.faults)
    profile: Profile | None = loaded.profile
    unknown = list(_unknown_overrides(document, here, entry, loaded.profile))
    points, conditions = _known(entry, loaded.profile)
    faults: list[Fault] = []
    if points or conditions:
        profile, faults = shelf.override(loaded, points, conditions, document.below(here))
    if profile is not None:
        faults += _unreadable(document, here, entry, profile)
    return _Fitted(profile, [*unknown, *faults])


def _unknown_overrides(document: Document, here: KeyPath, entry: Raw, profile: Profile) -> Iterator[Fault]:
    for point, override in mapping(entry, "points").items():
        path = (*here, "points", point)
        if point not in profile.points:
            yield document.fault(path, f"a point of {profile.profile}, {nearest(point, profile.points)}", shown(point))
            continue
        alarms = profile.points[point].alarms
        for alarm in mapping(override, "alarms") if isinstance(override, Mapping) else ():
            if alarm not in alarms:
                expected = f"an alarm of {profile.profile}'s {point}, {nearest(alarm, alarms)}"
                yield document.fault((*path, "alarms", alarm), expected, shown(alarm))
    for name in mapping(entry, "conditions"):
        if name not in profile.conditions:
            expected = f"a condition of {profile.profile}, {nearest(name, profile.conditions)}"
            yield document.fault((*here, "conditions", name), expected, shown(name))


def _known(entry: Raw, profile: Profile) -> tuple[dict[str, Any], dict[str, Any]]:
    """The overrides of points and conditions that the profile has, as far as they are mappings (or null)."""
    points = {}
    for name, item in mappings(entry, "points"):
        if (point := profile.points.get(name)) is not None:
            alarms = {key: alarm for key, alarm in mapping(item, "alarms").items() if key in point.alarms}
            points[name] = {**item, "alarms": alarms} if isinstance(item.get("alarms"), Mapping) else dict(item)
    overrides = mapping(entry, "conditions").items()
    return points, {name: item for name, item in overrides if name in profile.conditions}


def _unreadable(document: Document, here: KeyPath, entry: Raw, profile: Profile) -> Iterator[Fault]:
    """An address whose protocol the profile has no point for, and points longer than its endpoint's requests."""
    address = address_of(entry)
    if address is None:
        return
    protocol = "modbus" if address.is_modbus else "mqtt"
    if not any(getattr(point, protocol) for point in profile.points.values()):
        other = "mqtt" if address.is_modbus else "modbus"
        expected = f"an address of {other}, the one that {profile.profile} has points for"
        yield document.fault((*here, "address"), expected, shown(entry["address"]))
    if address.is_modbus:
        for key, endpoint in mappings(document.data, "endpoints"):
            if endpoint_at(key) == address.endpoint:
                yield from _too_long(document, key, endpoint, profile)
                yield from _too_low(document, key, endpoint, profile)


def _too_low(document: Document, key: str, endpoint: Raw, profile: Profile) -> Iterator[Fault]:
    low = [name for name, point in profile.points.items() if point.modbus and point.modbus.address == 0]
    if endpoint.get("address_base") == 1 and profile.modbus.address_base == 0 and low:
        expected = f"0, for {profile.profile}'s {low[0]} at address 0"
        yield document.fault(("endpoints", key, "address_base"), expected, "1")


def _too_long(document: Document, key: str, endpoint: Raw, profile: Profile) -> Iterator[Fault]:
    most = endpoint.get("max_registers")
    if isinstance(most, int):
        widths = {name: point.modbus.registers for name, point in profile.points.items() if point.modbus}
        widest = max(widths, key=lambda name: widths[name], default="")
        if widths and widths[widest] > most:
            expected = f"at least the {widths[widest]} registers of {profile.profile}'s {widest}"
            yield document.fault(("endpoints", key, "max_registers"), expected, str(most))


def _assemble(file: PlantFile, profiles: Mapping[str, Profile]) -> Plant:
    endpoints = {endpoint_of(key): endpoint for key, endpoint in file.endpoints.items()}
    equipment = tuple(_equipment(entry, profiles[str(i)]) for i, entry in enumerate(file.equipment))
    return Plant(file.model_copy(update={"endpoints": endpoints}), equipment)


def _equipment(entry: PlantEquipment, profile: Profile) -> Equipment:
    return Equipment(entry.id, profile, parse_address(entry.address), entry)
