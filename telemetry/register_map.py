"""Where a point lies in a device: its registers and the order of their bytes, or its place in an MQTT message."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal, Self
from zoneinfo import available_timezones

from pydantic import Field, model_validator

from telemetry.model import Model
from telemetry.problems import BCD, BIT_TABLES, REGISTERS, WHOLE, Problem, refuse

Table = Literal["coil", "discrete", "input", "holding"]


class RegisterType(StrEnum):
    """How a value lies in registers or bits."""

    BOOL = "bool"
    U16 = "u16"
    I16 = "i16"
    U32 = "u32"
    I32 = "i32"
    U64 = "u64"
    I64 = "i64"
    F32 = "f32"
    F64 = "f64"
    BCD16 = "bcd16"
    BCD32 = "bcd32"
    BCD64 = "bcd64"
    STRING = "string"

    @property
    def registers(self) -> int:
        """Registers that one value takes; 0 for strings, whose length the point says."""
        return REGISTERS.get(self.value, 0)

    @property
    def is_integer(self) -> bool:
        """Whether its bits count as a two's complement or plain whole number, of which bit fields can be taken."""
        return self.value in WHOLE

    @property
    def is_bcd(self) -> bool:
        """Whether each four bits are a decimal digit."""
        return self.value in BCD


class ModbusPoint(Model):
    """Where a point lies in a Modbus device and how its value is made of registers."""

    table: Table = Field(
        "holding", description="Holding registers are read by function 03, input 04, coils 01, discrete inputs 02."
    )
    address: int = Field(
        ge=0,
        le=65535,
        description="Address as sent in the request, counted from 0 (or from the profile's address_base).",
    )
    type: RegisterType = Field(RegisterType.U16, description="How the value lies in registers.")
    word_order: str | None = Field(
        None,
        description="Order in which the value's bytes arrive; A is the most significant. AB or BA for 16 bits (and for "
        "each register of a string), ABCD, CDAB, BADC, DCBA for 32, any order of ABCDEFGH for 64. Default: the profile's.",
    )
    bit: int | None = Field(
        None, ge=0, le=63, description="Take this bit of the integer, 0 the lowest once its registers are in order."
    )
    bits: int = Field(1, ge=1, le=64, description="Width of the bit field that starts at `bit`.")
    length: int | None = Field(None, ge=1, le=125, description="Registers of a string.")
    scale: float = Field(1.0, description="Value = raw × scale + offset; not 0.")
    offset: float = Field(0.0, description="Added after scaling, in the point's unit.")
    not_available: tuple[int, ...] = Field(
        (), description="Raw values that mean: no value; of floats and BCD, the bits of their registers as a number."
    )
    wrap: int | None = Field(
        None,
        ge=2,
        description="Of a counter: raw values count from 0 to wrap − 1 and begin again; the value is then the running "
        "total. 65536 for a full 16-bit register.",
    )
    max_step: int | None = Field(
        None,
        ge=1,
        description="Of a counter that wraps: the largest plausible raw increase between two readings; more is a "
        "counter that was reset. Default: wrap / 4.",
    )

    @property
    def registers(self) -> int:
        """Registers (or coils) that the point takes."""
        return self.length or self.type.registers

    @property
    def largest_step(self) -> int:
        """The largest plausible raw increase of a counter that wraps; 0 where it does not."""
        return (self.max_step or max(self.wrap // 4, 1)) if self.wrap else 0

    @model_validator(mode="after")
    def _whole(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        is_bit_table = self.table in BIT_TABLES
        if (self.type is RegisterType.STRING) != (self.length is not None):
            yield Problem(("length",), "a length where type is string, and only there", str(self.length or "nothing"))
        if self.address + self.registers > 65536:
            yield Problem(("address",), "the point to end at or below 65535", f"{self.address} + {self.registers}")
        if is_bit_table and self.type is not RegisterType.BOOL:
            yield Problem(("type",), f"bool in table {self.table}", self.type.value)
        if not is_bit_table and self.type is RegisterType.BOOL and self.bit is None:
            yield Problem(("bit",), "the bit's number, for a bool in a register", "nothing")
        if self.bit is None and self.bits != 1:
            yield Problem(("bit",), "the lowest bit of the field", "nothing")
        yield from self._bit_problems(is_bit_table)
        if self.word_order is not None and is_bit_table:
            yield Problem(("word_order",), f"none, in table {self.table}", repr(self.word_order))
        elif self.word_order is not None and not word_order_fits(self.word_order, self.type):
            width = bytes_in_order(self.type)
            yield Problem(("word_order",), f"an order of the {width} bytes of {self.type}", repr(self.word_order))
        if self.scale == 0:
            yield Problem(("scale",), "a number other than 0", "0")

    def _bit_problems(self, is_bit_table: bool) -> Iterator[Problem]:
        if self.bit is None:
            return
        width = self.type.registers * 16
        if is_bit_table:
            yield Problem(("bit",), f"no bit, in table {self.table}", str(self.bit))
        elif not self.type.is_integer and self.type is not RegisterType.BOOL:
            yield Problem(("bit",), "an integer type or bool, to take bits of", self.type.value)
        elif self.bit + self.bits > width:
            yield Problem(("bit",), f"a field within the {width} bits of {self.type}", f"{self.bit} + {self.bits}")


class MqttPoint(Model):
    """Where a point lies in an MQTT message."""

    topic: str = Field("state", description="Below the equipment's topic prefix.")
    path: str | None = Field(
        None,
        description="Dotted path in the JSON payload; numbers are positions in a list. Default: values.POINT. In a topic "
        "of `lists` whose entries are named: the entry's name. Default: POINT.",
    )
    map: dict[str, float] | None = Field(
        None, description="JSON values to numbers, spelled as JSON spells them: true, 1, open. Others are bad."
    )
    scale: float = Field(1.0, description="Value = raw × scale + offset; not 0.")
    offset: float = Field(0.0, description="Added after scaling, in the point's unit.")


class ModbusDefaults(Model):
    """What all Modbus points of the profile share, and what the device can take."""

    word_order: Literal["ABCD", "CDAB", "BADC", "DCBA"] = Field(
        "ABCD", description="Order of a 32-bit value's bytes; A is the most significant. CDAB: low word first."
    )
    max_registers: int = Field(125, ge=1, le=125, description="Most registers in one request.")
    max_coils: int = Field(2000, ge=1, le=2000, description="Most coils or discrete inputs in one request.")
    max_gap: int = Field(16, ge=0, le=124, description="Unneeded registers read rather than making another request.")
    max_per_table: dict[Table, int] = Field(
        default_factory=dict, description="Most registers or coils in one request of a table, where tables differ."
    )
    illegal: tuple[tuple[int, int], ...] = Field(
        (), description="Address ranges [first, last] never to be touched, in every table."
    )
    illegal_by_table: dict[Table, tuple[tuple[int, int], ...]] = Field(
        default_factory=dict, description="Address ranges [first, last] never to be touched, of one table."
    )
    address_base: Literal[0, 1] = Field(
        0, description="What this profile's addresses are counted from; 1: its address 1 is sent as 0."
    )
    pause_after_connect_s: float = Field(0.0, ge=0, description="Seconds of rest once connected: the device is deaf.")
    pause_between_requests_s: float = Field(0.0, ge=0, description="Seconds from an answer to the next request.")
    one_request_per_point: bool = Field(False, description="Points are never read together.")
    close_after_cycle: bool = Field(False, description="The connection is closed after each cycle.")

    def most(self, table: Table) -> int:
        """Most registers or coils in one request of a table."""
        return self.max_per_table.get(table, self.max_coils if table in BIT_TABLES else self.max_registers)

    def illegal_in(self, table: Table) -> tuple[tuple[int, int], ...]:
        """Address ranges [first, last] of a table never to be touched, counted as the profile counts."""
        return (*self.illegal, *self.illegal_by_table.get(table, ()))


class MqttList(Model):
    """A topic whose messages are lists: of named values, or of whole messages with a time each."""

    path: str = Field("", description="Dotted path of the list in the payload. Default: the payload is the list.")
    name: str | None = Field(
        None,
        description="Dotted path of the name in an entry, as in [{name, value, time}, …]. Without it each entry is read "
        "as a message of its own, by the points' paths.",
    )
    value: str = Field("value", description="Dotted path of the value in a named entry.")
    time: str | None = Field(
        None, description="Dotted path of an entry's own time. Default: time_path. Where it is missing, the message's."
    )


class MqttDefaults(Model):
    """Topics and time of the MQTT messages of this kind of device."""

    qos: Literal[0, 1] = Field(1, description="Quality of service of the subscription.")
    time_path: str = Field("time", description="Dotted path of the device's time. Missing: time of receipt.")
    time_zone: str | None = Field(
        None, description="IANA name, as Asia/Shanghai, of times without an offset. Default: such a time is refused."
    )
    time_format: str | None = Field(
        None, description="strptime pattern of the vendor's own spelling, as %Y%m%d%H%M%S, tried before ISO 8601."
    )
    clock: Literal["device", "receipt"] = Field(
        "device", description="Whose time samples carry; receipt, where the device's clock cannot be used."
    )
    max_skew_s: float = Field(
        60.0,
        gt=0,
        le=300,
        description="A clock further off than this, by the median of recent messages, is told (event clock-skew).",
    )
    lists: dict[str, MqttList] = Field(default_factory=dict, description="Topics whose messages are lists.")
    event_topic: str | None = Field("event", description="Topic of events, below the prefix.")
    online_topic: str | None = Field(None, description="Topic of the last will, below the prefix.")
    online_map: dict[str, bool] = Field(
        default_factory=lambda: {"ONLINE": True, "OFFLINE": False, "CONNECTIONBROKEN": False},
        description="What the payload of online_topic means: true, the device is there.",
    )

    @model_validator(mode="after")
    def _readable(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        if self.time_zone is not None and self.time_zone not in (available_timezones() or {self.time_zone}):
            yield Problem(("time_zone",), "an IANA time zone, as Asia/Shanghai", repr(self.time_zone))
        if self.time_format is not None and not _is_pattern(self.time_format):
            yield Problem(("time_format",), "a pattern of strptime, as %Y-%m-%d %H:%M:%S", repr(self.time_format))
        for topic in (self.event_topic, self.online_topic):
            if topic is not None and topic in self.lists:
                yield Problem(("lists", topic), "a topic of points", "that of events or of the last will")


def _is_pattern(pattern: str) -> bool:
    try:
        spelled = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).strftime(pattern)
        return datetime.strptime(spelled, pattern).year == 2026
    except ValueError:
        return False


def bytes_in_order(kind: RegisterType) -> int:
    """Bytes that a type's word order names; those of one register for strings."""
    return max(kind.registers, 1) * 2


def word_order_fits(order: str, kind: RegisterType) -> bool:
    """Whether `order` names each byte of a value of this type (of each register of a string) once."""
    return sorted(order) == list("ABCDEFGH"[: bytes_in_order(kind)])


def stretch_word_order(order: str, width: int) -> str:
    """A 32-bit order said for `width` bytes: ABCD → AB / ABCDEFGH, CDAB → AB / GHEFCDAB, and so on.

    One-register values know no word order; their bytes are swapped where the 32-bit order swaps bytes in a word.
    """
    words = ["ABCDEFGH"[i : i + 2] for i in range(0, width, 2)]
    if order in ("CDAB", "DCBA"):
        words.reverse()
    if order in ("BADC", "DCBA"):
        words = [w[::-1] for w in words]
    return "".join(words)
