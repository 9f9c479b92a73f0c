"""Golden bytes, written by hand from the protocol's documents and the public register maps (domain/boiler.md)."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from edge.payload import ListTopic, Row
from edge.topics import make_topics
from simulators.codec import RegisterImage, encode, payload
from simulators.feeds import iso_us
from telemetry.files import load_profile
from telemetry.profile import ModbusPoint, Profile

TEXT = {"zh": "点", "en": "point"}


def modbus(**keys: Any) -> ModbusPoint:
    return ModbusPoint.model_validate({"address": 0, **keys})


def profile(points: dict[str, Any], **more: Any) -> Profile:
    content = {"profile": "p", "version": 1, "class": "boiler", "class_name": TEXT, "name": TEXT, **more}
    return Profile.model_validate({**content, "points": {n: {"name": TEXT, **p} for n, p in points.items()}})


@pytest.mark.parametrize(
    ("order", "registers"),
    [
        ("ABCD", [0x47F1, 0x2000]),
        ("CDAB", [0x2000, 0x47F1]),
        ("BADC", [0xF147, 0x0020]),
        ("DCBA", [0x0020, 0xF147]),
    ],
)
def test_the_word_order_vector_of_the_boiler_notes(order: str, registers: list[int]) -> None:
    assert encode(modbus(type="f32"), 123456.0, order) == registers


@pytest.mark.parametrize(
    ("point", "value", "order", "registers"),
    [
        ({"type": "u16", "scale": 0.1}, 71.25, "AB", [712]),
        ({"type": "u16", "scale": 0.1, "not_available": (0x8FFF,)}, math.nan, "AB", [0x8FFF]),
        ({"type": "i16"}, -50.0, "AB", [0xFFCE]),
        ({"type": "i16"}, -50.0, "BA", [0xCEFF]),
        ({"type": "u32"}, 0x0001E240, "ABCD", [0x0001, 0xE240]),
        ({"type": "i32"}, -2.0, "CDAB", [0xFFFE, 0xFFFF]),
        ({"type": "u64"}, 0x0102030405060708, "ABCDEFGH", [0x0102, 0x0304, 0x0506, 0x0708]),
        ({"type": "i64"}, -1.0, "GHEFCDAB", [0xFFFF] * 4),
        ({"type": "f64"}, 1.0, "ABCDEFGH", [0x3FF0, 0, 0, 0]),
        ({"type": "f64"}, 1.0, "GHEFCDAB", [0, 0, 0, 0x3FF0]),
        ({"type": "f32", "scale": 0.5, "offset": 10.0}, 12.0, "ABCD", [0x4080, 0x0000]),
        ({"type": "f32"}, 0.1, "ABCD", [0x3DCC, 0xCCCD]),
        ({"type": "f32"}, math.nan, "ABCD", [0x7FC0, 0x0000]),
        ({"type": "string", "length": 2}, "AbC", "", [0x4162, 0x4300]),
        ({"type": "string", "length": 2}, "AbC", "BA", [0x6241, 0x0043]),
        ({"type": "bcd16", "scale": 0.01}, 12.34, "AB", [0x1234]),
        ({"type": "bcd32"}, 12345678, "ABCD", [0x1234, 0x5678]),
        ({"type": "bcd32"}, 12345678, "CDAB", [0x5678, 0x1234]),
        ({"type": "bcd64"}, 1234567890123456, "ABCDEFGH", [0x1234, 0x5678, 0x9012, 0x3456]),
        ({"type": "bcd16", "not_available": (0xFFFF,)}, math.nan, "AB", [0xFFFF]),
        ({"type": "u16", "wrap": 10000, "not_available": (0xFFFF,)}, math.nan, "AB", [0xFFFF]),
        ({"type": "u16", "wrap": 10000}, 123456, "AB", [3456]),
        ({"type": "bcd16", "wrap": 10000, "scale": 0.1}, 1000.1, "AB", [0x0001]),
    ],
)
def test_values_become_the_registers_that_the_documents_say(
    point: dict[str, Any], value: float | str, order: str, registers: list[int]
) -> None:
    assert encode(modbus(**point), value, order) == registers


@pytest.mark.parametrize(
    ("point", "value", "said"),
    [
        ({"type": "u16"}, 65536.0, "u16"),
        ({"type": "u16"}, -1.0, "u16"),
        ({"type": "i16", "scale": 0.1}, 4000.0, "i16 × 0.1"),
        ({"type": "u16"}, math.nan, "found nan"),
        ({"type": "f32"}, 1e39, "f32"),
        ({"type": "bcd16"}, 10000, "bcd16"),
        ({"type": "bcd16"}, -1, "bcd16"),
    ],
)
def test_what_does_not_fit_is_refused_and_never_clamped(point: dict[str, Any], value: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        encode(modbus(**point), value, "ABCD"[: modbus(**point).registers * 2])


def test_the_sola_map_reads_as_its_document_has_it() -> None:
    image = RegisterImage(load_profile("sola-boiler"))
    image.set("outlet_temperature", 81.5)
    image.set("burner_cycles", 0x00012345)
    image.set("flame", 1.0)
    image.set("sequence_state", 14.0)
    image.set("lockout_code", 109.0)
    image.set("flame_signal", 8.25)
    image.set_not_available("inlet_temperature")
    assert image.read("holding", 0x0007, 1) == [815]
    assert image.read("holding", 0x000A, 2) == [825, 0x8FFF]
    assert image.read("holding", 0x0021, 2) == [14, 109]
    assert image.read("holding", 0x0029, 1) == [0b10]
    assert image.read("holding", 0x0080, 2) == [0x0001, 0x2345]
    assert image.read("holding", 0x0014, 1) == [0x8FFF], "a point never set says that it is not available"


def test_the_steam_boilers_floats_come_low_word_first() -> None:
    image = RegisterImage(load_profile("small-steam-boiler"))
    image.set("drum_level", -50.0)
    image.set("steam_pressure", 0.5)
    assert image.read("holding", 6, 1) == [0xFFCE]
    assert image.read("holding", 14, 2) == [0x0000, 0x3F00]


def test_bits_of_one_register_do_not_disturb_each_other() -> None:
    points = {
        "low": {"modbus": {"address": 3, "type": "bool", "bit": 0}},
        "field": {"modbus": {"address": 3, "type": "u16", "bit": 4, "bits": 3}},
        "high": {"modbus": {"address": 3, "type": "bool", "bit": 15}},
    }
    image = RegisterImage(profile(points))
    for name, value in (("low", 1), ("field", 5), ("high", 1), ("field", 2), ("low", 0)):
        image.set(name, value)
    assert image.read("holding", 3, 1) == [0b1000_0000_0010_0000]
    with pytest.raises(ValueError, match=r"expected 0\.\.7 in 3 bits, found 8"):
        image.set("field", 8)


def test_bits_of_a_wide_integer_are_counted_from_the_lowest_of_the_ordered_number() -> None:
    points = {
        "low": {"modbus": {"address": 0, "type": "u32", "bit": 0}},
        "middle": {"modbus": {"address": 0, "type": "u32", "bit": 12, "bits": 8}},
        "top": {"modbus": {"address": 2, "type": "u64", "bit": 60, "bits": 4}},
    }
    image = RegisterImage(profile(points, modbus={"word_order": "CDAB"}))
    for name, value in (("low", 1), ("middle", 0xAB), ("top", 0xF)):
        image.set(name, value)
    assert image.read("holding", 0, 6) == [0xB001, 0x000A, 0, 0, 0, 0xF000], "low word first"


def test_addresses_counted_from_1_are_sent_from_0_and_ranges_of_one_table_hold_there_alone() -> None:
    points = {"a": {"modbus": {"address": 1}}, "b": {"modbus": {"address": 9, "table": "input"}}}
    device = {"address_base": 1, "illegal_by_table": {"input": ((5, 6),)}}
    image = RegisterImage(profile(points, modbus=device))
    image.set("a", 7)
    image.set("b", 8)
    assert (image.read("holding", 0, 1), image.read("input", 8, 1)) == ([7], [8])
    assert image.read("input", 4, 1) is None
    assert image.read("holding", 4, 1) == [0]


def test_addresses_that_the_device_has_not_and_forbidden_ranges_are_refused() -> None:
    image = RegisterImage(profile({"a": {"modbus": {"address": 10}}}, modbus={"illegal": ((5, 6),)}))
    assert image.read("holding", 7, 4) == [0, 0, 0, 0]
    assert image.read("holding", 4, 2) is None
    assert image.read("holding", 20, 10) is None
    assert image.read("input", 0, 1) is None


def test_json_goes_where_the_profile_says_and_is_spelled_as_its_map_says() -> None:
    points = {
        "door": {"kind": "state", "mqtt": {"path": "d.open", "map": {"opened": 1, "closed": 0}}},
        "flag": {"kind": "state", "mqtt": {"map": {"true": 1, "false": 0}}},
        "inverted": {"kind": "state", "mqtt": {"map": {"1": 0, "2": 1}}},
        "mode": {"kind": "state", "mqtt": {}},
        "speed": {"mqtt": {"scale": 0.1}},
        "lost": {"mqtt": {}},
        "who": {"kind": "text", "mqtt": {}},
        "other": {"mqtt": {"topic": "statistics"}},
    }
    values: dict[str, float | str] = {
        "door": 1.0, "flag": 0.0, "inverted": 1.0, "mode": 2.0, "speed": 1.5, "lost": math.nan, "who": "王", "other": 1.0,
    }  # fmt: skip
    content = payload(profile(points, mqtt={"time_path": "head.at"}), "state", values, "T")
    assert json.loads(content) == {
        "head": {"at": "T"},
        "d": {"open": "opened"},
        "values": {"flag": False, "inverted": 2, "mode": 2, "speed": 15.0, "lost": None, "who": "王"},
    }
    assert b'"mode":2,' in content
    with pytest.raises(ValueError, match="expected one of"):
        payload(profile(points), "state", {"door": 7.0}, "T")


def test_a_list_has_an_entry_a_point_or_one_that_is_a_message_as_the_profile_says() -> None:
    points = {
        "temp": {"mqtt": {"topic": "data", "path": "temp.1", "scale": 0.5}},
        "lamp": {"kind": "state", "mqtt": {"topic": "data"}},
        "load": {"mqtt": {"topic": "history"}},
        "plain": {"mqtt": {"topic": "bare", "path": "p"}},
    }
    lists = {
        "data": {"path": "body.params", "name": "id", "value": "v.now", "time": "ts"},
        "history": {"path": "records"},
        "bare": {},
    }
    made = profile(points, mqtt={"lists": lists})
    values: dict[str, float | str] = {"temp": 21.5, "lamp": 1.0, "load": 2.5, "plain": math.nan}
    said = {topic: json.loads(payload(made, topic, values, "T")) for topic in lists}
    entries = [{"id": "temp.1", "v": {"now": 43.0}, "ts": "T"}, {"id": "lamp", "v": {"now": 1}, "ts": "T"}]
    assert said["data"] == {"body": {"params": entries}}
    assert said["history"] == {"records": [{"time": "T", "values": {"load": 2.5}}]}
    assert said["bare"] == [{"time": "T", "p": None}]


def test_what_is_written_as_lists_is_what_the_edge_reads() -> None:
    points = {f"p{n}": {"mqtt": {"topic": topic}} for n, topic in enumerate(("data", "data", "history", "bare"))}
    lists = {"data": {"path": "params", "name": "id", "time": "ts"}, "history": {"path": "records"}, "bare": {}}
    made, now_us = profile(points, mqtt={"lists": lists}), 1_795_000_000_000_000
    values: dict[str, float | str] = {name: 1.5 + n for n, name in enumerate(points)}
    topics, read = make_topics("e", made), dict[str, Row]()
    for name, topic in topics.by_name.items():
        if isinstance(topic, ListTopic):
            said = topic.read(payload(made, name, values, iso_us(now_us)), now_us + 5_000_000, retained=False)
            assert said.refusals == []
            read |= {topics.block.names[row.place]: row for row in said.rows}
    assert {name: (row.value, row.time_us) for name, row in read.items()} == {
        f"e/{name}": (value, now_us) for name, value in values.items()
    }
