"""Where a point lies in a device: its registers and the order of their bytes, or its place in an MQTT message."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from telemetry.model import Model
from telemetry.problems import REGISTERS, Problem, refuse


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
    STRING = "string"

    @property
    def registers(self) -> int:
        """Registers that one value takes; 0 for strings, whose length the point says."""
        return REGISTERS.get(self.value, 0)


class ModbusPoint(Model):
    """Where a point lies in a Modbus device and how its value is made of registers."""

    table: Literal["coil", "discrete", "input", "holding"] = Field(
        "holding", description="Holding registers are read by function 03, input 04, coils 01, discrete inputs 02."
    )
    address: int = Field(ge=0, le=65535, description="Address as sent in the request, counted from 0.")
    type: RegisterType = Field(RegisterType.U16, description="How the value lies in registers.")
    word_order: str | None = Field(
        None,
        description="Order in which the value's bytes arrive; A is the most significant. ABCD, CDAB, BADC, DCBA "
        "for 32 bits, any order of ABCDEFGH for 64. Default: the profile's.",
    )
    bit: int | None = Field(None, ge=0, le=15, description="Take this bit of a 16-bit register, 0 the lowest.")
    bits: int = Field(1, ge=1, le=16, description="Width of the bit field that starts at `bit`.")
    length: int | None = Field(None, ge=1, le=125, description="Registers of a string.")
    scale: float = Field(1.0, description="Value = raw × scale + offset; not 0.")
    offset: float = Field(0.0, description="Added after scaling, in the point's unit.")
    not_available: tuple[int, ...] = Field((), description="Raw values that mean: no value.")

    @property
    def registers(self) -> int:
        """Registers (or coils) that the point takes."""
        return self.length or self.type.registers

    @model_validator(mode="after")
    def _whole(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        is_bit_table = self.table in ("coil", "discrete")
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
        if self.bit is not None and (self.type.registers != 1 or self.bit + self.bits > 16):
            yield Problem(("bit",), "a field within one 16-bit register", f"{self.bit} + {self.bits} of {self.type}")
        if self.word_order is not None and not word_order_fits(self.word_order, self.type):
            width = self.type.registers * 2
            yield Problem(("word_order",), f"an order of the {width} bytes of {self.type}", repr(self.word_order))
        if self.scale == 0:
            yield Problem(("scale",), "a number other than 0", "0")


class MqttPoint(Model):
    """Where a point lies in an MQTT message."""

    topic: str = Field("state", description="Below the equipment's topic prefix.")
    path: str | None = Field(None, description="Dotted path in the JSON payload. Default: values.POINT.")
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
    illegal: tuple[tuple[int, int], ...] = Field((), description="Address ranges [first, last] never to be touched.")


class MqttDefaults(Model):
    """Topics and time of the MQTT messages of this kind of device."""

    qos: Literal[0, 1] = Field(1, description="Quality of service of the subscription.")
    time_path: str = Field("time", description="Dotted path of the device's time. Missing: time of receipt.")
    event_topic: str | None = Field("event", description="Topic of events, below the prefix.")
    online_topic: str | None = Field(None, description="Topic of the last will, below the prefix.")
    online_map: dict[str, bool] = Field(
        default_factory=lambda: {"ONLINE": True, "OFFLINE": False, "CONNECTIONBROKEN": False},
        description="What the payload of online_topic means: true, the device is there.",
    )


def word_order_fits(order: str, kind: RegisterType) -> bool:
    """Whether `order` names each byte of a value of this type once."""
    return sorted(order) == list("ABCDEFGH"[: kind.registers * 2])


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
