"""A service that was down for an hour reads the hour that it missed: nobody is flagged for its own absence."""

from __future__ import annotations

from telemetry.log.protocol import OutRecord
from telemetry.settings import Settings
from tests.analytics.line import Line, analyzing, line
from tests.analytics.test_service import saved, settings

__all__ = ["settings"]

HOUR_S = 3600
STEP_S = 5


def hour(it: Line, *, silent_from_s: float = HOUR_S) -> list[OutRecord]:
    """Heartbeats and readings of both units; those of `b/plain` end at `silent_from_s`."""
    records = []
    for second in range(10, HOUR_S, STEP_S):
        records.append(it.edge.beat(second))
        rows = [("a/plain", float(second), 20.0)]
        if second < silent_from_s:
            rows.append(("b/plain", float(second), 20.0))
        records.append(it.edge.samples(*rows))
    return records


async def test_an_hour_that_was_missed_flags_nobody_and_what_happened_in_it_is_found(settings: Settings) -> None:
    async with line(settings) as it:
        async with analyzing(settings):
            await it.send(it.edge.beat(0), it.edge.samples(("a/plain", 1, 20.0), ("b/plain", 1, 20.0)))
            await saved(settings, 2)
        await it.send(*hour(it), it.edge.samples(("a/plain", HOUR_S, 95.0)), it.edge.beat(HOUR_S + 1))
        async with analyzing(settings):
            await it.until(lambda: bool(it.findings))
            await saved(settings, 2 + 2 * len(range(10, HOUR_S, STEP_S)) + 2)
        assert it.brief() == [("a", "plain", "limit:high", True)]


async def test_who_really_fell_silent_in_the_missed_hour_is_found_at_its_own_time(settings: Settings) -> None:
    async with line(settings) as it:
        async with analyzing(settings):
            await it.send(it.edge.beat(0), it.edge.samples(("a/plain", 1, 20.0), ("b/plain", 1, 20.0)))
            await saved(settings, 2)
        await it.send(*hour(it, silent_from_s=600), it.edge.beat(HOUR_S + 1))
        async with analyzing(settings):
            await it.until(lambda: bool(it.findings))
            await saved(settings, 2 + 2 * len(range(10, HOUR_S, STEP_S)) + 1)
        assert it.brief() == [("b", "plain", "stale", True)]
