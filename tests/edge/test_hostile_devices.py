"""Hostile devices over real TCP: each case pins a rule of edge.lane, and that nothing else is lost by it."""

from __future__ import annotations

import asyncio
import time
from itertools import count, pairwise

import pytest

from edge.bus import Bus
from edge.frames import READS, query
from edge.plan import Table
from telemetry.plant import Endpoint
from telemetry.quality import BAD_COMMS, BAD_CONFIG, BAD_DEVICE
from tests.edge.asking import TIMEOUT_S, ReadFailed, ask, bus_to
from tests.edge.device import Ask, Behaviour, Close, Device, Reset, data, frame, good, send, silent
from tests.fixtures.waiting import until


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
    "another unit's frame is not this one's": (send(lambda a: frame(a, data(a), unit=a.unit + 1)), "unit", False),
    "another transaction's frame is not this one's": (
        send(lambda a: frame(a, data(a), transaction=a.transaction + 1)),
        "transaction",
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
    "an oversized frame is refused": (send(lambda a: frame(a, b"\x03\xfa" + b"\0" * 3000)), "unusable", False),
    "a flood is unusable": (send(lambda a: b"\xff" * 300_000), "unusable", False),
    "a header that promises more than comes is unusable": (
        send(lambda a: frame(a, data(a), length=0xFFFF)),
        "unusable",
        False,
    ),
    "a reset in mid-frame fails at once": (reset_in_mid_frame, "reset", False),
    "a connection that is closed fails at once": (close_without_a_word, "reset", False),
}


WAITED_FOR = {
    # What may still be followed by the answer.
    "silence is a time-out, and the connection is kept for the other units",
    "half a frame is unusable",
    "an empty answer is unusable",
    "another transaction's frame is not this one's",
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
        if rule not in WAITED_FOR:
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
async def test_each_table_is_read_by_its_function(table: Table, function: int) -> None:
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


def test_nothing_but_a_read_can_be_asked() -> None:
    assert {t: READS[t].function_code for t in READS} == {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
    with pytest.raises(KeyError):
        query("write", 0, 1, unit=1, payload_bytes=2)


async def test_requests_go_on_with_fresh_transactions_for_as_long_as_it_takes() -> None:
    async with Device() as device:
        bus = bus_to(device)
        for _ in count():
            await ask(bus)
            if len(device.asked) == 300:
                break
        assert len({a.transaction for a in device.asked}) == 300
        bus.close()
