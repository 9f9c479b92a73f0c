"""The plant: which equipment stands where, how it is reached, who owns and maintains it. What a plant file says.

`telemetry.files.load_plant` reads it from YAML, with profiles found and overrides applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import Field

from telemetry.profile import Model, Name, Profile, Text

Level = Literal["city", "district", "street", "village", "grid"]
OrganisationKind = Literal[
    "use_unit",
    "maintainer",
    "manufacturer",
    "filler",
    "inspection_body",
    "regulator",
    "supervision_office",
    "street_government",
]
Status = Literal["in_use", "stopped_by_order", "unregistered", "inspection_overdue", "scrapped"]


class Site(Model):
    """The district or works that the file describes; the root of its areas."""

    id: Name = Field(description="Name in topics, URLs and labels: a-z, 0-9, _ . -")
    name: Text = Field(description="As people call it.")
    timezone: str = Field(
        "UTC", description="IANA name, as Asia/Shanghai; times are stored in UTC and shown in this zone."
    )
    level: Level = Field("district", description="Of the root area that the site is.")


class Area(Model):
    """An area of supervision."""

    id: Name = Field(description="Name in topics, URLs and labels: a-z, 0-9, _ . -")
    level: Level = Field(description="city, district, street, village or grid.")
    name: Text = Field(description="As people call it.")
    parent: Name | None = Field(None, description="Default: the site.")


class Organisation(Model):
    """An owner, user, maintainer, regulator …"""

    id: Name = Field(description="Name in topics, URLs and labels: a-z, 0-9, _ . -")
    kinds: tuple[OrganisationKind, ...] = Field(
        min_length=1, description="What it is; a maintainer of equipment must be of kind maintainer."
    )
    name: Text = Field(description="As people call it.")
    phone: str = Field("", description="Shown beside every alarm; in quotes.")
    credit_code: str = Field("", description="Unified social credit code.")
    address: str = Field("", description="Street address.")


class Endpoint(Model):
    """What differs from the defaults at one endpoint (host and port, or serial line)."""

    timeout_s: float | None = Field(None, gt=0, description="Seconds to wait for an answer. Default: the profile's.")
    pause_between_requests_s: float = Field(0.0, ge=0, description="For gateways that lose requests sent too fast.")
    pause_after_connect_s: float = Field(0.0, ge=0, description="For gateways that are deaf at first.")
    max_registers: int | None = Field(
        None, ge=1, le=125, description="Most registers in one request. Default: the profile's."
    )
    username: str | None = Field(None, description="A reference: env:NAME or file:PATH.", pattern=r"^(env|file):.+")
    password: str | None = Field(None, description="A reference: env:NAME or file:PATH.", pattern=r"^(env|file):.+")
    ca_file: str | None = Field(None, description="Certificate authority of a TLS endpoint, PEM.")


class Parties(Model):
    """Who stands for the equipment today."""

    owner: Name | None = Field(None, description="An organisation of this file.")
    user: Name | None = Field(None, description="An organisation of this file: the use unit.")
    maintainer: Name | None = Field(None, description="An organisation of this file, of kind maintainer.")


class PlantEquipment(Model):
    """One piece of equipment, as the file has it."""

    id: Name = Field(description="Name in topics, URLs and labels: a-z, 0-9, _ . -")
    profile: Name = Field(description="Its device profile: one of the package, or of VIGIL_PROFILES_DIR.")
    address: str = Field(
        description="modbus+tcp://HOST[:502]/UNIT, modbus+rtuovertcp://HOST:PORT/UNIT, mqtt://HOST[:1883]/PREFIX or mqtts://HOST[:8883]/PREFIX.",
        examples=["modbus+tcp://10.0.0.5:502/3", "mqtt://127.0.0.1:1883/lifts/0012"],
        json_schema_extra={"pattern": r"^(modbus\+tcp|modbus\+rtuovertcp|mqtts?)://[^/]+(/.*)?$"},
    )
    name: Text | None = Field(None, description="As people call it. Default: its id.")
    area: Name | None = Field(None, description="An area of this file. Default: the site.")
    edge: Name | None = Field(None, description="The edge that reads it. Default: whichever is given this file.")
    registration: str | None = Field(
        None, pattern=r"^\d{20}$", description="20 digits: type 4, county 6, year and month 6, serial 4."
    )
    parties: Parties = Field(Parties(), description="Who owns, uses and maintains it.")
    location: str = Field("", description="Street address, for people.")
    position: tuple[float, float] | None = Field(None, description="Latitude, longitude in degrees (WGS 84).")
    model: str = Field("", description="Maker and model.")
    status: Status = Field("in_use", description="Its legal status.")
    poll_s: float | None = Field(None, gt=0, description="Seconds between readings. Default: the profile's.")
    points: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Overrides of the profile's points.")
    conditions: dict[str, dict[str, Any] | None] = Field(
        default_factory=dict, description="Overrides of the profile's conditions; null switches one off."
    )


class PlantFile(Model):
    """A plant file."""

    site: Site = Field(description="The district or works that the file describes.")
    areas: tuple[Area, ...] = Field((), description="Areas of supervision, down to the grid.")
    organisations: tuple[Organisation, ...] = Field((), description="Owners, users, maintainers, regulators.")
    endpoints: dict[str, Endpoint] = Field(
        default_factory=dict, description="By SCHEME://HOST[:PORT]: only what differs from the defaults."
    )
    equipment: tuple[PlantEquipment, ...] = Field(min_length=1, description="What is read.")


@dataclass(frozen=True, slots=True)
class Address:
    """An equipment's address, taken apart.

    modbus+tcp://HOST[:502]/UNIT ·
    modbus+rtuovertcp://HOST:PORT/UNIT · mqtt://HOST[:1883]/PREFIX · mqtts://HOST[:8883]/PREFIX
    """

    scheme: str
    host: str
    port: int
    unit: int
    prefix: str
    options: Mapping[str, str]
    endpoint: str
    """scheme://host:port: what several equipments may share."""

    @property
    def is_modbus(self) -> bool:
        """Whether a Modbus driver reads it (else MQTT)."""
        return self.scheme.startswith("modbus+")


_DEFAULT_PORTS = {"modbus+tcp": 502, "modbus+rtuovertcp": 502, "modbus+rtu": 0, "mqtt": 1883, "mqtts": 8883}


def split_address(text: str) -> SplitResult:
    """An address or endpoint in its parts. Raises ValueError, which never shows a password."""
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ValueError("expected a host (an IPv6 one in brackets), found none that can be read") from error
    if "@" in parts.netloc:
        raise ValueError("expected no user or password (name them under endpoints as env: or file:), found one")
    return parts


def parse_address(text: str) -> Address:
    """Takes an address apart. Raises ValueError that says what was expected."""
    parts = split_address(text)
    if parts.scheme not in _DEFAULT_PORTS:
        known = ", ".join(f"{scheme}://…" for scheme in _DEFAULT_PORTS if scheme != "modbus+rtu")
        raise ValueError(f"expected {known}, found {text!r}")
    if parts.scheme == "modbus+rtu":
        raise ValueError(
            f"expected modbus+tcp, modbus+rtuovertcp or mqtt (serial lines are not in this release), found {text!r}"
        )
    try:
        port = _DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    except ValueError as error:
        raise ValueError(f"expected a port in 1..65535, found {text!r}") from error
    host, path = parts.hostname or "", parts.path.strip("/")
    if port == 0:
        raise ValueError(f"expected a port in 1..65535, found {text!r}")
    if not host:
        raise ValueError(f"expected a host, found {text!r}")
    unit, prefix = 1, ""
    if parts.scheme.startswith("modbus+"):
        if parts.fragment or (path and not (path.isdecimal() and len(path) <= 3 and int(path) <= 255)):
            raise ValueError(f"expected a unit id in 0..255 after the host, found {path!r}")
        unit = int(path) if path else 1
    elif not path or "#" in text or "+" in path:
        raise ValueError(f"expected a topic prefix without wildcards after the host, found {text!r}")
    else:
        prefix = path
    shown = f"[{host}]" if ":" in host else host
    return Address(
        parts.scheme, host, port, unit, prefix, dict(parse_qsl(parts.query)), f"{parts.scheme}://{shown}:{port}"
    )


@dataclass(frozen=True, slots=True)
class Equipment:
    """One piece of equipment with its profile found, its overrides applied and its address read."""

    id: str
    profile: Profile
    address: Address
    entry: PlantEquipment

    @property
    def poll_s(self) -> float:
        """Seconds between polls of the main group."""
        return self.entry.poll_s or self.profile.poll_s


@dataclass(frozen=True, slots=True)
class Plant:
    """A whole plant, checked."""

    file: PlantFile
    equipment: tuple[Equipment, ...]

    def endpoint(self, address: Address) -> Endpoint:
        """Settings of an address's endpoint; defaults where the file says nothing."""
        return self.file.endpoints.get(address.endpoint, Endpoint())

    def of_edge(self, edge: str) -> tuple[Equipment, ...]:
        """What one edge reads."""
        return tuple(e for e in self.equipment if e.entry.edge in (None, edge))

    def by_id(self) -> dict[str, Equipment]:
        """Equipment by id."""
        return {e.id: e for e in self.equipment}
