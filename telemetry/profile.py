"""The device profile: said once, what a kind of equipment is. Data, never an installation's address.

From it come the edge's read plan, the signal registry, the limit checks, the alarm texts and the board panels.
These models only hold and check one profile; `telemetry.files` reads them from YAML with the line of every fault.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from telemetry.model import Model, Name, Text
from telemetry.problems import alarm_problems, profile_problems, refuse
from telemetry.register_map import (
    ModbusDefaults,
    ModbusPoint,
    MqttDefaults,
    MqttPoint,
    RegisterType,
    Table,
    bytes_in_order,
    stretch_word_order,
    word_order_fits,
)

__all__ = [
    "DEFAULT_CONDITIONS",
    "AlarmText",
    "Code",
    "CodePoint",
    "Comparison",
    "ConditionAlarm",
    "LevelDetector",
    "LimitAlarm",
    "ModbusDefaults",
    "ModbusPoint",
    "Model",
    "MqttDefaults",
    "MqttPoint",
    "Name",
    "Point",
    "PointKind",
    "Priority",
    "Profile",
    "Range",
    "RegisterType",
    "Report",
    "Scheme",
    "Table",
    "Term",
    "Text",
    "alarm_condition",
    "merge_overrides",
    "stretch_word_order",
    "with_overrides",
    "word_order_fits",
]


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


class Range(Model):
    """Engineering range; a reading outside it is uncertain, never clamped."""

    low: float = Field(-math.inf, description="Lowest plausible value. Default: no limit.")
    high: float = Field(math.inf, description="Highest plausible value. Default: no limit.")

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=True)


class Comparison(StrEnum):
    """How a point is compared with a limit."""

    ABOVE = "above"
    BELOW = "below"
    EQUALS = "equals"
    NOT_EQUALS = "not_equals"


class AlarmText(Model):
    """What every alarm says to people, and how urgent it is."""

    priority: Priority = Field(description="How urgent: critical, high, medium or low.")
    text: Text = Field(description="What is wrong, in few words.")
    consequence: Text | None = Field(None, description="What happens if nobody acts.")
    action: Text | None = Field(None, description="Corrective action: what to do, in the order in which to do it.")
    note: str = Field("", description="For the keeper of the profile: where a value comes from, what is unconfirmed.")


class LimitAlarm(AlarmText):
    """An alarm on one point against one limit. Named high, high_high, low or low_low, `condition` may be left out."""

    condition: Comparison | None = Field(None, description="Default: by the alarm's name.")
    limit: float = Field(description="In the point's unit.")
    hysteresis: float = Field(0.0, ge=0, description="How far back the value must come before the alarm clears.")
    on_delay_s: float = Field(0.0, ge=0, description="Seconds that it holds before the alarm is raised.")
    off_delay_s: float = Field(0.0, ge=0, description="Seconds that it is over before the alarm clears.")
    unless: tuple[Term, ...] = Field((), description="Not while any of these holds.")


class Term(Model):
    """One comparison of a condition over several points. Bad or missing readings make it unknown, never true."""

    point: Name = Field(description="A point of this profile.")
    condition: Comparison = Field(description="How it is compared.")
    limit: float = Field(description="In the point's unit.")


class ConditionAlarm(AlarmText):
    """An alarm on several points at once: all of `all` hold, none of `unless`, for `on_delay_s`."""

    all: tuple[Term, ...] = Field(min_length=1, description="All of these hold.")
    unless: tuple[Term, ...] = Field((), description="Not while any of these holds.")
    on_delay_s: float = Field(0.0, ge=0, description="Seconds that it holds before the alarm is raised.")
    off_delay_s: float = Field(0.0, ge=0, description="Seconds that it is over before the alarm clears.")


class Code(Model):
    """A code of a scheme. With a priority it makes an alarm; without, it is kept as an event."""

    name: Text = Field(description="What the code means.")
    kind: Literal["fault", "event", "alarm"] = Field(
        "fault", description="A fault of the equipment, something that happened, or a call for help."
    )
    priority: Priority | None = Field(None, description="Makes it an alarm. Default: only an event.")
    consequence: Text | None = Field(None, description="What happens if nobody acts.")
    action: Text | None = Field(None, description="Corrective action.")
    momentary: bool = Field(False, description="It begins and is over: its alarm clears after `hold_s`.")
    hold_s: float = Field(60.0, gt=0, description="Seconds that a momentary code's alarm stays.")


class Scheme(Model):
    """A code scheme: (scheme, code) means one thing wherever it is met."""

    name: Text = Field(description="Whose codes these are.")
    source: str = Field("", description="Where the list comes from.")
    codes: dict[str, Code] = Field(description="By the code as the device spells it, in quotes: leading zeros count.")


class CodePoint(Model):
    """A point whose value is a code: a change of value ends the old code's event and begins the new one's."""

    point: Name = Field(description="The point that carries the code.")
    scheme: Name = Field(description="The scheme that its values belong to.")
    none: tuple[int, ...] = Field((0,), description="Values that mean: no code is active.")


class LevelDetector(Model):
    """The robust level detector (analytics.detectors.level): EWMA with winsorised updates."""

    kind: Literal["level"] = Field("level", description="Which detector.")
    time_constant_s: float = Field(60.0, gt=0, description="Of the fast level that is judged.")
    baseline_s: float = Field(3600.0, gt=0, description="Of the slow level and spread it is judged against.")
    threshold: float = Field(6.0, gt=0, description="In spreads.")
    min_spread: float = Field(0.0, ge=0, description="In the point's unit; the spread is never taken smaller.")
    warmup_s: float = Field(600.0, ge=0, description="Seconds of readings before it judges.")
    on_delay_s: float = Field(5.0, ge=0, description="Seconds that it holds before the alarm is raised.")
    off_delay_s: float = Field(30.0, ge=0, description="Seconds that it is over before the alarm clears.")
    priority: Priority = Field(Priority.LOW, description="Of its alarms.")


class Report(Model):
    """Report by exception: a reading is kept only where it says something new. Exactly one of the three ways."""

    deadband: float | None = Field(None, gt=0, description="Kept when it differs by more than this, in the unit.")
    deadband_percent: float | None = Field(
        None, gt=0, description="Kept when it differs by more than this percentage of the value kept last."
    )
    swinging_door: float | None = Field(
        None,
        gt=0,
        description="Kept so that lines through what is kept miss no reading by more than this, in the unit.",
    )
    heartbeat_s: float = Field(
        600.0, gt=0, description="Kept at least so often, in seconds; less than stale_after_s of the point."
    )


class Point(Model):
    """A point of the equipment."""

    name: Text = Field(description="As people call it.")
    kind: PointKind = Field(PointKind.MEASUREMENT, description="Decides how it is thinned, drawn and watched.")
    unit: str = Field("", description="As it is shown: °C, MPa, km/h.")
    group: str = Field("main", description="Points of one group are drawn together.")
    modbus: ModbusPoint | None = Field(None, description="Where it lies in a Modbus device.")
    mqtt: MqttPoint | None = Field(
        None, description="Where it lies in MQTT messages; {} for values.POINT of PREFIX/state."
    )
    range: Range = Field(Range(), description="Engineering range; a reading outside is uncertain, never clamped.")
    enum: dict[int, Text] = Field(default_factory=dict, description="What the values of a state mean.")
    poll_s: float | None = Field(None, gt=0, description="Seconds between readings. Default: the profile's.")
    stale_after_s: float | None = Field(None, gt=0, description="Default: the profile's.")
    alarms: dict[Name, LimitAlarm] = Field(
        default_factory=dict,
        description="Alarms on this point alone; high, high_high, low and low_low say by their name how they compare.",
    )
    detectors: tuple[LevelDetector, ...] = Field((), description="Detectors that learn what is normal.")
    report: Report | None = Field(
        None, description="Report by exception, for what changes slowly; never with alarms, states or events."
    )
    columns: tuple[str, ...] = Field(
        (), description="Headers of recorded feeds that mean this point, besides its name."
    )
    note: str = Field("", description="For the keeper of the profile: where a value comes from, what is unconfirmed.")

    @model_validator(mode="after")
    def _conditions_known(self) -> Self:
        refuse(alarm_problems(self.model_dump(exclude_unset=True)))
        return self


class Profile(Model):
    """A kind of equipment."""

    profile: Name = Field(description="Its name, and that of its file.")
    version: int = Field(ge=1, description="Raise it with every change that a user can notice.")
    equipment_class: Name = Field(alias="class", description="elevator, escalator, forklift, boiler, … any word.")
    class_name: Text = Field(description="The class, as people call it.")
    name: Text = Field(description="The kind of equipment, as people call it.")
    source: str = Field("", description="Where the map comes from.")
    note: str = Field("", description="For the keeper of the profile.")
    poll_s: float = Field(1.0, gt=0, description="Seconds between readings.")
    timeout_s: float = Field(1.0, gt=0, description="Seconds to wait for an answer.")
    stale_after_s: float = Field(10.0, gt=0, description="A reading older than this on the log's time is stale.")
    silent_after_s: float = Field(
        30.0, gt=0, description="An MQTT device that said nothing for so long is unreachable."
    )
    modbus: ModbusDefaults = Field(
        ModbusDefaults(), description="What all Modbus points share, and what the device can take."
    )
    mqtt: MqttDefaults = Field(MqttDefaults(), description="Topics and time of its MQTT messages.")
    points: dict[Name, Point] = Field(min_length=1, description="By name, in the order in which they are shown.")
    conditions: dict[Name, ConditionAlarm] = Field(
        default_factory=dict, description="Alarms on several points at once."
    )
    schemes: dict[Name, Scheme] = Field(default_factory=dict, description="Code schemes that the device speaks.")
    code_points: tuple[CodePoint, ...] = Field((), description="Points whose value is a code.")

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
        """The byte order of a point (of each register of a string): its own, or the profile's stretched to its width."""
        return point.word_order or stretch_word_order(self.modbus.word_order, bytes_in_order(point.type))


DEFAULT_CONDITIONS = {
    "high": Comparison.ABOVE,
    "high_high": Comparison.ABOVE,
    "low": Comparison.BELOW,
    "low_low": Comparison.BELOW,
}


def alarm_condition(name: str, alarm: LimitAlarm) -> Comparison:
    """How a limit alarm compares: as it says, or as its name implies."""
    return alarm.condition or DEFAULT_CONDITIONS[name]


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
