"""The wheel is whole: installed alone, outside the checkout, with the extra `edge`, it is an edge and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks.modbus_server import Registers, serve
from telemetry.arrow_read import decode_samples
from telemetry.batch import SampleBatch
from telemetry.log import open_log
from telemetry.log.protocol import TELEMETRY, Partition
from telemetry.messages import Kind
from telemetry.settings import Settings
from telemetry.wire import read_envelope
from tests.fixtures.line import ready
from tests.fixtures.ports import free_port
from tests.fixtures.waiting import until

ROOT = Path(__file__).parents[2]

PLANT = """
site: {id: works, name: {zh: 厂, en: Works}}
equipment:
  - {id: boiler-1, profile: sola-boiler, address: "modbus+tcp://127.0.0.1:1/1"}
"""
EDGE_MEGABYTES = 110
"""Without what every environment has (pip, setuptools) and compiled bytecode; docs/edge.md says the measured size."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT],
        check=True,
        capture_output=True,
    )
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    pip = [str(folder / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"{wheel}[edge]"], check=True, cwd=folder, timeout=280)
    return folder


def run_vigil(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [installed / "venv/bin/vigil", *arguments], cwd=installed, capture_output=True, text=True, check=False
    )


def test_the_wheel_holds_profiles_and_migrations_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")} == {
        "telemetry", "edge", "ingest", "analytics", "alerting", "dashboards", "simulators", "profiles", "vigil",
    }  # fmt: skip
    assert {path.name for path in (ROOT / "profiles").glob("*.yaml")} <= {Path(name).name for name in names}
    assert {path.name for path in (ROOT / "ingest/migrations").glob("*.sql")} <= {Path(name).name for name in names}
    assert "simulators/scenarios/demo.yaml" in names
    assert any(name.startswith("dashboards/console/static/") for name in names)


def test_installed_alone_it_checks_a_plant(installed: Path) -> None:
    (installed / "plant.yaml").write_text(PLANT, encoding="utf-8")
    good = run_vigil(installed, "check", "plant.yaml")
    assert good.returncode == 0, good.stderr
    (installed / "bad.yaml").write_text(PLANT.replace("sola-boiler", "no-such"), encoding="utf-8")
    bad = run_vigil(installed, "check", "bad.yaml")
    assert bad.returncode == 2
    assert "bad.yaml:4: " in bad.stderr


def plain(name: str) -> str:
    """A distribution's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(extra: str) -> set[str]:
    """What an extra names in pyproject.toml, other extras aside; '' is what everything needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {plain(re.split(r"[\[<>=~!; ]", one)[0]) for one in wanted} - {"vigil-line"}


def test_the_extra_edge_installs_what_an_edge_needs_and_nothing_of_the_line(installed: Path) -> None:
    code = "import importlib.metadata as m, json; print(json.dumps([d.metadata['Name'] for d in m.distributions()]))"
    found = subprocess.run([installed / "venv/bin/python", "-c", code], check=True, capture_output=True, text=True)
    names = {plain(name) for name in json.loads(found.stdout)}
    assert declared("") | declared("edge") <= names
    assert {"pyarrow", "psycopg", "fastapi"} <= declared("line")
    assert names & (declared("line") | declared("dev")) == set()
    (packages,) = (installed / "venv/lib").glob("python3*/site-packages")
    files = [path for path in packages.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    own = [path for path in files if path.relative_to(packages).parts[0] not in {"pip", "setuptools", "pkg_resources"}]
    assert sum(path.stat().st_size for path in own) < EDGE_MEGABYTES * 1_000_000


@pytest.mark.parametrize("command", ["up", "ingest", "analyze", "alert", "console", "audit", "boards build"])
def test_a_command_whose_packages_are_not_installed_says_which_extra_has_them(installed: Path, command: str) -> None:
    result = run_vigil(installed, *command.split())
    assert result.returncode == 2
    assert re.fullmatch(
        rf"Error: vigil {command.split()[0]} needs \w+, which is not installed: pip install 'vigil-line\[line\]'\n",
        result.stderr,
    )


class FromTheStart:
    """A reader that reads everything."""

    async def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        return dict.fromkeys(partitions, 0)

    async def revoked(self, partitions: Sequence[Partition]) -> None: ...


async def samples_on_the_log(state: Path) -> list[SampleBatch]:
    log = open_log(Settings(state_dir=state))
    reader = await log.reader("test", [TELEMETRY], FromTheStart())
    try:
        records = await reader.fetch(max_records=1000, max_wait_s=0.2)
    finally:
        await reader.close()
        await log.close()
    return [decode_samples(r.value) for r in records if read_envelope(r.headers).kind is Kind.SAMPLES]


async def test_installed_alone_it_reads_a_device_and_fills_the_embedded_log(installed: Path, tmp_path: Path) -> None:
    registers = Registers()
    registers.fixed[7] = 655
    server = await serve(registers)
    device = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    plant = tmp_path / "plant.yaml"
    plant.write_text(PLANT.replace("127.0.0.1:1/", f"{device}/"), encoding="utf-8")
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(installed / "venv/bin/vigil", "edge", "--plant", plant, "--state", tmp_path / "state"),
        cwd=installed,
        env={**os.environ, "VIGIL_EDGE_LISTEN": f"127.0.0.1:{port}"},
    )
    try:
        await until(lambda: asyncio.to_thread(ready, port), what="the edge is not ready")
        batches = await until(lambda: samples_on_the_log(tmp_path / "state"), what="no samples on the log")
        mapped = await asyncio.to_thread(Path(f"/proc/{process.pid}/maps").read_text, encoding="utf-8")
    finally:
        process.send_signal(signal.SIGTERM)
        status = await asyncio.wait_for(process.wait(), 10)
        server.close()
    assert status == 0
    first = batches[0]
    outlet = first.signal == first.names.index("boiler-1/outlet_temperature")
    assert first.value[outlet].tolist() == [65.5]
    assert first.quality[outlet].tolist() == [192]
    assert f"{installed}/venv" in mapped
    assert f"{sys.prefix}/" not in mapped, "it runs on its own packages"
    assert "aiokafka" not in mapped, "which the embedded log does not need"


async def test_installed_alone_it_probes_a_device(installed: Path) -> None:
    registers = Registers()
    registers.fixed[7] = 655
    server = await serve(registers)
    address = f"modbus+tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}/1"
    result = await asyncio.to_thread(run_vigil, installed, "probe", address, "--profile", "sola-boiler", "--json")
    server.close()
    assert result.returncode == 0, result.stderr
    assert {row["point"]: row["value"] for row in json.loads(result.stdout)}["outlet_temperature"] == 65.5
