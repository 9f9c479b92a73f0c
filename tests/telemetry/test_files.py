"""Every mistake in a profile or plant file has a file of its own in `bad/`; the table says exactly what is reported."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.errors import ConfigError
from telemetry.files import check_files, known_profiles, load_plant, load_profile
from telemetry.profile import Profile, with_overrides

BAD = Path(__file__).parent / "bad"
PROFILES = BAD / "profiles"

FAULTS = (BAD / "faults.txt").read_text(encoding="utf-8").splitlines()
"""What `vigil check` prints of all bad files, written and checked by hand."""
NAMES = sorted(path.stem for path in BAD.glob("*.yaml"))

YAML_LIKE = st.from_regex(r"([-\[{&*a: ]|\n){0,30}").map(str.encode)
GOOD = """\
site: {id: minhang, name: {zh: 闵行区, en: Minhang}, timezone: Asia/Shanghai}
areas:
  - {id: xinzhuang, level: street, name: {zh: 莘庄镇, en: Xinzhuang}}
  - {id: grid-7, level: grid, parent: xinzhuang, name: {zh: 网格七, en: Grid 7}}
organisations:
  - {id: acme, kinds: [use_unit], name: {zh: 某某公司, en: Acme}, phone: "021-1234"}
  - {id: liftcare, kinds: [maintainer, use_unit], name: {zh: 某维保, en: Liftcare}, phone: "021-4321"}
endpoints:
  modbus+tcp://10.0.0.5: {timeout_s: 0.5, max_registers: 60}
  mqtts://Broker:8883: {username: env:MQTT_USER, password: env:MQTT_PASSWORD}
equipment:
  - id: boiler-07
    profile: sola-boiler
    address: modbus+tcp://10.0.0.5:502/3
    area: grid-7
    registration: "11203101122020010007"
    parties: {owner: acme, user: acme, maintainer: liftcare}
    poll_s: 2
    points: {outlet_temperature: {alarms: {high: {limit: 95}}}, stack_temperature: {alarms: {high_high: null}}}
    conditions: {firing_without_flame: {on_delay_s: 9}}
  - {id: lift-0012, profile: lift-monitor, address: mqtts://broker/lifts/0012}
"""

SPOILT = [
    yaml.safe_load(text)
    for text in (GOOD, (BAD.parents[2] / "profiles/small-steam-boiler.yaml").read_text(encoding="utf-8"))
]


def said(name: str) -> list[str]:
    return [str(fault).replace(f"{BAD}/", "") for fault in check_files([BAD / f"{name}.yaml"], PROFILES)]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "bad-profile-used"])
def test_a_bad_file_is_told_of_each_of_its_mistakes_and_of_nothing_else(name: str) -> None:
    assert said(name) == [line for line in FAULTS if line.startswith(f"{name}.yaml:")]
    assert said(name), "every file in the folder is bad"


def test_a_plant_is_told_what_is_wrong_in_the_profiles_it_uses_once() -> None:
    starts = ("bad-profile-used.yaml:", "profiles/")
    assert said("bad-profile-used") == [line for line in FAULTS if line.startswith(starts)]


def test_a_plant_that_is_wrong_raises_what_the_check_finds() -> None:
    path = BAD / "wrong-overrides.yaml"
    with pytest.raises(ConfigError) as raised:
        load_plant(path, profiles_dir=PROFILES)
    assert list(raised.value.faults) == check_files([path], PROFILES)


def test_faults_of_several_files_come_together_each_once_and_in_order() -> None:
    paths = [BAD / "unknown-key.yaml", BAD / "bad-profile-used.yaml", PROFILES / "broken.yaml"]
    faults = check_files(paths, PROFILES)
    assert faults == sorted(faults, key=lambda f: (f.file, f.line, f.key))
    assert len([f for f in faults if f.file.endswith("broken.yaml")]) == 1


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    (fault,) = check_files([tmp_path / "none.yaml"])
    assert (fault.expected, fault.found) == ("a file that can be read", "No such file or directory")


def test_a_secret_written_into_a_file_is_refused_without_being_shown() -> None:
    shown = "\n".join(said("bad-endpoints") + said("bad-address"))
    assert "never the secret itself" in shown
    assert "hunter2" not in shown
    assert "secret@" not in shown


def test_a_good_plant_has_profiles_overrides_and_endpoints_in_place(tmp_path: Path) -> None:
    plant = load_plant(write(tmp_path, GOOD))
    boiler, lift = plant.equipment
    outlet, stack = boiler.profile.points["outlet_temperature"], boiler.profile.points["stack_temperature"]
    assert outlet.alarms["high"].limit == 95
    assert outlet.alarms["high"].text == load_profile("sola-boiler").points["outlet_temperature"].alarms["high"].text
    assert list(stack.alarms) == ["high"], "null switches an alarm off"
    assert boiler.profile.conditions["firing_without_flame"].on_delay_s == 9
    assert plant.endpoint(boiler.address).max_registers == 60, "the default port is implied"
    assert plant.endpoint(lift.address).username == "env:MQTT_USER", "hosts are written in any case"
    assert boiler.poll_s == 2
    assert lift.profile is not boiler.profile


def test_an_override_of_one_equipment_leaves_the_others_alone(tmp_path: Path) -> None:
    text = GOOD + "  - {id: boiler-08, profile: sola-boiler, address: modbus+tcp://10.0.0.5/4}\n"
    plant = load_plant(write(tmp_path, text)).by_id()
    assert plant["boiler-08"].profile == load_profile("sola-boiler")
    assert plant["boiler-07"].profile != plant["boiler-08"].profile


def test_overrides_in_a_file_do_what_with_overrides_does(tmp_path: Path) -> None:
    data = yaml.safe_load(GOOD)["equipment"][0]
    (boiler, _) = load_plant(write(tmp_path, GOOD)).equipment
    assert boiler.profile == with_overrides(load_profile("sola-boiler"), data["points"], conditions=data["conditions"])


def test_a_condition_is_switched_off_by_null(tmp_path: Path) -> None:
    text = (
        GOOD
        + "  - {id: b-9, profile: sola-boiler, address: modbus+tcp://h/1, conditions: {firing_without_flame: null}}\n"
    )
    assert list(load_plant(write(tmp_path, text)).by_id()["b-9"].profile.conditions) == ["lockout_without_code"]


def test_a_point_may_be_given_registers_by_the_plant(tmp_path: Path) -> None:
    entry = "  - {id: lift-1, profile: lift-monitor, address: modbus+tcp://10.0.0.5/9,\n"
    entry += "     points: {speed: {modbus: {address: 7, type: f32, word_order: CDAB}}}}\n"
    lift = load_plant(write(tmp_path, GOOD + entry)).by_id()["lift-1"]
    point = lift.profile.points["speed"].modbus
    assert point is not None
    assert (point.address, lift.profile.word_order_of(point)) == (7, "CDAB")


def test_profiles_in_a_folder_of_ones_own_come_before_those_of_the_package(tmp_path: Path) -> None:
    mine = yaml.safe_load((BAD.parents[2] / "profiles/lift-door.yaml").read_text(encoding="utf-8")) | {"version": 77}
    (tmp_path / "lift-door.yaml").write_text(yaml.safe_dump(mine, allow_unicode=True), encoding="utf-8")
    assert load_profile("lift-door", profiles_dir=tmp_path).version == 77
    assert load_profile("lift-door").version == 1
    assert load_profile(tmp_path / "lift-door.yaml").version == 77
    assert set(known_profiles(tmp_path)) == set(known_profiles())


def test_a_folder_of_profiles_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    (fault,) = check_files([], tmp_path / "none")
    assert (fault.key, fault.found) == ("VIGIL_PROFILES_DIR (--profiles)", "nothing there")
    with pytest.raises(ConfigError, match="a folder of profiles"):
        load_profile("lift-door", profiles_dir=tmp_path / "none")


def test_no_profile_is_found_outside_its_folders(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    good = BAD.parents[2] / "profiles/lift-door.yaml"
    (tmp_path / "lift-door.yaml").write_bytes(good.read_bytes())
    text = GOOD.replace("profile: sola-boiler", "profile: ../lift-door")
    faults = check_files([write(tmp_path, text)], tmp_path / "inside")
    assert any(fault.expected.startswith("a profile, ") for fault in faults)


def test_an_unknown_profile_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError) as raised:
        load_profile("nothing-like-it")
    assert all(name in str(raised.value) for name in known_profiles())


def test_a_large_plant_keeps_each_equipments_own_overrides(tmp_path: Path) -> None:
    entries = [
        f"  - {{id: lift-{n}, profile: lift-monitor, address: mqtts://broker/lifts/{n}, area: grid-7,\n"
        f"     points: {{speed: {{alarms: {{high: {{limit: {2 + n % 3}}}}}}}}}}}\n"
        for n in range(300)
    ]
    plant = load_plant(write(tmp_path, GOOD + "".join(entries)))
    assert len(plant.equipment) == 302
    assert plant.by_id()["lift-1"].profile.points["speed"].alarms["high"].limit == 3


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), junk=st.sampled_from([None, [], {}, 0, -1.5, True, "x", [[]], {"a": {"b": []}}]))
def test_whatever_stands_in_a_file_the_check_answers_with_faults_and_never_falls(
    seed: int, junk: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    rng = random.Random(seed)
    for source in SPOILT:
        data = copy.deepcopy(source)
        spoil(data, junk, rng)
        path = write(folder, yaml.safe_dump(data, allow_unicode=True))
        faults = check_files([path])
        assert all(1 <= fault.line <= len(path.read_text(encoding="utf-8").splitlines()) + 1 for fault in faults)
        assert all(fault.expected and fault.found for fault in faults)


@settings(max_examples=200, deadline=None)
@given(raw=st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | YAML_LIKE)
def test_any_bytes_are_read_or_refused_with_a_line(raw: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(raw)
    faults = check_files([path])
    assert faults, "no such file is a plant"
    assert all(fault.line >= 1 for fault in faults)


def spoil(data: Any, junk: Any, rng: random.Random) -> None:
    """Puts junk somewhere inside."""
    while True:
        key = rng.choice(list(data) if isinstance(data, dict) else range(len(data)))
        if not isinstance(data[key], (dict, list)) or not data[key] or rng.random() < 0.2:
            data[key] = junk
            return
        data = data[key]


def write(folder: Path, text: str) -> Path:
    path = folder / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_deep_or_endless_file_is_refused_before_it_hurts(tmp_path: Path) -> None:
    deep = write(tmp_path, "[" * 100_000 + "]" * 100_000)
    assert "64 levels" in str(check_files([deep])[0])
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    laughs = check_files([write(tmp_path, "\n".join(lines))])
    assert any("finite size" in fault.expected for fault in laughs)


def test_profiles_are_values_that_compare(tmp_path: Path) -> None:
    assert isinstance(load_profile("lift-door"), Profile)
    assert load_profile("lift-door") == load_profile("lift-door")
