"""The JSON Schemas: current, good for an editor, taking what is right and refusing what is wrong."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from telemetry.files import check_files, known_profiles
from telemetry.schemas import FILES, plant_schema, profile_schema, render, write_schemas
from telemetry.yaml_marks import read_document
from tests.telemetry.test_files import BAD, GOOD

ROOT = Path(__file__).parents[2]
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))
PLANTS = [
    path
    for folder in ("docs", "simulators", "deploy", "tests")
    for path in sorted((ROOT / folder).rglob("*.yaml"))
    if "bad" not in path.parts and "\nequipment:" in path.read_text(encoding="utf-8")
]


@pytest.fixture(scope="module")
def plant() -> Draft202012Validator:
    return Draft202012Validator(plant_schema())


@pytest.fixture(scope="module")
def profile() -> Draft202012Validator:
    return Draft202012Validator(profile_schema())


def data_of(raw: bytes) -> Any:
    document = read_document(raw, "file")
    assert not document.faults
    return document.data


def faults(validator: Draft202012Validator, data: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(data)]


@pytest.mark.parametrize(("name", "made"), [("plant", plant_schema), ("profile", profile_schema)])
def test_the_committed_schemas_are_current(name: str, made: Any) -> None:
    path = ROOT / "docs/schemas" / FILES[name]
    assert path.read_text(encoding="utf-8") == render(made()), "run: python -m telemetry.schemas docs/schemas"


def test_schemas_are_schemas_and_are_written_as_they_are_shown(tmp_path: Path) -> None:
    for path, schema in zip(write_schemas(tmp_path / "new"), (plant_schema(), profile_schema()), strict=True):
        Draft202012Validator.check_schema(schema)
        assert json.loads(path.read_text(encoding="utf-8")) == schema


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_profile_of_ours_is_taken_and_names_its_schema(path: Path, profile: Draft202012Validator) -> None:
    assert faults(profile, data_of(path.read_bytes())) == []
    first = path.read_text(encoding="utf-8").splitlines()[0]
    _, _, written = first.partition("# yaml-language-server: $schema=")
    assert (path.parent / written).resolve() == ROOT / "docs/schemas" / FILES["profile"]


def test_every_plant_of_ours_is_taken(plant: Draft202012Validator) -> None:
    assert faults(plant, data_of(GOOD.encode())) == []
    assert PLANTS
    for path in PLANTS:
        assert faults(plant, data_of(path.read_bytes())) == [], path


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"colour": "blue"}, "'colour' was unexpected"),
        ({"site": {"id": "a"}}, "'name' is a required property"),
        ({"equipment": []}, "should be non-empty"),
        ({"areas": [{"id": "a", "level": "town", "name": {"zh": "甲", "en": "A"}}]}, "'town' is not one of"),
    ],
)
def test_an_editor_shows_what_is_wrong_in_a_plant(
    spoil: dict[str, Any], said: str, plant: Draft202012Validator
) -> None:
    assert any(said in fault for fault in faults(plant, data_of(GOOD.encode()) | spoil))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", "Boiler 7"),
        ("address", "10.0.0.5:502/1"),
        ("registration", "123"),
        ("poll_s", 0),
        ("points", {"outlet_temperature": {"alarms": {"high": {"limmit": 3}}}}),
        ("points", {"outlet_temperature": {"unitt": "K"}}),
        ("conditions", {"firing_without_flame": {"on_delay": 3}}),
    ],
)
def test_an_editor_shows_what_is_wrong_in_an_equipment(key: str, value: Any, plant: Draft202012Validator) -> None:
    data = data_of(GOOD.encode())
    data["equipment"][0][key] = value
    assert faults(plant, data), "refused"


def test_an_override_needs_no_more_than_what_it_changes(plant: Draft202012Validator) -> None:
    data = data_of(GOOD.encode())
    data["equipment"][0]["points"] = {
        "flame": {"modbus": {"bit": 2}, "alarms": {"high": None}, "enum": {"0": {"zh": "无"}}}
    }
    assert faults(plant, data) == []


@pytest.mark.parametrize("name", ["profile-types", "profile-references", "profile-registers", "profile-contradictions"])
def test_what_types_and_keys_show_is_refused_by_the_schema_too(name: str, profile: Draft202012Validator) -> None:
    path = BAD / f"{name}.yaml"
    assert faults(profile, read_document(path.read_bytes(), path.name).data) != []


def test_profiles_are_offered_by_name_and_own_ones_are_taken(plant: Draft202012Validator) -> None:
    offered = plant_schema()["$defs"]["PlantEquipment"]["properties"]["profile"]["anyOf"][0]["enum"]
    assert offered == known_profiles()
    data = data_of(GOOD.encode())
    data["equipment"][0]["profile"] = "my-own-crane"
    assert faults(plant, data) == []


def properties(part: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, body in part.get("$defs", {}).items():
        yield from properties(body, name)
    for key, body in part.get("properties", {}).items():
        yield f"{where}.{key}", body


@pytest.mark.parametrize("made", [plant_schema, profile_schema])
def test_every_key_tells_its_meaning_while_it_is_typed(made: Any) -> None:
    listed = dict(properties(copy.deepcopy(made()), "file"))
    assert len(listed) > 40
    assert [where for where, body in listed.items() if not body.get("description")] == []


@pytest.mark.parametrize(
    ("page", "schema", "name"),
    [("profiles.md", profile_schema, "crane.yaml"), ("plant.md", plant_schema, "plant.yaml")],
)
def test_the_examples_of_the_documents_are_right(page: str, schema: Any, name: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    whole, *parts = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert whole.startswith("# yaml-language-server: $schema=")
    path = tmp_path / name
    for part in ["{}", *parts]:  # what the page adds later belongs to the same file
        path.write_text(yaml.safe_dump(laid_over(yaml.safe_load(whole), yaml.safe_load(part))), encoding="utf-8")
        assert check_files([path]) == []
        assert faults(Draft202012Validator(schema()), data_of(path.read_bytes())) == []


def laid_over(base: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    both = {key: laid_over(base[key], part[key]) for key in base.keys() & part.keys() if isinstance(base[key], dict)}
    return base | part | both
