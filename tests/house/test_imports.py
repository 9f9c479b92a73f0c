"""The import contracts hold, and each of them notices a violation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("telemetry", "edge", "ingest", "analytics", "alerting", "dashboards", "simulators", "vigil")

VIOLATIONS = [
    ("telemetry knows nobody", "telemetry/quality.py", "import edge\n"),
    ("a service knows no other: edge", "edge/__init__.py", "import simulators\n"),
    ("a service knows no other: ingest", "ingest/__init__.py", "import analytics\n"),
    ("a service knows no other: analytics", "analytics/__init__.py", "import alerting\n"),
    ("a service knows no other: alerting", "alerting/__init__.py", "import dashboards\n"),
    ("a service knows no other: dashboards", "dashboards/__init__.py", "import ingest\n"),
    ("a service knows no other: simulators", "simulators/__init__.py", "import edge\n"),
    ("nobody knows the command line", "ingest/__init__.py", "import vigil\n"),
    ("the edge never touches the database", "edge/__init__.py", "import telemetry.store\n"),
    ("the edge has no database driver", "edge/__init__.py", "import psycopg\n"),
    ("the edge reads no Arrow", "edge/__init__.py", "import telemetry.arrow_read\n"),
    ("the edge needs no pyarrow", "telemetry/wire.py", "import pyarrow\n"),
    ("the edge needs none of the line", "telemetry/files.py", "import httpx\n"),
    ("kernels and detectors know no asyncio", "analytics/kernels/__init__.py", "import asyncio\n"),
    ("kernels and detectors know no database", "analytics/detectors/__init__.py", "import psycopg\n"),
    ("alerting reads no raw samples", "alerting/__init__.py", "import telemetry.batch\n"),
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("static", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_house_keeps_its_contracts(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("rule", "file", "violation"), VIOLATIONS, ids=[v[0] for v in VIOLATIONS])
def test_a_violation_is_noticed(copy: Path, rule: str, file: str, violation: str) -> None:
    target = copy / file
    target.write_text(target.read_text(encoding="utf-8") + violation, encoding="utf-8")
    result = lint(copy)
    assert result.returncode != 0, f"{rule}: not noticed\n{result.stdout}"
    assert "BROKEN" in result.stdout
