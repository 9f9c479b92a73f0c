"""`vigil plan`: what is asked of a device, and what was learned of it, as the spool keeps it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge.layouts import fingerprint_of
from edge.learned import Learned
from edge.modbus import plan_key
from edge.plans import plans
from edge.spool import Spool
from telemetry.errors import ConfigError
from telemetry.files import load_plant
from telemetry.plant import Plant
from tests.edge.build import make_profile, write_plant
from vigil.cli import vigil

POINTS: dict[str, dict[str, Any]] = {
    **{f"p{i}": {"modbus": {"address": i}} for i in range(20)},
    "slow": {"modbus": {"address": 40}, "poll_s": 60},
    "said": {"mqtt": {}},
}


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    equipment = [
        {"id": "b1", "profile": "test", "address": "modbus+tcp://127.0.0.1:1/1"},
        {"id": "b2", "profile": "test", "address": "modbus+tcp://127.0.0.1:1/2"},
        {"id": "lift", "profile": "test", "address": "mqtt://127.0.0.1:2/lift"},
    ]
    return load_plant(write_plant(tmp_path, make_profile(POINTS), equipment), profiles_dir=tmp_path)


def keep(plant: Plant, spool: Path, learned: Learned) -> None:
    """As an edge keeps what it learned of b1."""
    one = plant.by_id()["b1"]
    opened = Spool(spool, edge="edge-1", epoch=1, max_bytes=1 << 20)
    opened.journal([], {}, {plan_key("b1"): learned.spell(fingerprint_of(one.profile, plant.endpoint(one.address)))})
    opened.close()


def test_a_plan_is_each_groups_requests_and_only_of_modbus(plant: Plant, tmp_path: Path) -> None:
    rows = plans(plant, "edge-1", tmp_path / "none.sqlite")
    assert [(r.equipment, r.every_s, r.table, r.address, r.count, r.learned) for r in rows] == [
        ("b1", 1.0, "holding", 0, 20, ""),
        ("b1", 60.0, "holding", 40, 1, ""),
        ("b2", 1.0, "holding", 0, 20, ""),
        ("b2", 60.0, "holding", 40, 1, ""),
    ]


def test_what_was_learned_shows_at_the_requests_that_it_changed(plant: Plant, tmp_path: Path) -> None:
    keep(plant, tmp_path / "spool.sqlite", Learned({("holding", 5), ("holding", 6)}, {"p5"}))
    rows = plans(plant, "edge-1", tmp_path / "spool.sqlite", only=["b1"])
    assert [(r.address, r.count, r.learned) for r in rows] == [
        (0, 5, "not across 5"),
        (5, 1, "refused by the device, asked once a minute"),
        (6, 14, "not across 6"),
        (40, 1, ""),
    ]


def test_a_name_that_modbus_does_not_read_is_refused(plant: Plant, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="EQUIPMENT: expected equipment that this edge reads by Modbus, found lift"):
        plans(plant, "edge-1", tmp_path / "none.sqlite", only=["lift"])


def test_the_command_prints_what_the_spool_beside_it_keeps(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIGIL_PROFILES_DIR", str(tmp_path))
    keep(plant, tmp_path / "spool-edge-1.sqlite", Learned(longest=10))
    command = ["plan", "b1", "--plant", str(tmp_path / "plant.yaml"), "--state", str(tmp_path)]
    rows = json.loads(CliRunner().invoke(vigil, [*command, "--json"], catch_exceptions=False).stdout)
    assert [(row["address"], row["count"], row["learned"]) for row in rows] == [
        (0, 10, "at most 10 registers"),
        (10, 10, "at most 10 registers"),
        (40, 1, "at most 10 registers"),
    ]
    shown = CliRunner().invoke(vigil, command, catch_exceptions=False).stdout.splitlines()
    assert shown[1].split() == ["b1", "1", "s", "holding", "0", "10", "10", "at", "most", "10", "registers"]
