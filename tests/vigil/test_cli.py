"""The command line keeps its contract: help with an example, exit statuses, faults with their place, JSON on stdout."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.fixtures.ports import free_port, listens
from tests.fixtures.waiting import eventually
from vigil.cli import vigil as root

VIGIL = (sys.executable, "-m", "vigil")
BAD_PLANT = """site: {id: works, name: {zh: 厂, en: Works}}
equipment:
  - {id: boiler-1, profile: no-such-profile, address: "modbus+tcp://127.0.0.1:1/1"}
  - {id: Boiler 2, profile: sola-boiler, address: "ftp://127.0.0.1"}
"""


def commands(group: click.Group, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        found += commands(command, (*prefix, name)) if isinstance(command, click.Group) else [(*prefix, name)]
    return found


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*VIGIL, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", commands(root), ids=" ".join)
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    found: click.Command = root
    for name in command:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    text = found.get_help(click.Context(found))
    assert "Example:" in text
    assert f"vigil {command[0]}" in text


def test_every_fault_of_a_plant_is_said_at_once_with_its_line_and_the_status_is_2(tmp_path: Path) -> None:
    (tmp_path / "plant.yaml").write_text(BAD_PLANT, encoding="utf-8")
    result = run("check", "plant.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert any(line.startswith("plant.yaml:3: ") and "no-such-profile" in line for line in lines)
    assert sum(line.startswith("plant.yaml:4: ") for line in lines) >= 2


def test_a_misspelt_variable_is_told_and_the_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIGIL_PLANTS", "x.yaml")
    result = run("boards", "build", "--out", "boards", "--lang", "en", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr == "vigil: VIGIL_PLANTS: ignored, there is no such setting; is VIGIL_PLANT meant?\n"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("no-such-command",), 2, "No such command"),
        (("check",), 2, "Missing argument"),
        (("probe", "ftp://x", "--profile", "sola-boiler"), 2, "expected modbus+tcp"),
        (("probe", "modbus+tcp://127.0.0.1:1/1", "--profile", "none"), 2, "expected"),
        (("deadletter", "replay"), 2, "by number, or give --all"),
        (
            ("deadletter", "list", "--state", "nowhere"),
            1,
            "nothing runs in nowhere, or not yet: start it with `vigil up`",
        ),
        (("audit", "--state", "nowhere"), 1, "nothing runs in nowhere, or not yet: start it with `vigil up`"),
        (("replay", "none.csv", "--to", "mqtt://127.0.0.1:1/x", "--profile", "lift-door"), 2, "none.csv"),
        (("edge", "--state", "state"), 2, "VIGIL_PLANT"),
        (("up", "--plant", "none.yaml"), 2, "none.yaml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_failure_is_said_and_has_its_status(
    arguments: tuple[str, ...], status: int, said: str, tmp_path: Path
) -> None:
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == status, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_services_take_the_same_flags_and_show_a_plant_file_where_they_read_it(tmp_path: Path) -> None:
    shown = {
        name: "--plant" in run(name, "--help", cwd=tmp_path).stdout
        for name in ("edge", "ingest", "analyze", "alert", "console")
    }
    assert shown == {"edge": True, "ingest": False, "analyze": True, "alert": True, "console": False}
    refused = run("ingest", "--plant", "p.yaml", "--no-such-flag", cwd=tmp_path).stderr
    assert "No such option" in refused
    assert "--no-such-flag" in refused


@pytest.mark.parametrize(
    ("missing", "arguments", "said"),
    [
        ("pymodbus", ("edge",), "vigil edge needs pymodbus, which is not installed: pip install 'vigil-line[edge]'"),
        ("paho", ("probe", "mqtt://x/y", "--profile", "lift-monitor"), "pip install 'vigil-line[edge]'"),
        ("psycopg", ("ingest",), "vigil ingest needs psycopg, which is not installed: pip install 'vigil-line[line]'"),
        ("httpx", ("up",), "vigil up needs httpx, which is not installed: pip install 'vigil-line[line]'"),
        ("sqlite3", ("edge",), "ModuleNotFoundError"),  # Of Python itself: no extra has it.
        ("telemetry.plant", ("edge",), "ModuleNotFoundError"),  # Ours: a fault, and no extra mends it.
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else None,
)
def test_a_missing_package_is_said_with_the_extra_that_has_it(
    missing: str, arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from vigil.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == (2 if "pip" in said else 1)
    assert said in result.stderr
    assert ("Traceback" in result.stderr) == ("pip" not in said)


def test_probe_says_each_point_as_json_and_fails_where_nothing_answers(tmp_path: Path) -> None:
    result = run("probe", f"modbus+tcp://127.0.0.1:{free_port()}/1", "--profile", "lift-door", "--json", cwd=tmp_path)
    assert result.returncode == 1
    rows = json.loads(result.stdout)
    assert {row["point"] for row in rows} >= {"ball_bearing", "humidity", "vibration"}
    assert all(set(row) == {"point", "raw", "value", "unit", "quality"} for row in rows)
    assert {row["quality"] for row in rows} == {"comms"}
    assert "not connected: 127.0.0.1" in result.stderr


def test_probe_reads_a_live_device(tmp_path: Path) -> None:
    from benchmarks.modbus_server import Registers, serve

    async def read() -> tuple[int, list[dict[str, object]]]:
        registers = Registers()
        registers.fixed.update({0x10: 0x0064, 0x12: 0x2000, 0x13: 0x47F1, 0x14: 0x0004})
        server = await serve(registers)
        profile = tmp_path / "vessel.yaml"
        profile.write_text(vessel_of_the_first_device_page(), encoding="utf-8")
        port = server.sockets[0].getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(*VIGIL, "probe", f"modbus+tcp://127.0.0.1:{port}/3"),
            *("--profile", str(profile), "--json"),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 30)
        server.close()
        return process.returncode or 0, json.loads(out)

    status, rows = asyncio.run(read())
    assert status == 0
    assert {row["point"]: row["value"] for row in rows} == {
        "pressure": 1.0,
        "wall_temperature": 123456.0,
        "relief_valve_open": 1.0,
    }


def vessel_of_the_first_device_page() -> str:
    """The profile printed in docs/first-device.md, so that the page cannot rot."""
    text = (Path(__file__).parents[2] / "docs" / "first-device.md").read_text(encoding="utf-8")
    return text.split("```yaml\n")[1].split("```")[0]


def test_a_replay_that_is_interrupted_says_130(tmp_path: Path) -> None:
    feed = tmp_path / "feed.csv"
    feed.write_text("time,ball_bearing\n2026-01-01T00:00:00Z,1\n2026-01-01T01:00:00Z,2\n", encoding="utf-8")
    port = free_port()
    process = subprocess.Popen(
        [*VIGIL, "replay", str(feed), "--to", f"modbus+tcp://127.0.0.1:{port}/1", "--profile", "lift-door"],
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: listens(port), 20, "the replay does not serve")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.wait(5)
