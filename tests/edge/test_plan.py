"""Read planning: each point once, within bounds, and with as few requests as any plan can have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.plan import Limits, Request, limits_of, plan, poll_groups
from telemetry.plant import Endpoint
from telemetry.profile import ModbusDefaults, ModbusPoint
from tests.edge.build import make_equipment, make_profile

WIDTH = {"u16": 1, "u32": 2, "u64": 4}


def point(address: int, kind: str = "u16", table: str = "holding") -> ModbusPoint:
    return ModbusPoint.model_validate({"address": address, "type": kind, "table": table})


@st.composite
def maps(draw: st.DrawFn, most: int = 40, top: int = 300) -> dict[str, ModbusPoint]:
    n = draw(st.integers(1, most))
    return {
        f"p{i}": point(
            draw(st.integers(0, top)), draw(st.sampled_from(sorted(WIDTH))), draw(st.sampled_from(["input", "holding"]))
        )
        for i in range(n)
    }


def limits(top: int = 300) -> st.SearchStrategy[Limits]:
    illegal = st.lists(st.tuples(st.integers(0, top), st.integers(0, 5)), max_size=3)
    return st.builds(
        lambda registers, gap, ranges: Limits(registers, 2000, gap, tuple((a, a + n) for a, n in ranges)),
        st.integers(4, 125),
        st.integers(0, 30),
        illegal,
    )


def clear(points: dict[str, ModbusPoint], bounds: Limits) -> dict[str, ModbusPoint]:
    """The points that touch no illegal address."""
    return {
        name: p
        for name, p in points.items()
        if not any(p.address <= last and p.address + p.registers > first for first, last in bounds.illegal)
    }


@given(maps(), limits())
def test_every_point_lies_whole_in_exactly_one_request_and_no_request_breaks_a_bound(
    points: dict[str, ModbusPoint], bounds: Limits
) -> None:
    points = clear(points, bounds)
    requests = plan(points, bounds)
    assert sorted(name for r in requests for name in r.points) == sorted(points)
    for request in requests:
        assert 1 <= request.count <= bounds.max_registers
        end = request.address + request.count
        assert not any(request.address <= last and end > first for first, last in bounds.illegal)
        needed = set()
        for name in request.points:
            held = points[name]
            assert held.table == request.table
            assert request.address <= held.address
            assert held.address + held.registers <= end
            needed |= set(range(held.address, held.address + held.registers))
        assert widest_gap(needed, request) <= bounds.max_gap
        assert {request.address, end - 1} <= needed, "reads nothing before its first point or after its last"


def widest_gap(needed: set[int], request: Request) -> int:
    widest = run = 0
    for address in range(request.address, request.address + request.count):
        run = 0 if address in needed else run + 1
        widest = max(widest, run)
    return widest


@settings(max_examples=150, deadline=None)
@given(
    maps(most=6, top=25), limits(top=25).map(lambda b: Limits(min(b.max_registers, 12), 2000, b.max_gap % 6, b.illegal))
)
def test_no_plan_at_all_has_fewer_requests(points: dict[str, ModbusPoint], bounds: Limits) -> None:
    points = clear(points, bounds)
    assert len(plan(points, bounds)) == fewest(points, bounds)


def fewest(points: dict[str, ModbusPoint], bounds: Limits) -> int:
    """The naive oracle: every way to divide the points into requests."""
    return min(
        (
            len(parts)
            for parts in partitions(sorted(points))
            if all(feasible([points[n] for n in p], bounds) for p in parts)
        ),
        default=0,
    )


def partitions(names: Sequence[str]) -> Iterator[list[list[str]]]:
    if not names:
        yield []
        return
    for rest in partitions(names[1:]):
        yield [[names[0]], *rest]
        for i, part in enumerate(rest):
            yield [*rest[:i], [names[0], *part], *rest[i + 1 :]]


def feasible(part: Sequence[ModbusPoint], bounds: Limits) -> bool:
    if len({p.table for p in part}) > 1:
        return False
    needed = {a for p in part for a in range(p.address, p.address + p.registers)}
    first, last = min(needed), max(needed)
    if last - first + 1 > bounds.max_registers:
        return False
    if any(first <= high and last >= low for low, high in bounds.illegal):
        return False
    return widest_gap(needed, Request("holding", first, last - first + 1, ())) <= bounds.max_gap


def test_the_worked_example_of_the_module_is_what_comes_out() -> None:
    spans = {"a": (0, 2), "b": (2, 2), "c": (6, 2), "d": (9, 3), "e": (14, 2), "f": (28, 2), "g": (40, 2)}
    points = {
        n: ModbusPoint.model_validate({"address": a, "type": "string", "length": length})
        for n, (a, length) in spans.items()
    }
    assert plan(points, Limits(max_registers=10, max_gap=3, illegal=((30, 39),))) == (
        Request("holding", 0, 8, ("a", "b", "c")),
        Request("holding", 9, 7, ("d", "e")),
        Request("holding", 28, 2, ("f",)),
        Request("holding", 40, 2, ("g",)),
    )


def test_coils_have_their_own_bound_and_tables_are_never_mixed() -> None:
    points = {f"c{i}": point(i * 100, "bool", "coil") for i in range(4)} | {"r": point(100)}
    requests = plan(points, Limits(max_registers=10, max_coils=150, max_gap=100))
    assert [(r.table, r.address, r.count) for r in requests] == [
        ("coil", 0, 101),
        ("coil", 200, 101),
        ("holding", 100, 1),
    ]


def test_a_point_on_an_illegal_address_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"level: expected holding 29…30 within 125 and clear of illegal"):
        plan({"level": point(29, "u32")}, Limits(illegal=((30, 39),)))


@pytest.mark.parametrize("address", [30, 39])
def test_an_illegal_range_holds_its_first_and_its_last_address(address: int) -> None:
    with pytest.raises(ValueError, match="clear of illegal"):
        plan({"level": point(address)}, Limits(illegal=((30, 39),)))


def test_the_endpoint_tightens_the_profiles_bound_and_never_widens_it() -> None:
    assert limits_of(Endpoint(max_registers=60).quirks(ModbusDefaults(max_registers=100))).max_registers == 60
    assert limits_of(Endpoint(max_registers=60).quirks(ModbusDefaults(max_registers=40))).max_registers == 40


def test_points_with_an_interval_of_their_own_make_a_group() -> None:
    points: dict[str, dict[str, Any]] = {
        "slow": {"modbus": {"address": 1}, "poll_s": 60},
        "fast": {"modbus": {"address": 2}},
        "pushed": {"mqtt": {}},
    }
    profile = make_profile(points, poll_s=2)
    groups = poll_groups(make_equipment("e", profile, "modbus+tcp://h/1", poll_s=0.5))
    assert {interval: list(group) for interval, group in groups.items()} == {60: ["slow"], 0.5: ["fast"]}
