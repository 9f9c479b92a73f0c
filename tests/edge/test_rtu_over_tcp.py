"""RTU frames through a serial server: checked by their CRC, and a late answer never taken for another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from edge.bus import Bus, make_bus
from edge.lane import Watch
from telemetry.clock import SystemClock
from telemetry.plant import Endpoint, parse_address
from tests.edge.asking import TIMEOUT_S, ReadFailed, Told, ask, query_of, result
from tests.edge.serial_line import checksum


@pytest.mark.parametrize("kind", ["good", "bad crc", "another unit"])
async def test_rtu_frames_over_tcp_are_read_with_their_crc_checked(kind: str) -> None:
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            got.append(await reader.readexactly(8))
            body = bytes([2 if kind == "another unit" else 1, 3, 4, 0x47, 0xF1, 0x20, 0x00])
            writer.write(body + (b"\0\0" if kind == "bad crc" else checksum(body)))
            await writer.drain()
            await reader.read()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    address = parse_address(f"modbus+rtuovertcp://127.0.0.1:{port}/1")
    bus = make_bus(address, Endpoint(), SystemClock(), Watch(), file="test")
    if kind == "good":
        assert await ask(bus) == b"\x47\xf1\x20\x00"
    else:
        with pytest.raises(ReadFailed) as caught:
            await ask(bus)
        assert caught.value.outcome == ("unusable" if kind == "bad crc" else "unit")
    # 01 03 00 0A 00 02 and its CRC E4 09, by the specification's own algorithm.
    assert got == [b"\x01\x03\x00\x0a\x00\x02" + checksum(b"\x01\x03\x00\x0a\x00\x02")]
    bus.close()
    server.close()
    await server.wait_closed()


Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def server() -> AsyncIterator[Callable[[Answer], Awaitable[Bus]]]:
    """Makes a bus to a serial server that hands each request of 8 bytes to `answer`."""
    made: list[tuple[asyncio.Server, Bus]] = []

    async def make(answer: Answer) -> Bus:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    await answer(await reader.readexactly(8), writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        address = parse_address(f"modbus+rtuovertcp://127.0.0.1:{port}/1")
        bus = make_bus(address, Endpoint(), SystemClock(), Watch(), file="test")
        made.append((listening, bus))
        return bus

    yield make
    for listening, bus in made:
        bus.close()
        listening.close()
        await listening.wait_closed()


def registers(unit: int, *words: int) -> bytes:
    body = bytes([unit, 3, 2 * len(words)]) + b"".join(word.to_bytes(2, "big") for word in words)
    return body + checksum(body)


async def test_an_answer_that_comes_twice_is_not_taken_for_the_next_requests(
    server: Callable[[Answer], Awaitable[Bus]],
) -> None:
    """Both in one piece: the second was sent before the next request left."""
    asked: list[bytes] = []

    async def twice(request: bytes, writer: asyncio.StreamWriter) -> None:
        asked.append(request)
        writer.write(registers(1, len(asked), 0) * (2 if len(asked) == 1 else 1))

    class Next(Told):
        """Asks again in the moment in which it is answered, as a cycle does."""

        def answered(self, payload: bytes, time_us: int, took_s: float) -> None:
            super().answered(payload, time_us, took_s)
            bus.main.ask(second, query_of(address=50), TIMEOUT_S)

    bus = await server(twice)
    first, second = Next(), Told()
    bus.main.ask(first, query_of(), TIMEOUT_S)
    assert await result(first) == b"\0\1\0\0"
    assert await result(second) == b"\0\2\0\0"
    assert len(asked) == 2


async def test_a_unit_that_did_not_answer_is_left_alone_until_its_answer_can_no_longer_come_and_others_are_read(
    server: Callable[[Answer], Awaitable[Bus]],
) -> None:
    asked: list[tuple[float, int]] = []
    loop = asyncio.get_running_loop()

    async def unit_1_is_late(request: bytes, writer: asyncio.StreamWriter) -> None:
        asked.append((loop.time(), request[0]))
        if request[0] == 2:
            if len([u for _, u in asked if u == 1]) == 1:
                writer.write(registers(1, 0xDEAD, 0xBEEF))
            writer.write(registers(2, 7, 8))
        elif len(asked) > 1:
            writer.write(registers(1, 1, 2))

    bus = await server(unit_1_is_late)
    silent, again, other = Told(), Told(), Told()
    bus.main.ask(silent, query_of(unit=1), TIMEOUT_S)
    with pytest.raises(ReadFailed):
        await result(silent)
    bus.main.ask(again, query_of(unit=1), TIMEOUT_S)
    bus.main.ask(other, query_of(unit=2), TIMEOUT_S)
    assert await result(other) == b"\0\7\0\x08", "the late answer of unit 1 is not unit 2's"
    assert await result(again) == b"\0\1\0\2"
    assert [unit for _, unit in asked] == [1, 2, 1], "unit 2 went first"
    assert asked[2][0] - asked[0][0] >= 2 * TIMEOUT_S * 0.95
