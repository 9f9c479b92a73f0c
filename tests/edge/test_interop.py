"""The edge and the simulators against other people's Modbus: libmodbus (C) over TCP and a serial line, pymodbus' server."""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pymodbus.framer import FramerType
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from edge.probe import probe
from simulators.codec import RegisterImage
from simulators.modbus_face import ModbusDevice, serve_modbus
from telemetry.profile import Profile
from tests.edge.profiles import make_profile
from tests.fixtures.libmodbus import Peer
from tests.fixtures.ports import free_port

UNIT = 17
PROFILE = make_profile(
    {
        "u16": {"modbus": {"address": 0}},
        "i16": {"modbus": {"address": 1, "type": "i16"}},
        "i32": {"modbus": {"address": 2, "type": "i32"}},
        "u32": {"modbus": {"address": 4, "type": "u32"}},
        "i64": {"modbus": {"address": 6, "type": "i64"}},
        **{
            f"f32_{order.lower()}": {"modbus": {"address": 10 + 2 * i, "type": "f32", "word_order": order}}
            for i, order in enumerate(("ABCD", "CDAB", "BADC", "DCBA"))
        },
        **{f"in{a}": {"modbus": {"address": a, "table": "input"}} for a in (0, 7, 199)},
        **{f"coil{a}": {"modbus": {"address": a, "table": "coil", "type": "bool"}} for a in (0, 1, 3, 198)},
        **{f"door{a}": {"modbus": {"address": a, "table": "discrete", "type": "bool"}} for a in (0, 1, 5, 195)},
    },
    timeout_s=2.0,
)
VALUES = {
    "u16": 65535, "i16": -12345, "i32": -123456789, "u32": 0xFEDCBA98, "i64": -1234567890123,
    "f32_abcd": 123456.0, "f32_cdab": 123456.0, "f32_badc": 123456.0, "f32_dcba": 123456.0,
    "in0": 1000, "in7": 1007, "in199": 1199, "coil0": 1, "coil1": 0, "coil3": 1, "coil198": 1,
    "door0": 1, "door1": 0, "door5": 1, "door195": 1,
}  # fmt: skip


async def read(address: str, profile: Profile = PROFILE) -> dict[str, Any]:
    """Every point by `vigil probe`; all of them good."""
    rows = await probe(address, profile)
    assert {row.quality for row in rows} == {"good"}, [row for row in rows if row.quality != "good"]
    return {row.point: row.value for row in rows}


@contextmanager
def joined() -> Iterator[tuple[str, str]]:
    """Two serial devices of this machine with a wire between them."""
    ends = [os.openpty(), os.openpty()]
    loop = asyncio.get_running_loop()
    for (ours, theirs), (other, _) in zip(ends, reversed(ends), strict=True):
        tty.setraw(theirs)
        loop.add_reader(ours, lambda ours=ours, other=other: os.write(other, os.read(ours, 512)))  # type: ignore[misc]
    try:
        yield os.ttyname(ends[0][1]), os.ttyname(ends[1][1])
    finally:
        for ours, theirs in ends:
            loop.remove_reader(ours)
            os.close(ours)
            os.close(theirs)


async def test_a_libmodbus_unit_over_tcp_is_read_in_all_tables_types_and_orders(libmodbus: Peer) -> None:
    port = free_port()
    with libmodbus.serving("serve-tcp", str(port)):
        assert await read(f"modbus+tcp://127.0.0.1:{port}/{UNIT}") == VALUES


async def test_a_libmodbus_unit_on_a_serial_line_is_read_in_all_tables_types_and_orders(libmodbus: Peer) -> None:
    with joined() as (ours, theirs), libmodbus.serving("serve-rtu", theirs, "19200"):
        assert await read(f"modbus+rtu://{ours}?unit={UNIT}&baud=19200") == VALUES


async def test_an_address_that_a_libmodbus_unit_has_not_is_its_exception_and_the_rest_is_read(libmodbus: Peer) -> None:
    profile = make_profile({"well": {"modbus": {"address": 0}}, "beyond": {"modbus": {"address": 5000}}}, timeout_s=2.0)
    port = free_port()
    with libmodbus.serving("serve-tcp", str(port)):
        rows = await probe(f"modbus+tcp://127.0.0.1:{port}/{UNIT}", profile)
    assert [(row.point, row.value, row.quality) for row in rows] == [
        ("well", 65535.0, "good"),
        ("beyond", None, "config"),
    ]


async def test_libmodbus_reads_what_our_simulator_serves(libmodbus: Peer) -> None:
    image = RegisterImage(PROFILE)
    for point, value in VALUES.items():
        image.set(point, value)
    async with serve_modbus("127.0.0.1", 0, {UNIT: ModbusDevice(image)}) as port:

        async def asked(table: str, address: int, count: int, unit: int = UNIT) -> tuple[int, ...] | str:
            return await asyncio.to_thread(libmodbus.read, port, unit, table, address, count)

        assert await asked("holding", 0, 18) == (
            65535, 65536 - 12345, 0xF8A4, 0x32EB, 0xFEDC, 0xBA98, 0xFFFF, 0xFEE0, 0x8E04, 0xFB35,
            0x47F1, 0x2000, 0x2000, 0x47F1, 0xF147, 0x0020, 0x0020, 0xF147,
        )  # fmt: skip
        assert await asked("input", 7, 1) == (1007,)
        assert await asked("coil", 0, 4) == (1, 0, 0, 1)
        assert await asked("discrete", 1, 5) == (0, 0, 0, 0, 1)
        assert await asked("holding", 9000, 1) == "error: Illegal data address"
        assert await asked("holding", 0, 1, unit=99) == "error: Target device failed to respond"


@pytest.mark.parametrize(
    ("framer", "scheme"), [(FramerType.SOCKET, "modbus+tcp"), (FramerType.RTU, "modbus+rtuovertcp")]
)
async def test_pymodbus_own_server_is_read_on_both_framings(framer: FramerType, scheme: str) -> None:
    words = [65535, 65536 - 12345, 0xF8A4, 0x32EB, *range(100)]
    device = SimDevice(UNIT, simdata=[SimData(address=0, values=words, datatype=DataType.REGISTERS)])
    server = ModbusTcpServer(device, framer=framer, address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    port = server.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    profile = make_profile(
        {
            "u16": {"modbus": {"address": 0}},
            "i16": {"modbus": {"address": 1, "type": "i16"}},
            "i32": {"modbus": {"address": 2, "type": "i32"}},
            "far": {"modbus": {"address": 100, "table": "input"}},
        },
        timeout_s=2.0,
    )
    try:
        found = await read(f"{scheme}://127.0.0.1:{port}/{UNIT}", profile)
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]
    assert found == {"u16": 65535, "i16": -12345, "i32": -123456789, "far": 96}
