"""`vigil probe`: one device, read once."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from edge.mqtt_broker import connect_properties
from edge.probe import aim, probe, probe_target
from telemetry.errors import ConfigError
from telemetry.plant import Endpoint
from telemetry.profile import Profile
from tests.edge.build import make_profile
from tests.edge.device import Ask, Device, data, frame, silent
from tests.edge.mqtt_rig import Publisher
from tests.fixtures.mosquitto import Mosquitto
from tests.fixtures.ports import free_port


@pytest.fixture
def profile() -> Profile:
    return make_profile(
        {
            "slow": {"modbus": {"address": 7, "scale": 0.1}, "unit": "°C", "poll_s": 60},
            "wide": {"modbus": {"address": 8, "type": "u32"}},
            "none": {"modbus": {"address": 10, "not_available": [10]}},
            "name": {"modbus": {"address": 0x4142, "type": "string", "length": 1}, "kind": "text"},
            "lamp": {"modbus": {"address": 3, "table": "coil", "type": "bool"}},
            "refused": {"modbus": {"address": 500}},
            "x": {"mqtt": {}, "unit": "mm"},
            "y": {"mqtt": {"topic": "other", "path": "v"}},
        },
        timeout_s=0.3,
    )


async def test_a_modbus_device_shows_each_points_words_value_unit_and_quality(profile: Profile) -> None:
    async def behave(ask: Ask, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(ask, b"\x83\x02" if ask.address == 500 else data(ask)))

    async with Device(behave) as device:
        rows = await probe(f"{device.url}/1", profile)
    assert [(r.point, r.raw, r.value, r.unit, r.quality) for r in rows] == [
        ("slow", [7], 0.7, "°C", "good"),
        ("wide", [8, 9], float(8 << 16 | 9), "", "good"),
        ("none", [10], None, "", "sensor"),
        ("name", [0x4142], "AB", "", "good"),
        ("lamp", 1, 1.0, "", "good"),
        ("refused", None, None, "", "config"),
    ]
    assert rows[0].as_dict() == {"point": "slow", "raw": [7], "value": 0.7, "unit": "°C", "quality": "good"}


async def test_what_a_device_refuses_hides_nothing_that_it_would_answer() -> None:
    """All points lie in one request, of which the device has not all."""
    profile = make_profile({f"p{a}": {"modbus": {"address": a}} for a in (0, 3, 4, 9)}, timeout_s=0.5)

    async def has_not_4(ask: Ask, writer: asyncio.StreamWriter) -> None:
        refused = ask.address <= 4 < ask.address + ask.count
        writer.write(frame(ask, b"\x83\x02" if refused else data(ask)))

    async with Device(has_not_4) as device:
        rows = await probe(f"{device.url}/1", profile)
    assert [(row.point, row.value, row.quality) for row in rows] == [
        ("p0", 0.0, "good"),
        ("p3", 3.0, "good"),
        ("p4", None, "config"),
        ("p9", 9.0, "good"),
    ]


async def test_a_device_that_is_not_there_has_rows_without_values(profile: Profile) -> None:
    async with Device() as device:
        pass
    whys: list[str] = []
    rows = await probe(f"{device.url}/1", profile, tell=whys.append)
    assert {(r.raw, r.value, r.quality) for r in rows} == {(None, None, "comms")}
    assert whys
    assert all(f"not connected: 127.0.0.1:{device.port} refused" in why for why in whys)


async def test_why_a_device_does_not_answer_is_told_with_its_registers(profile: Profile) -> None:
    whys: list[str] = []
    async with Device(silent) as device:
        await probe(f"{device.url}/1", profile, endpoint=Endpoint(timeout_s=0.05), tell=whys.append)
    assert "coil 3+1: no answer within 0.05 s" in whys


async def test_an_mqtt_device_is_listened_to_and_what_does_not_come_is_said(
    profile: Profile, mosquitto: Mosquitto
) -> None:
    device = Publisher(mosquitto)
    device.say("plant/1/state", {"values": {"x": 1.5}}, retain=True)
    whys: list[str] = []
    rows = await probe(f"{mosquitto.url}/plant/1", profile, wait_s=1.0, tell=whys.append)
    device.close()
    assert whys == ["nothing on plant/1/other within 1 s"]
    assert [(r.point, r.raw, r.value, r.unit, r.quality) for r in rows] == [
        ("x", 1.5, 1.5, "mm", "good"),
        ("y", None, None, "", "comms"),
    ]


@pytest.mark.parametrize(("version", "spoken"), [(None, "p5"), ("5", "p5"), ("3.1.1", "p2")])
async def test_a_probe_speaks_the_version_of_the_plant_file_and_leaves_no_session(
    profile: Profile, mosquitto: Mosquitto, tmp_path: Path, version: Any, spoken: str
) -> None:
    mosquitto.stop()
    mosquitto.options = f"log_dest file {tmp_path}/mosquitto.log\nlog_type notice\n"
    mosquitto.start()
    await probe(f"{mosquitto.url}/plant/1", profile, endpoint=Endpoint(mqtt_version=version), wait_s=0.5)
    log = (tmp_path / "mosquitto.log").read_text()
    (client,) = re.findall(r"as (vigil-probe-\w+) \((\w+), (c\d), k30\)", log)
    assert client[1:] == (spoken, "c1")
    assert connect_properties(keeps=False).json()["SessionExpiryInterval"] == 0  # type: ignore[no-untyped-call]


async def test_of_lists_the_entry_that_counts_is_shown_as_it_was_sent(mosquitto: Mosquitto) -> None:
    points: dict[str, dict[str, Any]] = {
        "temp": {"mqtt": {"topic": "data", "path": "temp_1", "scale": 0.1}},
        "lamp": {"mqtt": {"topic": "data", "map": {"on": 1, "off": 0}}},
        "gone": {"mqtt": {"topic": "data"}},
        "load": {"mqtt": {"topic": "history"}},
    }
    lists = {"data": {"path": "params", "name": "id", "value": "v"}, "history": {"path": "records"}}
    profile = make_profile(points, mqtt={"lists": lists})
    device = Publisher(mosquitto)
    params = [{"id": "temp_1", "v": 214}, {"id": "lamp", "v": "on"}, {"id": "else", "v": 1}, {"id": "temp_1", "v": 215}]
    device.say("plant/1/data", {"params": params}, retain=True)
    device.say("plant/1/history", {"records": [{"values": {"load": 1}}, {"values": {"load": 2.5}}]}, retain=True)
    rows = await probe(f"{mosquitto.url}/plant/1", profile, wait_s=10.0)
    device.close()
    assert [(r.point, r.raw, r.value, r.quality) for r in rows] == [
        ("temp", 215, 21.5, "good"),
        ("lamp", "on", 1.0, "good"),
        ("gone", None, None, "comms"),
        ("load", 2.5, 2.5, "good"),
    ]


async def test_what_a_message_has_wrong_is_told(profile: Profile, mosquitto: Mosquitto) -> None:
    device, whys = Publisher(mosquitto), list[str]()
    device.say("plant/1/state", {"values": {"x": "much"}}, retain=True)
    device.client.publish("plant/1/other", b"v=1", qos=1, retain=True).wait_for_publish(10)
    rows = await probe(f"{mosquitto.url}/plant/1", profile, wait_s=10.0, tell=whys.append)
    device.close()
    assert whys == [
        "plant/1/state: wrong-type: x: expected a number, found 'much'",
        "plant/1/other: not-json: expected JSON, found b'v=1': JSONDecodeError",
    ]
    assert [(r.point, r.raw, r.value, r.quality) for r in rows] == [
        ("x", "much", None, "device"),
        ("y", None, None, "comms"),
    ]


async def test_an_address_that_is_none_is_told(profile: Profile) -> None:
    with pytest.raises(ValueError, match="expected modbus"):
        await probe("http://device/1", profile)


async def test_why_a_broker_is_not_reached_is_told(profile: Profile) -> None:
    whys: list[str] = []
    await probe(f"mqtt://127.0.0.1:{free_port()}/plant/1", profile, wait_s=0.5, tell=whys.append)
    assert whys == ["broker cannot be reached: Connection refused"]


PLANT = """
site: {id: works, name: {zh: 一厂, en: Works}, timezone: Asia/Shanghai}
endpoints: {modbus+tcp://10.0.0.5:502: {timeout_s: 0.2}}
equipment:
  - id: door-1
    profile: lift-door
    address: modbus+tcp://10.0.0.5:502/3
    points: {humidity: {modbus: {address: 77}}}
"""


def test_equipment_of_a_plant_file_is_read_as_the_plant_file_says(tmp_path: Path) -> None:
    plant = tmp_path / "plant.yaml"
    plant.write_text(PLANT, encoding="utf-8")
    found = aim("door-1", None, plant=plant, profiles_dir=None)
    humidity = found.profile.points["humidity"].modbus
    assert (found.address, found.endpoint.timeout_s) == ("modbus+tcp://10.0.0.5:502/3", 0.2)
    assert humidity is not None
    assert humidity.address == 77
    beside = aim("modbus+tcp://10.0.0.5:502/4", "pump-testbed", plant=plant, profiles_dir=None)
    assert (beside.profile.profile, beside.endpoint.timeout_s) == ("pump-testbed", 0.2)
    for at, expected in (("door-2", "equipment of .*plant.yaml, found 'door-2'"), ("mqtt://b/x", "expected --profile")):
        with pytest.raises(ValueError, match=expected):
            aim(at, None, plant=plant, profiles_dir=None)


async def test_a_file_that_the_plant_file_names_wrongly_is_that_files_fault(tmp_path: Path) -> None:
    plant = tmp_path / "plant.yaml"
    plant.write_text(PLANT.replace("modbus+tcp", "modbus+tls").replace("timeout_s: 0.2", "ca_file: gone.pem"), "utf-8")
    target = aim("door-1", None, plant=plant, profiles_dir=None)
    with pytest.raises(ConfigError, match=f"{plant}:.*modbus.tls://10.0.0.5:502: expected ca_file.* gone.pem"):
        await probe_target(target, lambda why: None)
