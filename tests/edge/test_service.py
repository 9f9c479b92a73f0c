"""The whole edge: a pymodbus server and a real mosquitto in, records on the embedded log out; killed and restarted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from edge.service import run, spool_path
from telemetry.arrow_read import decode_samples
from telemetry.errors import ConfigError, StateLocked
from telemetry.log import open_log
from telemetry.log.protocol import TELEMETRY
from telemetry.messages import Kind
from telemetry.service import Health
from telemetry.settings import Settings
from telemetry.wire import (
    read_envelope,
)
from tests.edge.device import Ask, Device, data, frame
from tests.edge.mqtt_rig import Publisher
from tests.edge.running import FromTheStart, Recorded, plant_of, read_log, start
from tests.fixtures.disk import fill, small_disk
from tests.fixtures.mosquitto import Mosquitto
from tests.fixtures.waiting import until


@pytest.fixture
async def boiler() -> AsyncIterator[str]:
    """A pymodbus server: level −35 in register 10, code 67 in 11."""
    registers = [0] * 10 + [0xFFDD, 67] + [0] * 20
    device = SimDevice(1, simdata=[SimData(address=0, values=registers, datatype=DataType.REGISTERS)])
    server = ModbusTcpServer(device, address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    yield f"modbus+tcp://127.0.0.1:{server.transport.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
    await server.shutdown()  # type: ignore[no-untyped-call]


async def test_readings_of_both_drivers_reach_the_log_in_order_without_holes_and_the_ledger_agrees(
    tmp_path: Path, boiler: str, mosquitto: Mosquitto
) -> None:
    settings = plant_of(tmp_path, f"{boiler}/1", f"{mosquitto.url}/plant/2", "modbus+tcp://127.0.0.1:1/1")
    edge = start(settings)
    device = Publisher(mosquitto)
    async with asyncio.timeout(20):
        while not (await read_log(settings)).of("e2/x"):
            device.say("plant/2/state", {"values": {"x": -1}})
    for n in range(50):
        device.say("plant/2/state", {"values": {"x": n}})
    device.say("plant/2/event", {"scheme": "s", "code": "4", "state": "on", "floor": 3})
    device.close()
    async with asyncio.timeout(10):
        while [e.scheme for e in (await read_log(settings)).events].count("s") == 0:
            pass
        while "e3" not in (await read_log(settings)).heartbeats[-1].unreachable:
            pass
    assert await edge.end() < 3.0
    seen = await read_log(settings)
    seen.assert_no_holes()
    seen.assert_ledger_is_the_rows()
    assert seen.order == sorted(seen.order, key=lambda number: number[1]), "in the order in which they were made"
    assert seen.kinds[seen.order[0]] is Kind.REGISTRY
    assert [e["id"] for e in seen.registries[0].plant["equipment"]] == ["e1", "e2", "e3"]
    assert set(seen.of("e1/level")) == {-35.0}
    assert seen.of("e2/x")[-30:] == [float(n) for n in range(20, 50)]
    assert seen.heartbeats[-1].equipments == ("e1", "e2", "e3")
    assert {(e.equipment, e.scheme, e.code, e.on) for e in seen.events} == {
        ("e1", "local", "67", True),
        ("e2", "s", "4", True),
    }, "the code once, though it was read in every cycle"
    bad = [v for v in seen.of("e3/level") if v == v]
    assert bad == [], "the absent device has bad samples without values"
    assert 1 <= len(seen.of("e3/level")) <= 4


CHILD = """
import sys
from edge.service import run
from telemetry.service import run_service
from telemetry.settings import load_settings
sys.exit(run_service("edge", load_settings(), run, listen=None))
"""


class Child:
    """An edge in a process of its own, to be killed."""

    def __init__(self, settings: Settings) -> None:
        environment = {
            **os.environ,
            "VIGIL_STATE_DIR": str(settings.state_dir),
            "VIGIL_PLANT": str(settings.plant),
            "VIGIL_PROFILES_DIR": str(settings.profiles_dir),
            "VIGIL_SPOOL_MAX_BYTES": str(settings.spool_max_bytes),
        }
        self.errors = (settings.state_dir.parent / "edge.log").open("ab")
        self.process = subprocess.Popen([sys.executable, "-c", CHILD], env=environment, stderr=self.errors)

    def kill(self) -> None:
        """SIGKILL; harmless when it is over."""
        self.process.kill()
        self.process.wait(10)
        self.errors.close()

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(10)
        self.errors.close()
        return status


@pytest.fixture
def spawn() -> Iterator[Callable[[Settings], Child]]:
    """Starts edges, and leaves none behind."""
    children: list[Child] = []

    def start(settings: Settings) -> Child:
        children.append(Child(settings))
        return children[-1]

    yield start
    for child in children:
        child.kill()


async def test_killed_again_and_again_between_receipt_and_acknowledgement_nothing_said_is_lost(
    tmp_path: Path, boiler: str, mosquitto: Mosquitto, spawn: Callable[[Settings], Child]
) -> None:
    settings = plant_of(tmp_path, f"{boiler}/1", f"{mosquitto.url}/plant/2")
    device, said = Publisher(mosquitto), 0
    child = spawn(settings)
    async with asyncio.timeout(20):  # Until its subscription is there: what is said before has nobody to keep it.
        while not ((seen := await read_log(settings)).of("e2/x") and seen.of("e1/level")):
            device.say("plant/2/state", {"values": {"x": -1}})
    for killed in range(1, 4):
        for _ in range(60):
            device.client.publish("plant/2/state", json.dumps({"values": {"x": said}}), qos=1)
            said += 1
        await asyncio.to_thread(child.kill)
        for _ in range(20):
            device.say("plant/2/state", {"values": {"x": said}})
            said += 1
        child = spawn(settings)
        async with asyncio.timeout(20):
            while len((await read_log(settings)).epochs()) == killed:
                pass
    device.say("plant/2/state", {"values": {"x": said}})
    device.close()
    async with asyncio.timeout(20):
        while float(said) not in (seen := await read_log(settings)).of("e2/x") or len(seen.epochs_of("e1/code")) < 2:
            pass
    assert await asyncio.to_thread(child.terminate) == 0
    seen = await read_log(settings)
    seen.assert_no_holes()
    seen.assert_ledger_is_the_rows()
    assert len(seen.epochs()) == 4
    assert set(seen.of("e2/x")) - {-1.0} == {float(n) for n in range(said + 1)}
    assert [e.code for e in seen.events if e.scheme == "local"] == ["67"], "its state survived: no second beginning"


async def test_a_register_that_changes_is_on_the_log_soon_after_its_poll(tmp_path: Path) -> None:
    """The edge's share of the way from register to alarm; the median is the claim, the machine may be busy."""
    shift, changed = 0, 0.0
    read_at: dict[int, float] = {}

    async def behave(ask: Ask, writer: asyncio.StreamWriter) -> None:
        read_at.setdefault(ask.address + shift, time.time())
        writer.write(frame(ask, data(ask, shift=shift)))

    async with Device(behave) as device:
        settings = plant_of(tmp_path, f"{device.url}/1")
        edge = start(settings)
        log = open_log(settings)
        await log.ensure_topics([TELEMETRY])
        reader = await log.reader("latency", [TELEMETRY], FromTheStart())
        took: list[float] = []
        async with asyncio.timeout(20):
            while len(took) < 20:
                for record in await reader.fetch(max_records=100, max_wait_s=0.5):
                    if read_envelope(record.headers).kind is not Kind.SAMPLES:
                        continue
                    batch = decode_samples(record.value)
                    value = int(batch.value[list(batch.names).index("e1/level")])
                    if value == 10 + shift:
                        took.append(record.appended_us / 1e6 - read_at[value])
                        shift, changed = shift + 1, time.time()
        assert changed
        assert sorted(took)[10] < 0.05
        await reader.close()
        await log.close()
        await edge.end()


async def test_it_is_not_ready_before_it_has_reached_the_log_and_every_broker(
    tmp_path: Path, boiler: str, mosquitto: Mosquitto
) -> None:
    settings = plant_of(tmp_path, f"{boiler}/1", f"{mosquitto.url}/plant/2", "mqtt://127.0.0.1:1/plant/3")
    health, stop = Recorded("edge"), asyncio.Event()
    edge = asyncio.create_task(run(settings, stop, health))
    await asyncio.sleep(0)
    assert health.waiting_for == {"log": "not reached yet"}
    nobody = "mqtt://127.0.0.1:1"
    await until(lambda: "cannot be reached" in health.waiting_for.get(nobody, "") and len(health.waiting_for) == 1)
    assert health.ready_after == [], "a broker is away"
    assert settings.plant is not None
    text = settings.plant.read_text(encoding="utf-8")
    settings.plant.write_text(text.replace("127.0.0.1:1/plant", f"{mosquitto.url.removeprefix('mqtt://')}/plant"))
    await until(lambda: bool(health.ready_after))
    assert {"log", mosquitto.url, nobody} <= set(health.ready_after[0]), "and nobody waits for who is asked no longer"
    await until(lambda: not health.waiting_for)
    stop.set()
    await edge


async def test_it_is_not_ready_while_no_log_was_ever_reached(tmp_path: Path, boiler: str) -> None:
    settings = plant_of(tmp_path, f"{boiler}/1").model_copy(update={"log": "kafka://127.0.0.1:1"})
    health, stop = Recorded("edge"), asyncio.Event()
    edge = asyncio.create_task(run(settings, stop, health))
    await until(lambda: "127.0.0.1:1" in health.waiting_for.get("log", ""))
    assert health.ready_after == []
    stop.set()
    await edge


async def test_a_second_edge_of_the_same_name_on_the_same_state_is_refused(tmp_path: Path, boiler: str) -> None:
    settings = plant_of(tmp_path, f"{boiler}/1")
    first = start(settings)
    await until(spool_path(settings).exists)
    second = start(settings)
    with pytest.raises(StateLocked):
        await second.task
    await first.end()


async def test_a_full_disk_is_said_in_health_and_when_it_is_free_again_everything_goes_on(
    tmp_path: Path, boiler: str
) -> None:
    """The embedded log is on the disk, too: while it takes what the spool has, the spool needs no more room."""
    async with small_disk(tmp_path, size="4m", not_tried="a full disk under the whole edge") as small:
        settings = plant_of(tmp_path, f"{boiler}/1").model_copy(update={"state_dir": small})
        edge = start(settings)
        async with asyncio.timeout(20):
            await read_log(settings)  # it is open and at work
        ballast = small / "ballast"
        fill(ballast)
        await until(lambda: "spool" in edge.health.waiting_for)
        assert "cannot be written" in edge.health.waiting_for["spool"]
        ballast.unlink()
        await until(lambda: not edge.health.waiting_for)
        await edge.end()
        seen = await read_log(settings)
        seen.assert_no_holes()
        seen.assert_ledger_is_the_rows()
        times = sorted(seen.samples().time_us.tolist())
        assert max(b - a for a, b in pairwise(times)) < 1_500_000, "what was read meanwhile is there"


@pytest.mark.parametrize(
    ("rule", "addresses", "edge", "key"),
    [
        ("a plant file is needed", (), "edge-1", "VIGIL_PLANT"),
        ("an edge without equipment is a mistake", ("modbus+tcp://h/1",), "edge-9", "VIGIL_EDGE"),
        ("two equipments may not share their topics", ("mqtt://h/a", "mqtt://h/a"), "edge-1", "equipment.*address"),
    ],
)
async def test_a_wrong_configuration_is_told_with_its_key(
    tmp_path: Path, rule: str, addresses: tuple[str, ...], edge: str, key: str
) -> None:
    settings = plant_of(tmp_path, *(addresses or ("modbus+tcp://h/1",)))
    plant = settings.plant
    if edge != "edge-1" and plant is not None:
        text = plant.read_text(encoding="utf-8").replace("id: e1", "id: e1\n  edge: edge-1")
        plant.write_text(text, encoding="utf-8")
    settings = settings.model_copy(update={"edge": edge, "plant": plant if addresses else None})
    with pytest.raises(ConfigError, match=key):
        await run(settings, asyncio.Event(), Health("edge"))
