"""A cycle that is read in part when its equipment is read no more: what it said is kept, and the rest not waited for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.driver import Outcome
from edge.fleet import WIND_UP_S
from edge.policy import Poller, Reachability
from telemetry.profile import Profile
from telemetry.quality import BAD_COMMS, BAD_CONFIG, GOOD
from tests.edge.build import NOW_US, values, write_plant
from tests.edge.device import Ask, Device, data, frame
from tests.edge.learning import Memory, Reader, reader_of
from tests.edge.polling import Put
from tests.edge.profiles import make_profile
from tests.edge.running import Running, Seen, plant_of, read_log, start
from tests.edge.test_reload import entry, reloaded
from tests.fixtures.waiting import until

BLOCKS = (0, 500, 1000)


def profile_of(*addresses: int, **more: Any) -> Profile:
    return make_profile({f"p{a}": {"modbus": {"address": a}} for a in addresses}, poll_s=0.1, **more)


PROFILE = profile_of(*BLOCKS, timeout_s=30.0)


class Halting:
    """A device that counts in its first block and, once told to halt, keeps the other blocks' answers to itself
    until `let_go`, from the next cycle on: a cycle that has begun is answered whole."""

    def __init__(self) -> None:
        self.said = 0
        self.halted = False
        self._halts_cycle = False
        self.let_go = asyncio.Event()
        self.waited: list[Ask] = []

    async def __call__(self, ask: Ask, writer: asyncio.StreamWriter) -> None:
        if ask.address:
            if self._halts_cycle:
                self.waited.append(ask)
                await self.let_go.wait()
            writer.write(frame(ask, data(ask)))
            return
        self._halts_cycle = self.halted
        self.said += 1
        writer.write(frame(ask, data(ask)[:2] + self.said.to_bytes(2, "big")))


@asynccontextmanager
async def halted_in_mid_cycle(
    folder: Path, *others: str, profile: Profile = PROFILE
) -> AsyncIterator[tuple[Device, Halting, Running]]:
    """An edge that has read `e1` three times and now waits for its second block; and `others`, which nothing halts.
    It is ended before its devices are."""
    behaviour = Halting()
    async with Device(behaviour) as device:
        edge = start(plant_of(folder, f"{device.url}/1", *others, profile=profile))
        await until(lambda: behaviour.said >= 3)
        behaviour.halted = True
        await until(lambda: behaviour.waited)
        try:
            yield device, behaviour, edge
        finally:
            await edge.end()


def readings(seen: Seen, signal: str) -> list[tuple[float, int]]:
    """(value, quality) of a signal, in order."""
    whole = seen.samples()
    rows = whole.signal == whole.names.index(signal)
    return list(zip(whole.value[rows].tolist(), whole.quality[rows].tolist(), strict=True))


async def test_what_was_answered_of_a_cycle_when_the_edge_is_stopped_is_journaled(tmp_path: Path) -> None:
    """The rest of it is bad, and the stop waits for it only so long."""
    async with halted_in_mid_cycle(tmp_path) as (_, behaviour, edge):
        assert await edge.end() < WIND_UP_S + 3.0
    seen = await read_log(edge.settings)
    assert [value for value, _ in readings(seen, "e1/p0")] == [float(n + 1) for n in range(behaviour.said)]
    assert {quality for _, quality in readings(seen, "e1/p0")} == {GOOD}
    for point in ("e1/p500", "e1/p1000"):
        *before, (value, quality) = readings(seen, point)
        assert {q for _, q in before} == {GOOD}
        assert (value != value, quality) == (True, BAD_COMMS)
    seen.assert_no_holes()
    seen.assert_ledger_is_the_rows()


async def test_a_cycle_that_ends_soon_is_waited_for_at_a_stop(tmp_path: Path) -> None:
    async with halted_in_mid_cycle(tmp_path) as (_, behaviour, edge):
        edge.stop.set()
        await asyncio.sleep(0)
        behaviour.let_go.set()
    seen = await read_log(edge.settings)
    for point in ("e1/p0", "e1/p500", "e1/p1000"):
        assert [quality for _, quality in readings(seen, point)] == [GOOD] * behaviour.said
    assert [ask.address for ask in behaviour.waited] == [500, 1000], "and no other was begun"


async def test_what_was_answered_of_a_cycle_when_its_equipment_changes_is_journaled(tmp_path: Path) -> None:
    async with halted_in_mid_cycle(tmp_path) as (device, behaviour, edge):
        said, behaviour.halted = behaviour.said, False
        await reloaded(lambda: write_plant(tmp_path, PROFILE, [entry("e1", device, poll_s=0.05)]))
        behaviour.let_go.set()
        await until(lambda: behaviour.said >= said + 3)
    seen = await read_log(edge.settings)
    first = readings(seen, "e1/p0")
    assert first == [(float(n + 1), GOOD) for n in range(behaviour.said)], "each answer once"
    assert [quality for _, quality in readings(seen, "e1/p500")].count(BAD_COMMS) == 1


async def test_an_equipment_that_leaves_is_judged_to_its_last_reading_by_the_file_that_it_was_read_by(
    tmp_path: Path,
) -> None:
    """What a half-read cycle said of a code point ends the old code's event."""
    schemes = {"local": {"name": {"zh": "x", "en": "x"}, "codes": {}}}
    profile = profile_of(*BLOCKS, timeout_s=30.0, schemes=schemes, code_points=[{"point": "p0", "scheme": "local"}])
    async with (
        Device() as other,
        halted_in_mid_cycle(tmp_path, f"{other.url}/1", profile=profile) as (_, behaviour, edge),
    ):
        await reloaded(lambda: write_plant(tmp_path, profile, [entry("e2", other)]))
    seen = await read_log(edge.settings)
    assert [e.code for e in seen.events if e.equipment == "e1" and e.on] == [str(n + 1) for n in range(behaviour.said)]


def half_read(*addresses: int, missing: frozenset[int] = frozenset(), steps: int = 1) -> tuple[Reader, list[Outcome]]:
    """A reader in the middle of a cycle: so many of its requests are over."""
    reader, over = reader_of(profile_of(*addresses), Memory(set(missing))), list[Outcome]()
    assert reader.device.begin(0, over.append)
    reader.memory.work(steps=steps)
    assert not over
    return reader, over


def test_a_cycle_that_is_cut_says_what_it_read_and_why_the_rest_is_bad() -> None:
    reader, over = half_read(*BLOCKS, missing=frozenset({0}), steps=2)
    reader.device.cut()
    [outcome] = over
    read = values(outcome.source.decode([outcome.received]).columns)
    assert read["p500"] == (500.0, GOOD)
    assert [read[name][1] for name in ("p0", "p1000")] == [BAD_CONFIG, BAD_COMMS]
    assert (outcome.answered, outcome.unanswered) == (2, 0), "nobody is held to have been silent"
    assert [fault.split(": ", 1)[1] for fault in outcome.faults] == [
        "exception 2, illegal data address",
        "not waited for: it is read no more",
    ]


def test_of_a_cycle_that_is_cut_points_that_the_device_is_known_to_refuse_say_so() -> None:
    reader = reader_of(profile_of(*BLOCKS, 1500), Memory({1000}))
    reader.settle(3)
    over: list[Outcome] = []
    assert reader.device.begin(0, over.append)
    reader.memory.work(steps=1)
    reader.device.cut()
    read = values(over[0].source.decode([over[0].received]).columns)
    assert [read[f"p{address}"][1] for address in (*BLOCKS, 1500)] == [GOOD, BAD_COMMS, BAD_CONFIG, BAD_COMMS]


def test_nothing_is_learned_of_a_cycle_that_is_cut_and_nothing_comes_of_it_later() -> None:
    reader, over = half_read(*BLOCKS)
    reader.device.learned.doubtful.add(("holding", 500))
    reader.device.cut()
    reader.memory.work()
    assert len(over) == 1
    assert ("holding", 500) in reader.device.learned.doubtful
    assert not over[0].received.state


@pytest.mark.parametrize("steps", [0, 1])
def test_a_cycle_of_which_nothing_was_read_comes_to_nothing(steps: int) -> None:
    reader, over = reader_of(profile_of(*BLOCKS), Memory(silent=True)), list[Outcome]()
    assert reader.device.begin(0, over.append)
    reader.memory.work(steps=steps)
    reader.device.cut()
    reader.memory.work()
    assert not over


def test_a_cycle_whose_first_request_has_not_left_is_not_waited_for() -> None:
    reader, over = half_read(*BLOCKS, steps=0)
    assert not reader.device.wind_up()
    reader.memory.work()
    assert not over
    assert not reader.memory.asked
    reader, over = half_read(*BLOCKS)
    assert reader.device.wind_up()
    reader.memory.work()
    assert len(over) == 1
    assert not reader.device.wind_up()


def test_a_silent_probe_that_is_cut_comes_to_nothing() -> None:
    reader, over = reader_of(profile_of(*range(40), 500), Memory()), list[Outcome]()
    assert reader.device.begin(0, over.append, probe=True)
    reader.device.cut()
    assert not over
    reader.memory.work()
    assert not over
    assert not reader.memory.asked, "nobody waits for it any more"


def test_a_device_that_answers_again_while_it_is_stopped_is_put_and_asked_nothing_more() -> None:
    reader = reader_of(profile_of(*BLOCKS), Memory())
    put, reach = Put(), Reachability()
    poller = Poller(reader.device, put, reach, reader.clock)
    poller.still_silent(NOW_US)
    reader.clock.s += 100.0
    poller.cycle(0)
    reader.memory.work(steps=1)
    assert not poller.wind_up(), "nobody waits for one that has not answered lately"
    assert poller.stop() is None, "it is silent no more"
    poller.cycle(0)
    reader.memory.work()
    [columns] = put.columns["e"]
    assert values(columns)["p0"] == (0.0, GOOD)
    assert reader.memory.asked == [(0, 1)]
