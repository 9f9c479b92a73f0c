"""What devices that are read alike share: the layouts that decode their answers, and how their maps are spelled.

Invariant: nothing is kept of a profile that no device has any more (`keep`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from edge.decode import RegisterLayout, make_layout
from edge.plan import Request
from telemetry.plant import Endpoint
from telemetry.profile import ModbusPoint, Profile


@dataclass(slots=True, eq=False)
class Layouts:
    """Layouts by profile and requests, so that devices that are read alike are decoded together."""

    _known: dict[tuple[int, tuple[Request, ...]], tuple[Profile, RegisterLayout]] = field(default_factory=dict)
    _places: dict[int, tuple[Profile, str]] = field(default_factory=dict)

    def of(self, profile: Profile, points: Mapping[str, ModbusPoint], requests: tuple[Request, ...]) -> RegisterLayout:
        """The layout of these requests."""
        key = (id(profile), requests)
        if key not in self._known:
            self._known[key] = (profile, make_layout(profile, points, requests))
        return self._known[key][1]

    def fingerprint(self, profile: Profile, endpoint: Endpoint) -> str:
        """See fingerprint_of; a profile is spelled once."""
        if id(profile) not in self._places:
            self._places[id(profile)] = profile, _places(profile)
        return _fingerprint(profile, self._places[id(profile)][1], endpoint)

    def keep(self, profiles: Iterable[Profile]) -> None:
        """Forgets all others."""
        used = {id(profile) for profile in profiles}
        self._known = {key: known for key, known in self._known.items() if key[0] in used}
        self._places = {key: known for key, known in self._places.items() if key in used}


def fingerprint_of(profile: Profile, endpoint: Endpoint) -> str:
    """Changes when the map of the device does, and what was learned must be forgotten."""
    return _fingerprint(profile, _places(profile), endpoint)


def _places(profile: Profile) -> str:
    places = {name: p.modbus.model_dump(mode="json") for name, p in profile.points.items() if p.modbus is not None}
    return repr(sorted(places.items()))


def _fingerprint(profile: Profile, places: str, endpoint: Endpoint) -> str:
    told = f"({profile.profile!r}, {profile.version!r}, {places}, {endpoint.quirks(profile.modbus)!r})"
    return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()
