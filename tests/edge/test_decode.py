"""Decoding: golden registers written by hand from the maps and the Modbus specification, and a naive oracle."""

from __future__ import annotations

import math
import struct
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.decode import Frame, decode_text
from edge.plan import Limits, plan
from edge.scaling import real_scaling, whole_scaling
from telemetry.files import load_profile
from telemetry.quality import BAD_COMMS, BAD_CONFIG, BAD_SENSOR, GOOD, UNCERTAIN_OUT_OF_RANGE
from tests.edge.build import NOW_US, frame_of, layout_of, make_profile, points_of, read, values
from tests.edge.readings import rows_of


def modbus(address: int, kind: str = "u16", **more: Any) -> dict[str, Any]:
    return {"modbus": {"address": address, "type": kind, **more}}


def registers(*words: int) -> bytes:
    """Registers as the specification sends them: each big-endian (Modbus Application Protocol 1.1b3, 4.2)."""
    return b"".join(bytes(divmod(word, 256)) for word in words)


# ---- golden vectors


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("ABCD", (0x47F1, 0x2000)),
        ("CDAB", (0x2000, 0x47F1)),
        ("BADC", (0xF147, 0x0020)),
        ("DCBA", (0x0020, 0xF147)),
    ],
)
def test_123456_comes_out_of_every_word_order(order: str, words: tuple[int, int]) -> None:
    profile = make_profile({"x": modbus(0, "f32", word_order=order)})
    assert read(profile, registers(*words)) == {"x": (123456.0, GOOD)}


def test_the_profiles_word_order_holds_for_points_that_name_none_and_is_stretched_to_64_bits() -> None:
    points = {"f": modbus(0, "f32"), "u": modbus(2, "u64"), "own": modbus(6, "u32", word_order="ABCD"), "s": modbus(8)}
    profile = make_profile(points, modbus={"word_order": "CDAB"})
    words = (0x2000, 0x47F1, 0x0708, 0x0506, 0x0304, 0x0102, 0x0001, 0x0002, 0x1234)
    assert read(profile, registers(*words)) == {
        "f": (123456.0, GOOD),
        "u": (float(0x0102030405060708), GOOD),
        "own": (65538.0, GOOD),
        "s": (float(0x1234), GOOD),
    }


def test_swapped_bytes_are_swapped_in_one_register_values_too() -> None:
    profile = make_profile({"x": modbus(0)}, modbus={"word_order": "BADC"})
    assert read(profile, registers(0x3412)) == {"x": (float(0x1234), GOOD)}


@pytest.mark.parametrize(
    ("kind", "words", "expected"),
    [
        ("u16", (0xFFFF,), 65535.0),
        ("i16", (0xFFFF,), -1.0),
        ("i16", (0x8000,), -32768.0),
        ("u32", (0xFFFF, 0xFFFE), 4294967294.0),
        ("i32", (0xFFFF, 0xFFFE), -2.0),
        ("f32", (0xC248, 0x0000), -50.0),
        ("u64", (0, 0, 0x0001, 0x0000), 65536.0),
        ("i64", (0xFFFF, 0xFFFF, 0xFFFF, 0xFFFD), -3.0),
        ("f64", (0x400C, 0, 0, 0), 3.5),
    ],
)
def test_every_type_of_number_reads_as_the_specification_lays_it_out(
    kind: str, words: tuple[int, ...], expected: float
) -> None:
    assert read(make_profile({"x": modbus(0, kind)}), registers(*words)) == {"x": (expected, GOOD)}


def test_a_sola_boiler_reads_as_its_map_says() -> None:
    profile = load_profile("sola-boiler")
    points = points_of(profile)
    by_address = dict.fromkeys(range(0x100), 0)
    # Outlet 82.5 °C, fan 3450 rpm, flame 12.34 µA, inlet not connected, stack 145.0 °C, firing, run, lockout 67,
    # 70,000 burner cycles (high word first), 66 hours.
    by_address |= {0x0007: 825, 0x0009: 3450, 0x000A: 1234, 0x000B: 0x8FFF, 0x000E: 1450}
    by_address |= {0x0020: 50, 0x0021: 12, 0x0022: 67, 0x0080: 0x0001, 0x0081: 0x1170, 0x0082: 0, 0x0083: 66}
    requests = plan(points, Limits())
    payloads = [registers(*(by_address[a] for a in range(r.address, r.address + r.count))) for r in requests]
    got = read(profile, *payloads)
    at = {p.address: n for n, p in points.items() if p.bit is None}
    assert got[at[0x0007]] == (82.5, GOOD)
    assert got[at[0x0009]] == (3450.0, GOOD)
    assert got[at[0x000A]] == (12.34, GOOD)
    value, quality = got[at[0x000B]]
    assert math.isnan(value)
    assert quality == BAD_SENSOR
    assert got[at[0x000E]] == (145.0, GOOD)
    assert got[at[0x0020]][0] == 50.0
    assert got[at[0x0021]][0] == 12.0
    assert got[at[0x0022]][0] == 67.0
    assert got[at[0x0080]] == (70000.0, GOOD)
    assert got[at[0x0082]] == (66.0, GOOD)
    assert len(got) == len(points)


def test_a_small_steam_boiler_reads_its_level_in_mm_and_its_floats_low_word_first() -> None:
    profile = load_profile("small-steam-boiler")
    points = points_of(profile)
    # Level −35 mm (0xFFDD); draft −20.5 Pa (C1A4 0000), air 1234.5 (449A 5000), gas 2500.0 (451C 4000), steam 0.6 MPa
    # (3F19 999A), each with its low word first.
    by_address = {
        6: 0xFFDD,
        7: 0,
        8: 0x0000,
        9: 0xC1A4,
        10: 0x5000,
        11: 0x449A,
        12: 0x4000,
        13: 0x451C,
        14: 0x999A,
        15: 0x3F19,
    }
    payloads = [
        registers(*(by_address[a] for a in range(r.address, r.address + r.count)))
        for r in plan(points, Limits(max_gap=2))
    ]
    got = read(profile, *payloads)
    by_place = {p.address: got[n][0] for n, p in points.items()}
    assert by_place == {6: -35.0, 8: -20.5, 10: 1234.5, 12: 2500.0, 14: struct.unpack(">f", b"\x3f\x19\x99\x9a")[0]}


def test_coils_come_eight_to_a_byte_the_lowest_first() -> None:
    # The example of the specification, 6.1: coils 27–20 are CD, 35–28 are 6B, 38–36 are 05 (address 19, count 19).
    points = {f"c{n}": {"modbus": {"table": "coil", "address": n - 1, "type": "bool"}} for n in range(20, 39)}
    got = read(make_profile(points), bytes([0xCD, 0x6B, 0x05]))
    ones = [n for n in range(20, 39) if got[f"c{n}"] == (1.0, GOOD)]
    assert ones == [20, 22, 23, 26, 27, 28, 29, 31, 33, 34, 36, 38]
    assert all(got[f"c{n}"] == (0.0, GOOD) for n in range(20, 39) if n not in ones)


def test_bits_and_bit_fields_are_taken_out_of_their_register() -> None:
    points = {
        "flame": modbus(0, "bool", bit=1),
        "low": modbus(0, bit=0, bits=4),
        "high": modbus(0, "i16", bit=12, bits=4),
        "all": modbus(0, bit=0, bits=16),
    }
    got = read(make_profile(points), registers(0xA00E))
    assert {n: v for n, (v, _) in got.items()} == {"flame": 1.0, "low": 14.0, "high": 10.0, "all": 40974.0}


def test_not_available_codes_are_compared_with_the_raw_value_before_scale_and_sign() -> None:
    points = {
        "sola": modbus(0, scale=0.1, not_available=[0x8FFF]),
        "signed": modbus(1, "i16", not_available=[-1]),
        "signed_by_bits": modbus(2, "i16", not_available=[0xFFFF]),
        "wide": modbus(3, "u32", not_available=[0xFFFFFFFF, 0]),
        "fine": modbus(5, not_available=[0x8FFF]),
        "float": modbus(6, "f32", not_available=[0x7F800001]),
    }
    got = read(make_profile(points), registers(0x8FFF, 0xFFFF, 0xFFFF, 0, 0, 0x8FFE, 0x7F80, 0x0001))
    assert {n for n, (v, q) in got.items() if math.isnan(v) and q == BAD_SENSOR} == set(points) - {"fine"}
    assert got["fine"] == (36862.0, GOOD)


@pytest.mark.parametrize("words", [(0x7FC0, 0), (0x7F80, 0), (0xFF80, 0), (0x7FA0, 1)])
def test_a_float_that_is_no_number_is_a_bad_sensor_without_a_value(words: tuple[int, int]) -> None:
    value, quality = read(make_profile({"x": modbus(0, "f32")}), registers(*words))["x"]
    assert math.isnan(value)
    assert quality == BAD_SENSOR


def test_a_value_outside_its_range_is_kept_as_decodedand_marked_uncertain() -> None:
    profile = make_profile({"t": {**modbus(0, scale=0.1), "range": {"low": 0, "high": 120}}, "free": modbus(1)})
    assert read(profile, registers(1201, 9)) == {"t": (120.1, UNCERTAIN_OUT_OF_RANGE), "free": (9.0, GOOD)}
    assert read(profile, registers(1200, 9))["t"] == (120.0, GOOD)


def test_strings_are_texts_of_their_registers_and_no_samples() -> None:
    profile = make_profile({"model": {**modbus(0, "string", length=4), "kind": "text"}, "x": modbus(4)})
    layout = layout_of(profile)
    decoded = layout.decode([frame_of(layout, [b"SOLA 7\0\0" + registers(5)])])
    assert decoded.texts == [("e", "model", "SOLA 7", NOW_US)]
    assert rows_of(decoded.columns) == [("e/x", (NOW_US, 5.0, GOOD))]
    assert layout.decode([frame_of(layout, [None], [BAD_COMMS])]).texts == [], "not read, not said"
    assert decode_text(b"OSAL7 \0\0", swapped=True) == "SOLA 7"
    assert decode_text("锅炉".encode() + b"  ", swapped=False) == "锅炉"
    assert decode_text(b"\xff1", swapped=False) == "\\xff1"


def test_points_of_a_failed_request_are_bad_with_its_reason_and_no_others() -> None:
    layout = layout_of(make_profile({"a": modbus(0), "b": modbus(100), "c": modbus(200, "f32")}))
    columns = layout.decode([frame_of(layout, [registers(7), None, None], [0, BAD_CONFIG, BAD_COMMS])]).columns
    got = values(columns)
    assert got["a"] == (7.0, GOOD)
    assert {n: q for n, (v, q) in got.items() if math.isnan(v)} == {"b": BAD_CONFIG, "c": BAD_COMMS}
    times = {signal: time_us for signal, (time_us, _, _) in rows_of(columns)}
    assert times == {"e/a": NOW_US, "e/b": NOW_US + 1, "e/c": NOW_US + 2}


def test_the_names_of_a_devices_readings_are_one_object_in_every_cycle() -> None:
    layout = layout_of(make_profile({"x": modbus(0)}))
    first = frame_of(layout, [registers(1)])
    second = Frame("e", first.block, [registers(2)], [NOW_US])
    columns = layout.decode([first, second]).columns
    assert columns.blocks[0] is columns.blocks[1] is first.block
    assert [value for _, (_, value, _) in rows_of(columns)] == [1.0, 2.0]


def test_many_devices_decoded_at_once_decodedas_each_by_itself() -> None:
    profile = make_profile({"a": modbus(0, "i16"), "b": modbus(50, "f32"), "c": modbus(1, not_available=[9])})
    layout = layout_of(profile)
    frames = [
        frame_of(layout, [registers(0xFFFF, n), registers(0x47F1, 0x2000) if n % 3 else None], [0, BAD_COMMS])
        for n in range(12)
    ]
    whole = layout.decode(frames).columns
    apart = [layout.decode([frame]).columns for frame in frames]
    assert repr(rows_of(whole)) == repr([row for columns in apart for row in rows_of(columns)])


# ---- scale and offset


@given(st.integers(-(2**31), 2**31), st.sampled_from(["0.1", "0.01", "0.001", "0.2", "2.5", "10.0", "0.0001", "0.125"]))
def test_a_whole_value_times_a_decimal_scale_is_the_double_nearest_to_the_true_product(raw: int, scale: str) -> None:
    scaling = whole_scaling(float(scale), 0.0, largest=2**31)
    assert scaling.apply(raw) == float(Decimal(raw) * Decimal(scale))


@given(st.integers(0, 65535), st.sampled_from(["-40.0", "-273.15", "0.5", "100.0"]))
def test_an_offset_costs_no_second_rounding(raw: int, offset: str) -> None:
    scaling = whole_scaling(0.1, float(offset), largest=65536)
    assert scaling.apply(raw) == float(Decimal(raw) * Decimal("0.1") + Decimal(offset))


def test_tenths_come_out_as_people_write_them() -> None:
    assert 3 * 0.1 != 0.3, "which is why"
    assert whole_scaling(0.1, 0.0, largest=65536).apply(3) == 0.3
    assert whole_scaling(0.1, 0.0, largest=65536).apply(123) == 12.3
    assert whole_scaling(0.1, -40.0, largest=65536).apply(1) == -39.9


def test_a_scale_that_no_whole_numbers_hold_is_multiplied() -> None:
    assert whole_scaling(1e-300, 0.0, largest=65536).apply(3.0) == 3.0 * 1e-300
    assert real_scaling(1 / 3, 1.0).apply(3.0) == 3.0 * (1 / 3) + 1.0


def test_a_number_that_its_scale_takes_beyond_all_numbers_is_bad_and_no_warning() -> None:
    largest = (0x7FEF, 0xFFFF, 0xFFFF, 0xFFFF)
    value, quality = read(make_profile({"x": modbus(0, "f64", scale=10.0)}), registers(*largest))["x"]
    assert math.isnan(value)
    assert quality == BAD_SENSOR


# ---- against a naive oracle

STRUCT = {"u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f", "u64": "Q", "i64": "q", "f64": "d"}


@st.composite
def layouts(draw: st.DrawFn) -> tuple[dict[str, dict[str, Any]], bytes]:
    points, address = {}, 0
    for i in range(draw(st.integers(1, 25))):
        kind = draw(st.sampled_from(sorted(STRUCT)))
        width = struct.calcsize(STRUCT[kind])
        order = "".join(draw(st.permutations("ABCDEFGH"[:width])))
        scale = draw(st.sampled_from([1.0, 0.1, 10.0]))
        points[f"p{i}"] = modbus(address, kind, word_order=order, scale=scale)
        address += width // 2 + draw(st.integers(0, 2))
    return points, draw(st.binary(min_size=2 * (address + 4), max_size=2 * (address + 4)))


@settings(max_examples=300, deadline=None)
@given(layouts())
def test_decoding_agrees_with_a_loop_over_struct(layout: tuple[dict[str, dict[str, Any]], bytes]) -> None:
    points, memory = layout
    profile = make_profile(points)
    requests = plan(points_of(profile), Limits())
    got = read(profile, *(memory[r.address * 2 : (r.address + r.count) * 2] for r in requests))
    for name, keys in points.items():
        expected = naive(keys["modbus"], memory)
        value, quality = got[name]
        if math.isfinite(expected):
            assert value == expected
            assert quality == GOOD
        else:
            assert math.isnan(value)
            assert quality == BAD_SENSOR


def naive(keys: dict[str, Any], memory: bytes) -> float:
    code = STRUCT[keys["type"]]
    came = memory[keys["address"] * 2 :][: struct.calcsize(code)]
    ordered = bytes(came[keys["word_order"].index(letter)] for letter in sorted(keys["word_order"]))
    raw = struct.unpack(">" + code, ordered)[0]
    with np.errstate(all="ignore"):
        return float(np.float64(raw) / 10) if keys["scale"] == 0.1 else float(np.float64(raw) * keys["scale"])
