"""The Modbus face, read back by hand-written frames on a raw socket and by pymodbus's client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pymodbus.client import AsyncModbusTcpClient

from simulators.codec import RegisterImage
from simulators.modbus_face import ModbusDevice, serve_modbus
from telemetry.files import load_profile
from telemetry.profile import Profile

TEXT = {"zh": "点", "en": "point"}
BITS = Profile.model_validate(
    {
        "profile": "bits",
        "version": 1,
        "class": "pump",
        "class_name": TEXT,
        "name": TEXT,
        "points": {
            "coil": {"name": TEXT, "modbus": {"table": "coil", "address": 19, "type": "bool"}},
            "switch": {"name": TEXT, "modbus": {"table": "discrete", "address": 2, "type": "bool"}},
            "word": {"name": TEXT, "modbus": {"table": "input", "address": 1}},
        },
    }
)


def gateway() -> dict[int, ModbusDevice]:
    devices = {
        3: ModbusDevice(RegisterImage(load_profile("sola-boiler"))),
        4: ModbusDevice(RegisterImage(load_profile("small-steam-boiler"))),
        5: ModbusDevice(RegisterImage(BITS)),
    }
    devices[3].image.set("outlet_temperature", 81.5)
    devices[4].image.set("drum_level", -12.0)
    for point in ("coil", "switch"):
        devices[5].image.set(point, 1)
    devices[5].image.set("word", 0xBEEF)
    return devices


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def ask(port: int, frame: str) -> str:
    async with connection(port) as (reader, writer):
        writer.write(bytes.fromhex(frame))
        head = await asyncio.wait_for(reader.readexactly(6), 5)
        return (head + await asyncio.wait_for(reader.readexactly(int.from_bytes(head[4:6], "big")), 5)).hex(" ")


@pytest.mark.parametrize(
    ("rule", "request_frame", "response"),
    [
        ("81.5 °C × 0.1 in register 7 of unit 3", "0001 0000 0006 03 03 0007 0001", "00 01 00 00 00 05 03 03 02 03 2f"),
        ("−12 mm in register 6 of unit 4", "0102 0000 0006 04 03 0006 0001", "01 02 00 00 00 05 04 03 02 ff f4"),
        ("coil 19 among 18–21", "0003 0000 0006 05 01 0012 0004", "00 03 00 00 00 04 05 01 01 02"),
        ("discrete input 2 among 0–7", "0004 0000 0006 05 02 0000 0008", "00 04 00 00 00 04 05 02 01 04"),
        ("input register 1", "0005 0000 0006 05 04 0001 0001", "00 05 00 00 00 05 05 04 02 be ef"),
        ("an address it has not", "0006 0000 0006 03 03 2710 0001", "00 06 00 00 00 03 03 83 02"),
        ("a table it has not", "0007 0000 0006 03 04 0007 0001", "00 07 00 00 00 03 03 84 02"),
        ("no such unit behind the gateway", "0008 0000 0006 63 03 0000 0001", "00 08 00 00 00 03 63 83 0b"),
        ("a write of a register", "0009 0000 0006 03 06 0007 0001", "00 09 00 00 00 03 03 86 01"),
        ("a write of a coil", "000a 0000 0006 05 05 0013 ff00", "00 0a 00 00 00 03 05 85 01"),
    ],
)
async def test_frames_are_answered_as_the_protocol_document_has_them(
    rule: str, request_frame: str, response: str
) -> None:
    async with serve_modbus("127.0.0.1", 0, gateway()) as port:
        assert await ask(port, request_frame) == response, rule


async def test_pymodbus_reads_what_was_set_and_sees_it_change() -> None:
    devices = gateway()
    async with serve_modbus("127.0.0.1", 0, devices) as port:
        client = AsyncModbusTcpClient("127.0.0.1", port=port, timeout=3, retries=0)
        assert await client.connect()
        first = await client.read_holding_registers(0x0006, count=9, device_id=3)
        devices[3].image.set("outlet_temperature", 82.0)
        second = await client.read_holding_registers(0x0007, count=1, device_id=3)
        client.close()
    assert first.registers == [0x8FFF, 815, 0x8FFF, 0x8FFF, 0x8FFF, 0x8FFF, 0, 0, 0x8FFF]
    assert second.registers == [820]
    assert devices[3].reads == 2


async def test_a_silent_unit_answers_nothing_while_its_neighbour_goes_on() -> None:
    devices = gateway()
    devices[3].silent = True
    async with serve_modbus("127.0.0.1", 0, devices) as port, connection(port) as (reader, writer):
        writer.write(bytes.fromhex("0001 0000 0006 03 03 0007 0001"))
        assert await ask(port, "0002 0000 0006 04 03 0006 0001") == "00 02 00 00 00 05 04 03 02 ff f4"
        devices[3].silent = False
        writer.write(bytes.fromhex("0003 0000 0006 03 03 0007 0001"))
        answer = await asyncio.wait_for(reader.readexactly(11), 5)
    assert answer.hex(" ") == "00 03 00 00 00 05 03 03 02 03 2f", "the first answer is that of the later request"


async def test_a_port_that_is_taken_is_named() -> None:
    async with serve_modbus("127.0.0.1", 0, gateway()) as port:
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            async with serve_modbus("127.0.0.1", port, gateway()):
                pass
