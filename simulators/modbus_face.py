"""Simulated devices behind one Modbus TCP port, as behind a gateway: one register image per unit id.

The frames are pymodbus's; what they carry is simulators.codec's. Read functions only: a write is answered with
exception 1 (illegal function), an address that the device has not with 2, a unit that is not there with 11 (gateway:
target did not respond). A device that is silent gives no answer at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

from pymodbus.constants import ExcCodes
from pymodbus.exceptions import NoSuchIdException
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from simulators.codec import RegisterImage

TABLE_OF: Final = {1: "coil", 2: "discrete", 3: "holding", 4: "input"}
EVERY_OTHER_UNIT: Final = 0


@dataclass(slots=True)
class ModbusDevice:
    """One unit: its registers, and whether it answers."""

    image: RegisterImage
    silent: bool = False
    reads: int = 0
    """Requests answered with data."""


@asynccontextmanager
async def serve_modbus(host: str, port: int, devices: Mapping[int, ModbusDevice]) -> AsyncIterator[int]:
    """Serves the devices by unit id while the context lasts; yields the port (its own choice where `port` is 0).

    Raises OSError when it cannot listen.
    """
    units = [_sim_device(unit, device) for unit, device in devices.items()]
    if EVERY_OTHER_UNIT not in devices:
        units.append(_sim_device(EVERY_OTHER_UNIT, None))
    server = ModbusTcpServer(units, address=(host, port), ignore_missing_devices=True)
    try:
        await server.serve_forever(background=True)
    except RuntimeError as error:
        raise OSError(f"{host}:{port}: cannot listen for Modbus TCP ({error})") from error
    listening = cast(asyncio.Server, server.transport)
    try:
        yield int(listening.sockets[0].getsockname()[1])
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


def _sim_device(unit: int, device: ModbusDevice | None) -> SimDevice:
    """A device of pymodbus whose every read is answered from the image: its own memory is only the room to copy into."""
    bits = [SimData(0, values=[False] * _room(device, "coil", "discrete"), datatype=DataType.BITS)]
    words = [SimData(0, values=[0] * _room(device, "holding", "input"), datatype=DataType.REGISTERS)]
    return SimDevice(
        id=unit,
        simdata=(bits, list(bits), words, list(words)),
        use_bit_addressing=True,
        action=partial(_answer, device),
    )


def _room(device: ModbusDevice | None, *tables: str) -> int:
    """Addresses to hold: at least what one request may ask, so that the image, not this room, refuses."""
    return 65536 if device is None else max(16, *(-(-device.image.size(table) // 16) * 16 for table in tables))


async def _answer(
    device: ModbusDevice | None,
    function: int,
    start: int,
    address: int,
    count: int,
    registers: list[int],
    written: list[int] | list[bool] | None,
) -> ExcCodes | None:
    if device is None:
        return ExcCodes.GATEWAY_NO_RESPONSE
    if device.silent:
        raise NoSuchIdException("silent")
    if written is not None or function not in TABLE_OF:
        return ExcCodes.ILLEGAL_FUNCTION
    table = TABLE_OF[function]
    if function in (1, 2):  # pymodbus counts the 16-bit words that hold the bits here, from the word of the first
        address, count = address // 16 * 16, min(count * 16, device.image.size(table) - address // 16 * 16)
    values = device.image.read(table, address, count)
    if values is None or count <= 0:
        return ExcCodes.ILLEGAL_ADDRESS
    device.reads += 1
    if function in (1, 2):
        for bit, value in enumerate(values, address):
            word, shift = bit // 16 - start, bit % 16
            registers[word] = registers[word] & ~(1 << shift) | (value << shift)
    else:
        registers[address - start : address - start + count] = values
    return None
