"""The soak's gateway under the edge's own reading, on a clock that jumps: what its faults do to the connection that all
units share, and whether the judge knows it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from edge.bus import make_bus, spare
from edge.frames import Mbap
from edge.lane import Lane, Watch
from edge.modbus import make_device
from edge.policy import Reachability
from edge.reach import NetworkReach
from telemetry.plant import Endpoint as PlantEndpoint
from telemetry.plant import parse_address
from telemetry.profile import ModbusDefaults
from tests.edge.asking import Told, query_of
from tests.edge.polling import Put, polled
from tests.edge.profiles import make_equipment, make_profile
from tests.edge.readings import by_signal
from tests.edge.swift_time import LoopClock, run_swiftly
from tests.fixtures.ports import free_port
from tests.soak import servers
from tests.soak.devices import GOOD, MAYBE, Unit, tcp
from tests.soak.layout import BLOCK, SLOW_S, TIMEOUT_S, A, B, Place, check
from tests.soak.servers import Asked, Endpoint, Wire, answer
from tests.soak.traced import Given, Stored, Traced
from tests.soak.world import Excuse

READ = 3
POINTS = {
    name: {"modbus": {"address": at, "type": kind}}
    for block, start in (("a", A), ("b", B))
    for name, at, kind in (
        (block, start, "u32"),
        (f"{block}_check", start + 2, "u16"),
        (f"{block}_more", start + 5, "u16"),
    )
}


def unit_of(number: int, *, fault: str | None = None, delay_s: float = 0.002) -> Unit:
    return Unit(Place(f"gateway-{number}", number, "gateway", "127.0.0.1", 0, number, ""), fault, delay_s=delay_s)


async def test_no_answer_of_another_unit_comes_between_the_bytes_of_one_that_drips() -> None:
    said = bytearray()
    wire = Wire(said.extend, lambda: None, lambda: True)
    units = [unit_of(1, fault="drip"), unit_of(2, delay_s=0.01), unit_of(3, fault="drip")]
    await asyncio.gather(*(answer(Asked(7, unit, READ, A, BLOCK), wire, random.Random(1)) for unit in units))
    frames = [tcp(7, unit.place.unit, Unit(unit.place).pdu(READ, A, BLOCK, at_s=0.0, status=0)) for unit in units]
    assert sorted(bytes(said[i : i + len(frames[0])]) for i in range(0, len(said), len(frames[0]))) == sorted(frames)


UNITS, SLOW, MUTE = 14, (5, 9), 13
FAULTY = {2: "garbage", 4: "other-unit", 6: "reset", 7: "drip", 11: "short"}
RUN_S = 60.0


async def read_all(faults: Mapping[int, str | None]) -> tuple[dict[int, Unit], Put, float]:
    """Units 1 … UNITS of a gateway, read once a second for RUN_S: what they gave, what came of it, when it was over."""
    port, clock, put = free_port(), LoopClock(), Put()
    units = {
        number: unit_of(number, fault=faults.get(number), delay_s=SLOW_S if number in SLOW else 0.002)
        for number in range(1, UNITS + 1)
    }
    units[MUTE].mute = True
    gateway = Endpoint("127.0.0.1", port, units, random.Random(11))
    await gateway.up()
    profile = make_profile(POINTS, poll_s=1, timeout_s=TIMEOUT_S)
    bus = make_bus(parse_address(f"modbus+tcp://127.0.0.1:{port}/1"), PlantEndpoint(), clock, Watch(), file="test")
    spare(bus, ModbusDefaults())
    bus.shared = True
    devices = []
    for number in units:
        equipment = make_equipment(f"e{number}", profile, f"modbus+tcp://127.0.0.1:{port}/{number}")
        devices.append(make_device(equipment, bus, clock, PlantEndpoint()))
    drawn = random.Random(1)
    async with polled(devices, put, Reachability(), clock=clock):
        for _ in range(round(RUN_S)):
            await asyncio.sleep(1)
            for number in SLOW:  # not always at the same moment of a cycle
                units[number].delay_s = drawn.uniform(0.5, 1.5) * SLOW_S
        end_s = clock.now_us() / 1e6
    bus.close()
    await gateway.down()
    await asyncio.sleep(1)
    return units, put, end_s


def judged(units: Mapping[int, Unit], put: Put, end_s: float) -> Traced:
    """As tests.soak.stored judges: what a unit says in its own fault, and at the end, is excused."""
    found = Traced()
    for number, unit in units.items():
        ever = [Excuse(0, 1e12, "", "own")] if unit.fault else []
        read = by_signal(put.columns.get(f"e{number}", []))
        for name, block in (("a", unit.a), ("b", unit.b)):
            checks = {time_us: value for time_us, value, _ in read.get(f"e{number}/{name}_check", [])}
            rows = read.get(f"e{number}/{name}", [])
            good = [(time_us, value) for time_us, value, quality in rows if quality >= 64]
            held = Stored(
                np.array([value for _, value in good], np.int64),
                np.array([checks[time_us] for time_us, _ in good], np.int64),
                np.array([time_us / 1e6 for time_us, _ in good]),
                np.array([time_us / 1e6 for time_us, _, quality in rows if quality < 64]),
            )
            status, again = (
                np.frombuffer(bytes(b), kind) for b, kind in ((block.status, np.uint8), (block.again, bool))
            )
            given = Given(np.array(block.at_s), status, again)
            of = np.array([check(n, number) for n in range(1, len(block.status) + 1)], np.int64)
            found.add(f"e{number}/{name}", given, held, of, [*ever, Excuse(end_s - 1.5, 1e12, "", "end")])
    return found


def mixing(write: Callable[[bytes], None], reset: Callable[[], None], is_open: Callable[[], bool]) -> Wire:
    """A connection on which answers have bytes of others between theirs."""
    return Wire(write, reset, is_open, nullcontext())  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def clock_that_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The devices note their answers by the loop's time too."""
    monkeypatch.setattr(servers, "time", SimpleNamespace(time=lambda: LoopClock().now_us() / 1e6))


async def two_at_once(dripped: int, spoiled: int) -> tuple[Unit, Unit, Told, Told]:
    """Unit 37 is slow, so unit 7 is asked meanwhile; 37 answers when 14 bytes of what 7 says have dripped.

    `dripped`, `spoiled`: the numbers of their first answers.
    """
    drips, slow = unit_of(7, fault="drip", delay_s=0.277), unit_of(37, delay_s=SLOW_S)
    for block, before in ((drips.a, dripped - 1), (slow.b, spoiled - 1)):
        for _ in range(before):
            block.give(0.0, GOOD)
    port = free_port()
    gateway = Endpoint("127.0.0.1", port, {7: drips, 37: slow}, random.Random(1))
    await gateway.up()
    reach = NetworkReach((("127.0.0.1", port),))
    lane = Lane(reach, Mbap(), LoopClock(), Watch(), patience_s=lambda: 0.06)
    of_drips, of_slow = Told(), Told()
    lane.ask(of_slow, query_of(unit=37, address=B, n=BLOCK), TIMEOUT_S)
    lane.ask(of_drips, query_of(unit=7, address=A, n=BLOCK), TIMEOUT_S)
    async with asyncio.timeout(60):
        await asyncio.gather(of_slow.over.wait(), of_drips.over.wait())
    lane.close()
    await gateway.down()
    return drips, slow, of_drips, of_slow


def number_and_check(told: Told) -> tuple[int, int]:
    assert told.payload is not None
    return int.from_bytes(told.payload[:4], "big"), int.from_bytes(told.payload[4:6], "big")


def test_a_gateway_that_mixes_its_answers_makes_a_row_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the soak of seed 11 judged wrong: gateway-7/a 224, at 18:16:37 of 2026-11-23, byte for byte.

    Frames on a network have no checksum. That 7's answer was not what it sent could be seen by what came behind it, were
    that not the rest of 37's answer, which looks like the beginning of a longer frame: protocol 0, length 233.
    """
    monkeypatch.setattr(servers, "Wire", mixing)
    drips, _, of_drips, of_slow = run_swiftly(lambda: two_at_once(224, 233))
    assert drips.a.status[-1] == MAYBE
    assert number_and_check(of_drips) == (224, check(224, 7) & 0xFF00), (
        "half of its check; the rest is 37's transaction"
    )
    assert number_and_check(of_drips)[1] != check(224, 7)
    assert of_slow.failure is not None
    assert of_slow.failure.outcome == "unusable"


def test_whose_answer_is_spoiled_by_another_is_asked_again_and_its_device_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers, "Wire", mixing)
    drips, slow, of_drips, of_slow = run_swiftly(lambda: two_at_once(1, 1))
    assert (list(drips.a.again), list(slow.b.again)) == ([1, 0], [1, 0])
    assert list(slow.b.status) == [GOOD, GOOD], "on a connection that was well, as far as its device could see"
    assert number_and_check(of_drips) == (2, check(2, 7))
    assert number_and_check(of_slow) == (2, check(2, 37))


@pytest.mark.parametrize("numbers", [(1, 1), (224, 233)])
def test_a_gateway_that_does_not_mix_its_answers_has_nothing_asked_again(numbers: tuple[int, int]) -> None:
    drips, slow, of_drips, of_slow = run_swiftly(lambda: two_at_once(*numbers))
    assert not any(drips.a.again + slow.b.again)
    assert number_and_check(of_drips) == (numbers[0], check(numbers[0], 7))
    assert number_and_check(of_slow) == (numbers[1], check(numbers[1], 37))


def test_a_gateway_that_spoils_its_connections_costs_no_answer_of_another_unit() -> None:
    units, put, end_s = run_swiftly(lambda: read_all(FAULTY))
    found = judged(units, put, end_s)
    assert (found.doubled, found.unknown, found.wrong, found.lost, found.odd) == (0, 0, 0, [], [])
    assert found.rows > RUN_S * (UNITS - len(FAULTY) - 1)


def test_units_that_drip_cost_no_value_of_theirs_nor_of_anothers() -> None:
    units, put, end_s = run_swiftly(lambda: read_all(dict.fromkeys((2, 4, 7, 11), "drip")))
    found = judged(units, put, end_s)
    assert (found.doubled, found.unknown, found.wrong, found.lost, found.odd) == (0, 0, 0, [], [])
    assert found.rows > RUN_S * (UNITS - 1)
