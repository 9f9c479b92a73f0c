"""`vigil profile import`: from a maker's list to values of a live device, with what could not be used told by its line."""

from __future__ import annotations

import asyncio
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.files import load_profile
from tests.edge.device import Ask, Device, frame

VIGIL = (sys.executable, "-m", "vigil")
LISTS = Path(__file__).parents[1] / "telemetry/lists"
HOLDING = {7: 300, 8: 0x0000, 9: 0x4248, 16: 5}
INPUT = {0x12: 1500, 0x13: 0, 0x14: 0, 0x15: 0, 0x16: 0, 0x17: 0x3FF8}
"""What the device of plc-semicolon.csv answers, low word first, by hand: 50.0 is 0x42480000, 1.5 is 0x3FF8000000000000."""


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*VIGIL, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


async def answer(ask: Ask, writer: asyncio.StreamWriter) -> None:
    """A device that has nothing but the registers of the list, and its discrete inputs all on."""
    if ask.function == 2:
        body = b"\xff" * ((ask.count + 7) // 8)
    else:
        words = HOLDING if ask.function == 3 else INPUT
        body = b"".join(struct.pack(">H", words.get(ask.address + i, 0)) for i in range(ask.count))
    writer.write(frame(ask, bytes([ask.function, len(body)]) + body))


def test_a_list_becomes_a_profile_that_reads_the_device_of_the_list(tmp_path: Path) -> None:
    made = run(
        "profile", "import", str(LISTS / "plc-semicolon.csv"), "--class", "plc", "--out", "plc.yaml", cwd=tmp_path
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout == ""
    assert "plc-semicolon.csv:8: Address (hex): expected an address" in made.stderr
    assert made.stderr.endswith("6 points drafted\n")
    assert run("check", "plc.yaml", cwd=tmp_path).returncode == 0
    profile = load_profile(tmp_path / "plc.yaml")
    assert (profile.profile, profile.equipment_class, profile.source) == ("plc", "plc", "plc-semicolon.csv")

    async def probe() -> list[dict[str, object]]:
        async with Device(answer) as device:
            process = await asyncio.create_subprocess_exec(
                *(*VIGIL, "probe", f"{device.url}/1", "--profile", "./plc.yaml", "--json"),
                cwd=tmp_path,
                stdout=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(30):
                out, _ = await process.communicate()
        rows: list[dict[str, object]] = json.loads(out)
        return rows

    assert {str(row["point"]): (row["value"], row["quality"]) for row in asyncio.run(probe())} == {
        "outlet_temp": (10.0, "good"),
        "flow_rate": (50.0, "out_of_range"),
        "pump_run": (5.0, "good"),
        "steam_pressure": (1.5, "good"),
        "steam_pressure_2": (1.5, "good"),
        "alarm": (1.0, "good"),
    }


def test_without_a_file_the_draft_goes_to_stdout_named_after_the_list(tmp_path: Path) -> None:
    result = run("profile", "import", str(LISTS / "kepware.csv"), cwd=tmp_path)
    assert result.returncode == 0
    (tmp_path / "kepware.yaml").write_text(result.stdout, encoding="utf-8")
    assert load_profile(tmp_path / "kepware.yaml").profile == "kepware"
    assert "Addresses are Modicon numbers" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("map.csv", "--strict"), "map.csv:3: address: expected an address"),
        (("bad.csv",), "bad.csv:2: address: expected an address"),
        (("text.csv",), "text.csv:1: (header): expected a row of headers"),
        (("none.csv",), "none.csv"),
        (("map.csv", "--name", "My Crane"), "--name: expected a name of a-z"),
        (("map.csv", "--class", "Crane!"), "--class: expected a name of a-z"),
        (("map.csv", "--out", "there.yaml"), "a file that is there already"),
        (("map.csv", "--out", "crane.yaml", "--name", "other"), "expected a new file called other.yaml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_drafted_is_told_and_writes_nothing(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    (tmp_path / "map.csv").write_text("name,address,type\na,1,int16\nb,zz,int16\n", encoding="utf-8")
    (tmp_path / "bad.csv").write_text("name,address,type\nb,zz,int16\n", encoding="utf-8")
    (tmp_path / "text.csv").write_text("Dear reader,\n", encoding="utf-8")
    (tmp_path / "there.yaml").write_text("mine", encoding="utf-8")
    result = run("profile", "import", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert said in result.stderr
    assert (result.stdout, (tmp_path / "there.yaml").read_text(encoding="utf-8")) == ("", "mine")
    assert not (tmp_path / "crane.yaml").exists()
