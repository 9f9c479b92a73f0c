"""Registers of the rarer kinds and the devices' habits, by golden vectors written out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edge.plan import Limits, limits_of, plan, poll_groups
from telemetry.plant import Endpoint
from telemetry.profile import ModbusDefaults
from telemetry.quality import BAD_DEVICE, BAD_SENSOR, GOOD, UNCERTAIN_OUT_OF_RANGE
from tests.edge.asking import bus_to, cycle, device_at
from tests.edge.build import NOW_US, frame_of, layout_of, make_equipment, make_profile, points_of, read
from tests.edge.device import Device
from tests.edge.readings import rows_of


def modbus(address: int, kind: str = "u16", **more: Any) -> dict[str, Any]:
    return {"modbus": {"address": address, "type": kind, **more}}


def registers(*words: int) -> bytes:
    """Registers as the specification sends them: each big-endian (Modbus Application Protocol 1.1b3, 4.2)."""
    return b"".join(bytes(divmod(word, 256)) for word in words)


# ---- binary coded decimals: four bits a digit, the first the highest


@pytest.mark.parametrize(
    ("kind", "words", "expected"),
    [
        ("bcd16", (0x0000,), 0.0),
        ("bcd16", (0x1234,), 1234.0),
        ("bcd16", (0x9999,), 9999.0),
        ("bcd16", (0x0010,), 10.0),
        ("bcd32", (0x1234, 0x5678), 12345678.0),
        ("bcd32", (0x0000, 0x0009), 9.0),
        ("bcd32", (0x9999, 0x9999), 99999999.0),
        ("bcd64", (0x0000, 0x0000, 0x0001, 0x0000), 10000.0),
        ("bcd64", (0x0000, 0x1234, 0x5678, 0x9012), 123456789012.0),
        ("bcd64", (0x9999, 0x9999, 0x9999, 0x9999), 9999999999999999.0),
    ],
)
def test_a_binary_coded_decimal_reads_as_its_digits(kind: str, words: tuple[int, ...], expected: float) -> None:
    assert read(make_profile({"x": modbus(0, kind)}), registers(*words)) == {"x": (expected, GOOD)}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("bcd16", (0x000A,)),
        ("bcd16", (0xA000,)),
        ("bcd16", (0xFFFF,)),
        ("bcd32", (0x0000, 0x00F0)),
        ("bcd32", (0xB000, 0x0000)),
        ("bcd64", (0, 0, 0, 0x000C)),
        ("bcd64", (0x0E00, 0, 0, 0)),
    ],
)
def test_a_digit_that_is_none_makes_a_decimal_bad_for_the_device_said_it(kind: str, words: tuple[int, ...]) -> None:
    profile = make_profile({"x": modbus(0, kind), "y": modbus(4)})
    got = read(profile, registers(*words, *[0] * (4 - len(words)), 7))
    assert math.isnan(got["x"][0])
    assert got["x"][1] == BAD_DEVICE
    assert got["y"] == (7.0, GOOD), "its neighbour is none the worse"


def test_decimals_know_word_orders_scales_codes_and_ranges_like_other_numbers() -> None:
    points = {
        "swapped": modbus(0, "bcd32", word_order="CDAB"),
        "scaled": modbus(2, "bcd16", scale=0.01),
        "absent": modbus(3, "bcd16", not_available=[0x9999]),
        "high": {**modbus(4, "bcd16"), "range": {"low": 0, "high": 100}},
        "no_digits": {**modbus(5, "bcd16"), "range": {"low": 0, "high": 100}},
    }
    got = read(make_profile(points), registers(0x5678, 0x1234, 0x1234, 0x9999, 0x0101, 0x00AB))
    assert got["swapped"] == (12345678.0, GOOD)
    assert got["scaled"] == (12.34, GOOD)
    assert math.isnan(got["absent"][0])
    assert got["absent"][1] == BAD_SENSOR
    assert got["high"] == (101.0, UNCERTAIN_OUT_OF_RANGE)
    assert math.isnan(got["no_digits"][0])
    assert got["no_digits"][1] == BAD_DEVICE


# ---- fields of bits in wide integers


def test_bits_of_wide_integers_are_counted_from_the_lowest_once_the_registers_are_in_order() -> None:
    points = {
        "lowest": modbus(0, "u32", bit=0),
        "highest": modbus(0, "u32", bit=31),
        "across": modbus(0, "u32", bit=12, bits=8),
        "whole": modbus(0, "u32", bit=0, bits=32),
        "of_signed": modbus(0, "i32", bit=28, bits=4),
        "low_word_first": modbus(2, "u32", bit=16, bits=16, word_order="CDAB"),
        "top64": modbus(4, "u64", bit=63),
        "field64": modbus(4, "u64", bit=30, bits=6),
        "low64": modbus(4, "u64", bit=0, bits=16),
    }
    # 0x8001F00E; 0x00011234 sent low word first; 0x800000FFC0000007: bits 30 to 39 are on.
    got = read(make_profile(points), registers(0x8001, 0xF00E, 0x1234, 0x0001, 0x8000, 0x00FF, 0xC000, 0x0007))
    assert {name: value for name, (value, _) in got.items()} == {
        "lowest": 0.0,
        "highest": 1.0,
        "across": 31.0,
        "whole": float(0x8001F00E),
        "of_signed": 8.0,
        "low_word_first": 1.0,
        "top64": 1.0,
        "field64": 63.0,
        "low64": 7.0,
    }
    assert {quality for _, quality in got.values()} == {GOOD}


def test_a_field_of_all_64_bits_is_the_double_nearest_to_it() -> None:
    points = {"x": modbus(0, "u64", bit=0, bits=64), "y": modbus(0, "u64")}
    got = read(make_profile(points), registers(0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF))
    assert got["x"] == got["y"] == (18446744073709551616.0, GOOD)


# ---- one register with its bytes swapped


def test_a_register_whose_bytes_are_swapped_is_read_so_whatever_its_neighbours() -> None:
    points = {
        "u": modbus(0, word_order="BA"),
        "i": modbus(1, "i16", word_order="BA"),
        "d": modbus(2, "bcd16", word_order="BA"),
        "b": modbus(3, "bool", bit=0, word_order="BA"),
        "n": modbus(4, word_order="AB"),
    }
    got = read(make_profile(points), registers(0x3412, 0xFEFF, 0x3412, 0x0100, 0x1234))
    assert {name: value for name, (value, _) in got.items()} == {
        "u": float(0x1234),
        "i": -2.0,
        "d": 1234.0,
        "b": 1.0,
        "n": float(0x1234),
    }


def test_a_text_whose_registers_are_swapped_reads_as_it_was_meant() -> None:
    points = {"name": {**modbus(0, "string", length=3, word_order="BA"), "kind": "text"}}
    layout = layout_of(make_profile(points))
    assert layout.decode([frame_of(layout, [b"OSAL7 "])]).texts == [("e", "name", "SOLA 7", NOW_US)]


# ---- what devices can take


def test_addresses_that_a_manual_counts_from_1_are_asked_one_lower_and_walls_with_them() -> None:
    profile = make_profile({"a": modbus(1), "b": modbus(12)}, modbus={"address_base": 1, "illegal": [[5, 9]]})
    limits = limits_of(profile.modbus)
    assert limits.illegal == ((4, 8),)
    [points] = poll_groups(make_equipment("e", profile, "modbus+tcp://h/1"), base=1).values()
    assert [(r.address, r.count) for r in plan(points, limits)] == [(0, 1), (11, 1)]


def test_an_endpoint_may_count_from_another_base_than_the_profile() -> None:
    assert Endpoint(address_base=0).quirks(ModbusDefaults(address_base=1)).address_base == 0
    assert Endpoint().quirks(ModbusDefaults(address_base=1)).address_base == 1


async def test_a_device_that_counts_from_1_is_read_at_the_right_addresses() -> None:
    profile = make_profile({"x": modbus(101), "y": modbus(103, "u32")}, modbus={"address_base": 1}, timeout_s=1)
    async with Device() as device:
        bus = bus_to(device)
        outcome = await cycle(device_at(bus, make_equipment("e", profile, f"{device.url}/1")))
        assert [(a.address, a.count) for a in device.asked] == [(100, 4)]
        got = {n: value for n, (_, value, _) in rows_of(outcome.source.decode([outcome.received]).columns)}
        assert got == {"e/x": 100.0, "e/y": float(102 << 16 | 103)}
        bus.close()


def test_each_table_has_its_own_bound_and_its_own_walls() -> None:
    tables = ("holding", "input", "coil")
    points = {
        f"{table}{n}": modbus(n, "bool" if table == "coil" else "u16", table=table)
        for table in tables
        for n in range(12)
    }
    defaults = ModbusDefaults.model_validate(
        {"max_registers": 100, "max_per_table": {"input": 5, "coil": 8}, "illegal_by_table": {"holding": [[20, 30]]}}
    )
    requests = plan(points_of(make_profile(points)), limits_of(defaults))
    assert [(r.table, r.count) for r in requests] == [
        ("coil", 8),
        ("coil", 4),
        ("input", 5),
        ("input", 5),
        ("input", 2),
        ("holding", 12),
    ]
    both = {f"{table}{n}": modbus(n, table=table) for table in ("holding", "input") for n in (0, 3)}
    walled = points_of(make_profile(both))
    limits = Limits(illegal_by_table={"holding": ((1, 2),)})
    assert [(r.table, r.address, r.count) for r in plan(walled, limits)] == [
        ("input", 0, 4),
        ("holding", 0, 1),
        ("holding", 3, 1),
    ]


def test_an_endpoints_bound_tightens_each_tables_but_not_the_coils() -> None:
    device = ModbusDefaults.model_validate({"max_registers": 100, "max_per_table": {"input": 80, "coil": 500}})
    limits = limits_of(Endpoint(max_registers=60).quirks(device))
    assert (limits.longest("holding"), limits.longest("input"), limits.longest("coil")) == (60, 60, 500)
    limits = limits_of(Endpoint(max_registers=90).quirks(device))
    assert (limits.longest("holding"), limits.longest("input")) == (90, 80)


async def test_a_device_that_takes_one_point_at_a_time_is_asked_for_each_even_where_they_share_a_register() -> None:
    points = {"a": modbus(0), "b": modbus(1, "u32"), "c": modbus(1, "u32", bit=0), "d": modbus(3)}
    profile = make_profile(points, modbus={"one_request_per_point": True}, timeout_s=1)
    async with Device() as device:
        bus = bus_to(device)
        outcome = await cycle(device_at(bus, make_equipment("e", profile, f"{device.url}/1")))
        assert [(a.address, a.count) for a in device.asked] == [(0, 1), (1, 2), (1, 2), (3, 1)]
        assert (outcome.answered, outcome.faults) == (4, ())
        got = {n: value for n, (_, value, _) in rows_of(outcome.source.decode([outcome.received]).columns)}
        assert got == {"e/a": 0.0, "e/b": float(1 << 16 | 2), "e/c": 0.0, "e/d": 3.0}
        bus.close()


async def test_a_device_that_wants_its_connection_closed_gets_a_new_one_each_cycle_and_not_each_request() -> None:
    profile = make_profile(
        {"a": modbus(0), "b": modbus(100)}, modbus={"close_after_cycle": True, "max_gap": 4}, timeout_s=1
    )
    async with Device() as device:
        bus = bus_to(device)
        reader = device_at(bus, make_equipment("e", profile, f"{device.url}/1"))
        for _ in range(3):
            assert (await cycle(reader)).faults == ()
        assert [a.connection for a in device.asked] == [1, 1, 2, 2, 3, 3]
        bus.close()


@pytest.mark.parametrize("alone", [False, True])
def test_a_point_wider_than_a_request_may_be_is_refused_by_name(alone: bool) -> None:
    points = points_of(make_profile({"wide": modbus(0, "u64")}))
    with pytest.raises(ValueError, match="wide: expected holding 0…3 within 2"):
        plan(points, Limits(max_registers=2, one_request_per_point=alone))
    assert [r.count for r in plan(points, Limits(max_registers=4, one_request_per_point=alone))] == [4]
