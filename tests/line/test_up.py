"""`vigil up` as a newcomer uses it: up within a minute, stopped within ten seconds, continued the next time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.line import eventually, get_json
from tests.fixtures.ports import free_port

pytestmark = pytest.mark.timeout(240)

UP_WITHIN_S = 60
STOP_WITHIN_S = 10


class Up:
    """A `vigil up` of the demonstration plant."""

    def __init__(self, state: Path, port: int) -> None:
        self.state, self.port = state, port
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vigil", "up", "--state", str(state), "--port", str(port)],
            stderr=(state.parent / "up.log").open("ab"),
            start_new_session=True,
        )

    def get(self, path: str) -> Any:
        try:
            return get_json(f"http://127.0.0.1:{self.port}/api/v1/{path}")
        except (OSError, ValueError):
            return {}

    def items(self, path: str) -> list[dict[str, Any]]:
        answer = self.get(path)
        found: list[dict[str, Any]] = answer.get("items", [])
        return found

    def said(self) -> str:
        return (self.state.parent / "up.log").read_text(errors="replace")

    def wait_live(self) -> None:
        """Live elevators, forklifts and boilers and the first alarms, by the API that the page uses."""
        started = time.monotonic()
        eventually(lambda: self.items("alarms?state=active"), UP_WITHIN_S, lambda: f"no alarm: {self.said()}")
        eventually(
            lambda: {"elevator", "forklift", "boiler"} <= {e["class"] for e in self.online()},
            UP_WITHIN_S - (time.monotonic() - started),
            lambda: f"not all classes are live: {self.online()}",
        )

    def online(self) -> list[dict[str, Any]]:
        return [e for e in self.items("equipment?limit=500") if e["online"]]

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_WITHIN_S)


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
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def up(state: Path) -> Iterator[Up]:
    running = Up(state, free_port())
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait(10)


def test_one_command_shows_a_live_fleet_and_alarms_stops_cleanly_and_continues(up: Up, state: Path) -> None:
    up.wait_live()
    equipment = up.items("equipment?limit=500")
    classes = [e["class"] for e in equipment]
    assert classes.count("elevator") >= 12
    assert classes.count("forklift") >= 6
    assert classes.count("boiler") >= 4
    assert len({e["area"] for e in equipment if e["area"]}) >= 3
    before = up.items("alarms?state=all")

    assert up.stop() == 0
    assert processes_of(state) == []

    again = Up(state, up.port)
    try:
        again.wait_live()
        known = {alarm["id"] for alarm in again.items("alarms?state=all&limit=500")}
        assert {alarm["id"] for alarm in before} <= known, "the second start lost alarms of the first"
    finally:
        assert again.stop(signal.SIGTERM) == 0
    assert processes_of(state) == []


def test_a_killed_supervisor_leaves_no_process_and_a_killed_service_returns(up: Up, state: Path) -> None:
    up.wait_live()
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

    up.process.kill()
    up.process.wait(10)
    eventually(lambda: processes_of(state) == [], 10, lambda: f"left behind: {processes_of(state)}")
