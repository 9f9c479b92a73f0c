"""Findings of another log at our offset are never taken for those that follow ours."""

from __future__ import annotations

import sqlite3

from telemetry.settings import Settings
from tests.alerting.line import alerting, finding, producing, rows
from tests.alerting.test_worker import processed
from tests.fixtures.waiting import until


async def test_a_log_replaced_under_alerting_that_grew_past_its_offset_is_named(plain_store: Settings) -> None:
    async with producing(plain_store) as analytics, alerting(plain_store) as health:
        await analytics.publish(finding())
        await processed(plain_store, 1)
        foreign = analytics.record([finding("lift-8")])
        (topic_file,) = (plain_store.state_dir / "log").glob("vigil.findings.*.sqlite")
        with sqlite3.connect(topic_file) as log:
            changed = log.execute(
                "UPDATE record SET value = ? WHERE position = (SELECT max(position) FROM record)", (foreign.value,)
            )
            assert changed.rowcount == 1
        await analytics.publish(finding("lift-9"))
        said = await until(lambda: health.waiting_for.get("place on the log"), what="the other log is named")
        assert "vigil.findings/0 offset 0" in said
        assert await rows(plain_store, "SELECT FROM alarms WHERE equipment = 'lift-9'") == []
