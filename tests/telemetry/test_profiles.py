"""The profiles that Vigil brings: maps as their makers document them, texts that help at 3 a.m. in both languages."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from telemetry.files import check_files, known_profiles, load_profile
from telemetry.profile import (
    AlarmText,
    Code,
    Comparison,
    ModbusPoint,
    PointKind,
    Priority,
    Profile,
    RegisterType,
    Text,
    stretch_word_order,
    with_overrides,
    word_order_fits,
)

FOLDER = Path(__file__).parents[2] / "profiles"
OURS = [
    "escalator-monitor",
    "forklift-terminal",
    "lift-door",
    "lift-monitor",
    "pump-testbed",
    "small-steam-boiler",
    "sola-boiler",
]

# Written by hand from the public register map: (address, type, scale). 0x8FFF means not available.
SOLA = {
    "demand_source": (0x0006, "u16", 1),
    "outlet_temperature": (0x0007, "u16", 0.1),
    "firing_rate": (0x0008, "u16", 0.1),
    "fan_speed": (0x0009, "u16", 1),
    "flame_signal": (0x000A, "u16", 0.01),
    "inlet_temperature": (0x000B, "u16", 0.1),
    "stack_temperature": (0x000E, "u16", 0.1),
    "setpoint_1": (0x0010, "u16", 0.1),
    "setpoint_2": (0x0011, "u16", 0.1),
    "steam_pressure": (0x0014, "u16", 0.1),
    "burner_status": (0x0020, "u16", 1),
    "sequence_state": (0x0021, "u16", 1),
    "lockout_code": (0x0022, "u16", 1),
    "hold_code": (0x0028, "u16", 1),
    "flame": (0x0029, "bool", 1),
    "burner_cycles": (0x0080, "u32", 1),
    "run_time": (0x0082, "u32", 1),
}
STEAM = {
    "drum_level": (6, "i16"),
    "furnace_draft": (8, "f32"),
    "air_pressure": (10, "f32"),
    "gas_pressure": (12, "f32"),
    "steam_pressure": (14, "f32"),
}


@pytest.fixture(scope="module", params=OURS)
def profile(request: pytest.FixtureRequest) -> Profile:
    return load_profile(request.param)


def place(profile: Profile, point: str) -> ModbusPoint:
    found = profile.points[point].modbus
    assert found is not None
    return found


def test_our_profiles_are_all_found_and_have_no_fault() -> None:
    assert known_profiles() == OURS
    assert check_files(sorted(FOLDER.glob("*.yaml"))) == []


def test_the_folder_of_profiles_holds_data_only() -> None:
    assert {path.suffix for path in FOLDER.iterdir() if path.is_file()} == {".yaml"}


def test_the_sola_map_is_the_public_one() -> None:
    sola = load_profile("sola-boiler")
    map_ = {
        name: (place(sola, name).address, place(sola, name).type.value, place(sola, name).scale) for name in sola.points
    }
    assert map_ == SOLA
    assert all(place(sola, name).table == "holding" for name in sola.points), "function 03"
    assert sola.word_order_of(place(sola, "burner_cycles")) == "ABCD", "high word first"
    assert place(sola, "flame").bit == 1


def test_every_16_bit_value_of_sola_knows_0x8fff_as_not_available() -> None:
    sola = load_profile("sola-boiler")
    words = [name for name in sola.points if place(sola, name).type is RegisterType.U16]
    assert all(place(sola, name).not_available == (36863,) for name in words)
    assert len(words) == 14


def test_sola_states_and_codes_mean_what_the_map_says() -> None:
    sola = load_profile("sola-boiler")
    burner, sequence = sola.points["burner_status"].enum, sola.points["sequence_state"].enum
    assert {value: text.en for value, text in burner.items()} == {
        1: "Lockout",
        48: "Standby",
        50: "Firing",
        51: "Post-purge",
    }
    assert sequence[14].en == "Lockout"
    assert sequence[12].en == "Run"
    assert set(sequence) == {2, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 255}
    assert set(sola.schemes["sola-lockout"].codes) == {
        "67",
        "79",
        "82",
        "105",
        "106",
        "107",
        "108",
        "109",
        "129",
        "130",
    }
    assert sola.schemes["sola-hold"].codes["61"].name.en == "Waiting against short cycling"
    assert [(c.point, c.scheme, c.none) for c in sola.code_points] == [
        ("lockout_code", "sola-lockout", (0,)),
        ("hold_code", "sola-hold", (0,)),
    ]
    lockout = sola.conditions["lockout_without_code"]
    assert [(t.point, t.condition, t.limit) for t in lockout.all] == [("sequence_state", Comparison.EQUALS, 14)]
    assert [(t.point, t.condition, t.limit) for t in lockout.unless] == [("lockout_code", Comparison.NOT_EQUALS, 0)]


def test_the_small_steam_boiler_has_its_low_word_first_and_its_level_in_millimetres() -> None:
    boiler = load_profile("small-steam-boiler")
    assert {name: (place(boiler, name).address, place(boiler, name).type.value) for name in boiler.points} == STEAM
    assert boiler.word_order_of(place(boiler, "steam_pressure")) == "CDAB"
    level = boiler.points["drum_level"]
    assert level.unit == "mm"
    limits = {name: alarm.limit for name, alarm in level.alarms.items()}
    assert (limits["low"], limits["high"]) == (-50, 50), "alarm at ±50 mm"
    assert limits["low_low"] < -50
    assert limits["high_high"] > 50
    assert level.alarms["low_low"].priority is Priority.CRITICAL


def test_one_code_means_different_things_in_different_schemes_and_one_thing_in_one() -> None:
    lift = load_profile("lift-monitor")
    meanings = {scheme: body.codes["4"].name.en for scheme, body in lift.schemes.items() if "4" in body.codes}
    assert meanings == {
        "gbt24476-2017": "Stopped outside the unlocking zone",
        "local-city-2019": "Door opened while running",
    }
    assert lift.schemes["local-city-2019"].codes["9"].name.en == "Power cut"
    assert lift.schemes["local-regulator"].codes["09"].name.en == "Overrun at the top", "a leading zero is kept"
    assert "9" not in lift.schemes["local-regulator"].codes
    everywhere: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name in OURS:
        for scheme, body in load_profile(name).schemes.items():
            for code, meaning in body.codes.items():
                everywhere[scheme, code].add(meaning.name.en)
    assert not {key for key, names in everywhere.items() if len(names) > 1}
    assert {code for scheme, code in everywhere if scheme == "gbt24476-2017"} == {
        *"12345678", "40", "41", "42", "43", "44", "45", "46", "47", "90", "61", "62", "63", "64", "65",
    }  # fmt: skip


def test_forklift_codes_are_kept_apart_by_dialect_and_kind_of_camera() -> None:
    schemes = load_profile("forklift-terminal").schemes
    assert schemes["yue-dsm"].codes["0A"].name.en == "No seat belt"
    assert "0A" not in schemes["su-dsm"].codes, "06-0F differ by dialect: unknown stays raw"
    names = {scheme: schemes[scheme].codes["04"].name.en for scheme in ("su-dsm", "su-adas")}
    assert names == {"su-dsm": "Distraction", "su-adas": "Pedestrian"}
    assert schemes["yue-adas"].codes["07"].name.en == "Obstacle"
    assert schemes["su-dsm"].codes["11"].priority is None, "a change of driver is an event, no alarm"


@pytest.mark.parametrize("name", ["entrapment_at_level", "entrapment_off_level", "alarm_button_while_stopped"])
def test_entrapment_is_derived_and_silent_in_inspection_and_fire_modes(name: str) -> None:
    condition = load_profile("lift-monitor").conditions[name]
    terms = {(term.point, term.condition.value, term.limit) for term in condition.all}
    assert {("car_status", "equals", 0.0), ("door_closed", "equals", 1.0)} <= terms
    silent = {(term.point, term.condition.value, term.limit) for term in condition.unless}
    assert silent == {("service_mode", "equals", mode) for mode in (2.0, 3.0, 4.0)}
    assert (condition.on_delay_s, condition.priority) == (20, Priority.CRITICAL)


def test_level_and_between_floors_never_hold_together() -> None:
    lift = load_profile("lift-monitor").conditions
    zones = [
        {t.limit for t in lift[name].all if t.point == "door_zone"}
        for name in ("entrapment_at_level", "entrapment_off_level")
    ]
    assert zones == [{1.0}, {0.0}]


def texts(value: Any) -> Iterator[Text]:
    if isinstance(value, Text):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from texts(getattr(value, name))
    elif isinstance(value, dict):
        for each in value.values():
            yield from texts(each)


def alarms(value: Any) -> Iterator[AlarmText | Code]:
    if isinstance(value, AlarmText) or (isinstance(value, Code) and value.priority is not None):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from alarms(getattr(value, name))
    elif isinstance(value, dict):
        for each in value.values():
            yield from alarms(each)


def test_every_text_is_chinese_in_chinese_and_english_in_english(profile: Profile) -> None:
    found = list(texts(profile))
    assert len(found) > 10
    for text in found:
        assert re.search(r"[\u4e00-\u9fff]", text.zh), text
        assert not re.search(r"[\u4e00-\u9fff，。；]", text.en), text
        assert re.search(r"[A-Za-z]", text.en), text
        assert text.zh == text.zh.strip()
        assert text.en == text.en.strip()


def test_every_alarm_says_what_happens_and_what_to_do(profile: Profile) -> None:
    found = list(alarms(profile))
    assert found
    for alarm in found:
        assert alarm.consequence is not None, alarm
        assert alarm.action is not None, alarm
        assert len(alarm.action.en) > 12, alarm
        assert alarm.action != alarm.consequence


def test_every_point_can_be_watched_and_drawn(profile: Profile) -> None:
    for name, point in profile.points.items():
        if point.kind is PointKind.MEASUREMENT:
            assert point.range.low < point.range.high < float("inf"), f"{name}: a measurement has a range"
            assert point.range.low > -float("inf"), name
        for alarm_name, alarm in point.alarms.items():
            assert point.range.low <= alarm.limit <= point.range.high, f"{name}.{alarm_name} can be reached"
        for value in point.enum:
            assert point.range.low <= value <= point.range.high, f"{name}: {value}"


def test_every_state_says_what_its_values_mean(profile: Profile) -> None:
    spoken = {code_point.point for code_point in profile.code_points}
    without = {n for n, p in profile.points.items() if p.kind is PointKind.STATE and not p.enum and n not in spoken}
    assert without <= {"car_position", "people", "demand_source"}, (
        "a number is its own meaning; SOLA's list is not public"
    )


@pytest.mark.parametrize("name", ["pump-testbed", "lift-door"])
def test_a_recorded_feed_can_be_played_through_modbus_and_through_mqtt(name: str) -> None:
    profile = load_profile(name)
    assert all(point.modbus is not None and point.mqtt is not None for point in profile.points.values())
    assert any(point.detectors for point in profile.points.values())


@pytest.mark.parametrize(
    ("name", "header"),
    [
        (
            "pump-testbed",
            "Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;Thermocouple;Voltage;Volume Flow RateRMS",
        ),
        ("lift-door", "ball-bearing;humidity;vibration"),
    ],
)
def test_the_headers_of_the_recorded_feeds_are_the_profiles_points(name: str, header: str) -> None:
    profile = load_profile(name)
    assert [profile.point_of_column(column) for column in header.split(";")] == list(profile.points)
    assert profile.point_of_column("anomaly") is None
    assert all(profile.point_of_column(point) == point for point in profile.points)


# The overrides of a plant

ORDERS: list[Literal["ABCD", "CDAB", "BADC", "DCBA"]] = ["ABCD", "CDAB", "BADC", "DCBA"]
limits = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3))


@settings(deadline=None)
@given(high=limits, low=limits, delay=st.floats(0, 1e4))
def test_an_override_changes_what_it_names_and_nothing_else(high: float, low: float, delay: float) -> None:
    boiler = load_profile("sola-boiler")
    low, high = sorted((low, high))
    over = {
        "outlet_temperature": {"alarms": {"high": {"limit": low, "on_delay_s": delay}, "high_high": {"limit": high}}}
    }
    changed = with_overrides(boiler, over)
    before, after = boiler.model_dump(), changed.model_dump()
    mine = after["points"]["outlet_temperature"]["alarms"]
    assert (mine["high"]["limit"], mine["high"]["on_delay_s"], mine["high_high"]["limit"]) == (low, delay, high)
    for alarm, key in (("high", "limit"), ("high", "on_delay_s"), ("high_high", "limit")):
        mine[alarm][key] = before["points"]["outlet_temperature"]["alarms"][alarm][key]
    assert after == before
    assert boiler == load_profile("sola-boiler"), "the profile itself is untouched"


@settings(deadline=None)
@given(first=limits, second=limits)
def test_the_last_of_two_overrides_wins_and_the_same_twice_is_once(first: float, second: float) -> None:
    pump = load_profile("pump-testbed")

    def over(limit: float) -> dict[str, Any]:
        return {"current": {"alarms": {"high": {"limit": limit}}}}

    twice = with_overrides(with_overrides(pump, over(first)), over(second))
    assert twice == with_overrides(pump, over(second))
    assert with_overrides(twice, over(second)) == twice


def test_no_override_is_the_profile_itself() -> None:
    pump = load_profile("pump-testbed")
    assert with_overrides(pump, {}) is pump


@pytest.mark.parametrize(
    "override",
    [{"unit": 3}, {"poll_s": "1"}, {"alarms": {"high": {"limit": True}}}, {"modbus": {"address": -1}}, {"nix": 1}],
)
def test_an_override_is_checked_as_strictly_as_a_file(override: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        with_overrides(load_profile("pump-testbed"), {"current": override})


def test_null_switches_an_alarm_off_and_brings_a_default_back() -> None:
    pump = load_profile("pump-testbed")
    over = {"current": {"alarms": {"high": None}, "range": None}}
    changed = with_overrides(pump, over).points["current"]
    assert changed.alarms == {}
    assert changed.range.high == float("inf")


# Word orders, against the test vector of the manuals: 123456.0 = 0x47F12000


@pytest.mark.parametrize(
    ("order", "registers"),
    [("ABCD", "47F12000"), ("CDAB", "200047F1"), ("BADC", "F1470020"), ("DCBA", "0020F147")],
)
def test_a_word_order_says_where_each_byte_of_the_value_lies(order: str, registers: str) -> None:
    value = dict(zip("ABCD", bytes.fromhex("47F12000"), strict=True))
    assert bytes(value[letter] for letter in stretch_word_order(order, 4)).hex().upper() == registers


@settings(deadline=None)
@given(order=st.sampled_from(ORDERS), width=st.sampled_from([2, 4, 8]))
def test_a_stretched_order_is_a_permutation_that_swaps_words_and_bytes_as_said(order: str, width: int) -> None:
    letters = "ABCDEFGH"[:width]
    stretched = stretch_word_order(order, width)
    assert sorted(stretched) == list(letters)
    words = [stretched[i : i + 2] for i in range(0, width, 2)]
    swapped_bytes = order in ("BADC", "DCBA")
    swapped_words = order in ("CDAB", "DCBA")
    natural = [word[::-1] if swapped_bytes else word for word in words]
    assert "".join(natural[::-1] if swapped_words else natural) == letters


@settings(deadline=None)
@given(order=st.permutations("ABCDEFGH").map("".join), kind=st.sampled_from(list(RegisterType)))
def test_only_an_order_of_each_byte_once_fits_a_type(order: str, kind: RegisterType) -> None:
    assert word_order_fits(order, kind) == (kind.registers == 4)
    assert not word_order_fits(order[:-1] + order[0], kind)
