"""What an audit of the edge found where its plant file changes: each test is a rule that was broken once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from edge.breaker import State
from edge.driver import PushingDriver, Put
from edge.fleet import Fleet
from edge.policy import Reachability
from edge.schedule import Rota
from telemetry.clock import SystemClock
from telemetry.plant import Equipment, Plant, PlantFile
from telemetry.profile import Profile
from tests.edge.device import Device, silent
from tests.edge.profiles import NOW_US, TEXT, make_equipment, make_profile
from tests.fixtures.waiting import until


def profile_of(points: int, **more: Any) -> Profile:
    return make_profile({f"p{n}": {"modbus": {"address": n}, **more} for n in range(points)})


def plant_of(equipment: Iterable[Equipment]) -> Plant:
    entries = list(equipment)
    site = {"site": {"id": "s", "name": TEXT}, "equipment": [e.entry.model_dump() for e in entries]}
    return Plant(PlantFile.model_validate(site), tuple(entries))


def devices(n: int, profile: Profile) -> list[Equipment]:
    """As if read from a file: no two of them are the same object as before."""
    return [make_equipment(f"e{i}", profile, f"modbus+tcp://127.0.0.1:{1000 + i}/1") for i in range(n)]


@dataclass(eq=False)
class Driver:
    """Is pushed to, until it fails."""

    endpoint: str
    fails: bool = False

    async def run(self, put: Put) -> None:
        if self.fails:
            raise RuntimeError("no such thing")
        await asyncio.Event().wait()

    def unreachable(self, now_us: int) -> Mapping[str, int]:
        return {}


@dataclass
class Kit:
    """A fleet, and what it told."""

    told: list[str] = field(default_factory=list)
    fails: bool = False
    fleet: Fleet = field(init=False)
    anew: set[str] = field(default_factory=set)
    """What the last reading says it begins anew."""

    def __post_init__(self) -> None:
        clock = SystemClock()
        rota = Rota(clock, clock.monotonic_s() + 1_000, 1)
        self.fleet = Fleet(
            lambda source, received, rows: True, clock, Reachability(), rota, self._pushing, self._mind, {}, "plant.yaml",
            self._announce,
        )  # fmt: skip

    def _pushing(self, plant: Plant, equipment: Sequence[Equipment]) -> list[PushingDriver]:
        return [Driver(endpoint, self.fails) for endpoint in dict.fromkeys(e.address.endpoint for e in equipment)]

    async def _mind(self, gone: Sequence[Equipment], new: Sequence[Equipment]) -> None:
        self.told.append(f"{len(gone)} gone, {len(new)} new")

    async def _announce(self, plant: Plant) -> None:
        turns = sum(len(slot.members) for slot in self.fleet.rota._slots.values())
        self.told.append(f"registry of {len(plant.equipment)}, {turns} have turns, {len(self.fleet._tasks)} listen")

    async def read(self, equipment: Sequence[Equipment]) -> None:
        plant = plant_of(equipment)
        new = self.fleet.prepare(plant, plant.equipment)
        self.anew = self.fleet.begun_anew(new)
        await self.fleet.switch(new)


async def test_a_file_that_says_the_same_again_costs_a_thousand_devices_next_to_nothing() -> None:
    """Reading goes on meanwhile: comparing a thousand profiles of a hundred points took seconds of the event loop."""
    kit = Kit()
    await kit.read(devices(1_000, profile_of(100)))
    before = dict(kit.fleet._polled)
    again = plant_of(devices(1_000, profile_of(100)))
    began = time.thread_time()
    made = kit.fleet.prepare(again, again.equipment)
    prepared = time.thread_time()
    await kit.fleet.switch(made)
    assert time.thread_time() - prepared < 0.05, "on the event loop"
    assert prepared - began < 0.5, "beside it"
    assert kit.told[-2] == "0 gone, 0 new"
    assert all(kit.fleet._polled[name] is old for name, old in before.items())


async def test_a_switch_to_a_thousand_other_devices_does_not_stop_the_event_loop() -> None:
    kit = Kit()
    await kit.read(devices(1_000, profile_of(3)))
    changed = plant_of(devices(1_000, profile_of(3, range={"low": 0, "high": 9})))
    made = kit.fleet.prepare(changed, changed.equipment)
    began = time.thread_time()
    await kit.fleet.switch(made)
    assert time.thread_time() - began < 0.2
    assert kit.told[-2] == "1000 gone, 1000 new"


async def test_the_registry_is_told_before_anything_new_is_read() -> None:
    """Analytics judges nothing of a signal that no registry named: the first events of new equipment would be lost on it."""
    kit = Kit()
    await kit.read(devices(1, profile_of(1)))
    mqtt = make_equipment("m", make_profile({"x": {"mqtt": {}}}), "mqtt://127.0.0.1:1/m")
    await kit.read([*devices(3, profile_of(1)), mqtt])
    assert [told for told in kit.told if told.startswith("registry")] == [
        "registry of 1, 0 have turns, 0 listen",
        "registry of 4, 1 have turns, 0 listen",
    ]


async def test_devices_that_come_later_are_spread_over_their_interval_and_nobodys_turn_moves() -> None:
    kit, profile = Kit(), profile_of(1)
    await kit.read(devices(1, profile))
    [first] = [slot for slot in kit.fleet.rota._slots.values() if slot.members]
    member = first.members[0]
    await kit.read(devices(400, profile))
    assert member in first.members
    sizes = [len(slot.members) for slot in kit.fleet.rota._slots.values()]
    assert sum(sizes) == 400
    assert max(sizes) < 400 / 3, (
        "they are not all asked at once, but in four slots, alone at their endpoints as they are"
    )


async def test_layouts_of_profiles_that_nobody_has_any_more_are_forgotten() -> None:
    kit = Kit()
    for points in range(1, 30):
        await kit.read(devices(3, profile_of(points)))
    assert len(kit.fleet._layouts._known) == len(kit.fleet._layouts._places) == 1


async def test_a_silent_device_whose_settings_change_stays_silent_until_it_answers() -> None:
    """Else an alarm of its silence would clear with each change of the file, and be raised again."""
    kit = Kit()
    await kit.read(devices(2, profile_of(1)))
    kit.fleet.reach.since_us["e0"] = NOW_US
    await kit.read([replace(one, profile=profile_of(2)) for one in devices(2, profile_of(1))])
    assert kit.fleet.reach.since_us == {"e0": NOW_US}
    poller = kit.fleet._polled["e0"].poller
    assert poller.breaker.permits(SystemClock().monotonic_s()), "it is asked at its first turn"
    assert poller.breaker.state is State.HALF_OPEN
    await kit.read(devices(2, profile_of(1))[1:])
    assert kit.fleet.reach.since_us == {}, "what is gone is not silent"


async def test_a_silent_device_is_told_as_such_while_its_settings_change() -> None:
    """Heartbeats go out meanwhile; one that is gone is in none of them."""
    kit, told = Kit(), list[tuple[str, dict[str, int]]]()
    await kit.read(devices(2, profile_of(1)))
    kit.fleet.reach.since_us.update(e0=NOW_US, e1=NOW_US + 1)

    async def mind(gone: Sequence[Equipment], new: Sequence[Equipment]) -> None:
        told.append(("mind", dict(kit.fleet.reach.since_us)))

    async def announce(plant: Plant) -> None:
        told.append(("announce", dict(kit.fleet.reach.since_us)))

    kit.fleet.mind, kit.fleet.announce = mind, announce
    plant = plant_of(devices(1, profile_of(2)))
    to = kit.fleet.prepare(plant, plant.equipment)
    await kit.fleet.leave(to)
    both = {"e0": NOW_US, "e1": NOW_US + 1}
    assert kit.fleet.reach.since_us == both
    await kit.fleet.switch(to)
    assert told == [("mind", both), ("announce", {"e0": NOW_US})]
    assert kit.fleet.reach.since_us == {"e0": NOW_US}
    assert kit.fleet._polled["e0"].poller.breaker.state is not State.CLOSED


async def test_a_driver_that_fails_before_anybody_looks_fails_the_service_all_the_same() -> None:
    kit = Kit(fails=True)
    await kit.read([make_equipment("m", make_profile({"x": {"mqtt": {}}}), "mqtt://127.0.0.1:1/m")])
    await until(lambda: all(task.done() for task in kit.fleet._tasks.values()))
    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError, match="no such thing"):
            await kit.fleet.run()


async def test_what_is_gone_has_no_turn_and_is_asked_nothing_more_that_waits_in_the_queue() -> None:
    kit, profile = Kit(), make_profile({"x": {"modbus": {"address": 0}}}, timeout_s=0.5)
    async with Device(silent) as gateway:
        both = [make_equipment(f"e{unit}", profile, f"{gateway.url}/{unit}") for unit in (1, 2)]
        await kit.read(both)
        for polled in kit.fleet._polled.values():
            polled.poller.cycle(0)
        await until(lambda: gateway.asked)
        [(_, bus)] = kit.fleet._buses.values()
        assert bus.shared
        await kit.read(both[:1])
        assert not bus.shared
        stays = kit.fleet._polled["e1"].poller
        assert [member for slot in kit.fleet.rota._slots.values() for member, _ in slot.members] == [stays]
        await until(lambda: stays.breaker.failures > 0)
        stays.cycle(0)
        await until(lambda: len(gateway.asked) >= 2)
        assert [ask.unit for ask in gateway.asked] == [1, 1], "not unit 2, whose turn it was"
        assert [made for _, made in kit.fleet._buses.values()] == [bus], "on the same connection"
        await kit.read(devices(1, profile))
        assert bus.main._closed, "nobody else is there"


async def test_who_listens_to_a_broker_is_made_anew_when_its_equipment_changes_and_only_then() -> None:
    kit, profile = Kit(), make_profile({"x": {"mqtt": {}}})

    def behind(*names: str) -> list[Equipment]:
        return [make_equipment(name, profile, f"mqtt://127.0.0.1:1/{name}") for name in names]

    await kit.read(behind("a", "b"))
    [first] = kit.fleet.pushing
    assert kit.anew == {"a", "b"}
    await kit.read([*behind("a", "b"), make_equipment("c", profile, "mqtt://127.0.0.1:2/c")])
    assert kit.fleet.pushing[0] is first
    assert kit.anew == {"c"}
    await kit.read(behind("a"))
    assert kit.anew == {"a"}, "it is heard by a session made anew"
    [second] = kit.fleet.pushing
    assert second is not first
    [task] = kit.fleet._tasks.values()
    assert not task.done()
    await kit.read(behind("a", "d"))
    assert task.cancelled()
    [third] = kit.fleet.pushing
    assert third is not second
    await kit.read(devices(1, profile_of(1)))
    assert not kit.fleet._tasks


async def test_a_line_rests_as_long_as_the_most_sensitive_of_its_devices_needs() -> None:
    kit, points = Kit(), {"x": {"modbus": {"address": 0}}}
    pauses = [{"pause_between_requests_s": 0.02, "pause_after_connect_s": 0.1}, {"pause_after_connect_s": 0.3}, {}]
    await kit.read(
        [
            make_equipment(f"e{n}", make_profile(points, modbus=quirks), f"modbus+tcp://127.0.0.1:9/{n}")
            for n, quirks in enumerate(pauses)
        ]
    )
    [(_, bus)] = kit.fleet._buses.values()
    assert bus.side is not None
    assert [(lane.pause_s, lane.settle_s) for lane in (bus.main, bus.side)] == [(0.02, 0.3)] * 2
