"""The device profile: said once, what a kind of equipment is. Data, never an installation's address.

From it come the edge's read plan, the signal registry, the limit checks, the alarm texts and the board panels.
These models only hold and check one profile; `telemetry.files` reads them from YAML with the line of every fault.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from telemetry.names import NAME_PATTERN
from telemetry.problems import REGISTERS, Problem, alarm_problems, profile_problems, refuse

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=64)]


class Model(BaseModel):
    """Base: unknown keys are faults, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Text(Model):
    """A text in both languages of the boards and the console."""

    zh: str
    en: str


class Priority(StrEnum):
    """Alarm priorities as ISA-18.2 names them, most urgent first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class PointKind(StrEnum):
    """What a point is, which decides how it is thinned, drawn and watched."""

    MEASUREMENT = "measurement"
    STATE = "state"
    COUNTER = "counter"
    SETPOINT = "setpoint"
    TEXT = "text"


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

    table: Literal["coil", "discrete", "input", "holding"] = "holding"
    address: int = Field(ge=0, le=65535, description="Address as sent in the request, counted from 0.")
    type: RegisterType = RegisterType.U16
    word_order: str | None = Field(
        None,
        description="Order in which the value's bytes arrive; A is the most significant. ABCD, CDAB, BADC, DCBA "
        "for 32 bits, any order of ABCDEFGH for 64. Default: the profile's.",
    )
    bit: int | None = Field(None, ge=0, le=15, description="Take this bit of a 16-bit register, 0 the lowest.")
    bits: int = Field(1, ge=1, le=16, description="Width of the bit field that starts at `bit`.")
    length: int | None = Field(None, ge=1, le=125, description="Registers of a string.")
    scale: float = 1.0
    offset: float = 0.0
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
            yield Problem(("length",), "a length where type is string, and only there", str(self.length))
        if self.address + self.registers > 65536:
            yield Problem(("address",), "the point to end at or below 65535", f"{self.address} + {self.registers}")
        if is_bit_table and self.type is not RegisterType.BOOL:
            yield Problem(("type",), f"bool in table {self.table}", self.type.value)
        if not is_bit_table and self.type is RegisterType.BOOL and self.bit is None:
            yield Problem(("bit",), "the bit's number, for a bool in a register", "nothing")
        if self.bit is not None and (self.type.registers != 1 or self.bit + self.bits > 16):
            yield Problem(("bit",), "a field within one 16-bit register", f"{self.bit} + {self.bits} of {self.type}")
        if self.word_order is not None and not word_order_fits(self.word_order, self.type):
            width = self.type.registers * 2
            yield Problem(("word_order",), f"an order of the {width} bytes of {self.type}", repr(self.word_order))


class MqttPoint(Model):
    """Where a point lies in an MQTT message."""

    topic: str = Field("state", description="Below the equipment's topic prefix.")
    path: str | None = Field(None, description="Dotted path in the JSON payload. Default: values.POINT.")
    map: dict[str, float] | None = Field(
        None, description="JSON values to numbers, spelled as JSON spells them: true, 1, open. Others are bad."
    )
    scale: float = 1.0
    offset: float = 0.0


class Range(Model):
    """Engineering range; a reading outside it is uncertain, never clamped."""

    low: float = -math.inf
    high: float = math.inf

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=True)


class Comparison(StrEnum):
    """How a point is compared with a limit."""

    ABOVE = "above"
    BELOW = "below"
    EQUALS = "equals"
    NOT_EQUALS = "not_equals"


class AlarmText(Model):
    """What every alarm says to people, and how urgent it is."""

    priority: Priority
    text: Text
    consequence: Text | None = None
    action: Text | None = Field(None, description="Corrective action.")
    note: str = Field("", description="For the keeper of the profile: where a value comes from, what is unconfirmed.")


class LimitAlarm(AlarmText):
    """An alarm on one point against one limit. Named high, high_high, low or low_low, `condition` may be left out."""

    condition: Comparison | None = None
    limit: float
    hysteresis: float = Field(0.0, ge=0, description="How far back the value must come before the alarm clears.")
    on_delay_s: float = Field(0.0, ge=0)
    off_delay_s: float = Field(0.0, ge=0)
    unless: tuple[Term, ...] = Field((), description="Not while any of these holds.")


class Term(Model):
    """One comparison of a condition over several points. Bad or missing readings make it unknown, never true."""

    point: Name
    condition: Comparison
    limit: float


class ConditionAlarm(AlarmText):
    """An alarm on several points at once: all of `all` hold, none of `unless`, for `on_delay_s`."""

    all: tuple[Term, ...] = Field(min_length=1)
    unless: tuple[Term, ...] = ()
    on_delay_s: float = Field(0.0, ge=0)
    off_delay_s: float = Field(0.0, ge=0)


class Code(Model):
    """A code of a scheme. With a priority it makes an alarm; without, it is kept as an event."""

    name: Text
    kind: Literal["fault", "event", "alarm"] = "fault"
    priority: Priority | None = None
    consequence: Text | None = None
    action: Text | None = None
    momentary: bool = Field(False, description="It begins and is over: its alarm clears after `hold_s`.")
    hold_s: float = Field(60.0, gt=0)


class Scheme(Model):
    """A code scheme: (scheme, code) means one thing wherever it is met."""

    name: Text
    source: str = ""
    codes: dict[str, Code]


class CodePoint(Model):
    """A point whose value is a code: a change of value ends the old code's event and begins the new one's."""

    point: Name
    scheme: Name
    none: tuple[int, ...] = Field((0,), description="Values that mean: no code is active.")


class LevelDetector(Model):
    """The robust level detector (analytics.detectors.level): EWMA with winsorised updates."""

    kind: Literal["level"] = "level"
    time_constant_s: float = Field(60.0, gt=0, description="Of the fast level that is judged.")
    baseline_s: float = Field(3600.0, gt=0, description="Of the slow level and spread it is judged against.")
    threshold: float = Field(6.0, gt=0, description="In spreads.")
    min_spread: float = Field(0.0, ge=0, description="In the point's unit; the spread is never taken smaller.")
    warmup_s: float = Field(600.0, ge=0)
    on_delay_s: float = Field(5.0, ge=0)
    off_delay_s: float = Field(30.0, ge=0)
    priority: Priority = Priority.LOW


class Point(Model):
    """A point of the equipment."""

    name: Text
    kind: PointKind = PointKind.MEASUREMENT
    unit: str = ""
    group: str = Field("main", description="Points of one group are drawn together.")
    modbus: ModbusPoint | None = None
    mqtt: MqttPoint | None = None
    range: Range = Range()
    enum: dict[int, Text] = Field(default_factory=dict)
    poll_s: float | None = Field(None, gt=0, description="Default: the profile's.")
    stale_after_s: float | None = Field(None, gt=0, description="Default: the profile's.")
    alarms: dict[Name, LimitAlarm] = Field(default_factory=dict)
    detectors: tuple[LevelDetector, ...] = ()
    columns: tuple[str, ...] = Field((), description="Headers of recorded feeds that mean this point, besides its name.")
    note: str = Field("", description="For the keeper of the profile: where a value comes from, what is unconfirmed.")

    @model_validator(mode="after")
    def _conditions_known(self) -> Self:
        refuse(alarm_problems(self.model_dump(exclude_unset=True)))
        return self


class ModbusDefaults(Model):
    """What all Modbus points of the profile share, and what the device can take."""

    word_order: Literal["ABCD", "CDAB", "BADC", "DCBA"] = "ABCD"
    max_registers: int = Field(125, ge=1, le=125, description="Most registers in one request.")
    max_coils: int = Field(2000, ge=1, le=2000)
    max_gap: int = Field(16, ge=0, le=124, description="Unneeded registers read rather than making another request.")
    illegal: tuple[tuple[int, int], ...] = Field((), description="Address ranges [first, last] never to be touched.")


class MqttDefaults(Model):
    """Topics and time of the MQTT messages of this kind of device."""

    qos: Literal[0, 1] = 1
    time_path: str = Field("time", description="Dotted path of the device's time. Missing: time of receipt.")
    event_topic: str | None = Field("event", description="Topic of events, below the prefix.")
    online_topic: str | None = Field(None, description="Topic of the last will, below the prefix.")
    online_map: dict[str, bool] = Field(
        default_factory=lambda: {"ONLINE": True, "OFFLINE": False, "CONNECTIONBROKEN": False}
    )


class Profile(Model):
    """A kind of equipment."""

    profile: Name
    version: int = Field(ge=1)
    equipment_class: Name = Field(alias="class", description="elevator, escalator, forklift, boiler, … any word.")
    class_name: Text
    name: Text
    source: str = Field("", description="Where the map comes from.")
    note: str = Field("", description="For the keeper of the profile.")
    poll_s: float = Field(1.0, gt=0)
    timeout_s: float = Field(1.0, gt=0)
    stale_after_s: float = Field(10.0, gt=0, description="A reading older than this on the log's time is stale.")
    silent_after_s: float = Field(
        30.0, gt=0, description="An MQTT device that said nothing for so long is unreachable."
    )
    modbus: ModbusDefaults = ModbusDefaults()
    mqtt: MqttDefaults = MqttDefaults()
    points: dict[Name, Point] = Field(min_length=1)
    conditions: dict[Name, ConditionAlarm] = Field(default_factory=dict)
    schemes: dict[Name, Scheme] = Field(default_factory=dict)
    code_points: tuple[CodePoint, ...] = ()

    @model_validator(mode="after")
    def _references(self) -> Self:
        refuse(profile_problems(self.model_dump(by_alias=True, exclude_unset=True)))
        return self

    def point_of_column(self, header: str) -> str | None:
        """The point that a feed's column means: by its name or one of its `columns`; None when there is none."""
        if header in self.points:
            return header
        return next((name for name, point in self.points.items() if header in point.columns), None)

    def word_order_of(self, point: ModbusPoint) -> str:
        """The byte order of a point: its own, or the profile's stretched to its width."""
        return point.word_order or stretch_word_order(self.modbus.word_order, point.type.registers * 2)


DEFAULT_CONDITIONS = {
    "high": Comparison.ABOVE,
    "high_high": Comparison.ABOVE,
    "low": Comparison.BELOW,
    "low_low": Comparison.BELOW,
}


def alarm_condition(name: str, alarm: LimitAlarm) -> Comparison:
    """How a limit alarm compares: as it says, or as its name implies."""
    return alarm.condition or DEFAULT_CONDITIONS[name]


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


def with_overrides(
    profile: Profile, overrides: Mapping[str, Any], *, conditions: Mapping[str, Any] | None = None
) -> Profile:
    """The profile with an equipment's overrides of points and conditions merged in, checked again as a file is.

    Mappings merge, everything else replaces; a key set to None goes (an alarm is switched off, a default comes back).
    Raises pydantic.ValidationError.
    """
    if not overrides and not conditions:
        return profile
    base = profile.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return Profile.model_validate_json(json.dumps(merge_overrides(base, overrides, conditions or {})), strict=True)


def merge_overrides(
    base: Mapping[str, Any], points: Mapping[str, Any], conditions: Mapping[str, Any]
) -> dict[str, Any]:
    """`with_overrides` on plain data, unchecked."""
    over = {key: item for key, item in (("points", points), ("conditions", conditions)) if item}
    return _merge(base, over)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, item in over.items():
        mine = result.get(key)
        if item is None:
            result.pop(key, None)
        else:
            result[key] = _merge(mine, item) if isinstance(mine, Mapping) and isinstance(item, Mapping) else item
    return result
