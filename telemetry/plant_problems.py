"""What can be wrong between the keys of a plant file: ids, references, addresses, parties, endpoints.

On plain data, like `telemetry.problems`: what has the wrong type is skipped (the models report it), so that one
mistake never hides another. Equipment whose profile is known is checked against it in `telemetry.files`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, get_args
from zoneinfo import available_timezones

from telemetry.address import DEFAULT_PORTS, MODBUS, MQTT, SERIAL, Address, endpoint_of, host_and_port, parse_address
from telemetry.plant import Level
from telemetry.problems import Path, Problem, Raw, items, mapping, mappings
from telemetry.wording import nearest, shown

LEVELS: tuple[str, ...] = get_args(Level)
"""From the widest to the narrowest."""

LINE_KEYS: Final = {
    "baud": ("baud", 9600), "parity": ("parity", "N"), "stop": ("stop_bits", 1), "data": ("data_bits", 8),
}  # fmt: skip
"""Options of a serial address: the endpoint's key for the same, and its default."""

_NETWORK: Final = tuple(scheme for scheme in MODBUS if scheme != SERIAL)
_TLS: Final = ("modbus+tls", "mqtts")
KEYS_OF: Final = {
    **dict.fromkeys(("pause_after_connect_s", "pause_between_requests_s", "one_request_per_point"), MODBUS),
    **dict.fromkeys(("close_after_cycle", "address_base", "max_registers", "max_gap"), MODBUS),
    **dict.fromkeys(("baud", "parity", "stop_bits", "data_bits"), (SERIAL,)),
    **dict.fromkeys(("username", "password", "mqtt_version"), MQTT),
    **dict.fromkeys(("ca_file", "cert_file", "key_file"), _TLS),
    "fallback": _NETWORK,
    "probe_share": (SERIAL, "modbus+rtuovertcp"),
    "server_name": ("modbus+tls",),
}
"""Keys of an endpoint that only some schemes read: which."""

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


def endpoint_at(key: str) -> str | None:
    """An endpoint key as `Address.endpoint` spells it, where it reads."""
    try:
        return endpoint_of(key)
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
    lines: dict[tuple[str, str], tuple[str, str]] = {}
    for i, equipment in items(plant, "equipment"):
        path, text = ("equipment", i, "address"), equipment.get("address")
        if not isinstance(text, str):
            continue
        try:
            address = parse_address(text)
        except ValueError as error:
            yield said(path, error)
            continue
        if address.is_serial:
            yield from _line(path, address, str(equipment.get("id")), plant, lines)
        else:
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


def _line(
    path: Path, address: Address, name: str, plant: Raw, lines: dict[tuple[str, str], tuple[str, str]]
) -> Iterator[Problem]:
    """Line settings that contradict those of the endpoint, or of others on the same line."""
    endpoint = next((e for key, e in mappings(plant, "endpoints") if endpoint_at(key) == address.endpoint), {})
    for option, (key, default) in LINE_KEYS.items():
        said, set_there = address.options.get(option), endpoint.get(key)
        if said is not None and set_there is not None and said != str(set_there):
            yield Problem(path, f"{option}={set_there}, as endpoints.{address.endpoint} says", f"{option}={said}")
            continue
        mine = said or str(default if set_there is None else set_there)
        theirs, whose = lines.setdefault((address.endpoint, option), (mine, name))
        if theirs != mine:
            yield Problem(path, f"{option}={theirs}, as {whose} has it on this line", f"{option}={mine}")


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
    for key, body in mapping(plant, "endpoints").items():
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
        if isinstance(body, Mapping):
            yield from _endpoint_keys(path, endpoint, body)


def _endpoint_keys(path: Path, endpoint: str, body: Raw) -> Iterator[Problem]:
    """Keys that mean nothing at an endpoint of this scheme, and what else of them cannot be."""
    scheme = endpoint.partition("://")[0]
    for key, schemes in KEYS_OF.items():
        if body.get(key) is not None and scheme not in schemes:
            yield Problem((*path, key), f"no {key} at {scheme}, only at {', '.join(schemes)}", "this key")
    if body.get("key_file") is not None and body.get("cert_file") is None:
        yield Problem((*path, "cert_file"), "the certificate of key_file", "nothing")
    if isinstance(fallback := body.get("fallback"), str) and scheme in KEYS_OF["fallback"]:
        try:
            host, port = host_and_port(fallback, port=DEFAULT_PORTS[scheme])
        except ValueError as error:
            yield said((*path, "fallback"), error)
            return
        if endpoint_at(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}") == endpoint:
            yield Problem((*path, "fallback"), "another host or port than the endpoint's own", shown(fallback))


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
