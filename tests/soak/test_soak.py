"""The soak itself, as `make test-long` runs it: the same command, for half an hour."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.mosquitto import find_mosquitto
from tests.fixtures.parts import missing

MINUTES = 30


@pytest.mark.long
@pytest.mark.timeout(MINUTES * 60 + 1500)
def test_half_an_hour_of_random_faults_leaves_nothing_lost_doubled_or_leaked(tmp_path: Path) -> None:
    if find_mosquitto() is None:
        missing("mosquitto", not_tried="the soak", how="apt-get install mosquitto")
    command = [sys.executable, "-m", "tests.soak", "--minutes", str(MINUTES), "--keep", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=MINUTES * 60 + 1400, check=False)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-6000:]
    assert "audit, lost: 0" in run.stdout
