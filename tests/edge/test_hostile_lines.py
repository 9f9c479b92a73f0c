"""Hostile units on a serial line: each case pins a rule of edge.lane for framings without transactions.

What holds on both framings is tried on both; the cases of TCP alone are in test_hostile_devices.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge.bus import Bus, make_bus, spare
from edge.lane import Watch
from edge.policy import Reachability
from edge.probe import probe
from telemetry.clock import SystemClock
from telemetry.plant import Endpoint, parse_address
from telemetry.profile import ModbusDefaults, Profile
from telemetry.quality import BAD_COMMS, BAD_CONFIG, BAD_DEVICE, GOOD
from tests.edge import device as tcp
from tests.edge.asking import ReadFailed, ask, device_at
from tests.edge.polling import Put, polled
from tests.edge.profiles import make_equipment, make_profile
from tests.edge.readings import by_signal
from tests.edge.serial_line import Ask, Behaviour, SerialLine, answer, good, rtu, silent
from tests.fixtures.waiting import until

TIMEOUT_S = 0.2
RIGHT = b"\0\x0a\0\x0b"


@asynccontextmanager
async def on(line: SerialLine) -> AsyncIterator[Bus]:
    """The bus of a line while the context lasts."""
    bus = make_bus(parse_address(line.url()), Endpoint(), SystemClock(), Watch(), file="test")
    spare(bus, ModbusDefaults())
    try:
        yield bus
    finally:
        bus.close()


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[SerialLine]:
    async with SerialLine(tmp_path / "ttyUSB0") as line:
        yield line


async def read(bus: Bus) -> bytes:
    return await ask(bus, timeout_s=TIMEOUT_S)


def send(make: Callable[[Ask], bytes]) -> Behaviour:
    return lambda ask, line: line.say(make(ask))


def drip(ask: Ask, line: SerialLine) -> None:
    for place, byte in enumerate(answer(ask)):
        line.say_later(0.003 * place, bytes([byte]))


def swapped(frame: bytes) -> bytes:
    return frame[:-2] + frame[-1:] + frame[-2:-1]


HOSTILE: dict[str, tuple[Behaviour, str]] = {
    # rule: what the unit does → (behaviour, outcome)
    "silence is a time-out": (silent, "timeout"),
    "half a frame is unusable": (send(lambda a: answer(a)[:5]), "unusable"),
    "all but the last byte is unusable": (send(lambda a: answer(a)[:-1]), "unusable"),
    "a wrong checksum is unusable": (send(lambda a: answer(a)[:-2] + b"\0\0"), "unusable"),
    "a checksum with its bytes swapped is unusable": (send(lambda a: swapped(answer(a))), "unusable"),
    "one bit that flipped is unusable": (send(lambda a: answer(a)[:4] + b"\x8a" + answer(a)[5:]), "unusable"),
    "another unit's frame is not this one's": (send(lambda a: rtu(a.unit + 1, answer(a)[1:-2])), "unit"),
    "the broadcast address answers for nobody": (send(lambda a: rtu(0, answer(a)[1:-2])), "unit"),
    "another function's answer is refused": (send(lambda a: rtu(a.unit, b"\x04" + answer(a)[2:-2])), "function"),
    "an exception to another function is refused": (send(lambda a: rtu(a.unit, b"\x84\x02")), "function"),
    "a write's answer is no answer to a read": (send(lambda a: rtu(a.unit, b"\x10\0\x0a\0\2")), "unusable"),
    "fewer registers than asked for are refused": (send(lambda a: rtu(a.unit, b"\x03\x02\0\x0a")), "length"),
    "more registers than asked for are refused": (send(lambda a: rtu(a.unit, b"\x03\x06\0\1\0\2\0\3")), "length"),
    "no registers at all are refused": (send(lambda a: rtu(a.unit, b"\x03\0")), "length"),
    "a byte count that lies is unusable": (send(lambda a: rtu(a.unit, b"\x03\x06\0\x0a\0\x0b")), "unusable"),
    "a frame longer than any may be is unusable": (send(lambda a: rtu(a.unit, b"\x03\xff" + bytes(255))), "unusable"),
    "an exception without its code is unusable": (send(lambda a: rtu(a.unit, b"\x83")), "unusable"),
    "garbage is unusable": (send(lambda a: b"\xde\xad\xbe\xef" * 5), "unusable"),
    "text is unusable": (send(lambda a: b"login: "), "unusable"),
    "a flood is unusable": (send(lambda a: b"\x01\x03\xfa" * 1000), "unusable"),
    "a frame of Modbus TCP is unusable": (send(lambda a: b"\0\1\0\0\0\7\1\3\4\0\x0a\0\x0b"), "unusable"),
    "our own request, echoed by the adapter, is no answer": (
        send(lambda a: rtu(a.unit, b"\x03\0\x0a\0\x02")),
        "unusable",
    ),
}


@pytest.mark.parametrize("rule", HOSTILE, ids=lambda rule: rule.replace(" ", "-"))
async def test_a_hostile_answer_is_refused_and_the_next_good_one_is_read(rule: str, line: SerialLine) -> None:
    """On a line nothing is known at once, for the answer may still come; and the line is kept."""
    line.behaviour, outcome = HOSTILE[rule]
    async with on(line) as bus:
        began = time.monotonic()
        with pytest.raises(ReadFailed) as caught:
            await read(bus)
        assert (caught.value.outcome, caught.value.quality, caught.value.answered) == (outcome, BAD_COMMS, False)
        assert TIMEOUT_S * 0.9 < time.monotonic() - began < TIMEOUT_S + 1.0
        transport = bus.main.connection.transport
        line.behaviour = good
        assert await read(bus) == RIGHT
        assert bus.main.connection.transport is transport


BEFORE_THE_ANSWER: dict[str, Callable[[Ask], bytes]] = {
    "noise": lambda a: b"\xff\x00\x7f",
    "our own request, echoed": lambda a: rtu(a.unit, b"\x03\0\x0a\0\x02"),
    "what looks like a frame's beginning": lambda a: bytes([a.unit, 3, 200]),
    "the answer of another unit, late": lambda a: rtu(a.unit + 1, b"\x03\x04\0\1\0\2"),
    "an answer of another length, late": lambda a: rtu(a.unit, b"\x03\x02\0\1"),
    "an exception to another function, late": lambda a: rtu(a.unit, b"\x82\x02"),
    "a spoiled answer": lambda a: answer(a)[:-1] + b"\0",
}


@pytest.mark.parametrize("what", BEFORE_THE_ANSWER, ids=lambda what: what.replace(" ", "-"))
@pytest.mark.parametrize("together", [True, False])
async def test_the_answer_is_found_behind_it(what: str, together: bool, line: SerialLine) -> None:
    def behave(ask: Ask, line: SerialLine) -> None:
        before = BEFORE_THE_ANSWER[what](ask)
        if together:
            line.say(before + answer(ask))
        else:
            line.say(before)
            line.say_later(0.03, answer(ask))

    line.behaviour = behave
    async with on(line) as bus:
        assert await read(bus) == RIGHT


async def test_an_answer_that_comes_byte_by_byte_is_read(line: SerialLine) -> None:
    line.behaviour = drip
    async with on(line) as bus:
        assert await read(bus) == RIGHT


# ---- exceptions, on both framings

QUALITIES = {code: BAD_CONFIG for code in (1, 2, 3)} | {10: BAD_COMMS, 11: BAD_COMMS}


@pytest.mark.parametrize("code", [*range(12), 99, 255])
async def test_an_exception_of_any_code_is_known_at_once_and_says_whether_the_unit_lives(
    code: int, line: SerialLine
) -> None:
    """10 and 11 are a gateway's word that the unit does not answer; any other comes of the unit itself."""
    line.behaviour = send(lambda a: rtu(a.unit, bytes([a.function | 0x80, code])))

    async def refuses(ask: tcp.Ask, writer: asyncio.StreamWriter) -> None:
        writer.write(tcp.frame(ask, bytes([ask.function | 0x80, code])))

    async with on(line) as serial, tcp.Device(refuses) as device:
        network = make_bus(parse_address(f"{device.url}/1"), Endpoint(), SystemClock(), Watch(), file="test")
        for bus in (serial, network):
            with pytest.raises(ReadFailed, match=f"exception {code}, ") as caught:
                await ask(bus, timeout_s=20.0)
            assert caught.value.outcome == "exception"
            assert caught.value.quality == QUALITIES.get(code, BAD_DEVICE)
            assert caught.value.answered == (code not in (10, 11))
        network.close()


# ---- cut off, rebooted, moved


async def test_a_line_that_is_cut_off_in_mid_frame_fails_at_once_and_is_opened_again(line: SerialLine) -> None:
    def cut(ask: Ask, line: SerialLine) -> None:
        line.say(answer(ask)[:4])
        asyncio.get_running_loop().call_later(0.05, line.unplug)

    line.behaviour = cut
    async with on(line) as bus:
        began = time.monotonic()
        with pytest.raises(ReadFailed, match="connection lost") as caught:
            await ask(bus, timeout_s=20.0)
        assert caught.value.outcome == "reset"
        assert time.monotonic() - began < 10
        line.behaviour = good
        line.plug_in()
        # Unit 1 is left alone for as long as its answer could come: tests/edge/test_late_on_lines.py.
        assert await ask(bus, unit=2, timeout_s=TIMEOUT_S) == RIGHT


PROFILE = make_profile({"p": {"modbus": {"address": 10}}}, poll_s=0.1, timeout_s=TIMEOUT_S)


async def rebooting(bus: Bus, address: str, off: Callable[[], object], back: Callable[[], object]) -> None:
    """A device that goes and comes is read, bad, read again; with its own values and no others."""
    put, reach = Put(), Reachability()
    async with polled([device_at(bus, make_equipment("e", PROFILE, address))], put, reach):
        await until(lambda: len(put.columns.get("e", [])) >= 3)
        off()
        await until(lambda: "e" in reach.since_us)
        shown = len(put.columns["e"])
        back()
        await until(lambda: not reach.since_us)
        await until(lambda: len(put.columns["e"]) >= shown + 3)
    (readings,) = by_signal(put.columns["e"]).values()
    qualities = [quality for _, _, quality in readings]
    assert set(qualities) == {GOOD, BAD_COMMS}
    assert (qualities[0], qualities[-1]) == (GOOD, GOOD)
    assert {value for _, value, quality in readings if quality == GOOD} == {10.0}
    times = [at for at, _, _ in readings]
    assert times == sorted(times)


async def test_a_unit_that_reboots_on_a_line_comes_back(line: SerialLine) -> None:
    def booting(ask: Ask, line: SerialLine) -> None:
        line.say(os.urandom(20).replace(b"\x01", b"\x02"))

    async with on(line) as bus:
        await rebooting(
            bus,
            line.url(),
            lambda: setattr(line, "behaviour", booting),
            lambda: setattr(line, "behaviour", good),
        )


async def test_a_device_that_reboots_on_a_network_comes_back() -> None:
    async with tcp.Device() as device:
        bus = make_bus(parse_address(f"{device.url}/1"), Endpoint(), SystemClock(), Watch(), file="test")

        async def resets(ask: tcp.Ask, writer: asyncio.StreamWriter) -> None:
            raise tcp.Reset

        await rebooting(
            bus,
            f"{device.url}/1",
            lambda: setattr(device, "behaviour", resets),
            lambda: setattr(device, "behaviour", tcp.good),
        )
        bus.close()


def listed_from(base: int) -> Profile:
    return make_profile(
        {"first": {"modbus": {"address": base}}, "last": {"modbus": {"address": base + 9}}},
        modbus={"address_base": base},
        timeout_s=2.0,
    )


@pytest.mark.parametrize("base", [0, 1])
async def test_a_map_that_counts_from_one_is_asked_one_lower_on_both_framings(base: int, line: SerialLine) -> None:
    """The device has registers 0 to 9 and refuses any other."""
    line.behaviour = send(lambda a: answer(a) if a.address + a.count <= 10 else rtu(a.unit, b"\x83\x02"))

    async def ten(ask: tcp.Ask, writer: asyncio.StreamWriter) -> None:
        refused = ask.address + ask.count > 10
        writer.write(tcp.frame(ask, b"\x83\x02" if refused else tcp.data(ask)))

    async with tcp.Device(ten) as device:
        for address in (line.url(), f"{device.url}/1"):
            rows = await probe(address, listed_from(base))
            assert [(row.value, row.quality) for row in rows] == [(0.0, "good"), (9.0, "good")]
        wrong = listed_from(1), Endpoint(address_base=0)
        for address in (line.url(), f"{device.url}/1"):
            shifted = await probe(address, wrong[0], endpoint=wrong[1])
            assert [(row.value, row.quality) for row in shifted] == [(1.0, "good"), (None, "config")]
