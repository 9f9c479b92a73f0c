"""Hostile devices over real TCP: each case pins a rule of edge.bus, and that nothing else is lost by it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from itertools import count, pairwise

import pytest

from edge.breaker import Breaker, State
from edge.bus import Bus, ReadFailed, read_request
from edge.driver import Reading
from edge.modbus import ModbusDevice, make_device
from edge.plan import Request
from edge.policy import Poller, Reachability
from telemetry.clock import SystemClock
from telemetry.plant import Endpoint, parse_address
from telemetry.profile import Profile
from telemetry.quality import BAD_COMMS, BAD_CONFIG, BAD_DEVICE, GOOD
from tests.edge.build import make_equipment, make_profile, values
from tests.edge.device import Ask, Behaviour, Close, Device, Reset, data, frame, good, silent
from tests.fixtures.waiting import until

TIMEOUT_S = 0.25


def bus_to(device: Device, endpoint: Endpoint | None = None, scheme: str = "modbus+tcp") -> Bus:
    return Bus(parse_address(f"{scheme}://127.0.0.1:{device.port}"), endpoint or Endpoint())


async def ask(bus: Bus, *, unit: int = 1, address: int = 10, n: int = 2, table: str = "holding") -> bytes:
    request = Request(table, address, n, ())  # type: ignore[arg-type]
    return await bus.ask(read_request(request, unit), request.payload_bytes, TIMEOUT_S)


def send(make: Callable[[Ask], bytes]) -> Behaviour:
    async def behave(ask: Ask, writer: asyncio.StreamWriter) -> None:
        writer.write(make(ask))

    return behave


async def reset_in_mid_frame(ask: Ask, writer: asyncio.StreamWriter) -> None:
    writer.write(frame(ask, data(ask))[:9])
    await writer.drain()
    raise Reset


async def close_without_a_word(ask: Ask, writer: asyncio.StreamWriter) -> None:
    raise Close


async def right_answer_after_a_wrong_one(ask: Ask, writer: asyncio.StreamWriter) -> None:
    writer.write(frame(ask, data(ask, shift=77), transaction=ask.transaction + 5) + frame(ask, data(ask)))


async def byte_by_byte(ask: Ask, writer: asyncio.StreamWriter) -> None:
    for byte in frame(ask, data(ask)):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.001)


HOSTILE: dict[str, tuple[Behaviour, str, bool]] = {
    # rule: what the device does → (behaviour, outcome, whether the connection can be trusted afterwards)
    "silence is a time-out, and the connection is kept for the other units": (silent, "timeout", True),
    "half a frame is unusable": (send(lambda a: frame(a, data(a))[:9]), "unusable", False),
    "another unit's frame is not this one's": (send(lambda a: frame(a, data(a), unit=a.unit + 1)), "unusable", False),
    "another transaction's frame is not this one's": (
        send(lambda a: frame(a, data(a), transaction=a.transaction + 1)),
        "unusable",
        False,
    ),
    "transaction 0 is no wild card": (send(lambda a: frame(a, data(a), transaction=0)), "transaction", False),
    "another function's answer is refused": (send(lambda a: frame(a, data(a, function=4))), "function", False),
    "an exception to another function is refused": (send(lambda a: frame(a, b"\x84\x02")), "function", False),
    "a write's answer is refused": (send(lambda a: frame(a, b"\x10\0\0\0\1")), "function", False),
    "an exception without its code is refused": (send(lambda a: frame(a, b"\x83")), "function", False),
    "fewer registers than asked for are refused": (send(lambda a: frame(a, data(a)[:4])), "length", False),
    "more registers than asked for are refused": (send(lambda a: frame(a, data(a) + b"\0\0")), "length", False),
    "a byte count that lies is refused": (
        send(lambda a: frame(a, bytes([a.function, 2]) + data(a)[2:])),
        "length",
        False,
    ),
    "an empty answer is unusable": (send(lambda a: frame(a, b"")), "unusable", False),
    "another protocol is unusable": (send(lambda a: frame(a, data(a), protocol=7)), "unusable", False),
    "garbage is unusable": (send(lambda a: b"\xde\xad\xbe\xef" * 5), "unusable", False),
    "text is unusable": (send(lambda a: b"HTTP/1.1 400 Bad Request\r\n\r\n"), "unusable", False),
    "an oversized frame is refused": (send(lambda a: frame(a, b"\x03\xfa" + b"\0" * 3000)), "length", False),
    "a flood is unusable": (send(lambda a: b"\xff" * 300_000), "unusable", False),
    "a header that promises more than comes is unusable": (
        send(lambda a: frame(a, data(a), length=0xFFFF)),
        "unusable",
        False,
    ),
    "a reset in mid-frame fails at once": (reset_in_mid_frame, "reset", False),
    "a connection that is closed fails at once": (close_without_a_word, "reset", False),
}


@pytest.mark.parametrize("rule", HOSTILE, ids=lambda rule: rule.replace(" ", "-"))
async def test_a_hostile_answer_is_refused_and_the_next_good_one_is_read(rule: str) -> None:
    behaviour, outcome, kept = HOSTILE[rule]
    async with Device(behaviour) as device:
        bus = bus_to(device)
        began = time.monotonic()
        with pytest.raises(ReadFailed) as caught:
            await ask(bus)
        took = time.monotonic() - began
        assert caught.value.outcome == outcome
        assert caught.value.quality == BAD_COMMS
        assert not caught.value.answered
        assert took < TIMEOUT_S + 0.4
        if outcome not in ("timeout", "unusable"):
            assert took < TIMEOUT_S, "known at once, not waited for"
        device.behaviour = good
        assert await ask(bus) == b"\0\x0a\0\x0b"
        assert device.connections == (1 if kept else 2)
        bus.close()


async def test_unit_0_is_no_wild_card_for_every_units_answer() -> None:
    async with Device(send(lambda a: frame(a, data(a), unit=7))) as device:
        bus = bus_to(device)
        with pytest.raises(ReadFailed, match="answer of unit 7, expected 0") as caught:
            await ask(bus, unit=0)
        assert caught.value.outcome == "unit"
        assert not caught.value.answered
        bus.close()


@pytest.mark.parametrize(
    ("code", "quality", "answered"),
    [
        (1, BAD_CONFIG, True),
        (2, BAD_CONFIG, True),
        (3, BAD_CONFIG, True),
        (4, BAD_DEVICE, True),
        (5, BAD_DEVICE, True),
        (6, BAD_DEVICE, True),
        (8, BAD_DEVICE, True),
        (10, BAD_COMMS, False),
        (11, BAD_COMMS, False),
        (99, BAD_DEVICE, True),
    ],
)
async def test_an_exception_code_decides_the_quality_and_whether_the_device_lives(
    code: int, quality: int, answered: bool
) -> None:
    async with Device(send(lambda a: frame(a, bytes([a.function | 0x80, code])))) as device:
        bus = bus_to(device)
        with pytest.raises(ReadFailed) as caught:
            await ask(bus)
        assert (caught.value.outcome, caught.value.quality, caught.value.answered) == ("exception", quality, answered)
        assert str(code) in caught.value.why
        bus.close()


async def test_a_late_answer_is_never_taken_for_the_next_ones() -> None:
    held: list[bytes] = []

    async def late(ask: Ask, writer: asyncio.StreamWriter) -> None:
        if not held:
            held.append(frame(ask, data(ask, shift=1000)))
        else:
            writer.write(held[0] + frame(ask, data(ask)))

    async with Device(late) as device:
        bus = bus_to(device)
        with pytest.raises(ReadFailed):
            await ask(bus)
        assert await ask(bus) == b"\0\x0a\0\x0b"
        assert device.connections == 1
        bus.close()


@pytest.mark.parametrize("behaviour", [right_answer_after_a_wrong_one, byte_by_byte])
async def test_a_right_answer_is_found_behind_a_wrong_one_and_in_pieces(behaviour: Behaviour) -> None:
    async with Device(behaviour) as device:
        bus = bus_to(device)
        assert await ask(bus) == b"\0\x0a\0\x0b"
        bus.close()


@pytest.mark.parametrize(("table", "function"), [("coil", 1), ("discrete", 2), ("holding", 3), ("input", 4)])
async def test_each_table_is_read_by_its_function(table: str, function: int) -> None:
    async with Device() as device:
        bus = bus_to(device)
        await ask(bus, table=table, n=9)
        assert [(a.function, a.address, a.count) for a in device.asked] == [(function, 10, 9)]
        bus.close()


async def test_a_connection_on_which_everything_is_silent_is_opened_anew() -> None:
    async with Device(silent) as device:
        bus = bus_to(device)
        for _ in range(4):
            with pytest.raises(ReadFailed):
                await ask(bus)
        assert device.connections == 2
        bus.close()


async def test_an_endpoint_that_refuses_is_tried_again_after_a_pause_and_costs_nothing_meanwhile() -> None:
    async with Device() as device:
        pass
    bus = bus_to(device)
    with pytest.raises(ReadFailed, match="not connected"):
        await ask(bus)
    began = time.monotonic()
    for _ in range(50):
        with pytest.raises(ReadFailed, match="not connected"):
            await ask(bus)
    assert time.monotonic() - began < 0.1
    async with device:
        await until(lambda: answers(bus))
    bus.close()


async def answers(bus: Bus) -> bool:
    try:
        await ask(bus)
    except ReadFailed:
        return False
    return True


async def test_pauses_that_the_endpoint_asks_for_are_kept() -> None:
    async with Device() as device:
        bus = bus_to(device, Endpoint(pause_after_connect_s=0.1, pause_between_requests_s=0.05))
        began = time.monotonic()
        await asyncio.gather(*(ask(bus, unit=u) for u in (1, 2, 3)))
        times = [a.at_s - began for a in device.asked]
        assert times[0] >= 0.1
        assert min(b - a for a, b in pairwise(times)) >= 0.045
        bus.close()


async def test_units_of_one_endpoint_share_one_connection_and_take_turns_by_request() -> None:
    async with Device() as device:
        bus = bus_to(device)

        async def cycle(unit: int) -> None:
            for address in range(0, 50, 10):
                await ask(bus, unit=unit, address=address)

        await asyncio.gather(cycle(1), cycle(2), cycle(3))
        assert device.connections == 1
        assert [a.unit for a in device.asked] == [1, 2, 3] * 5
        bus.close()


async def test_nothing_but_a_read_leaves_the_bus() -> None:
    async with Device() as device:
        bus = bus_to(device)
        pdu = read_request(Request("holding", 0, 1, ()), 1)
        pdu.function_code = 6
        with pytest.raises(ValueError, match="nothing writes to equipment"):
            await bus.ask(pdu, 2, TIMEOUT_S)
        assert device.asked == []
        bus.close()


# ---- whole devices


@pytest.fixture
def profile() -> Profile:
    return make_profile({f"p{a}": {"modbus": {"address": a}} for a in (0, 100, 200)}, poll_s=0.2, timeout_s=TIMEOUT_S)


def poller_of(device: ModbusDevice, readings: list[Reading], reach: Reachability) -> Poller:
    def deliver(reading: Reading, done: object) -> bool:
        readings.append(reading)
        return True

    return Poller(device, deliver, reach, SystemClock(), time.monotonic(), Breaker(back_off_s=0.5))


async def test_what_was_read_in_a_cycle_is_kept_and_only_the_failed_requests_points_are_bad(profile: Profile) -> None:
    async def refuses_one(ask: Ask, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(ask, b"\x83\x02" if ask.address == 100 else data(ask)))

    async with Device(refuses_one) as device:
        bus = bus_to(device)
        reader = make_device(make_equipment("e", profile, f"{device.url}/1"), bus, SystemClock())
        outcome = await reader.read(0)
        got = values(outcome.reading.batch)
        assert got["p0"] == (0.0, GOOD)
        assert got["p200"] == (200.0, GOOD)
        assert math.isnan(got["p100"][0])
        assert got["p100"][1] == BAD_CONFIG
        assert outcome.faults == ("holding 100+1: exception 2, illegal data address",)
        assert (outcome.answered, outcome.unanswered) == (3, 0)
        bus.close()


async def test_one_request_that_is_never_answered_does_not_cost_the_others(profile: Profile) -> None:
    async def ignores_one(ask: Ask, writer: asyncio.StreamWriter) -> None:
        if ask.address != 0:
            await good(ask, writer)

    async with Device(ignores_one) as device:
        bus = bus_to(device)
        reader = make_device(make_equipment("e", profile, f"{device.url}/1"), bus, SystemClock())
        outcome = await reader.read(0)
        got = {n: q for n, (_, q) in values(outcome.reading.batch).items()}
        assert got == {"p0": BAD_COMMS, "p100": GOOD, "p200": GOOD}
        bus.close()


async def test_a_silent_device_is_given_up_within_a_cycle_and_all_its_points_are_bad(profile: Profile) -> None:
    async with Device(silent) as device:
        bus = bus_to(device)
        reader = make_device(make_equipment("e", profile, f"{device.url}/1"), bus, SystemClock())
        outcome = await reader.read(0)
        assert len(device.asked) == 2
        assert {q for _, q in values(outcome.reading.batch).values()} == {BAD_COMMS}
        assert outcome.answered == 0
        bus.close()


@pytest.fixture
async def silent_device() -> AsyncIterator[Device]:
    async with Device(silent) as device:
        yield device


async def lateness(found: list[float]) -> None:
    """How late this loop itself wakes, device or no device: what a busy machine does to everybody."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + 0.01
        await asyncio.sleep(0.01)
        found.append(loop.time() - due_s)


async def test_a_silent_device_delays_no_neighbour_and_is_told_once(profile: Profile, silent_device: Device) -> None:
    """A healthy device on another endpoint keeps its interval; the silent one gets one bad set, then heartbeats tell."""
    async with Device() as healthy:
        reach = Reachability()
        told: dict[str, list[Reading]] = {"bad": [], "well": []}
        pollers = []
        for name, device in (("bad", silent_device), ("well", healthy)):
            reader = make_device(make_equipment(name, profile, f"{device.url}/1"), bus_to(device), SystemClock())
            pollers.append(poller_of(reader, told[name], reach))
        hiccups: list[float] = [0.0]
        tasks = [*(asyncio.create_task(poller.run()) for poller in pollers), asyncio.create_task(lateness(hiccups))]
        await until(lambda: "bad" in reach.since_us)
        shown = len(told["bad"])
        await until(lambda: len(healthy.asked) >= 3 * 15)
        assert len(told["bad"]) == shown, "no bad samples while the breaker is open, whatever the probes find"
        assert all(q == BAD_COMMS for r in told["bad"] for _, q in values(r.batch).values())
        times = [a.at_s for a in healthy.asked if a.address == 0]
        gaps = [b - a for a, b in pairwise(times)]
        assert sorted(gaps)[len(gaps) // 2] == pytest.approx(0.2, abs=0.03)
        assert max(hiccups) < TIMEOUT_S, "nobody may stop the loop for as long as a device may take"
        assert max(gaps) < 0.2 * 2 + max(hiccups), "no cycle was lost to the neighbour's time-outs"
        silent_device.behaviour = good
        await until(lambda: not reach.since_us)
        await until(lambda: values(told["bad"][-1].batch)["p200"] == (200.0, GOOD))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for poller in pollers:
            poller.driver.bus.close()  # type: ignore[attr-defined]


async def test_on_a_shared_endpoint_a_silent_unit_is_asked_rarely_once_it_is_known(profile: Profile) -> None:
    async def unit_2_is_silent(ask: Ask, writer: asyncio.StreamWriter) -> None:
        if ask.unit != 2:
            await good(ask, writer)

    async with Device(unit_2_is_silent) as device:
        bus, reach = bus_to(device), Reachability()
        readings: list[Reading] = []
        pollers = [
            poller_of(
                make_device(make_equipment(f"e{u}", profile, f"{device.url}/{u}"), bus, SystemClock()), readings, reach
            )
            for u in (1, 2, 3)
        ]
        tasks = [asyncio.create_task(poller.run()) for poller in pollers]
        await until(lambda: "e2" in reach.since_us)
        since = len(device.asked)
        await until(lambda: len(device.asked) >= since + 60)
        asked = device.asked[since:]
        assert sum(a.unit == 2 for a in asked) <= 10
        assert reach.since_us.keys() == {"e2"}
        assert pollers[0].breaker.state is State.CLOSED
        assert device.connections == 1, "kept for the units that answer"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        bus.close()


# ---- RTU over TCP


def crc16(body: bytes) -> bytes:
    """Modbus over Serial Line 1.02, appendix B."""
    crc = 0xFFFF
    for byte in body:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc.to_bytes(2, "little")


@pytest.mark.parametrize("kind", ["good", "bad crc", "another unit"])
async def test_rtu_frames_over_tcp_are_read_with_their_crc_checked(kind: str) -> None:
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            got.append(await reader.readexactly(8))
            body = bytes([2 if kind == "another unit" else 1, 3, 4, 0x47, 0xF1, 0x20, 0x00])
            writer.write(body + (b"\0\0" if kind == "bad crc" else crc16(body)))
            await writer.drain()
            await reader.read()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    bus = Bus(parse_address(f"modbus+rtuovertcp://127.0.0.1:{port}"), Endpoint())
    if kind == "good":
        assert await ask(bus) == b"\x47\xf1\x20\x00"
    else:
        with pytest.raises(ReadFailed) as caught:
            await ask(bus)
        assert caught.value.outcome == "unusable"
    # 01 03 00 0A 00 02 and its CRC E4 09, by the specification's own algorithm.
    assert got == [b"\x01\x03\x00\x0a\x00\x02" + crc16(b"\x01\x03\x00\x0a\x00\x02")]
    bus.close()
    server.close()
    await server.wait_closed()


async def test_requests_go_on_with_fresh_transactions_for_as_long_as_it_takes() -> None:
    async with Device() as device:
        bus = bus_to(device)
        for _ in count():
            await ask(bus)
            if len(device.asked) == 300:
                break
        assert len({a.transaction for a in device.asked}) == 300
        bus.close()
