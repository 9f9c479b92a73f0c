"""The simulators' own coding of values: registers for Modbus, JSON for MQTT, as the profile says it.

Written from the protocol's documents, never from the edge's decoder: a fault in one must not hide in the other.
- Modbus Application Protocol 1.1b3, 4.2: a register travels with its high byte first.
- IEEE 754 for floats; two's complement for signed integers.
- The profile's word order names the bytes of a value (A the most significant) in the order in which they travel:
  123456.0 = 47 F1 20 00 → ABCD `47F1 2000`, CDAB `2000 47F1`, BADC `F147 0020`, DCBA `0020 F147`.
- BCD: four bits a decimal digit, the first digit in the most significant bits.
- A counter that wraps sends its total modulo `wrap`. With address_base 1 the profile's address 1 is the wire's 0.

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
            end = min(self._at(modbus) + modbus.registers + SPARE, 65536)
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
        words, device = self._tables[table], self._profile.modbus
        listed = address + device.address_base
        illegal = (
            *device.illegal,
            *(pair for of, pairs in device.illegal_by_table.items() if of == table for pair in pairs),
        )
        if address + count > len(words) or any(listed <= last and first < listed + count for first, last in illegal):
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
        words, at = self._tables[modbus.table], self._at(modbus)
        order = self._profile.word_order_of(modbus)
        if modbus.table in ("coil", "discrete"):
            words[at] = int(bool(value))
        elif modbus.bit is not None:
            held = words[at : at + modbus.registers]
            words[at : at + modbus.registers] = with_field(held, modbus, int(float(value)), order)
        else:
            try:
                coded = encode(modbus, value, order)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            words[at : at + len(coded)] = coded

    def _at(self, modbus: ModbusPoint) -> int:
        """The address of a point as it is sent."""
        return modbus.address - self._profile.modbus.address_base


def encode(point: ModbusPoint, value: float | str, word_order: str) -> list[int]:
    """The registers of one value. Raises ValueError that says what fits and what was found."""
    if point.type is RegisterType.STRING:
        text = str(value).encode("ascii", "replace").ljust(point.registers * 2, b"\0")[: point.registers * 2]
        return list(struct.unpack(f"{'<' if word_order == 'BA' else '>'}{point.registers}H", text))
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
    if point.wrap is not None and not math.isnan(number):
        raw %= point.wrap
    try:
        packed = _bits(point.type, raw) if _is_na(point, raw, number) else _packed(point.type, raw)
    except (struct.error, OverflowError, ValueError):
        raise ValueError(f"expected a value that {point.type} × {point.scale} can hold, found {number}") from None
    travelling = bytes(packed[_BYTES.index(letter)] for letter in word_order)
    return list(struct.unpack(f">{len(travelling) // 2}H", travelling))


def with_field(registers: list[int], point: ModbusPoint, value: int, word_order: str) -> list[int]:
    """A point's registers with its bit field set to `value`. Raises ValueError if it is wider than the field.

    Bit 0 is the lowest of the number that the registers are, once their bytes are in order.
    """
    if point.bit is None or not 0 <= value < 1 << point.bits:
        raise ValueError(f"expected 0..{(1 << point.bits) - 1} in {point.bits} bits, found {value}")
    travelling = struct.pack(f">{len(registers)}H", *registers)
    held = int.from_bytes(bytes(travelling[word_order.index(letter)] for letter in sorted(word_order)), "big")
    mask = ((1 << point.bits) - 1) << point.bit
    packed = ((held & ~mask) | (value << point.bit)).to_bytes(len(travelling), "big")
    return list(struct.unpack(f">{len(registers)}H", bytes(packed[_BYTES.index(letter)] for letter in word_order)))


def payload(profile: Profile, topic: str, values: Mapping[str, float | str], time: str | float) -> bytes:
    """The JSON message for `topic`: the given points that travel there, and the device's time. NaN becomes null.

    A topic of lists carries an entry for each point, or one entry that is a message, as the profile says.
    """
    found = {name: point for name in values if (point := profile.points[name].mqtt) and point.topic == topic}
    spelled = {name: _spelled(profile, name, point, values[name]) for name, point in found.items()}
    listed = profile.mqtt.lists.get(topic)
    content: Any = {}
    if listed is not None and listed.name is not None:
        entries: list[dict[str, Any]] = []
        for name, value in spelled.items():
            entries.append({})
            _place(entries[-1], listed.name, found[name].path or name)
            _place(entries[-1], listed.value, value)
            _place(entries[-1], listed.time or profile.mqtt.time_path, time)
    else:
        _place(content, (listed and listed.time) or profile.mqtt.time_path, time)
        for name, value in spelled.items():
            _place(content, found[name].path or f"values.{name}", value)
        entries = [content]
    if listed is not None:
        content = {}
        if listed.path:
            _place(content, listed.path, entries)
        else:
            content = entries
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _spelled(profile: Profile, name: str, point: MqttPoint, value: float | str) -> Any:
    """See json_value; numbers of points that only have whole ones have no fraction."""
    spelled = json_value(point, value)
    is_whole = isinstance(spelled, float) and profile.points[name].kind in WHOLE and spelled.is_integer()
    return int(spelled) if is_whole else spelled


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


def _packed(kind: RegisterType, raw: float) -> bytes:
    """A raw value, most significant byte first. Raises struct.error, OverflowError or ValueError if it does not fit."""
    if not kind.is_bcd:
        return struct.pack(_FORMATS[kind], raw)
    digits = kind.registers * 4
    if not 0 <= raw < 10**digits:
        raise ValueError(f"expected 0..{10**digits - 1}, found {raw}")
    return bytes.fromhex(f"{int(raw):0{digits}d}")


def _is_na(point: ModbusPoint, raw: float, number: float) -> bool:
    return math.isnan(number) and bool(point.not_available) and isinstance(raw, int)


def _bits(kind: RegisterType, code: float) -> bytes:
    """A not-available code as the bits that it is, whatever the type."""
    width = 2 * kind.registers
    return (int(code) % (1 << 8 * width)).to_bytes(width, "big")
