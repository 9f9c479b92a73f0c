"""The production topology, natively: mosquitto, Kafka, TimescaleDB, each service its own process with its own login."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.fixtures.kafka import KafkaBroker
from tests.fixtures.line import Line, running
from tests.fixtures.mosquitto import Mosquitto
from tests.fixtures.ports import free_port, listens
from tests.fixtures.store import StoreServer, native_timescale, timescale_missing
from tests.fixtures.waiting import eventually
from vigil.processes import die_with_parent

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parents[2]
ROWS = 60
LOCKOUT = range(20, 44)
"""Rows in which the boiler is locked out: sequence state 14, code 109 (ignition failed)."""

PLANT = """
site: {{id: minhang, name: {{zh: 闵行区, en: Minhang}}, timezone: Asia/Shanghai}}
areas:
  - {{id: xinzhuang, level: street, name: {{zh: 莘庄镇, en: Xinzhuang}}}}
organisations:
  - {{id: acme, kinds: [use_unit], name: {{zh: 某公司, en: Acme}}, phone: "021-5555 0100"}}
  - {{id: care, kinds: [maintainer], name: {{zh: 某维保, en: Care}}, phone: "021-5555 0200"}}
equipment:
  - id: boiler-1
    profile: sola-boiler
    address: modbus+tcp://127.0.0.1:{modbus}/1
    area: xinzhuang
    parties: {{owner: acme, user: acme, maintainer: care}}
    location: 1 Xinjian Road
    poll_s: 0.2
  - {{id: door-1, profile: lift-door, address: "{mqtt}/doors/1", area: xinzhuang}}
"""


def write_feeds(folder: Path) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = [(start + timedelta(seconds=i)).isoformat() for i in range(ROWS)]
    boiler = [f"{t},70.5,{14 if i in LOCKOUT else 12},{109 if i in LOCKOUT else 0}" for i, t in enumerate(times)]
    (folder / "boiler.csv").write_text(
        "time,outlet_temperature,sequence_state,lockout_code\n" + "\n".join(boiler) + "\n"
    )
    door = [f"{t},{90 + i * 0.125},{50 + i * 0.5},{18 + i * 0.25}" for i, t in enumerate(times)]
    (folder / "door.csv").write_text("time,ball_bearing,humidity,vibration\n" + "\n".join(door) + "\n")


@contextmanager
def replaying(folder: Path, feed: str, address: str, profile: str, speed: float) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "vigil", "replay", str(folder / feed), "--to", address, "--profile", profile]
    process = subprocess.Popen(
        [*command, "--speed", str(speed)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent(signal.SIGKILL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def logins(server: StoreServer, folder: Path) -> dict[str, str]:
    """Runs the script of the Compose file against the server; the URL of each login, on its own database."""
    secrets = folder / "secrets"
    secrets.mkdir()
    for name in ("owner", "analyze", "alert", "console", "reader"):
        (secrets / f"store_{name}").write_text(f'it\'s "{name}"')
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE vigil")
    host = server.url.partition("?host=")[2].replace("%2F", "/")
    environment = {
        **os.environ,
        "PGHOST": host,
        "POSTGRES_USER": "postgres",
        "POSTGRES_DB": "vigil",
        "SECRETS": str(secrets),
    }
    subprocess.run(
        ["sh", ROOT / "deploy/timescaledb/10-logins.sh"], env=environment, check=True, capture_output=True, timeout=60
    )
    users = {"ingest": "vigil_owner"} | {n: f"vigil_{n}_login" for n in ("analyze", "alert", "console", "reader")}
    return {name: f"postgresql://{user}@/vigil?host={host}" for name, user in users.items()}


def acknowledge(line: Line, alarm: str) -> int:
    request = urllib.request.Request(
        f"{line.url}/api/v1/alarms/{alarm}/acknowledge",
        data=json.dumps({"by": "Li Wei", "note": "on my way"}).encode(),
        headers={"Content-Type": "application/json", "Idempotency-Key": f"test-{alarm}"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_replay_through_the_production_topology_ends_as_an_alarm_that_is_acknowledged_and_clears(
    own_kafka_broker: KafkaBroker, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    if native_timescale() is None:
        timescale_missing("the production topology")
    write_feeds(tmp_path)
    modbus = free_port()
    plant = tmp_path / "plant.yaml"
    plant.write_text(PLANT.format(modbus=modbus, mqtt=mosquitto.url), encoding="utf-8")
    server = StoreServer("timescale")
    try:
        server.start()
        urls = logins(server, tmp_path)
        line = Line(state=tmp_path / "state", plant=plant, log=own_kafka_broker.url, store=urls["ingest"], stores=urls)
        with replaying(tmp_path, "boiler.csv", f"modbus+tcp://127.0.0.1:{modbus}/1", "sola-boiler", 2):
            eventually(lambda: listens(modbus), 20, "the replay does not serve")
            with running(line):
                follow_the_alarm(line, tmp_path, mosquitto)
                eventually(lambda: rows(urls["reader"], "door-1") == 3 * ROWS, 20, lambda: everything(line))
                assert set(line.stop().values()) == {0}
                assert_nothing_lost(line)
    finally:
        server.remove()


def follow_the_alarm(line: Line, folder: Path, mosquitto: Mosquitto) -> None:
    """From the lockout on the bus to the API, acknowledged by a person, back to normal."""
    with replaying(folder, "door.csv", f"{mosquitto.url}/doors/1", "lift-door", 10) as door:
        alarm = eventually(lambda: lockout(line, "unacknowledged"), 30, lambda: everything(line))
        assert alarm["maintainer"]["phone"] == "021-5555 0200"
        assert acknowledge(line, alarm["id"]) == 200
        assert acknowledge(line, alarm["id"]) == 200, "the same key is the same answer"
        eventually(lambda: lockout(line, "normal"), 30, lambda: everything(line))
        assert door.wait(30) == 0, door.stderr.read() if door.stderr else ""


def lockout(line: Line, state: str) -> Any:
    alarms = line.api("alarms?state=all")["items"]
    return next((a for a in alarms if a["detector"] == "code:sola-lockout/109" and a["state"] == state), None)


def rows(url: str, equipment: str) -> int:
    """Rows of an equipment with a value, counted by the read-only role that boards use."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM samples WHERE equipment = %s AND value IS NOT NULL", (equipment,)
        ).fetchone()
        return int(row[0]) if row else 0


def assert_nothing_lost(line: Line) -> None:
    line.start("ingest")
    line.wait_ready("ingest")
    report = eventually(lambda: settled(line), 30, lambda: json.dumps(line.audit()))
    assert (report["lost"], report["doubled"]) == (0, 0), report
    assert report["journaled"] == report["stored"] + report["dropped"] + report["dead"]
    assert report["journaled"] > 3 * ROWS


def settled(line: Line) -> dict[str, Any] | None:
    report = line.audit()
    return report if report["in_flight"] == 0 and report["journaled"] else None


def everything(line: Line) -> str:
    return "\n".join(f"--- {name}\n{line.tail(name, 30)}" for name in line.ports)
