"""`vigil up` as a newcomer uses it: up within a minute, stopped within ten seconds, continued the next time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.ports import free_port
from tests.fixtures.up import UpProcess
from tests.fixtures.waiting import eventually

pytestmark = pytest.mark.timeout(240)

UP_WITHIN_S = 60


def wait_live(up: UpProcess) -> None:
    """Live elevators, forklifts and boilers and the first alarms, by the API that the page uses."""
    started = time.monotonic()
    up.wait_until(lambda: bool(up.items("alarms?state=active")), UP_WITHIN_S)
    up.wait_until(
        lambda: {e["class"] for e in up.online()} >= {"elevator", "forklift", "boiler"},
        UP_WITHIN_S - (time.monotonic() - started),
    )


def processes_of(state: Path) -> list[str]:
    """Command lines of all processes whose command, environment or directory names the state directory."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal() or int(folder.name) == os.getpid():
            continue
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (folder / "environ").read_bytes()
            stat = (folder / "stat").read_text().rsplit(") ", 1)[1]
        except (OSError, IndexError):
            continue
        if stat[0] != "Z" and (str(state) in command or f"VIGIL_STATE_DIR={state}".encode() in environment):
            found.append(f"{folder.name} {command}")
    return found


@pytest.fixture
def state(server_dir: Path) -> Path:
    return server_dir / "state"


@pytest.fixture
def up(state: Path) -> Iterator[UpProcess]:
    running = UpProcess(state, free_port())
    yield running
    running.kill()


def test_one_command_shows_a_live_fleet_and_alarms_stops_cleanly_and_continues(up: UpProcess, state: Path) -> None:
    wait_live(up)
    equipment = up.items("equipment?limit=500")
    classes = [e["class"] for e in equipment]
    assert classes.count("elevator") >= 12
    assert classes.count("forklift") >= 6
    assert classes.count("boiler") >= 4
    assert len({e["area"] for e in equipment if e["area"]}) >= 3
    before = up.items("alarms?state=all")

    assert up.stop() == 0
    assert processes_of(state) == []

    again = UpProcess(state, up.port)
    try:
        wait_live(again)
        known = {alarm["id"] for alarm in again.items("alarms?state=all&limit=500")}
        assert {alarm["id"] for alarm in before} <= known, "the second start lost alarms of the first"
    finally:
        assert again.stop(signal.SIGTERM) == 0
    assert processes_of(state) == []


def test_a_killed_supervisor_leaves_no_process_and_a_killed_service_returns(up: UpProcess, state: Path) -> None:
    wait_live(up)
    service = next(line for line in processes_of(state) if line.rstrip().endswith("-m vigil analyze"))
    os.kill(int(service.split()[0]), signal.SIGKILL)
    eventually(lambda: "process=analyze" in up.said(), 10, "the supervisor did not notice a dead service")
    eventually(
        lambda: any(line.rstrip().endswith("-m vigil analyze") for line in processes_of(state)), 10, "it did not return"
    )
    second = subprocess.run(
        [sys.executable, "-m", "vigil", "up", "--state", str(state), "--port", str(free_port())],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 1
    assert f"in use by process {up.process.pid}" in second.stderr

    up.kill()
    eventually(lambda: processes_of(state) == [], 10, lambda: f"left behind: {processes_of(state)}")
