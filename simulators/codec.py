"""The simulators' own coding of values: registers for Modbus, JSON for MQTT, as the profile says it.

Written from the protocol's documents, never from the edge's decoder: a fault in one must not hide in the other.
- Modbus Application Protocol 1.1b3, 4.2: a register travels with its high byte first.
- IEEE 754 for floats; two's complement for signed integers.
- The profile's word order names the bytes of a value (A the most significant) in the order in which they travel:
  123456.0 = 47 F1 20 00 → ABCD `47F1 2000`, CDAB `2000 47F1`, BADC `F147 0020`, DCBA `0020 F147`.

A value is coded as near as its type allows: f32 takes the nearest float32, an integer the nearest multiple of the
point's scale. What does not fit raises; NaN becomes the point's not-available value, or a float NaN, or raises.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any, Final

from telemetry.profile import ModbusPoint, MqttPoint, PointKind, Profile, RegisterType

TABLES: Final = ("coil", "discrete", "holding", "input")
SPARE: Final = 16
"""Addresses beyond the profile's last that the simulated device answers with 0, for readers that bridge gaps."""
WHOLE: Final = (PointKind.STATE, PointKind.COUNTER)
"""Kinds whose whole numbers a device sends without a decimal point."""
_FORMATS: Final = {
    RegisterType.U16: ">H",
    RegisterType.I16: ">h",
    RegisterType.U32: ">I",
    RegisterType.I32: ">i",
    RegisterType.U64: ">Q",
    RegisterType.I64: ">q",
    RegisterType.F32: ">f",
    RegisterType.F64: ">d",
}
_BYTES: Final = "ABCDEFGH"


class RegisterImage:
    """The registers and coils of one device, kept as they would be read.

    Invariant: every entry of a register table is within 0..65535, of a bit table 0 or 1.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._points = {name: point.modbus for name, point in profile.points.items() if point.modbus is not None}
        self._tables: dict[str, list[int]] = {table: [] for table in TABLES}
        for modbus in self._points.values():
            end = min(modbus.address + modbus.registers + SPARE, 65536)
            words = self._tables[modbus.table]
            words.extend([0] * (end - len(words)))
        for name, modbus in self._points.items():
            if modbus.not_available and modbus.bit is None:
                self.set(name, math.nan)

    def size(self, table: str) -> int:
        """Addresses of a table that the device has, from 0."""
        return len(self._tables[table])

    def read(self, table: str, address: int, count: int) -> list[int] | None:
        """A copy of `count` registers or bits, or None where the device has not all of them."""
        words = self._tables[table]
        if address + count > len(words) or any(
            address <= last and first < address + count for first, last in self._profile.modbus.illegal
        ):
            return None
        return words[address : address + count]

    def set_not_available(self, name: str) -> None:
        """Writes what the device says when a point has no value; a point that cannot say so keeps its last value."""
        modbus = self._points[name]
        if modbus.not_available or modbus.type in (RegisterType.F32, RegisterType.F64):
            self.set(name, math.nan)

    def set(self, name: str, value: float | str) -> None:
        """Writes a point's value into the image. Raises KeyError for a point without Modbus, ValueError if it does not fit."""
        modbus = self._points[name]
        words = self._tables[modbus.table]
        if modbus.table in ("coil", "discrete"):
            words[modbus.address] = int(bool(value))
        elif modbus.bit is not None:
            words[modbus.address] = with_field(words[modbus.address], modbus, int(float(value)))
        else:
            try:
                coded = encode(modbus, value, self._profile.word_order_of(modbus))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            words[modbus.address : modbus.address + len(coded)] = coded


def encode(point: ModbusPoint, value: float | str, word_order: str) -> list[int]:
    """The registers of one value. Raises ValueError that says what fits and what was found."""
    if point.type is RegisterType.STRING:
        text = str(value).encode("ascii", "replace").ljust(point.registers * 2, b"\0")[: point.registers * 2]
        return list(struct.unpack(f">{point.registers}H", text))
    number = float(value)
    if math.isnan(number) and point.not_available:
        raw: float = point.not_available[0]
    elif point.type in (RegisterType.F32, RegisterType.F64):
        raw = (number - point.offset) / point.scale
    elif not math.isfinite(number):
        raise ValueError(f"expected a number that {point.type} can hold, found {number}")
    elif isinstance(value, int) and point.scale == 1.0 and point.offset == 0.0:
        raw = value  # a whole number of 64 bits would lose its last bits as a float
    else:
        raw = round((number - point.offset) / point.scale)
    try:
        packed = struct.pack(_FORMATS[point.type], raw & _mask(point.type) if _is_na(point, raw, number) else raw)
    except (struct.error, OverflowError):
        raise ValueError(f"expected a value that {point.type} × {point.scale} can hold, found {number}") from None
    travelling = bytes(packed[_BYTES.index(letter)] for letter in word_order)
    return list(struct.unpack(f">{len(travelling) // 2}H", travelling))


def with_field(register: int, point: ModbusPoint, value: int) -> int:
    """The register with a point's bit field set to `value`. Raises ValueError if it is wider than the field."""
    if point.bit is None or not 0 <= value < 1 << point.bits:
        raise ValueError(f"expected 0..{(1 << point.bits) - 1} in {point.bits} bits, found {value}")
    mask = ((1 << point.bits) - 1) << point.bit
    return (register & ~mask) | (value << point.bit)


def payload(profile: Profile, topic: str, values: Mapping[str, float | str], time: str | float) -> bytes:
    """The JSON message for `topic`: the given points that travel there, and the device's time. NaN becomes null."""
    content: dict[str, Any] = {}
    _place(content, profile.mqtt.time_path, time)
    for name, value in values.items():
        mqtt = profile.points[name].mqtt
        if mqtt is not None and mqtt.topic == topic:
            spelled = json_value(mqtt, value)
            if isinstance(spelled, float) and profile.points[name].kind in WHOLE and spelled.is_integer():
                spelled = int(spelled)
            _place(content, mqtt.path or f"values.{name}", spelled)
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def json_value(point: MqttPoint, value: float | str) -> Any:
    """A value as the device's JSON spells it: through the profile's map backwards, or unscaled. NaN → None.

    Raises ValueError where the map has no spelling for the value.
    """
    if isinstance(value, str):
        return value
    if math.isnan(value):
        return None
    if point.map is None:
        if point.scale == 1.0 and point.offset == 0.0:
            return value
        return (value - point.offset) / point.scale
    for spelled, number in point.map.items():
        if number == value:
            return _literal(spelled)
    raise ValueError(f"expected one of {sorted(set(point.map.values()))}, found {value}")


def _literal(spelled: str) -> Any:
    """What JSON value a key of a map stands for: true, 1, 2.5, or the text itself."""
    try:
        return json.loads(spelled)
    except json.JSONDecodeError:
        return spelled


def _place(content: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
    content[last] = value


def _is_na(point: ModbusPoint, raw: float, number: float) -> bool:
    return math.isnan(number) and bool(point.not_available) and isinstance(raw, int)


def _mask(kind: RegisterType) -> Any:
    return (1 << (16 * kind.registers)) - 1
