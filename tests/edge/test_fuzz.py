"""Every decoder of the edge under fuzzing: 20 s each here, 10 minutes each in `make test-long`."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import TARGETS, known

FEW = 500
"""Far below what any of them tries in 20 s."""


def fuzz(target: str, seconds: int, keep: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", target, "--seconds", str(seconds), "--keep", str(keep)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 2 + 60)
    assert run.returncode == 0, run.stderr[-4000:]
    tried = re.search(r"number_of_executed_units: (\d+)", run.stderr)
    assert tried is not None, run.stderr[-2000:]
    assert int(tried[1]) > FEW


@pytest.mark.parametrize("target", TARGETS)
def test_no_bytes_break_a_decoder(target: str, tmp_path: Path) -> None:
    fuzz(target, 20, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(1400)
@pytest.mark.parametrize("target", TARGETS)
def test_no_bytes_break_a_decoder_in_ten_minutes(target: str, tmp_path: Path) -> None:
    fuzz(target, 600, tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_what_once_broke_a_decoder_does_not_any_more(target: str) -> None:
    module = importlib.import_module(f"tests.fuzz.{target}")
    inputs = [*module.SEEDS, *known(target)]
    assert inputs
    for data in inputs:
        assert module.fuzz_one(data) is None
