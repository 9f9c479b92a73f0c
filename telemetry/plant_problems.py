"""What can be wrong between the keys of a plant file: ids, references, addresses, parties, endpoints.

On plain data, like `telemetry.problems`: what has the wrong type is skipped (the models report it), so that one
mistake never hides another. Equipment whose profile is known is checked against it in `telemetry.files`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args
from zoneinfo import available_timezones

from telemetry.address import Address, endpoint_of, parse_address
from telemetry.plant import Level
from telemetry.problems import Path, Problem, Raw, items, mapping
from telemetry.wording import nearest, shown

LEVELS: tuple[str, ...] = get_args(Level)
"""From the widest to the narrowest."""

_PARTY_KINDS = {"maintainer": "maintainer"}
"""Roles that only an organisation of a kind may hold. Owner and user may be anybody."""


def plant_problems(plant: Raw) -> Iterator[Problem]:
    """Everything wrong between the keys of a plant file, its profiles apart."""
    yield from _site(plant)
    yield from _areas(plant)
    yield from _twice((("organisations", i, "id"), o.get("id")) for i, o in items(plant, "organisations"))
    yield from _twice((("equipment", i, "id"), e.get("id")) for i, e in items(plant, "equipment"))
    yield from _addresses(plant)
    yield from _references(plant)
    yield from _endpoints(plant)


def address_of(equipment: Raw) -> Address | None:
    """The address of an equipment, where it reads."""
    text = equipment.get("address")
    try:
        return parse_address(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _site(plant: Raw) -> Iterator[Problem]:
    zone = mapping(plant, "site").get("timezone")
    known = available_timezones()
    if isinstance(zone, str) and known and zone not in known:
        yield Problem(("site", "timezone"), "an IANA time zone, as Asia/Shanghai", shown(zone))


def _areas(plant: Raw) -> Iterator[Problem]:
    areas = list(items(plant, "areas"))
    site = _word(mapping(plant, "site").get("id"))
    yield from _twice([(("site", "id"), site), *((("areas", i, "id"), a.get("id")) for i, a in areas)])
    parents = {a.get("id"): a.get("parent") for _, a in areas if isinstance(a.get("id"), str)}
    levels = {site: mapping(plant, "site").get("level", "district")}
    levels |= {a.get("id"): a.get("level") for _, a in areas if isinstance(a.get("id"), str)}
    for i, area in areas:
        parent = area.get("parent")
        if isinstance(parent, str) and parent != site and parent not in parents:
            yield _unknown(("areas", i, "parent"), parent, [*parents, site], "area")
        elif cycle := _cycle(_word(area.get("id")), parents):
            yield Problem(("areas", i, "parent"), "a parent that is not below the area itself", " → ".join(cycle))
        else:
            yield from _level(("areas", i, "level"), area.get("level"), levels.get(_word(parent) or site))


def _level(path: Path, level: Any, above: Any) -> Iterator[Problem]:
    if level in LEVELS and above in LEVELS and LEVELS.index(level) < LEVELS.index(above):
        yield Problem(path, f"{above}, the level of its parent, or a lower one", level)


def _cycle(start: Any, parents: dict[Any, Any]) -> list[str]:
    """The chain of parents from `start` back to itself; empty when there is none."""
    chain = [start]
    while isinstance(step := parents.get(chain[-1]), str) and len(chain) <= len(parents):
        chain.append(step)
        if step == start:
            return chain
    return []


def _addresses(plant: Raw) -> Iterator[Problem]:
    seen: dict[tuple[str, int, str], str] = {}
    protocols: dict[tuple[str, int], str] = {}
    for i, equipment in items(plant, "equipment"):
        path, text = ("equipment", i, "address"), equipment.get("address")
        if not isinstance(text, str):
            continue
        try:
            address = parse_address(text)
        except ValueError as error:
            yield said(path, error)
            continue
        if not address.is_serial:
            yield from _shared(path, address, protocols)
        place = (address.endpoint, address.unit, address.prefix)
        if place in seen:
            yield Problem(path, "an address of its own", f"{text}, the address of {seen[place]} too")
        seen.setdefault(place, str(equipment.get("id")))


def _shared(path: Path, address: Address, protocols: dict[tuple[str, int], str]) -> Iterator[Problem]:
    """A host and port that others address by another protocol."""
    first = protocols.setdefault((address.host, address.port), address.scheme)
    if first != address.scheme:
        yield Problem(path, f"{first}, as others address {address.host}:{address.port}", address.scheme)


def _references(plant: Raw) -> Iterator[Problem]:
    areas = [mapping(plant, "site").get("id"), *(a.get("id") for _, a in items(plant, "areas"))]
    kinds: dict[Any, Any] = {}
    for _, organisation in items(plant, "organisations"):
        kinds.setdefault(_word(organisation.get("id")), organisation.get("kinds"))
    for i, equipment in items(plant, "equipment"):
        area = equipment.get("area")
        if isinstance(area, str) and area not in areas:
            yield _unknown(("equipment", i, "area"), area, areas, "area")
        for role, party in mapping(equipment, "parties").items():
            yield from _party(("equipment", i, "parties", role), role, party, kinds)
        yield from _position(("equipment", i, "position"), equipment.get("position"))


def _position(path: Path, position: Any) -> Iterator[Problem]:
    if not (isinstance(position, list) and len(position) == 2 and all(isinstance(n, (int, float)) for n in position)):
        return
    latitude, longitude = position
    if abs(latitude) > 90 or abs(longitude) > 180:
        yield Problem(path, "latitude in ±90 and longitude in ±180, in this order", f"{latitude:g}, {longitude:g}")


def _party(path: Path, role: str, party: Any, kinds: dict[Any, Any]) -> Iterator[Problem]:
    if not isinstance(party, str):
        return
    if party not in kinds:
        yield _unknown(path, party, kinds, "organisation")
        return
    needed, has = _PARTY_KINDS.get(role), kinds[party]
    if needed and isinstance(has, list) and needed not in has:
        yield Problem(
            path, f"an organisation of kind {needed}", f"{party}, of kind {', '.join(map(str, has)) or 'none'}"
        )


def _endpoints(plant: Raw) -> Iterator[Problem]:
    used = {address.endpoint for _, e in items(plant, "equipment") if (address := address_of(e))}
    first: dict[str, str] = {}
    for key in mapping(plant, "endpoints"):
        path = ("endpoints", key)
        try:
            endpoint = endpoint_of(key)
        except ValueError as error:
            yield said(path, error)
            continue
        if endpoint in first:
            yield Problem(path, "each endpoint once", f"{first[endpoint]} already, which is the same")
        elif endpoint not in used:
            yield Problem(path, f"an endpoint that an equipment uses, {nearest(endpoint, used)}", shown(key))
        first.setdefault(endpoint, key)


def _twice(named: Iterable[tuple[Path, Any]]) -> Iterator[Problem]:
    seen: dict[str, Path] = {}
    for path, name in named:
        if isinstance(name, str) and name in seen:
            yield Problem(path, "an id of its own", f"{shown(name)}, the id of {'.'.join(seen[name][:-1])} too")
        elif isinstance(name, str):
            seen[name] = path


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _unknown(path: Path, name: str, known: Iterable[Any], what: str) -> Problem:
    return Problem(
        path, f"an {what} of this file, {nearest(name, {k for k in known if isinstance(k, str)})}", shown(name)
    )


def said(path: Path, error: ValueError) -> Problem:
    """An error of the form "… expected E, found F" as a problem."""
    before, _, rest = str(error).partition("expected ")
    expected, _, found = rest.rpartition(", found ")
    return Problem(path, f"{before}{expected or rest}", found or "otherwise")
