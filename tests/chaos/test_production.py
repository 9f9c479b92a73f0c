"""Edges → Kafka → two workers → TimescaleDB, under twenty random kills and cuts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.short import twenty_faults


@pytest.mark.timeout(400)
def test_random_kills_and_cuts_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    twenty_faults("production", tmp_path / "chaos")
