"""The same on the embedded log and the embedded PostgreSQL; and the judge's own control, on a table that was spoiled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.short import a_spoiled_table_is_found, twenty_faults


@pytest.mark.timeout(400)
def test_random_kills_and_cuts_lose_nothing_and_double_nothing_and_a_spoiled_table_is_found(tmp_path: Path) -> None:
    twenty_faults("embedded", tmp_path / "chaos", then=a_spoiled_table_is_found)
