"""Shards: every equipment belongs to exactly one, and stays there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.errors import ConfigError
from telemetry.plant import Plant, PlantFile
from telemetry.settings import load_settings
from telemetry.shard import Shard, is_read_by, parse_shard, split_edge
from tests.edge.profiles import TEXT, make_equipment, make_profile

PROFILE = make_profile({"x": {"mqtt": {}, "modbus": {"address": 1}}})


def plant_of(*entries: tuple[str, str, str | None]) -> Plant:
    """(id, address, edge) of each equipment."""
    equipment = tuple(make_equipment(name, PROFILE, address, edge=edge) for name, address, edge in entries)
    site = {"site": {"id": "s", "name": TEXT}, "equipment": [e.entry.model_dump() for e in equipment]}
    return Plant(PlantFile.model_validate(site), equipment)


def names(plant: Plant, edge: str) -> set[str]:
    return {e.id for e in plant.of_edge(edge)}


@given(st.text(min_size=1), st.integers(1, 64))
def test_everything_belongs_to_exactly_one_shard(key: str, of: int) -> None:
    assert sum(Shard(number, of).has(key) for number in range(1, of + 1)) == 1


def test_where_something_belongs_never_changes() -> None:
    """Another hash would move equipment between edges at an upgrade. By printf lift-0000 | b2sum -l 64: even."""
    assert [n for n in range(12) if Shard(1, 2).has(f"lift-{n:04}")] == [0, 2, 3, 4, 5, 10, 11]


def test_a_fleet_is_divided_about_evenly() -> None:
    parts = [sum(Shard(number, 4).has(f"lift-{n}") for n in range(4_000)) for number in range(1, 5)]
    assert sum(parts) == 4_000
    assert all(900 < part < 1_100 for part in parts)


def test_the_shards_of_an_edge_read_together_what_it_would_read_alone() -> None:
    plant = plant_of(*[(f"e{n}", f"mqtt://b/{n}", ("hall", "yard", None)[n % 3]) for n in range(60)])
    parts = [names(plant, f"hall.{number}of3") for number in (1, 2, 3)]
    assert set.union(*parts) == names(plant, "hall")
    assert sum(map(len, parts)) == len(names(plant, "hall")) == 40
    assert all(parts)


def test_an_equipment_that_the_plant_file_gives_to_a_shard_is_its_alone() -> None:
    plant = plant_of(*[(f"e{n}", f"mqtt://b/{n}", "hall.2of2") for n in range(20)])
    assert len(names(plant, "hall.2of2")) == 20
    assert names(plant, "hall.1of2") == set()


def test_all_units_of_a_gateway_or_serial_line_are_one_shards() -> None:
    gateways = [(f"g{g}u{u}", f"modbus+tcp://10.0.0.{g}/{u}", None) for g in range(20) for u in range(1, 6)]
    plant = plant_of(*gateways)
    for g in range(20):
        mine = {f"g{g}u{u}" for u in range(1, 6)}
        assert [len(names(plant, f"hall.{n}of2") & mine) for n in (1, 2)] in ([5, 0], [0, 5])


def test_an_edge_that_is_no_shard_reads_what_it_always_read() -> None:
    assert [is_read_by("hall", owner, "e") for owner in ("hall", None, "yard", "hall.1of2")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("name", ["hall", "hall.1of", "hall.0of2", "hall.3of2", "1of2", "hall-1of2"])
def test_a_name_that_is_no_shards_is_an_edges(name: str) -> None:
    assert split_edge(name) == (name, None)


def test_the_setting_gives_the_process_an_edge_name_of_its_own() -> None:
    settings = load_settings(edge="hall", edge_shard="2/3")
    assert (settings.edge, split_edge(settings.edge)) == ("hall.2of3", ("hall", Shard(2, 3)))
    assert load_settings(edge_shard="1/2").edge == "edge-1.1of2"
    assert load_settings(edge="hall.2of3", edge_shard="2/3").edge == "hall.2of3", "said twice is said once"
    assert load_settings(edge="hall").edge == "hall"


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "a/b", "1/65", "-1/2", "", "1/2/3"])
def test_what_names_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected I/N"):
        parse_shard(text)
    with pytest.raises(ConfigError, match="VIGIL_EDGE_SHARD: expected I/N"):
        load_settings(edge_shard=text)


def test_a_shard_that_is_not_the_one_in_the_name_is_refused() -> None:
    flags: dict[str, Any] = {"edge": "hall.1of2", "edge_shard": "2/2"}
    with pytest.raises(ConfigError, match=r"VIGIL_EDGE_SHARD: .*the shard that VIGIL_EDGE names \(hall\.1of2\)"):
        load_settings(**flags)
