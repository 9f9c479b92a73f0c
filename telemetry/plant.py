"""The plant: which equipment stands where, how it is reached, who owns and maintains it. What a plant file says.

`telemetry.files.load_plant` reads it from YAML, with profiles found and overrides applied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field

from telemetry.address import Address, parse_address
from telemetry.problems import BIT_TABLES
from telemetry.profile import ModbusDefaults, Model, Name, Profile, Text
from telemetry.shard import is_read_by

__all__ = [
    "Address",
    "Area",
    "Endpoint",
    "Equipment",
    "Level",
    "LineSettings",
    "Organisation",
    "OrganisationKind",
    "Parties",
    "Plant",
    "PlantEquipment",
    "PlantFile",
    "Site",
    "Status",
    "parse_address",
]

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
    fallback: str | None = Field(
        None, description="HOST[:PORT] to try where the first host cannot be reached (Modbus over TCP or TLS)."
    )
    pause_after_connect_s: float | None = Field(
        None, ge=0, description="Seconds of rest once connected: the gateway is deaf. Default: the profile's."
    )
    pause_between_requests_s: float | None = Field(
        None, ge=0, description="Seconds from an answer to the next request. Default: the profile's."
    )
    one_request_per_point: bool | None = Field(None, description="Never read points together. Default: the profile's.")
    close_after_cycle: bool | None = Field(
        None, description="Close the connection after each cycle. Default: the profile's."
    )
    address_base: Literal[0, 1] | None = Field(
        None, description="What the profile's addresses are counted from, at this endpoint. Default: the profile's."
    )
    max_registers: int | None = Field(
        None, ge=1, le=125, description="Most registers in one request; the profile's where that is less."
    )
    max_gap: int | None = Field(
        None, ge=0, le=124, description="Unneeded registers read to save a request. Default: the profile's."
    )
    baud: int = Field(9600, ge=1, le=9_999_999, description="Of a serial line.")
    parity: Literal["N", "E", "O"] = Field("N", description="Of a serial line: none, even, odd.")
    stop_bits: Literal[1, 2] = Field(1, description="Of a serial line.")
    data_bits: Literal[7, 8] = Field(8, description="Of a serial line.")
    probe_share: float = Field(
        0.1, gt=0, le=1, description="Share of a line's time that units which do not answer may take, over 20 s."
    )
    mqtt_version: Literal["3.1.1", "5"] | None = Field(
        None, description="In quotes. Default: 5, then 3.1.1 if the broker refuses."
    )
    username: str | None = Field(None, description="A reference: env:NAME or file:PATH.", pattern=r"^(env|file):.+")
    password: str | None = Field(None, description="A reference: env:NAME or file:PATH.", pattern=r"^(env|file):.+")
    ca_file: str | None = Field(None, description="Certificate authority of a TLS endpoint, PEM.")
    cert_file: str | None = Field(None, description="Certificate that we show to a TLS endpoint, PEM.")
    key_file: str | None = Field(None, description="Private key of cert_file, PEM. Default: it is in cert_file.")
    server_name: str | None = Field(
        None, min_length=1, description="Name in the certificate of a modbus+tls endpoint. Default: its host."
    )

    def quirks(self, device: ModbusDefaults) -> ModbusDefaults:
        """What a device behind this endpoint can take: the profile's, with what this endpoint says laid over it."""
        shared = ("pause_after_connect_s", "pause_between_requests_s", "one_request_per_point", "close_after_cycle",
                  "address_base", "max_gap")  # fmt: skip
        over = {key: value for key in shared if (value := getattr(self, key)) is not None}
        if (most := self.max_registers) is not None:
            own = device.max_per_table.items()
            over["max_registers"] = min(device.max_registers, most)
            over["max_per_table"] = {table: n if table in BIT_TABLES else min(n, most) for table, n in own}
        return device.model_copy(update=over)


@dataclass(frozen=True, slots=True)
class LineSettings:
    """How a serial line is spoken on."""

    baud: int
    parity: Literal["N", "E", "O"]
    stop_bits: Literal[1, 2]
    data_bits: Literal[7, 8]

    @classmethod
    def of(cls, address: Address, endpoint: Endpoint) -> Self:
        """The settings of an address, where it says nothing those of its endpoint."""
        options = address.options
        read: dict[str, Any] = {key: int(options[key]) for key in ("baud", "stop", "data") if key in options}
        return cls(
            read.get("baud", endpoint.baud),
            options.get("parity", endpoint.parity),  # type: ignore[arg-type]
            read.get("stop", endpoint.stop_bits),
            read.get("data", endpoint.data_bits),
        )

    def __str__(self) -> str:
        """As people say it: 9600 8N1."""
        return f"{self.baud} {self.data_bits}{self.parity}{self.stop_bits}"


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
        description="modbus+tcp://HOST[:502]/UNIT, modbus+tls://HOST[:802]/UNIT, modbus+rtuovertcp://HOST:PORT/UNIT, "
        "modbus+rtu:///dev/ttyUSB0/UNIT?baud=9600&parity=E&stop=1&data=8, mqtt://HOST[:1883]/PREFIX or "
        "mqtts://HOST[:8883]/PREFIX.",
        examples=["modbus+tcp://10.0.0.5:502/3", "mqtt://127.0.0.1:1883/lifts/0012"],
        json_schema_extra={
            "pattern": r"^((modbus\+(tcp|tls|rtuovertcp)|mqtts?)://[^/]+(/.*)?|modbus\+rtu:///[^?]+(\?.*)?)$"
        },
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
        default_factory=dict,
        description="By SCHEME://HOST[:PORT] or modbus+rtu:///dev/…: only what differs from the defaults.",
    )
    equipment: tuple[PlantEquipment, ...] = Field(min_length=1, description="What is read.")


@dataclass(frozen=True, slots=True)
class Equipment:
    """One piece of equipment with its profile found, its overrides applied and its address read."""

    id: str
    profile: Profile
    address: Address
    entry: PlantEquipment

    @property
    def shared_by(self) -> str:
        """What names all equipment that one process must read: its endpoint where that is asked, else its own id."""
        return self.address.endpoint if self.address.is_modbus else self.id

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
        """What one edge reads, or one shard of an edge (telemetry.shard)."""
        return tuple(e for e in self.equipment if is_read_by(edge, e.entry.edge, e.shared_by))

    def by_id(self) -> dict[str, Equipment]:
        """Equipment by id."""
        return {e.id: e for e in self.equipment}
