"""Modbus RTU on a serial line of this machine: a pty with a unit written by hand at its other end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import pytest

from edge.bus import Bus, make_bus, spare
from edge.lane import Watch
from edge.policy import Reachability
from edge.probe import probe
from edge.reach import SerialReach
from telemetry.clock import SystemClock
from telemetry.plant import Endpoint, parse_address
from telemetry.profile import ModbusDefaults, Profile
from telemetry.quality import BAD_COMMS, GOOD
from tests.edge.asking import ReadFailed, ask, device_at
from tests.edge.polling import Put, polled
from tests.edge.profiles import make_equipment, make_profile
from tests.edge.readings import by_signal
from tests.edge.serial_line import Ask, SerialLine, answer, good, rtu, silent
from tests.fixtures.waiting import until

TIMEOUT_S = 0.3


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[SerialLine]:
    async with SerialLine(tmp_path / "ttyUSB0") as line:
        yield line


@pytest.fixture
def bus_on() -> object:
    buses: list[Bus] = []

    def make(line: SerialLine, options: str = "", endpoint: Endpoint | None = None) -> Bus:
        buses.append(
            make_bus(
                parse_address(line.url(options=options)), endpoint or Endpoint(), SystemClock(), Watch(), file="test"
            )
        )
        spare(buses[-1], ModbusDefaults())
        return buses[-1]

    yield make
    for bus in buses:
        bus.close()


MakeBus = Callable[..., Bus]


async def read(bus: Bus, *, unit: int = 1, address: int = 10) -> bytes:
    return await ask(bus, unit=unit, address=address, timeout_s=TIMEOUT_S)


RIGHT = b"\0\x0a\0\x0b"


# ---- what is said on the line, and how


async def test_all_four_tables_are_read_by_probe(line: SerialLine) -> None:
    profile = make_profile(
        {
            "level": {"modbus": {"address": 7, "scale": 0.1}},
            "total": {"modbus": {"address": 300, "table": "input", "type": "u32"}},
            "lamp": {"modbus": {"address": 3, "table": "coil", "type": "bool"}},
            "door": {"modbus": {"address": 21, "table": "discrete", "type": "bool"}},
        },
        timeout_s=1.0,
    )
    rows = await probe(line.url(unit=17, options="?baud=19200"), profile)
    assert [(row.point, row.value, row.quality) for row in rows] == [
        ("level", 0.7, "good"),
        ("total", float(300 << 16 | 301), "good"),
        ("lamp", 1.0, "good"),
        ("door", 1.0, "good"),
    ]
    assert sorted((a.unit, a.function) for a in line.asked) == [(17, 1), (17, 2), (17, 3), (17, 4)]
    assert line.odd == b""


@pytest.mark.parametrize(
    ("options", "baud", "two_stop_bits"), [("?baud=1200", 1200, False), ("?stop=2", 38400, True), ("", 38400, True)]
)
async def test_the_line_is_set_as_its_address_says_and_else_its_endpoint(
    line: SerialLine, bus_on: MakeBus, options: str, baud: int, two_stop_bits: bool
) -> None:
    endpoint = Endpoint() if "baud" in options else Endpoint(baud=38400, stop_bits=2)
    assert await read(bus_on(line, options, endpoint)) == RIGHT
    assert line.settings() == (baud, two_stop_bits)


async def test_all_settings_are_handed_to_the_port(line: SerialLine, bus_on: MakeBus) -> None:
    """No pty has parity or 7 bits, so here the port is a mock."""
    bus = bus_on(line, "?baud=19200&parity=E&stop=2&data=7")
    port = patch("edge.reach.create_serial_connection", side_effect=OSError("seen"))
    with port as opened, pytest.raises(ReadFailed, match=r"19200 7E2.* refused: seen"):
        await read(bus)
    told = opened.call_args
    assert told.args[2] == str(line.link)
    assert told.kwargs == {"baudrate": 19200, "parity": "E", "stopbits": 2, "bytesize": 7}


async def test_settings_that_the_port_refuses_are_said_and_waited_for_by_nobody(
    line: SerialLine, bus_on: MakeBus
) -> None:
    with pytest.raises(ReadFailed, match=r"9600 8O1\) refused: .*Invalid argument"):
        await read(bus_on(line, "?parity=O"))


@pytest.mark.parametrize(("baud", "rest_s"), [(1200, 3.5 * 11 / 1200), (9600, 3.5 * 11 / 9600), (115_200, 0.001_75)])
async def test_the_line_rests_for_three_and_a_half_characters_between_frames(
    line: SerialLine, bus_on: MakeBus, baud: int, rest_s: float
) -> None:
    bus = bus_on(line, f"?baud={baud}")
    for _ in range(4):
        await asyncio.gather(read(bus, unit=1), read(bus, unit=2))
    assert len(line.asked) == 8
    rests = [ask.at_s - said_s for said_s, ask in zip(line.said_s, line.asked[1:], strict=False)]
    assert min(rests) >= rest_s


async def test_a_slow_line_is_given_the_time_that_its_bytes_take(line: SerialLine, bus_on: MakeBus) -> None:
    """100 registers at 4800 baud take half a second on the wire, whatever the unit's time-out; alone on the line or not."""
    line.behaviour = lambda ask, line: line.say_later(0.4, answer(ask))
    bus = bus_on(line, "?baud=4800")
    for shared in (False, True):
        bus.shared = shared
        device = device_at(
            bus,
            make_equipment(
                "e",
                make_profile({f"p{i}": {"modbus": {"address": i}} for i in range(100)}, timeout_s=0.2),
                line.url(),
            ),
        )
        over: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        device.begin(0, over.set_result)
        outcome = await over
        assert getattr(outcome, "faults") == ()  # noqa: B009


# ---- what comes back


async def test_a_silent_unit_is_a_time_out_and_the_next_unit_is_asked(line: SerialLine, bus_on: MakeBus) -> None:
    line.behaviour = lambda ask, line: None if ask.unit == 2 else good(ask, line)
    bus = bus_on(line)
    with pytest.raises(ReadFailed, match=r"no answer within 0\.3 s") as caught:
        await read(bus, unit=2)
    assert (caught.value.outcome, caught.value.quality) == ("timeout", BAD_COMMS)
    assert await read(bus, unit=1) == RIGHT


async def test_a_late_answer_is_never_taken_for_the_next_ones(line: SerialLine, bus_on: MakeBus) -> None:
    """RTU has no transactions: a unit that did not answer is left alone until its answer could no longer come."""

    def late(ask: Ask, line: SerialLine) -> None:
        if len(line.asked) == 1:
            line.say_later(1.7 * TIMEOUT_S, answer(ask, shift=1000))
        else:
            good(ask, line)

    line.behaviour = late
    bus = bus_on(line)
    with pytest.raises(ReadFailed, match="no answer"):
        await read(bus)
    other = list(await asyncio.gather(read(bus, unit=2), read(bus, unit=1, address=20), read(bus, unit=3)))
    assert other == [RIGHT, b"\0\x14\0\x15", RIGHT], "not 0x3F2, which came while others were asked"
    assert [a.unit for a in line.asked] == [1, 2, 3, 1], "the others need not wait for it"
    assert line.asked[3].at_s - line.asked[0].at_s >= 2 * TIMEOUT_S


async def test_a_late_answer_of_another_length_is_passed_over(line: SerialLine, bus_on: MakeBus) -> None:
    line.behaviour = lambda ask, line: line.say(
        answer(Ask(ask.unit, ask.function, 500, 9, 0.0)) + rtu(9, b"\x03\x02\0\0") + answer(ask)
    )
    assert await read(bus_on(line)) == RIGHT


async def test_garbage_before_behind_and_instead_of_an_answer(line: SerialLine, bus_on: MakeBus) -> None:
    bus = bus_on(line)
    line.behaviour = lambda ask, line: line.say(b"\xff\x00\x01\x03\x04" + answer(ask) + b"\xfe\xfe")
    assert await read(bus) == RIGHT
    line.behaviour = lambda ask, line: line.say(os.urandom(4000).replace(b"\x01", b"\xff"))
    with pytest.raises(ReadFailed, match="unusable answer") as caught:
        await read(bus)
    assert caught.value.outcome == "unusable"
    line.say(b"\x55" * 100)
    line.behaviour = good
    assert await read(bus, unit=2) == RIGHT
    assert await read(bus) == RIGHT


# ---- unplugged, and back


@pytest.fixture
def profile() -> Profile:
    return make_profile({"p": {"modbus": {"address": 10}}}, poll_s=0.1, timeout_s=TIMEOUT_S)


async def test_an_adapter_that_is_unplugged_is_unreachable_and_comes_back_by_itself(
    line: SerialLine, bus_on: MakeBus, profile: Profile
) -> None:
    bus, put, reach = bus_on(line), Put(), Reachability()
    bus.shared = True
    drivers = [device_at(bus, make_equipment(f"e{unit}", profile, line.url(unit))) for unit in (1, 2)]
    async with polled(drivers, put, reach):
        await until(lambda: len(line.asked) > 10)
        line.unplug()
        await until(lambda: reach.since_us.keys() == {"e1", "e2"})
        line.plug_in()
        seen = len(line.asked)
        await until(lambda: not reach.since_us)
        await until(lambda: len(line.asked) > seen + 6)
    for readings in by_signal([c for several in put.columns.values() for c in several]).values():
        qualities = [quality for _, _, quality in readings]
        assert qualities[0] == qualities[-1] == GOOD
        assert BAD_COMMS in qualities
        assert {value for _, value, quality in readings if quality == GOOD} == {10.0}


async def test_a_line_that_is_not_there_is_said_with_its_settings(tmp_path: Path, profile: Profile) -> None:
    rows = await probe(f"modbus+rtu://{tmp_path}/ttyUSB9/1?baud=19200&parity=E", profile)
    assert [(row.value, row.quality) for row in rows] == [(None, "comms")]
    line = SerialLine(tmp_path / "ttyUSB9")
    bus = make_bus(parse_address(line.url()), Endpoint(), SystemClock(), Watch(), file="test")
    with pytest.raises(ReadFailed, match=r"ttyUSB9 \(9600 8N1\) refused: .*No such file"):
        await read(bus)
    bus.close()


async def test_a_line_belongs_to_one_edge(line: SerialLine, bus_on: MakeBus) -> None:
    """Two masters on one line would spoil each other's frames."""
    first, second = bus_on(line), bus_on(line)
    assert await read(first) == RIGHT
    with pytest.raises(ReadFailed, match=r"refused: .*lock"):
        await read(second)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_closed_at_once_after_opening_nothing_is_left(line: SerialLine, bus_on: MakeBus) -> None:
    reach = bus_on(line).main.reach
    assert isinstance(reach, SerialReach)
    before = open_files()
    for _ in range(5):
        transport = await reach.open(0, asyncio.Protocol)
        transport.abort()
    assert open_files() == before


async def test_an_error_that_nobody_thought_of_fails_the_request_and_holds_nothing_up(
    line: SerialLine, bus_on: MakeBus
) -> None:
    bus = bus_on(line)
    port = patch("edge.reach.create_serial_connection", side_effect=KeyError("odd"))
    with port, pytest.raises(ReadFailed, match=r"not connected: .*KeyError\('odd'\)"):
        await read(bus)
    await until(lambda: bus.main.reachable)
    assert await read(bus) == RIGHT


# ---- many units


async def test_on_a_line_of_many_units_a_silent_one_is_soon_waited_for_no_longer_than_the_others_take(
    line: SerialLine, bus_on: MakeBus, profile: Profile
) -> None:
    line.behaviour = lambda ask, line: None if ask.unit == 5 else good(ask, line)
    bus, reach = bus_on(line, "?baud=115200"), Reachability()
    bus.shared = True
    drivers = [device_at(bus, make_equipment(f"e{unit}", profile, line.url(unit))) for unit in range(1, 11)]
    async with polled(drivers, Put(), reach):
        await until(lambda: "e5" in reach.since_us)
        begun = len(line.asked)
        await until(lambda: sum(a.unit == 5 for a in line.asked[begun:]) >= 2)
    probes = [(one, after) for one, after in pairwise(line.asked[begun:]) if one.unit == 5]
    assert min(after.at_s - one.at_s for one, after in probes) < TIMEOUT_S


async def test_a_slow_unit_that_was_lost_comes_back_though_the_others_are_brisk(
    line: SerialLine, bus_on: MakeBus, profile: Profile
) -> None:
    """Asked with the patience of the others it would never be heard again."""

    def one_is_slow(ask: Ask, line: SerialLine) -> None:
        line.say_later(0.2, answer(ask)) if ask.unit == 5 else good(ask, line)

    line.behaviour = one_is_slow
    bus, reach = bus_on(line, "?baud=115200"), Reachability()
    bus.shared = True
    drivers = [device_at(bus, make_equipment(f"e{unit}", profile, line.url(unit))) for unit in (1, 2, 5)]
    async with polled(drivers, Put(), reach):
        await until(lambda: len(line.asked) > 30)
        line.behaviour = lambda ask, line: silent(ask, line) if ask.unit == 5 else good(ask, line)
        await until(lambda: "e5" in reach.since_us)
        line.behaviour = one_is_slow
        await until(lambda: not reach.since_us)
