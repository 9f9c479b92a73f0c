"""What profiles and plants say of devices and lines: what the keys come to, and that none of them falls on junk."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.address import endpoint_of, host_and_port
from telemetry.files import check_files, load_plant, load_profile
from telemetry.plant import Endpoint, LineSettings, parse_address
from telemetry.profile import ModbusDefaults, ModbusPoint, RegisterType, with_overrides
from tests.telemetry.test_files import spoil

PROFILE = """\
profile: rich
version: 1
class: meter
class_name: {zh: 电表, en: Meter}
name: {zh: 电表, en: Meter}
stale_after_s: 1000
modbus:
  word_order: DCBA
  address_base: 1
  max_per_table: {input: 20}
  illegal: [[900, 910]]
  illegal_by_table: {holding: [[50, 59]]}
  pause_after_connect_s: 0.5
  one_request_per_point: true
points:
  energy: {name: {zh: 电能, en: Energy}, kind: counter, modbus: {address: 1, type: bcd32, wrap: 100000000, max_step: 500}}
  pulses: {name: {zh: 脉冲, en: Pulses}, kind: counter, modbus: {address: 3, type: u64, bit: 4, bits: 40, wrap: 0x10000000000}}
  power: {name: {zh: 功率, en: Power}, unit: kW, modbus: {address: 7, type: f32}, report: {swinging_door: 0.5}}
  level: {name: {zh: 液位, en: Level}, modbus: {address: 9, word_order: AB}, report: {deadband_percent: 1, heartbeat_s: 60}}
  label: {name: {zh: 铭牌, en: Label}, kind: text, modbus: {address: 20, type: string, length: 4, word_order: AB}}
  relay: {name: {zh: 继电器, en: Relay}, kind: state, modbus: {address: 52, table: coil, type: bool}}
"""
PLANT = """\
site: {id: works, name: {zh: 一厂, en: Works}}
endpoints:
  modbus+rtu:///dev/ttyUSB0: {baud: 19200, parity: E, address_base: 1, max_gap: 0}
  modbus+tls://plc: {ca_file: ca.pem, cert_file: me.pem, key_file: me.key, server_name: plc-1, fallback: "[::2]:8802"}
  mqtts://broker: {mqtt_version: "3.1.1", cert_file: me.pem}
equipment:
  - {id: m-1, profile: rich, address: modbus+rtu:///dev/ttyUSB0/1}
  - {id: m-2, profile: rich, address: "modbus+rtu:///dev/ttyUSB0?unit=2&stop=2"}
  - {id: m-3, profile: rich, address: "modbus+rtu:///dev/ttyUSB0/3?baud=19200&parity=E&stop=2"}
  - {id: m-4, profile: rich, address: modbus+tls://plc/1}
  - {id: m-5, profile: lift-monitor, address: mqtts://broker/lifts/5}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rich.yaml").write_text(PROFILE, encoding="utf-8")
    (tmp_path / "plant.yaml").write_text(PLANT, encoding="utf-8")
    return tmp_path


def place(folder: Path, point: str) -> ModbusPoint:
    found = load_profile(folder / "rich.yaml").points[point].modbus
    assert found is not None
    return found


def test_every_new_key_of_a_profile_is_read(folder: Path) -> None:
    profile = load_profile(folder / "rich.yaml")
    assert place(folder, "energy").type is RegisterType.BCD32
    assert (place(folder, "energy").registers, place(folder, "energy").largest_step) == (2, 500)
    assert place(folder, "pulses").largest_step == 2**38, "a quarter of wrap, where max_step says nothing"
    assert place(folder, "power").largest_step == 0
    assert profile.word_order_of(place(folder, "energy")) == "DCBA"
    assert profile.word_order_of(place(folder, "level")) == "AB", "its own, though the profile swaps bytes"
    assert profile.word_order_of(place(folder, "label")) == "AB"
    assert profile.points["power"].report is not None
    assert profile.points["power"].report.heartbeat_s == 600
    assert profile.points["energy"].report is None


def test_limits_and_illegal_ranges_of_a_table_come_before_those_of_the_device(folder: Path) -> None:
    modbus = load_profile(folder / "rich.yaml").modbus
    assert {table: modbus.most(table) for table in ("input", "holding", "coil")} == {
        "input": 20,
        "holding": 125,
        "coil": 2000,
    }
    assert modbus.illegal_in("holding") == ((900, 910), (50, 59))
    assert modbus.illegal_in("coil") == ((900, 910),)


def test_an_endpoint_lays_what_it_says_over_the_profile_and_only_tightens_lengths() -> None:
    device = ModbusDefaults(
        pause_after_connect_s=0.5, max_gap=30, max_registers=60, max_per_table={"input": 100, "coil": 9}
    )
    assert Endpoint().quirks(device) == device
    tighter = Endpoint(max_registers=50, max_gap=0, address_base=1, close_after_cycle=True).quirks(device)
    assert (tighter.max_registers, tighter.max_gap, tighter.address_base, tighter.close_after_cycle) == (50, 0, 1, True)
    assert (tighter.most("input"), tighter.most("holding"), tighter.most("coil")) == (50, 50, 9)
    assert tighter.pause_after_connect_s == 0.5
    assert Endpoint(pause_after_connect_s=0.0).quirks(device).pause_after_connect_s == 0.0
    assert Endpoint(max_registers=125).quirks(device).max_registers == 60


def test_line_settings_come_from_the_address_then_its_endpoint_then_9600_8n1() -> None:
    endpoint = Endpoint(baud=19200, parity="E")
    assert str(LineSettings.of(parse_address("modbus+rtu:///dev/ttyS0"), Endpoint())) == "9600 8N1"
    assert str(LineSettings.of(parse_address("modbus+rtu:///dev/ttyS0"), endpoint)) == "19200 8E1"
    written = parse_address("modbus+rtu:///dev/ttyS0/9?baud=1200&parity=O&stop=2&data=7")
    assert LineSettings.of(written, endpoint) == LineSettings(1200, "O", 2, 7)


@pytest.mark.parametrize(
    ("text", "device", "unit"),
    [
        ("modbus+rtu:///dev/ttyUSB0", "/dev/ttyUSB0", 1),
        ("modbus+rtu:///dev/ttyUSB0?baud=9600", "/dev/ttyUSB0", 1),
        ("modbus+rtu:///dev/ttyUSB0/3", "/dev/ttyUSB0", 3),
        ("modbus+rtu:////dev//ttyUSB0/./3/", "/dev/ttyUSB0", 3),
        ("modbus+rtu:///dev/pts/3?unit=17", "/dev/pts/3", 17),
        ("modbus+rtu:///dev/by-path/pci-0000:00:14.0-usb-0:1/247", "/dev/by-path/pci-0000:00:14.0-usb-0:1", 247),
    ],
)  # fmt: skip
def test_a_serial_line_is_one_endpoint_however_it_is_written(text: str, device: str, unit: int) -> None:
    address = parse_address(text)
    assert (address.device, address.unit, address.is_serial, address.is_modbus) == (device, unit, True, True)
    assert address.endpoint == f"modbus+rtu://{device}"
    assert endpoint_of(address.endpoint) == address.endpoint


@pytest.mark.parametrize(
    "text",
    [
        "modbus+rtu://",
        "modbus+rtu:///",
        "modbus+rtu:///3",
        "modbus+rtu://dev/ttyUSB0",
        "modbus+rtu:///dev/ttyUSB0/0",
        "modbus+rtu:///dev/ttyUSB0/248",
        "modbus+rtu:///dev/ttyUSB0?unit=0",
        "modbus+rtu:///dev/ttyUSB0?unit=",
        "modbus+rtu:///dev/ttyUSB0?baud=0",
        "modbus+rtu:///dev/ttyUSB0?parity=even",
        "modbus+rtu:///dev/ttyUSB0?stop=1.5",
        "modbus+rtu:///dev/ttyUSB0?data=9",
        "modbus+rtu:///dev/ttyUSB0?baud=9600&baud=9600",
        "modbus+rtu:///dev/ttyUSB0?speed=9600",
        "modbus+rtu:///dev/ttyUSB0#1",
        "modbus+tls://h/1?baud=9600",
        "mqtt://h/a?qos=1",
    ],
)
def test_what_is_no_serial_line_or_has_options_that_nothing_reads_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected .*, found .*"):
        parse_address(text)


def test_tls_has_its_own_port() -> None:
    address = parse_address("modbus+tls://plc/4")
    assert (address.endpoint, address.port, address.unit) == ("modbus+tls://plc:802", 802, 4)


@pytest.mark.parametrize(
    ("text", "host", "port"), [("gw", "gw", 502), ("GW:4001", "gw", 4001), ("[::1]", "::1", 502), ("[::1]:7", "::1", 7)]
)
def test_a_fallback_is_a_host_and_perhaps_a_port(text: str, host: str, port: int) -> None:
    assert host_and_port(text, port=502) == (host, port)


@pytest.mark.parametrize(
    "text", ["", "gw:0", "gw:x", "gw:70000", "gw/1", "gw?x", "gw#x", "[::1", "a b", "modbus+tcp://gw"]
)
def test_what_is_no_fallback_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected HOST or HOST:PORT"):
        host_and_port(text, port=502)


def test_a_login_in_a_fallback_is_refused_and_never_repeated() -> None:
    with pytest.raises(ValueError, match="a user or password") as raised:
        host_and_port("me:hunter2@gw", port=502)
    assert "hunter2" not in str(raised.value)


def test_one_line_has_one_speed_whoever_says_it(folder: Path) -> None:
    path = folder / "plant.yaml"
    assert [(f.key, f.expected, f.found) for f in check_files([path], folder)] == [
        (f"equipment.{i}.address", "stop=1, as m-1 has it on this line", "stop=2") for i in (1, 2)
    ]
    path.write_text(PLANT.replace("parity: E,", "parity: E, stop_bits: 2,"), encoding="utf-8")
    plant = load_plant(path, profiles_dir=folder)
    lines = [e for e in plant.equipment if e.address.is_serial]
    assert {e.address.endpoint for e in lines} == {"modbus+rtu:///dev/ttyUSB0"}
    assert {LineSettings.of(e.address, plant.endpoint(e.address)) for e in lines} == {LineSettings(19200, "E", 2, 8)}
    tls = plant.endpoint(plant.by_id()["m-4"].address)
    assert (tls.server_name, tls.key_file, tls.fallback) == ("plc-1", "me.key", "[::2]:8802")
    assert plant.endpoint(plant.by_id()["m-5"].address).mqtt_version == "3.1.1"


def test_a_plant_may_give_one_unit_a_report_of_its_own_or_none(folder: Path) -> None:
    profile = load_profile(folder / "rich.yaml")
    over = {"power": {"report": {"swinging_door": None, "deadband": 2}}, "level": {"report": None}}
    changed = with_overrides(profile, over)
    report = changed.points["power"].report
    assert report is not None
    assert (report.deadband, report.swinging_door) == (2, None)
    assert changed.points["level"].report is None
    with pytest.raises(ValueError, match="exactly one of"):
        with_overrides(profile, {"power": {"report": {"deadband": 2}}})


def test_a_condition_that_a_plant_points_at_a_reported_point_is_refused(tmp_path: Path) -> None:
    text = (
        PROFILE
        + "conditions: {on: {priority: low, text: {zh: 甲, en: A}, all: [{point: relay, condition: equals, limit: 1}]}}\n"
    )
    (tmp_path / "rich.yaml").write_text(text, encoding="utf-8")
    plant = tmp_path / "plant.yaml"
    over = "conditions: {on: {all: [{point: power, condition: above, limit: 1}]}}"
    entry = f"equipment:\n  - {{id: m, profile: rich, address: modbus+tcp://h/1, {over}}}\n"
    plant.write_text("site: {id: w, name: {zh: 厂, en: W}}\n" + entry, encoding="utf-8")
    (fault,) = check_files([plant], tmp_path)
    assert (fault.line, fault.key, fault.found) == (
        3,
        "equipment.0.points.power.report",
        "one on a point that condition on names",
    )


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    junk=st.sampled_from([None, [], {}, 0, -1, 1.5, True, "x", [[]], [[1, 2]], {"a": 1}, 2**70]),
)
def test_junk_in_any_of_these_keys_is_answered_with_faults(
    seed: int, junk: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "junk"
    folder.mkdir(exist_ok=True)
    rng = random.Random(seed)
    for name, text in (("rich", PROFILE), ("plant", PLANT)):
        data = copy.deepcopy(yaml.safe_load(text))
        spoil(data, junk, rng)
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
        assert all(fault.expected and fault.found and fault.line >= 1 for fault in check_files([path], folder))
