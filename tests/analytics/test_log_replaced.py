"""Records of another log at our offset are never taken for those that follow ours: neither told nor kept."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from telemetry.log.protocol import OutRecord
from telemetry.settings import Settings
from tests.analytics.line import Edge, analyzing, line, plant_file
from tests.analytics.test_service import position, saved
from tests.fixtures.waiting import until


@pytest.fixture
def settings(plain_store: Settings, tmp_path: Path) -> Settings:
    return plant_file(tmp_path).model_copy(update={"store": plain_store.store})


@pytest.mark.parametrize(
    ("what", "follows"),
    [
        ("a finding is not told", Edge(seq=2).samples(("a/plain", 2, 95.0))),
        ("what gives no finding is not kept", Edge(seq=2).beat(2)),
    ],
)
async def test_of_a_log_that_was_replaced_under_analyze_and_grew_past_its_offset_nothing_is_judged(
    settings: Settings, what: str, follows: OutRecord
) -> None:
    async with line(settings) as it, analyzing(settings) as health:
        await it.send(it.edge.beat(0), it.edge.beat(1))
        await saved(settings, 2)
        (topic_file,) = (settings.state_dir / "log").glob("vigil.telemetry.*.sqlite")
        with sqlite3.connect(topic_file) as log:
            foreign = Edge(epoch=99).beat(5).value
            changed = log.execute(
                "UPDATE record SET value = ? WHERE position = (SELECT max(position) FROM record)", (foreign,)
            )
            assert changed.rowcount == 1
        await it.send(follows)
        said = await until(lambda: health.waiting_for.get("log"), what="the other log is named")
        assert "vigil.telemetry/0 offset 1: the log was wiped or restored" in said
        assert position(settings) == 2
        assert await it.told() == 0
