"""The wheel is whole: installed alone, outside the checkout, it checks a plant and runs an edge."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.fixtures.line import ready
from tests.fixtures.ports import free_port
from tests.fixtures.waiting import eventually

ROOT = Path(__file__).parents[2]

PLANT = """
site: {id: works, name: {zh: 厂, en: Works}}
equipment:
  - {id: boiler-1, profile: sola-boiler, address: "modbus+tcp://127.0.0.1:1/1"}
"""

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
    subprocess.run([*pip, str(wheel)], check=True, cwd=folder, timeout=280)
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


def test_installed_alone_it_runs_an_edge(installed: Path) -> None:
    (installed / "plant.yaml").write_text(PLANT, encoding="utf-8")
    port = free_port()
    process = subprocess.Popen(
        [installed / "venv/bin/vigil", "edge", "--plant", "plant.yaml", "--state", "state"],
        cwd=installed,
        env={**os.environ, "VIGIL_EDGE_LISTEN": f"127.0.0.1:{port}"},
    )
    try:
        assert eventually(lambda: ready(port), what="the edge is ready")
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
