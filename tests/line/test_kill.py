"""Whatever is killed and whenever: after the replay, the table holds what the edge journaled, nothing less, nothing twice."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.fixtures.kafka import KafkaBroker
from tests.fixtures.line import Line, running
from tests.fixtures.mosquitto import Mosquitto
from tests.fixtures.store import StoreServer, native_timescale
from tests.fixtures.waiting import eventually
from tests.line.test_production import everything, replaying, settled

pytestmark = pytest.mark.timeout(300)

ROWS = 2_400
SPACING_S = 0.01
DOORS = 2
POINTS = ("ball_bearing", "humidity", "vibration")
BETWEEN_KILLS_S = 2.0

PLANT = """
site: {{id: site, name: {{zh: 现场, en: Site}}}}
equipment:
  - {{id: door-0, profile: lift-door, address: "{mqtt}/doors/0"}}
  - {{id: door-1, profile: lift-door, address: "{mqtt}/doors/1"}}
"""


def write_feed(folder: Path) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    lines = [f"{(start + timedelta(seconds=i * SPACING_S)).isoformat()},{i},{i * 0.5},{i * 0.25}" for i in range(ROWS)]
    (folder / "door.csv").write_text("time," + ",".join(POINTS) + "\n" + "\n".join(lines) + "\n")


@contextmanager
def world(
    log: str, tmp_path: Path, mosquitto: Mosquitto, broker: KafkaBroker | None
) -> Iterator[tuple[Line, StoreServer]]:
    plant = tmp_path / "plant.yaml"
    plant.write_text(PLANT.format(mqtt=mosquitto.url), encoding="utf-8")
    server = StoreServer("timescale" if broker and native_timescale() else "plain")
    try:
        server.start()
        line = Line(state=tmp_path / "state", plant=plant, log=log, store=server.url)
        with running(line):
            yield line, server
    finally:
        server.remove()


def kills(line: Line, server: StoreServer, broker: KafkaBroker | None) -> list[tuple[str, Callable[[], None]]]:
    """Each part in turn: SIGKILL, and up again."""

    def service(name: str) -> Callable[[], None]:
        def again() -> None:
            line.kill(name)
            line.start(name)

        return again

    def database() -> None:
        server.kill()
        server.start()

    steps = [("edge", service("edge")), ("ingest", service("ingest")), ("database", database)]
    if broker is not None:

        def log_broker() -> None:
            broker.kill()
            broker.start()

        steps.insert(2, ("log broker", log_broker))
    return [*steps, ("analyze", service("analyze")), ("alert", service("alert")), ("edge", service("edge"))]


@pytest.mark.parametrize("log", ["embedded", "kafka"])
def test_each_part_is_killed_in_turn_during_a_replay_and_nothing_is_lost_or_doubled(
    log: str, request: pytest.FixtureRequest, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    broker: KafkaBroker | None = request.getfixturevalue("own_kafka_broker") if log == "kafka" else None
    write_feed(tmp_path)
    url = broker.url if broker else "embedded:"
    with world(url, tmp_path, mosquitto, broker) as (line, server):
        with (
            replaying(tmp_path, "door.csv", f"{mosquitto.url}/doors/0", "lift-door", 1) as first,
            replaying(tmp_path, "door.csv", f"{mosquitto.url}/doors/1", "lift-door", 1) as second,
        ):
            eventually(lambda: progress(server.url) > 0, 30, lambda: everything(line))
            for what, kill in kills(line, server, broker):
                before = time.monotonic()
                kill()
                print(f"killed {what}, back after {time.monotonic() - before:.1f} s", file=sys.stderr)
                pause(BETWEEN_KILLS_S)
            assert first.wait(120) == 0, first.stderr.read() if first.stderr else ""
            assert second.wait(120) == 0
        line.wait_ready()
        for door in range(DOORS):
            for point in POINTS:
                wait_for_all(line, server.url, f"door-{door}", point)
        report = eventually(lambda: settled(line), 60, lambda: json.dumps(line.audit()) + everything(line))
        assert (report["lost"], report["doubled"]) == (0, 0), report
        assert report["stored"] >= ROWS * DOORS * len(POINTS)
        assert raises_of_each_alarm(server.url) <= {1}


def wait_for_all(line: Line, url: str, equipment: str, point: str) -> None:
    eventually(
        lambda: distinct(url, equipment, point) == ROWS,
        60,
        lambda: f"{equipment}/{point}: {distinct(url, equipment, point)} of {ROWS}\n{everything(line)}",
    )


def progress(url: str) -> int:
    try:
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT count(*) FROM samples").fetchone()
    except psycopg.Error:
        return 0
    return int(row[0]) if row else 0


def distinct(url: str, equipment: str, point: str) -> int:
    """Different good readings of a point: what the replay sent, however often it was delivered."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(DISTINCT value) FROM samples WHERE equipment = %s AND point = %s AND value IS NOT NULL",
            (equipment, point),
        ).fetchone()
    return int(row[0]) if row else 0


def raises_of_each_alarm(url: str) -> set[int]:
    """How often each alarm was raised, by its history."""
    with psycopg.connect(url) as connection:
        found: list[Any] = connection.execute(
            "SELECT count(*) FROM alarm_history WHERE transition = 'raise' GROUP BY alarm_id"
        ).fetchall()
    return {int(row[0]) for row in found}


def pause(seconds: float) -> None:
    """The replay goes on between two kills."""
    until = time.monotonic() + seconds
    eventually(lambda: time.monotonic() >= until, seconds + 1, "unreachable")
