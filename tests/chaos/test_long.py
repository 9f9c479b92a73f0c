"""Two hundred random kills and cuts over five million samples, as `make test-long` runs them: the same command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.short import needs
from tests.chaos.world import Variant

FAULTS = 200
WITHIN_S = 3_000
SEEDS: dict[Variant, int] = {"production": 20261123, "embedded": 20261124}


@pytest.mark.long
@pytest.mark.timeout(WITHIN_S + 100)
@pytest.mark.parametrize("variant", ["production", "embedded"])
def test_two_hundred_random_kills_and_cuts_lose_nothing_and_double_nothing(variant: Variant, tmp_path: Path) -> None:
    needs(variant)
    command = [sys.executable, "-m", "tests.chaos", "--kills", str(FAULTS), "--seed", str(SEEDS[variant])]
    more = ["--embedded"] if variant == "embedded" else []
    run = subprocess.run(
        [*command, *more, "--keep", str(tmp_path)], capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-6000:]
    assert "audit, lost: 0" in run.stdout
    assert "audit, doubled: 0" in run.stdout
