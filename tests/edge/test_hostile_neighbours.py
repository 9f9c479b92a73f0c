"""Whole devices that misbehave, over real TCP: what else was read is kept, and neighbours lose nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from edge.breaker import State
from edge.policy import Reachability
from telemetry.profile import Profile
from telemetry.quality import BAD_COMMS, BAD_CONFIG, GOOD
from tests.edge.asking import TIMEOUT_S, bus_to, cycle, device_at
from tests.edge.build import make_equipment, make_profile, values
from tests.edge.device import Ask, Device, data, frame, good, silent
from tests.edge.polling import Put, polled
from tests.fixtures.waiting import until


@pytest.fixture
def profile() -> Profile:
    return make_profile({f"p{a}": {"modbus": {"address": a}} for a in (0, 100, 200)}, poll_s=0.2, timeout_s=TIMEOUT_S)


async def test_what_was_read_in_a_cycle_is_kept_and_only_the_failed_requests_points_are_bad(profile: Profile) -> None:
    async def refuses_one(ask: Ask, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(ask, b"\x83\x02" if ask.address == 100 else data(ask)))

    async with Device(refuses_one) as device:
        bus = bus_to(device)
        outcome = await cycle(device_at(bus, make_equipment("e", profile, f"{device.url}/1")))
        got = values(outcome.source.decode([outcome.received]).columns)
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
        outcome = await cycle(device_at(bus, make_equipment("e", profile, f"{device.url}/1")))
        got = {n: q for n, (_, q) in values(outcome.source.decode([outcome.received]).columns).items()}
        assert got == {"p0": BAD_COMMS, "p100": GOOD, "p200": GOOD}
        assert (outcome.answered, outcome.unanswered) == (2, 1)
        bus.close()


async def test_a_silent_device_is_given_up_within_a_cycle_and_all_its_points_are_bad(profile: Profile) -> None:
    async with Device(silent) as device:
        bus = bus_to(device)
        outcome = await cycle(device_at(bus, make_equipment("e", profile, f"{device.url}/1")))
        assert len(device.asked) == 2
        assert {q for _, q in values(outcome.source.decode([outcome.received]).columns).values()} == {BAD_COMMS}
        assert (outcome.answered, outcome.unanswered) == (0, 2)
        bus.close()


async def test_a_cycle_that_is_under_way_is_not_begun_again(profile: Profile) -> None:
    async with Device(silent) as device:
        bus = bus_to(device)
        reader = device_at(bus, make_equipment("e", profile, f"{device.url}/1"))
        first = asyncio.create_task(cycle(reader))
        await until(lambda: device.asked)
        assert reader.begin(0, lambda outcome: pytest.fail("never begun")) is False
        await first
        device.behaviour = good
        await until(lambda: reader.begin(0, lambda outcome: None))
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
        reach, put = Reachability(), Put()
        buses = [bus_to(device) for device in (silent_device, healthy)]
        readers = [
            device_at(bus, make_equipment(name, profile, f"{device.url}/1"))
            for bus, name, device in zip(buses, ("bad", "well"), (silent_device, healthy), strict=True)
        ]
        hiccups: list[float] = [0.0]
        watching = asyncio.create_task(lateness(hiccups))
        async with polled(readers, put, reach):
            await until(lambda: "bad" in reach.since_us)
            bad = put.columns["bad"]
            shown = len(bad)
            await until(lambda: len(healthy.asked) >= 3 * 15)
            assert len(bad) == shown, "no bad samples while the breaker is open, whatever the probes find"
            assert all(q == BAD_COMMS for columns in bad for _, q in values(columns).values())
            times = [a.at_s for a in healthy.asked if a.address == 0]
            gaps = [b - a for a, b in pairwise(times)]
            assert sorted(gaps)[len(gaps) // 2] == pytest.approx(0.2, abs=0.03)
            assert max(hiccups) < TIMEOUT_S, "nobody may stop the loop for as long as a device may take"
            assert max(gaps) < 0.2 * 2 + max(hiccups), "no cycle was lost to the neighbour's time-outs"
            silent_device.behaviour = good
            await until(lambda: not reach.since_us)
            await until(lambda: values(bad[-1])["p200"] == (200.0, GOOD))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        for bus in buses:
            bus.close()


async def test_on_a_shared_endpoint_a_silent_unit_is_asked_rarely_once_it_is_known(profile: Profile) -> None:
    async def unit_2_is_silent(ask: Ask, writer: asyncio.StreamWriter) -> None:
        if ask.unit != 2:
            await good(ask, writer)

    async with Device(unit_2_is_silent) as device:
        bus, reach, put = bus_to(device), Reachability(), Put()
        bus.shared = True
        readers = [device_at(bus, make_equipment(f"e{u}", profile, f"{device.url}/{u}")) for u in (1, 2, 3)]
        async with polled(readers, put, reach) as pollers:
            await until(lambda: "e2" in reach.since_us)
            since = len(device.asked)
            await until(lambda: len(device.asked) >= since + 60)
            asked = device.asked[since:]
            assert sum(a.unit == 2 for a in asked) <= 10
            assert reach.since_us.keys() == {"e2"}
            assert pollers[0].breaker.state is State.CLOSED
            kept = {a.connection for a in asked if a.unit != 2}
            assert len(kept) == 1, "kept for the units that answer"
        bus.close()
