"""What profiles say that the store does not: the names of codes, and the order of points.

An unknown code is shown as it is, unknown points come last.
"""

from __future__ import annotations

from collections.abc import Callable

from dashboards.console import models, reads
from dashboards.console.store import Row, Store
from telemetry.profile import Profile

FindProfile = Callable[[str], Profile | None]


class CodeNames:
    """Names of (profile, scheme, code). Profiles are read once each, units' profiles remembered."""

    def __init__(self, find_profile: FindProfile) -> None:
        self._find_profile = find_profile
        self._profiles: dict[str, Profile | None] = {}
        self._profile_of: dict[str, str] = {}
        self._orders: dict[str, dict[str, int]] = {}

    async def event(self, store: Store, row: Row) -> models.EventItem:
        """The event of a row of public.events, its code named."""
        equipment = row["equipment"]
        profile = self._profile_of.get(equipment) or await reads.profile_of(store, equipment)
        if profile is not None:
            self._profile_of[equipment] = profile
        name = self.name(profile, row["scheme"], row["code"])
        return models.EventItem.model_validate(row | {"id": row["event_id"], "name": name})

    def name(self, profile: str | None, scheme: str, code: str) -> models.Text | None:
        """What a profile calls a code."""
        if profile is None:
            return None
        found = self._profile(profile)
        known = found.schemes.get(scheme) if found else None
        named = known.codes.get(code) if known else None
        return models.Text(zh=named.name.zh, en=named.name.en) if named else None

    def order(self, profile: str, point: str) -> int:
        """A point's place in its profile; behind all others where the profile does not have it."""
        if profile not in self._orders:
            found = self._profile(profile)
            self._orders[profile] = {name: place for place, name in enumerate(found.points if found else ())}
        places = self._orders[profile]
        return places.get(point, len(places))

    def _profile(self, name: str) -> Profile | None:
        if name not in self._profiles:
            self._profiles[name] = self._find_profile(name)
        return self._profiles[name]
