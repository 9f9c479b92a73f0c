"""Whatever registers a device lacks, and however long a request it takes: its readable points are all read, soon."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.plan import Limits, plan
from telemetry.profile import Profile
from telemetry.quality import BAD_CONFIG, GOOD
from tests.edge.build import make_profile, points_of, values
from tests.edge.learning import Memory, Reader, reader_of

WIDTH = {"u16": 1, "u32": 2, "u64": 4}


@dataclass
class World:
    """A profile and the device that it does not quite fit."""

    profile: Profile
    missing: set[int]
    most: int

    @property
    def readable(self) -> set[str]:
        """Points of which the device has every register."""
        return {
            name
            for name, p in points_of(self.profile).items()
            if not self.missing & set(range(p.address, p.address + p.registers))
        }

    @property
    def fewest(self) -> int:
        """Requests of the best plan there is for those, all of the device being known."""
        points = {name: p for name, p in points_of(self.profile).items() if name in self.readable}
        walls = tuple((address, address) for address in sorted(self.missing))
        return len(plan(points, Limits(max_registers=self.most, illegal=walls)))


def world_of(steps: list[tuple[str, int]], missing: set[int], most: int) -> World:
    """Points of these types, each so many registers after the last."""
    points: dict[str, Any] = {}
    address = 0
    for number, (kind, gap) in enumerate(steps):
        points[f"p{number}"] = {"modbus": {"address": address, "type": kind}}
        address += WIDTH[kind] + gap
    return World(make_profile(points), missing, most)


worlds = st.builds(
    world_of,
    st.lists(
        st.tuples(st.sampled_from(sorted(WIDTH)), st.one_of(st.just(0), st.integers(0, 20))), min_size=1, max_size=40
    ),
    st.sets(st.integers(0, 250), max_size=8),
    st.integers(8, 125),
)


def check(world: World, reader: Reader) -> int:
    """That a settled reader reads what can be read, and is refused nothing. Returns its requests."""
    outcome = reader.cycle()
    got = values(outcome.source.decode([outcome.received]).columns)
    expected = {}
    for name, p in points_of(world.profile).items():
        if name in world.readable:
            words = range(p.address, p.address + p.registers)
            expected[name] = (float(sum(a << 16 * n for n, a in enumerate(reversed(words)))), GOOD)
    assert {name: read for name, read in got.items() if read[1] == GOOD} == expected
    assert {quality for _, quality in got.values()} <= {GOOD, BAD_CONFIG}
    for address, count in reader.memory.asked:
        assert count <= world.most
        assert not world.missing & set(range(address, address + count)), "nothing is asked for that will be refused"
    return len(reader.memory.asked)


@settings(max_examples=150, deadline=None)
@given(worlds)
def test_every_readable_point_is_read_in_the_end_and_little_more_is_asked_than_must_be(world: World) -> None:
    reader = reader_of(world.profile, Memory(world.missing, world.most))
    cycles = reader.settle(3 * len(world.profile.points) + 10)
    assert cycles <= 2 * len(world.profile.points)
    assert check(world, reader) <= 2 * (world.fewest + len(world.missing))
    assert not reader.device.learned.tried, "nothing is left open"
    assert not reader.device.learned.doubtful


def overlapping(steps: list[tuple[str, int]], missing: set[int]) -> World:
    """Points of these types, each so many registers after the beginning of the last."""
    points: dict[str, Any] = {}
    address = 0
    for number, (kind, later) in enumerate(steps):
        address += later
        points[f"p{number}"] = {"modbus": {"address": address, "type": kind}}
    return World(make_profile(points), missing, 125)


overlaps = st.builds(
    overlapping,
    st.lists(st.tuples(st.sampled_from(sorted(WIDTH)), st.integers(0, 5)), min_size=1, max_size=20),
    st.sets(st.integers(0, 60), max_size=6),
)


@settings(max_examples=150, deadline=None)
@given(overlaps)
def test_of_points_that_overlap_only_those_are_refused_whose_registers_are_missing(world: World) -> None:
    reader = reader_of(world.profile, Memory(world.missing, world.most))
    reader.settle(6 * len(world.profile.points) + 10)
    check(world, reader)
    assert reader.device.learned.refused == set(world.profile.points) - world.readable


@settings(max_examples=50, deadline=None)
@given(worlds)
def test_what_was_learned_serves_the_next_start_as_it_is(world: World) -> None:
    state: dict[str, str] = {}
    reader_of(world.profile, Memory(world.missing, world.most), state=state).settle(200)
    reader = reader_of(world.profile, Memory(world.missing, world.most), state=dict(state))
    check(world, reader)
    assert reader.settle(1) == 0


def test_plans_that_are_learned_are_the_best_there_are() -> None:
    more = []
    for seed in range(150):
        chance = random.Random(seed)
        steps = [
            (chance.choice(["u16", "u16", "u32"]), chance.randint(0, 20) if chance.random() < 0.3 else 0)
            for _ in range(chance.randint(1, 40))
        ]
        world = world_of(steps, {chance.randrange(120) for _ in range(chance.randint(0, 4))}, 125)
        reader = reader_of(world.profile, Memory(world.missing, world.most))
        reader.settle(100)
        more.append(check(world, reader) - world.fewest)
    assert set(more) == {0}, "breaks on the way to a gap that the device lacks are taken back"
