"""Where profiles are found and read: a folder of one's own first, then the package. Each is read and checked once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from telemetry.errors import Fault
from telemetry.faults import M, problem_faults, validate
from telemetry.names import is_name
from telemetry.problems import Raw, profile_problems
from telemetry.profile import ConditionAlarm, Point, Profile, merge_overrides
from telemetry.wording import shown
from telemetry.yaml_marks import Document, read_document

PACKAGE: Final = "profiles"
"""The package-data folder that carries our own profiles: data only, no code."""


def known_profiles(profiles_dir: Path | None = None) -> list[str]:
    """Names of all profiles that can be named: those in `profiles_dir`, and those in the package. Sorted."""
    return sorted({name for folder in _folders(profiles_dir) for name in _names(folder)})


def folder_faults(profiles_dir: Path | None) -> list[Fault]:
    """A folder of one's own that is not there is a mistake, not an empty folder."""
    if profiles_dir is None or profiles_dir.is_dir():
        return []
    found = "a file" if profiles_dir.exists() else "nothing there"
    return [Fault(str(profiles_dir), 1, "VIGIL_PROFILES_DIR (--profiles)", "a folder of profiles", found)]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A profile file as read: the profile when it is good, its plain data for overrides, its faults."""

    profile: Profile | None
    raw: Raw
    faults: tuple[Fault, ...]


@dataclass(slots=True)
class Shelf:
    """The profiles that can be named, each read once."""

    folder: Path | None
    read: dict[str, Loaded | None] = field(default_factory=dict)
    overridden: dict[str, Profile] = field(default_factory=dict)

    def find(self, name: str) -> Loaded | None:
        """The profile's file as read; None when there is none of this name."""
        if name not in self.read:
            folders = _folders(self.folder) if is_name(name) else []
            found = next((f for folder in folders if (f := folder / f"{name}.yaml").is_file()), None)
            self.read[name] = read_profile(found, str(found), name) if found else None
        return self.read[name]

    def override(
        self, loaded: Loaded, points: Raw, conditions: Raw, document: Document
    ) -> tuple[Profile | None, list[Fault]]:
        """The profile with overrides; what is wrong with the result is a fault of `document`, where they stand.

        Equipment with the same overrides shares one profile.
        """
        key = json.dumps([loaded.raw["profile"], points, conditions], sort_keys=True)
        if key not in self.overridden:
            profile, faults = _overridden(loaded, points, conditions, document)
            if profile is None:
                return None, faults
            self.overridden[key] = profile
        return self.overridden[key], []


def _folders(profiles_dir: Path | None) -> list[Traversable]:
    return [*([profiles_dir] if profiles_dir else []), resources.files(PACKAGE)]


def _names(folder: Traversable) -> Iterator[str]:
    if folder.is_dir():
        yield from (f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def open_document(path: Traversable, shown: str) -> Document:
    """A YAML file; what cannot be read of it is in its faults."""
    try:
        return read_document(path.read_bytes(), shown)
    except OSError as error:
        return Document(shown, None, {}, (Fault(shown, 1, "(file)", "a file that can be read", error.strerror or ""),))


def read_profile(path: Traversable, shown: str, name: str | None) -> Loaded:
    """A profile from its file, which must be called `name` where one is given."""
    return make_profile(open_document(path, shown), name)


def make_profile(document: Document, name: str | None) -> Loaded:
    """A profile of a document."""
    if not isinstance(document.data, dict):
        return Loaded(None, {}, document.faults or (document.fault((), "a mapping", shown(document.data)),))
    profile, faults = _checked(document.data, document)
    if name is not None and isinstance(own := document.data.get("profile"), str) and own != name:
        faults.append(document.fault(("profile",), f"{shown(name)}, as the file is called", shown(own)))
    merged = once(document, faults)
    return Loaded(None if merged else profile, document.data, merged)


def _checked(raw: Raw, document: Document) -> tuple[Profile | None, list[Fault]]:
    """The model, or its faults and those between its keys, which a fault of a key would otherwise hide."""
    profile, faults = validate(Profile, raw, document)
    if profile is None:
        faults += problem_faults(profile_problems(raw), document)
    return profile, faults


def _overridden(loaded: Loaded, points: Raw, conditions: Raw, document: Document) -> tuple[Profile | None, list[Fault]]:
    """As _checked, of the merged profile; what no override touches is shared, so that thousands cost little."""
    raw = merge_overrides(loaded.raw, points, conditions)
    faults: list[Fault] = []
    changed = {
        key: {name: _part(model, raw, (key, name), document, faults) for name in over}
        for key, model, over in (("points", Point, points), ("conditions", ConditionAlarm, conditions))
    }
    faults += problem_faults(profile_problems(raw, touched=points), document)
    if loaded.profile is None or faults:
        return None, list(dict.fromkeys(faults))
    parts = {
        key: {name: part for name, part in (getattr(loaded.profile, key) | new).items() if part is not None}
        for key, new in changed.items()
    }
    return loaded.profile.model_copy(update=parts), []


def _part(model: type[M], raw: Raw, path: tuple[str, str], document: Document, faults: list[Fault]) -> M | None:
    """One point or condition of the merged profile; None where an override removes it or it has faults."""
    key, name = path
    if name not in raw[key]:
        return None
    part, found = validate(model, raw[key][name], document.below(path))
    faults += found
    return part


def once(document: Document, faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """The document's own faults, then the others, each once; a place whose YAML is wrong is not blamed again."""
    blamed = {fault.key for fault in document.faults}
    more = dict.fromkeys(f for f in faults if f.key not in blamed)
    return tuple(sorted((*document.faults, *more), key=lambda f: (f.line, f.key)))
