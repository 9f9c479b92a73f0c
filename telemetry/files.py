"""Profiles and plants from YAML files, with every fault of a file reported at once: file, line, key, expected, found.

Invariant: what these functions return is whole and checked. Nothing wrong in a file is skipped, mended or defaulted away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from telemetry.errors import ConfigError, Fault
from telemetry.faults import problem_faults, validate
from telemetry.plant import Address, Equipment, Plant, PlantEquipment, PlantFile, parse_address
from telemetry.plant_problems import address_of, endpoint_of, plant_problems
from telemetry.problems import Path as KeyPath
from telemetry.problems import Raw, items, mapping, mappings, profile_problems
from telemetry.profile import Profile, merge_overrides
from telemetry.wording import nearest, shown
from telemetry.yaml_marks import Document, read_document

PACKAGE: Final = "profiles"
"""The package-data folder that carries our own profiles: data only, no code."""


def known_profiles(profiles_dir: Path | None = None) -> list[str]:
    """Names of all profiles that can be named: those in `profiles_dir`, and those in the package. Sorted."""
    return sorted({name for folder in _folders(profiles_dir) for name in _names(folder)})


def load_profile(name_or_path: str | Path, *, profiles_dir: Path | None = None) -> Profile:
    """The profile of a name (searched in `profiles_dir`, then in the package) or of a file. Raises ConfigError."""
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith((".yaml", ".yml")) or "/" in text:
        loaded: _Loaded | None = _read_profile(Path(name_or_path), text, None)
    else:
        loaded = _Shelf(profiles_dir).find(text)
    if loaded is None:
        raise ConfigError([Fault(text, 1, "profile", nearest(text, known_profiles(profiles_dir)), shown(text))])
    if loaded.profile is None:
        raise ConfigError(loaded.faults)
    return loaded.profile


def load_plant(path: str | Path, *, profiles_dir: Path | None = None) -> Plant:
    """The plant of a file, with its profiles found, overrides applied and addresses read.

    Raises ConfigError with every fault of the file and of the profiles that it uses.
    """
    plant, faults = _read_plant(Path(path), _Shelf(profiles_dir))
    if plant is None or faults:
        raise ConfigError(faults)
    return plant


def check_files(paths: Iterable[str | Path], profiles_dir: Path | None = None) -> list[Fault]:
    """Every fault of plant and profile files, sorted by file and line. A file with the key `profile` is a profile."""
    shelf = _Shelf(profiles_dir)
    faults: list[Fault] = []
    for path in map(Path, paths):
        document = _open(path, str(path))
        if isinstance(document.data, dict) and "profile" in document.data and "equipment" not in document.data:
            faults += _make_profile(document, None).faults
        else:
            faults += _make_plant(document, shelf)[1]
    return sorted(dict.fromkeys(faults), key=lambda f: (f.file, f.line, f.key))


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A profile file as read: the profile when it is good, its plain data for overrides, its faults."""

    profile: Profile | None
    raw: Raw
    faults: tuple[Fault, ...]


@dataclass(slots=True)
class _Shelf:
    """The profiles that can be named, each read once."""

    folder: Path | None
    read: dict[str, _Loaded | None] = field(default_factory=dict)

    def find(self, name: str) -> _Loaded | None:
        if name not in self.read:
            found = next((f for folder in _folders(self.folder) if (f := folder / f"{name}.yaml").is_file()), None)
            self.read[name] = _read_profile(found, str(found), name) if found else None
        return self.read[name]


def _folders(profiles_dir: Path | None) -> list[Traversable]:
    return [*([profiles_dir] if profiles_dir else []), resources.files(PACKAGE)]


def _names(folder: Traversable) -> Iterator[str]:
    if folder.is_dir():
        yield from (f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def _open(path: Traversable, shown: str) -> Document:
    try:
        return read_document(path.read_bytes(), shown)
    except OSError as error:
        return Document(shown, None, {}, (Fault(shown, 1, "(file)", "a file that can be read", error.strerror or ""),))


def _read_profile(path: Traversable, shown: str, name: str | None) -> _Loaded:
    return _make_profile(_open(path, shown), name)


def _make_profile(document: Document, name: str | None) -> _Loaded:
    if not isinstance(document.data, dict):
        return _Loaded(None, {}, document.faults or (document.fault((), "a mapping", shown(document.data)),))
    profile, faults = validate(Profile, document.data, document)
    faults += problem_faults(profile_problems(document.data), document)
    if name is not None and isinstance(own := document.data.get("profile"), str) and own != name:
        faults.append(document.fault(("profile",), f"{shown(name)}, as the file is called", shown(own)))
    merged = _once(document, faults)
    return _Loaded(None if merged else profile, document.data, merged)


def _once(document: Document, faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """The document's own faults, then the others, each once; a place whose YAML is wrong is not blamed again."""
    blamed = {fault.key for fault in document.faults}
    more = dict.fromkeys(f for f in faults if f.key not in blamed)
    return tuple(sorted((*document.faults, *more), key=lambda f: (f.line, f.key)))


def _read_plant(path: Path, shelf: _Shelf) -> tuple[Plant | None, tuple[Fault, ...]]:
    return _make_plant(_open(path, str(path)), shelf)


def _make_plant(document: Document, shelf: _Shelf) -> tuple[Plant | None, tuple[Fault, ...]]:
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
    merged = (*_once(document, faults), *dict.fromkeys(elsewhere))
    if file is None or merged:
        return None, merged
    return _assemble(file, profiles), ()


@dataclass(frozen=True, slots=True)
class _Fitted:
    """An equipment's profile with its overrides, or what is wrong: in the plant file, and in the profile's file."""

    profile: Profile | None
    faults: Sequence[Fault] = ()
    elsewhere: Sequence[Fault] = ()


def _fit(document: Document, i: str, entry: Raw, shelf: _Shelf) -> _Fitted:
    here, name = ("equipment", i), entry.get("profile")
    loaded = shelf.find(name) if isinstance(name, str) else None
    if loaded is None:
        if not isinstance(name, str):
            return _Fitted(None)
        expected = f"a profile, {nearest(name, known_profiles(shelf.folder))}"
        return _Fitted(None, [document.fault((*here, "profile"), expected, shown(name))])
    if loaded.profile is None:
        return _Fitted(None, (), loaded.faults)
    faults = list(_unknown_overrides(document, here, entry, loaded.profile))
    profile: Profile | None = loaded.profile
    if not faults and (entry.get("points") or entry.get("conditions")):
        profile, faults = _override(document, here, entry, loaded)
    if profile is not None and not faults:
        faults += _unreadable(document, here, entry, profile)
    return _Fitted(profile, faults)


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


def _override(document: Document, here: KeyPath, entry: Raw, loaded: _Loaded) -> tuple[Profile | None, list[Fault]]:
    """The profile with the overrides of the entry; what is wrong with the result is a fault of the plant's line."""
    points, conditions = (
        {name: item for name, item in mapping(entry, key).items() if isinstance(item, Mapping) or key == "conditions"}
        for key in ("points", "conditions")
    )
    merged = merge_overrides(loaded.raw, points, conditions)
    inside = document.below(here)
    profile, faults = validate(Profile, merged, inside)
    faults += problem_faults(profile_problems(merged), inside)
    return (None if faults else profile), faults


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
    yield from _too_long(document, here, address, profile)


def _too_long(document: Document, here: KeyPath, address: Address, profile: Profile) -> Iterator[Fault]:
    for key, endpoint in mappings(document.data, "endpoints"):
        most = endpoint.get("max_registers")
        if not isinstance(most, int) or not address.is_modbus or _endpoint(key) != address.endpoint:
            continue
        widths = {name: point.modbus.registers for name, point in profile.points.items() if point.modbus}
        widest = max(widths, key=lambda name: widths[name], default="")
        if widths and widths[widest] > most:
            expected = f"at least the {widths[widest]} registers of {profile.profile}'s {widest}"
            yield document.fault(("endpoints", key, "max_registers"), expected, str(most))


def _endpoint(key: str) -> str | None:
    try:
        return endpoint_of(key)
    except ValueError:
        return None


def _assemble(file: PlantFile, profiles: Mapping[str, Profile]) -> Plant:
    endpoints = {endpoint_of(key): endpoint for key, endpoint in file.endpoints.items()}
    equipment = tuple(_equipment(entry, profiles[str(i)]) for i, entry in enumerate(file.equipment))
    return Plant(file.model_copy(update={"endpoints": endpoints}), equipment)


def _equipment(entry: PlantEquipment, profile: Profile) -> Equipment:
    return Equipment(entry.id, profile, parse_address(entry.address), entry)
