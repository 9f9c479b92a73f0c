"""Drafts of profiles from register lists as people have them; what is expected is written by hand from each list."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.files import load_profile
from telemetry.profile import ModbusPoint, Profile
from telemetry.register_list import Draft, draft_profile
from telemetry.register_table import HEADERS, NoTable, read_table

LISTS = Path(__file__).parent / "lists"


def draft_of(raw: bytes) -> Draft:
    return draft_profile(raw, "map.csv", name="draft", equipment_class="device")


def loaded(draft: Draft, folder: Path) -> Profile:
    path = folder / "draft.yaml"
    path.write_text(draft.text, encoding="utf-8")
    return load_profile(path)


def of_list(name: str, folder: Path) -> tuple[Profile, list[str]]:
    draft = draft_of((LISTS / name).read_bytes())
    profile = loaded(draft, folder)
    assert len(profile.points) == draft.points
    return profile, [str(fault) for fault in draft.faults]


def places(profile: Profile) -> dict[str, tuple[Any, ...]]:
    """point → (table, address, type, word order, scale) and whatever else a place says."""
    found = {}
    for name, point in profile.points.items():
        place = point.modbus
        assert place is not None
        rest = {
            key: getattr(place, key) for key in ("bit", "bits", "length", "offset") if key in place.model_fields_set
        }
        order = "" if place.table in ("coil", "discrete") else profile.word_order_of(place)
        found[name] = (place.table, place.address, place.type.value, order, place.scale, *rest.items())
    return found


def rows(*lines: str) -> bytes:
    return "\n".join(lines).encode()


def test_a_meter_with_modicon_numbers_titles_and_sections(tmp_path: Path) -> None:
    profile, faults = of_list("meter-modicon.csv", tmp_path)
    assert places(profile) == {
        "voltage_l1_n": ("input", 0, "f32", "ABCD", 1),
        "voltage_l2_n": ("input", 2, "f32", "ABCD", 1),
        "frequency": ("input", 4, "u16", "AB", 0.01),
        "power_factor": ("input", 5, "i16", "AB", 0.001),
        "total_active_energy": ("input", 6, "u32", "ABCD", 0.1),
        "reactive_energy": ("input", 8, "bcd32", "ABCD", 1),
        "ct_ratio": ("holding", 0, "u16", "AB", 1),
        "serial_number": ("holding", 9, "string", "AB", 1, ("length", 8)),
        "relay_1": ("coil", 0, "bool", "", 1),
        "door_contact": ("discrete", 0, "bool", "", 1),
    }
    kinds = {name: point.kind.value for name, point in profile.points.items() if point.kind != "measurement"}
    assert kinds == {
        "total_active_energy": "counter",
        "ct_ratio": "setpoint",
        "serial_number": "text",
        "relay_1": "state",
        "door_contact": "state",
    }
    assert [text.en for text in profile.points["relay_1"].enum.values()] == ["open", "closed"]
    assert profile.points["frequency"].unit == "Hz"
    assert profile.points["power_factor"].unit == "", "a dash is no unit"
    assert profile.points["frequency"].note == "line 7 of the list: 30005; nominal 50 Hz"
    assert faults == [
        "map.csv:11: Register: expected an address (7, 0x0007, 0007H, 40008, 4x0008) (row left out), found nothing",
        'map.csv:13: R/W: expected a point that can be read (row left out), found "W"',
        'map.csv:15: Length: expected 2 registers, as f32 takes (row left out), found "3"',
        "map.csv:16: Type: expected a type (bool, int16, uint16, int32, uint32, float, double, BCD, string[N] …) "
        '(row left out), found "VERSION"',
    ]


def test_a_plc_with_hexadecimal_addresses_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    profile, faults = of_list("plc-semicolon.csv", tmp_path)
    assert profile.modbus.word_order == "CDAB"
    assert places(profile) == {
        "outlet_temp": ("holding", 7, "i16", "AB", 0.1, ("offset", -20)),
        "flow_rate": ("holding", 8, "f32", "CDAB", 1),
        "pump_run": ("holding", 0x10, "u16", "AB", 1),
        "steam_pressure": ("input", 0x12, "i32", "CDAB", 0.001),
        "steam_pressure_2": ("input", 0x14, "f64", "GHEFCDAB", 1),
        "alarm": ("discrete", 0x20, "bool", "", 1),
    }
    assert (profile.points["flow_rate"].range.low, profile.points["flow_rate"].range.high) == (0, 1.5)
    assert profile.points["outlet_temp"].range.low == -20
    assert [fault.split(": expected")[0] for fault in faults] == [
        "map.csv:8: Address (hex)",
        "map.csv:9: Function code",
    ]


def test_a_chinese_list_of_a_boiler_in_gb18030_keeps_its_names(tmp_path: Path) -> None:
    profile, faults = of_list("boiler-zh.csv", tmp_path)
    assert places(profile) == {
        "holding_0": ("holding", 0, "i16", "AB", 0.1),
        "holding_1": ("holding", 1, "f32", "CDAB", 1),
        "holding_3_bit_0": ("holding", 3, "bool", "AB", 1, ("bit", 0)),
        "holding_3_bit_1": ("holding", 3, "bool", "AB", 1, ("bit", 1)),
        "holding_4": ("holding", 4, "u16", "AB", 1),
        "holding_5": ("holding", 5, "u32", "CDAB", 1),
        "holding_9": ("holding", 9, "i16", "AB", 0.1),
        "feed_pump": ("coil", 2, "bool", "", 1),
    }
    assert [point.name.zh for point in profile.points.values()] == [
        *("出水温度", "蒸汽压力", "燃烧器运行", "燃烧器故障", "运行状态", "累计运行时间", "温度设定", "水泵"),
    ]
    assert profile.points["feed_pump"].name.en == "Feed pump"
    assert profile.points["holding_0"].unit == "°C"
    assert {value: text.zh for value, text in profile.points["holding_4"].enum.items()} == {
        0: "停止",
        1: "运行",
        2: "故障",
    }
    kinds = {name: profile.points[name].kind.value for name in ("holding_4", "holding_5", "holding_9")}
    assert kinds == {"holding_4": "state", "holding_5": "counter", "holding_9": "setpoint"}
    assert faults == [
        'map.csv:9: 量程: expected LOW-HIGH, the low end first (drafted without), found "80~20"',
        "map.csv:11: 寄存器地址: expected an address (7, 0x0007, 0007H, 40008, 4x0008) (row left out), found nothing",
    ]


def test_tags_of_an_opc_server_with_linear_scaling(tmp_path: Path) -> None:
    profile, faults = of_list("kepware.csv", tmp_path)
    assert places(profile) == {
        "line1_speed": ("holding", 0, "u16", "AB", 100 / 4095),
        "line1_status": ("holding", 1, "bool", "AB", 1, ("bit", 3)),
        "line1_total": ("holding", 2, "u32", "ABCD", 1),
        "line1_name": ("holding", 9, "string", "AB", 1, ("length", 10)),
        "line1_bcd": ("input", 19, "bcd32", "ABCD", 1),
    }
    assert faults == []


def test_fields_of_a_collector_with_its_own_byte_orders(tmp_path: Path) -> None:
    profile, faults = of_list("telegraf.tsv", tmp_path)
    assert places(profile) == {
        "voltage": ("holding", 0, "u16", "AB", 0.1),
        "energy": ("input", 2, "f32", "CDAB", 1),
        "power": ("input", 4, "f32", "CDAB", 1),
        "temp": ("input", 6, "i16", "BA", 0.01),
        "low": ("input", 9, "u16", "AB", 1, ("bit", 0), ("bits", 8)),
        "run": ("coil", 3, "bool", "", 1),
    }
    assert [fault.split(": expected")[0] for fault in faults] == ["map.csv:6: data_type"]


def one(folder: Path, *lines: str) -> ModbusPoint:
    draft = draft_of(rows(*lines))
    assert draft.faults == ()
    ((_, point),) = loaded(draft, folder).points.items()
    assert point.modbus is not None
    return point.modbus


def test_modicon_numbers_are_believed_only_where_nothing_contradicts_them(tmp_path: Path) -> None:
    assert one(tmp_path, "name,address,type", "a,40008,int16").address == 7
    assert one(tmp_path, "name,address,fc,type", "a,40008,4,int16").address == 40008, "not a holding register"
    assert one(tmp_path, "name,address,type", "a,10008,int16").address == 10008, "not a bit"
    plain = draft_of(rows("name,address,type", "a,40008,int16", "b,7,int16"))
    assert [p.modbus and p.modbus.address for p in loaded(plain, tmp_path).points.values()] == [40008, 7]


@pytest.mark.parametrize(
    ("addresses", "first", "found", "said"),
    [
        ("auto", 40001, [0, 8], "If they are sent as they stand, import with --addresses plain."),
        ("plain", 40001, [40001, 40009], "If they are, import with --addresses modicon."),
        ("modicon", 40001, [0, 8], "counted from 1"),
        ("auto", 40000, [40000, 40009], "If they are, import with --addresses modicon."),
        ("modicon", 40000, [0, 9], "counted from 0"),
    ],
)
def test_what_numbers_are_is_said_and_can_be_decided(
    addresses: Any, first: int, found: list[int], said: str, tmp_path: Path
) -> None:
    raw = rows("name,address,type", f"a,{first},int16", "b,40009,int16")
    draft = draft_profile(raw, "map.csv", name="draft", equipment_class="device", addresses=addresses)
    assert [place[1] for place in places(loaded(draft, tmp_path)).values()] == found
    assert said in " ".join(draft.notes)


def test_what_is_no_modicon_number_is_left_out_where_they_are_asked_for(tmp_path: Path) -> None:
    raw = rows("name,address,type", "a,40001,int16", "b,7,int16", "c,0x0007,int16")
    draft = draft_profile(raw, "map.csv", name="draft", equipment_class="device", addresses="modicon")
    assert [place[1] for place in places(loaded(draft, tmp_path)).values()] == [0, 7]
    assert [(fault.line, fault.found) for fault in draft.faults] == [(3, '"7"')]


def test_comments_between_the_rows_are_no_rows(tmp_path: Path) -> None:
    draft = draft_of(rows("# map, of a meter", "name,address,type", "# energy, in kWh,", "#1 pump,7,int16"))
    assert draft.faults == ()
    assert list(loaded(draft, tmp_path).points) == ["1_pump"]


def test_a_configuration_of_modpoll_is_a_list_without_a_header(tmp_path: Path) -> None:
    lines = (
        "device,meter,1",
        "poll,input_register,0,4,BE_LE",
        "ref,voltage,0,float32,r,V",
        "ref,power,2,int32,r,W,0.1",
    )
    draft = draft_of(rows(*lines, "poll,coil,5,1,BE_BE", "ref,relay,5,bool,rw", "ref,clock,6,date,r"))
    assert places(loaded(draft, tmp_path)) == {
        "voltage": ("input", 0, "f32", "CDAB", 1),
        "power": ("input", 2, "i32", "CDAB", 0.1),
        "relay": ("coil", 5, "bool", "", 1),
    }
    assert [(fault.line, fault.key) for fault in draft.faults] == [(7, "type")]


def test_a_coil_whose_leading_zeros_a_spreadsheet_ate_is_numbered_as_its_list_is(tmp_path: Path) -> None:
    draft = draft_of(rows("name,address,fc,type", "a,40008,3,int16", "b,1,1,bool"))
    assert places(loaded(draft, tmp_path)) == {"a": ("holding", 7, "i16", "AB", 1), "b": ("coil", 0, "bool", "", 1)}
    assert one(tmp_path, "name,address,type", 'b,"=""00001""",bool').table == "coil"


def test_a_title_between_the_rows_may_name_their_table(tmp_path: Path) -> None:
    draft = draft_of(
        rows(
            "name,address,type",
            "Input registers (function 04),,",
            "a,0,int16",
            "二、保持寄存器（功能码：03）,,",
            "b,0,int16",
        )
    )
    assert draft.faults == ()
    assert [place[0] for place in places(loaded(draft, tmp_path)).values()] == ["input", "holding"]


def test_a_type_column_beside_a_data_type_column_is_the_table(tmp_path: Path) -> None:
    lines = ("Address,Type,Description,Data Type", "3,COIL,Relay,uint16_t")
    assert (one(tmp_path, *lines).table, one(tmp_path, *lines).address) == ("coil", 3)


def test_a_number_beside_the_address_names_the_table(tmp_path: Path) -> None:
    found = one(tmp_path, "Register,Address,Name,Type", "30008,7,a,int16")
    assert (found.table, found.address) == ("input", 7)


def test_the_scale_may_stand_in_the_unit_or_as_decimals(tmp_path: Path) -> None:
    assert one(tmp_path, "name,address,type,unit", "a,1,int16,0.01°C").scale == 0.01
    assert one(tmp_path, "name,address,type,decimals", "a,1,int16,2").scale == 0.01


@pytest.mark.parametrize(("unit", "lengths"), [("registers", "1,2,4"), ("bytes", "2,4,8"), ("bits", "16,32,64")])
def test_lengths_count_what_most_rows_agree_on(unit: str, lengths: str, tmp_path: Path) -> None:
    listed = zip(("int16", "float", "double"), lengths.split(","), strict=True)
    draft = draft_of(
        rows("name,address,type,length", *(f"{kind},{i * 10},{kind},{n}" for i, (kind, n) in enumerate(listed)))
    )
    assert draft.faults == ()
    assert [place[2] for place in places(loaded(draft, tmp_path)).values()] == ["i16", "f32", "f64"]


def test_what_a_list_does_not_say_is_said_in_the_draft(tmp_path: Path) -> None:
    draft = draft_of(rows("name,address,type,scale,colour", "a,1,,10,red", "b,2,float,,blue"))
    comments = " ".join(line.strip("# ") for line in draft.text.splitlines() if line.startswith("#"))
    for said in (
        "from 0. If the list counts from 1, add to the profile: modbus: {address_base: 1}",
        "no table for 2 of the points",
        "no type for 1 of the points",
        "no word order for 1 of the points",
        "Factors above 1, which some lists mean to divide by: a.",
        "Columns that are not used: colour.",
    ):
        assert said in comments
    assert all(note in comments for note in draft.notes)


def test_a_length_without_a_type_is_not_guessed() -> None:
    (fault,) = draft_of(rows("name,address,length", "a,1,2")).faults
    assert (fault.line, fault.expected) == (2, "a type, for 2 registers (row left out)")


def test_a_bool_in_no_place_is_not_guessed() -> None:
    (fault,) = draft_of(rows("name,address,type", "a,1,bool")).faults
    assert fault.expected.startswith("a function code or a table, or a bit, for a bool")


def test_a_field_of_bits_needs_its_place(tmp_path: Path) -> None:
    draft = draft_of(
        rows("name,address,type,bit", "a,1,8bit,8", "b,2.4,4bit,", "c,3,byte,", "d,4,uint16,0-15", "e,5,uint32,20")
    )
    assert [place[5:] for place in places(loaded(draft, tmp_path)).values()] == [
        *((("bit", 8), ("bits", 8)), (("bit", 4), ("bits", 4)), (), (("bit", 20),)),
    ]
    (fault,) = draft.faults
    assert fault.expected == "a bit's number, for a field of 8 bits (row left out)"


def test_what_only_the_check_of_profiles_knows_leaves_its_row_out_too(tmp_path: Path) -> None:
    draft = draft_of(rows("name,address,fc,type", "a,65535,3,float", "b,1,3,float"))
    assert list(loaded(draft, tmp_path).points) == ["b"]
    (fault,) = draft.faults
    assert (fault.line, fault.key) == (2, "modbus.address")


def test_every_name_is_a_name_and_names_are_numbered_where_they_meet(tmp_path: Path) -> None:
    names = ["Temp.", "TEMP", "temp", "3 phase", "on", "Größe", "温度", "x" * 200, "null"]
    draft = draft_of(rows("name,address,type", *(f'"{name}",{i},int16' for i, name in enumerate(names))))
    points = loaded(draft, tmp_path).points
    assert list(points) == [
        "temp",
        "temp_2",
        "temp_3",
        "3_phase",
        "on",
        "grosse",
        "holding_6",
        "x" * 56,
        "null",
    ]
    assert points["on"].name.en == "on"


@pytest.mark.parametrize(
    ("raw", "line", "found"),
    [
        (b"", 1, "an empty file"),
        (b"\n\n", 1, "an empty file"),
        (b"name,type\na,int16\n", 1, "'name,type'"),
        (b"just text\n", 1, "'just text'"),
        (b"name,address,type\na,1,\xff\xff\n", 2, "byte 0xff"),
    ],
)
def test_a_file_that_is_no_register_list_is_refused_with_why(raw: bytes, line: int, found: str) -> None:
    draft = draft_of(raw)
    assert (draft.points, draft.text) == (0, "")
    (fault,) = draft.faults
    assert (fault.line, fault.found) == (line, found)


WORDS = (
    "a|温度|7|40001|0x10|REAL|int16|bool|string[4]|03|coil|0.1|1/0|0-100|W|R/W|CDAB|15|99|0=a 1=b|°C|0.01°C|{|# x|- |: |on|nan"
    "|1e999|..."
)
CELLS = st.sampled_from([*WORDS.split("|"), "", '"', "\u2028", "\x85", "9" * 30])


@settings(max_examples=150, deadline=None)
@given(
    header=st.lists(st.sampled_from([*HEADERS, "colour"]), min_size=1, max_size=8, unique=True),
    body=st.lists(st.lists(CELLS | st.text(max_size=8), min_size=1, max_size=9), max_size=6),
)
def test_any_list_is_drafted_into_a_profile_that_loads_or_refused_row_by_row(
    header: list[str], body: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([["address", *header], *body])
    try:
        table = read_table(out.getvalue().encode("utf-8", "replace"))
    except NoTable:
        table = None
    draft = draft_of(out.getvalue().encode("utf-8", "replace"))
    assert all(fault.expected and fault.line >= 1 for fault in draft.faults)
    if draft.points:
        folder = tmp_path_factory.getbasetemp() / "drafts"
        folder.mkdir(exist_ok=True)
        assert table is not None
        profile = loaded(draft, folder)
        left_out = {fault.line for fault in draft.faults if "row left out" in fault.expected}
        titles = len([row for row in table.rows if len(row.cells) < 2])
        assert len(profile.points) + len(left_out) + titles >= len(table.rows)


def test_the_list_of_the_first_device_page_becomes_the_profile_of_that_page(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/first-device.md").read_text(encoding="utf-8")
    draft = draft_profile(
        text.split("```csv\n")[1].split("```")[0].encode(), "vessel.csv", name="draft", equipment_class="x"
    )
    (tmp_path / "vessel.yaml").write_text(text.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    written, drafted = load_profile(tmp_path / "vessel.yaml"), loaded(draft, tmp_path)
    assert list(places(drafted).values()) == list(places(written).values())
    assert drafted.points["vessel_pressure"].name.zh == "压力"
    for line in (*map(str, draft.faults), *draft.notes, f"{draft.points} points drafted"):
        assert f"\n{line}\n" in text, "what the page shows is what the command says"
